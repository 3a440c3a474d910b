//! What Postgres does to whoever tails it, where no other test meets it: ids, filters, origins, prepared transactions,
//! commits that do not wait for the disk.

use std::collections::HashSet;

use walhook::cluster::{Cluster, Options};

use crate::support::{Database, PATIENCE, Receiver, Run, Sidecar, beside_others, eventually};

const KEYS: &str = "events = [\"orders.*\"]";

async fn started(database: &Database, receiver: &Receiver) -> Sidecar {
    Sidecar::start(database, Run::default().webhook("crm", &receiver.url("/crm"), KEYS)).await
}

#[tokio::test]
async fn rows_of_one_copy_share_a_position_and_still_have_ids_that_differ_and_sort() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let mut sidecar = started(&database, &receiver).await;
    database.execute("copy orders (id, status) from program 'seq -f \"%.0f\ta\" 1 50'").await;
    database.execute("insert into orders values (51, 'a', 1, null)").await;
    let requests = receiver.expect("/crm", 51).await;
    let mut events: Vec<(u64, String, String)> = requests
        .iter()
        .map(|request| {
            let body = request.json();
            let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
            let row = request.column("id").as_u64().expect("a number");
            (row, text(&body["id"]), text(&body["metadata"]["lsn"]))
        })
        .collect();
    events.sort();
    assert!(events.is_sorted_by_key(|(_, id, _)| id.clone()), "ids do not sort as the rows were written");
    assert_eq!(events.iter().map(|(_, id, _)| id).collect::<HashSet<_>>().len(), 51);
    let positions: HashSet<_> = events.iter().map(|(_, _, lsn)| lsn).collect();
    assert_eq!(positions.len(), 2, "one position a transaction");
    assert_eq!(sidecar.terminate().await, Some(0));
}

#[tokio::test]
async fn filters_and_exclusions_never_become_row_filters_or_column_lists_of_the_publication() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::with("[tables.orders]\nexclude = [\"note\"]\n").webhook(
        "crm",
        &receiver.url("/crm"),
        "events = [\"orders.*\"]\nfilter = \"record.status == 'paid'\"",
    );
    let mut sidecar = Sidecar::start(&database, run).await;
    let narrowed = "select count(*) from pg_publication_rel r \
                    where to_jsonb(r) ->> 'prqual' is not null or to_jsonb(r) ->> 'prattrs' is not null";
    assert_eq!(database.number("select count(*) from pg_publication_rel").await, 1);
    assert_eq!(database.number(narrowed).await, 0);
    database.execute("insert into orders values (1, 'new', 1, 'secret')").await;
    database.execute("update orders set status = 'paid'").await;
    let requests = receiver.expect("/crm", 1).await;
    // A row filter of the publication would have made an insert of it.
    assert_eq!(requests[0].header("x-webhook-event"), "orders.updated");
    assert!(requests[0].column("note").is_null());
    assert_eq!(sidecar.terminate().await, Some(0));
}

#[tokio::test]
async fn a_change_that_came_by_replication_from_elsewhere_is_a_change_like_any_other() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let mut sidecar = started(&database, &receiver).await;
    let origin = format!("elsewhere_{}", database.name);
    database.rows("select pg_replication_origin_create($1)", &[&origin]).await;
    database.rows("select pg_replication_origin_session_setup($1)", &[&origin]).await;
    database.execute("insert into orders values (1, 'a', 1, null)").await;
    database.execute("select pg_replication_origin_session_reset()").await;
    database.rows("select pg_replication_origin_drop($1)", &[&origin]).await;
    receiver.expect("/crm", 1).await;
    database.execute("insert into orders values (2, 'a', 1, null)").await;
    let requests = receiver.expect("/crm", 2).await;
    assert_eq!([requests[0].column("id"), requests[1].column("id")], [1, 2]);
    assert_eq!(sidecar.terminate().await, Some(0));
}

#[tokio::test]
async fn a_prepared_transaction_arrives_when_it_is_committed_and_never_when_it_is_rolled_back() {
    let _turn = beside_others().await;
    let settings = vec![("max_prepared_transactions".to_owned(), "4".to_owned())];
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    let mut sidecar = started(&database, &receiver).await;
    for (id, name) in [(1, "kept"), (2, "dropped")] {
        database.execute(&format!("begin; insert into orders values ({id}, 'a', 1, null)")).await;
        database.execute(&format!("prepare transaction '{name}'")).await;
    }
    database.execute("insert into orders values (3, 'a', 1, null)").await;
    let early = receiver.expect("/crm", 1).await;
    assert_eq!(early[0].column("id"), 3, "what is only prepared was sent");
    database.execute("rollback prepared 'dropped'").await;
    database.execute("commit prepared 'kept'").await;
    database.execute("insert into orders values (4, 'a', 1, null)").await;
    let requests = receiver.expect("/crm", 3).await;
    let ids: HashSet<_> = requests.iter().map(|request| request.column("id").as_u64()).collect();
    assert_eq!(ids, HashSet::from([Some(3), Some(1), Some(4)]));
    assert_eq!(sidecar.terminate().await, Some(0));
}

/// Notes how each of the ledger's rows was committed.
const NOTE_COMMITS: &str = "
create table public.how (setting text);
create function public.note_commit() returns trigger language plpgsql as $$
begin insert into public.how values (current_setting('synchronous_commit')); return new; end $$;
create trigger note_commit before insert on walhook.deliveries_delivered for each row execute function public.note_commit();
create trigger note_commit before insert on walhook.deliveries_open for each row execute function public.note_commit()";

#[tokio::test]
async fn the_ledger_waits_for_the_disk_where_role_and_database_would_not() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let off = format!("alter database {} set synchronous_commit = off", database.name);
    database.execute(&off).await;
    let mut sidecar = started(&database, &receiver).await;
    database.execute(NOTE_COMMITS).await;
    database.execute("insert into orders values (1, 'a', 1, null), (2, 'a', 1, null)").await;
    receiver.expect("/crm", 2).await;
    eventually("the rows", PATIENCE, async || database.number("select count(*) from how").await == 2).await;
    assert_eq!(database.number("select count(*) from how where setting = 'on'").await, 2);
    assert_eq!(sidecar.terminate().await, Some(0));
}
