//! What Postgres does to whoever tails it, where no other test meets it: ids, filters, origins, prepared transactions,
//! commits that do not wait for the disk.

use std::collections::HashSet;

use serde_json::{Value, json};
use walhook::cluster::{Cluster, Options};

use crate::support::{
    Database, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, connect, eventually,
};

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
    sidecar.stop().await;
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
    sidecar.stop().await;
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
    sidecar.stop().await;
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
    sidecar.stop().await;
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
    sidecar.stop().await;
}

#[tokio::test]
async fn old_tells_what_the_replica_identity_gives_of_a_change_of_the_key_of_another_column_and_of_a_delete()
{
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create table orders (id int8 primary key, mark text not null, note text);
             create unique index marks on orders (mark) include (note)",
        )
        .await;
    let mut sidecar = started(&database, &receiver).await;
    let whole = |id: i64, mark: &str, note: &str| json!({ "id": id, "mark": mark, "note": note });
    let key = |id: i64| json!({ "id": id });
    let mark = |mark: &str| json!({ "mark": mark });
    // What is told of: another column, the primary key, the index's column, a delete.
    let told = [
        ("default", [Value::Null, key(1), Value::Null, key(2)]),
        ("using index marks", [Value::Null, Value::Null, mark("a"), mark("b")]),
        ("full", [whole(1, "a", "x"), whole(1, "a", "y"), whole(2, "a", "y"), whole(2, "b", "y")]),
    ];
    let mut count = 0;
    for (identity, expect) in told {
        database.execute(&format!("alter table orders replica identity {identity}")).await;
        for statement in [
            "insert into orders values (1, 'a', 'x')",
            "update orders set note = 'y'",
            "update orders set id = 2",
            "update orders set mark = 'b'",
            "delete from orders",
        ] {
            database.execute(statement).await;
        }
        count += 5;
        let requests = receiver.expect("/crm", count).await;
        let mut bodies: Vec<Value> = requests.iter().skip(count - 5).map(Request::json).collect();
        bodies.sort_by_key(|body| body["id"].as_str().map(str::to_owned));
        let old: Vec<&Value> = bodies.iter().map(|body| &body["data"]["old"]).collect();
        assert_eq!(old[0], &Value::Null, "{identity}: an insert has no old row");
        assert_eq!(old[1..], expect.each_ref(), "{identity}");
        let changed: Vec<&Value> = bodies.iter().map(|body| &body["data"]["changed"]).collect();
        let told =
            if identity == "full" { json!([["note"], ["id"], ["mark"]]) } else { json!([null, null, null]) };
        assert_eq!(json!(changed[1..4]), told, "{identity}");
    }
    sidecar.stop().await;
}

/// Waits for so many events, and gives their types and data in commit order.
async fn events(receiver: &Receiver, count: usize) -> Vec<(String, Value)> {
    let mut requests = receiver.expect("/crm", count).await;
    requests.sort_by(|one, other| one.id().cmp(other.id()));
    let event =
        |request: &Request| (request.header("x-webhook-event").to_owned(), request.json()["data"].clone());
    let came: Vec<_> = requests.iter().map(event).collect();
    assert_eq!(came.len(), count, "{came:#?}");
    came
}

async fn all_of(database: &Database, receiver: &Receiver) -> Sidecar {
    Sidecar::start(database, Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"*\"]")).await
}

fn of_type<'a>(events: &'a [(String, Value)], event_type: &str) -> Vec<&'a Value> {
    events.iter().filter(|(its, _)| its == event_type).map(|(_, data)| data).collect()
}

#[tokio::test]
async fn fact_2_what_is_confirmed_is_the_end_of_a_transaction_and_none_of_it_comes_again() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run =
        Run::default().webhook("crm", &receiver.url("/crm"), KEYS).expecting("the ledger cannot be written");
    let mut sidecar = Sidecar::start(&database, run).await;
    let reaches = async |lsn: &str| {
        let sql = "select confirmed_flush_lsn > $1::text::pg_lsn from pg_replication_slots \
                   where slot_name = current_database()";
        database.rows(sql, &[&lsn]).await[0].get::<_, bool>(0)
    };
    // Delivered, and without a row: its commit is not confirmed.
    let blocker = connect(&database.url).await.expect("a connection");
    blocker.batch_execute("begin; lock table walhook.deliveries in exclusive mode").await.expect("a lock");
    database.execute("insert into orders values (1, 'a', 1, null), (2, 'a', 1, null)").await;
    let requests = receiver.expect("/crm", 2).await;
    let commit = requests[0].json()["metadata"]["lsn"].as_str().expect("a position").to_owned();
    assert!(!reaches(&commit).await, "confirmed without a row");
    blocker.batch_execute("commit").await.expect("a commit");
    // Confirmed is more than the commit's own position: that would bring the transaction again.
    eventually("its end to be confirmed", PATIENCE, async || reaches(&commit).await).await;
    sidecar.kill9().await;
    let waits = "select count(*) from pg_logical_slot_peek_binary_changes(current_database()::name, null, null, \
                 'proto_version', '1', 'publication_names', 'walhook') where get_byte(data, 0) = 73";
    let free =
        "select count(*) from pg_replication_slots where slot_name = current_database() and not active";
    eventually("the slot to be free", PATIENCE, async || database.number(free).await == 1).await;
    assert_eq!(database.number(waits).await, 0, "inserts that come again");
    sidecar.restart().await;
    database.execute("insert into orders values (3, 'a', 1, null)").await;
    let requests = receiver.expect("/crm", 3).await;
    assert_eq!(requests.iter().filter(|request| request.column("id") == 3).count(), 1);
    sidecar.stop().await;
}

#[tokio::test]
async fn fact_12_a_partitioned_table_is_one_a_move_is_a_delete_and_an_insert_and_its_leaves_are_not_seen() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create table orders (id int, status text, primary key (id, status)) partition by list (status);
             create table orders_new partition of orders for values in ('new');
             create table orders_paid partition of orders for values in ('paid')",
        )
        .await;
    let mut sidecar = all_of(&database, &receiver).await;
    database.execute("insert into orders values (1, 'new'), (2, 'paid')").await;
    database.execute("update orders set status = 'paid' where id = 1").await;
    // Of neither of these is there anything in the log that root's subscribers see.
    database.execute("truncate orders_paid").await;
    database
        .execute(
            "create table orders_old (id int not null, status text not null, primary key (id, status));
             insert into orders_old values (9, 'old');
             alter table orders attach partition orders_old for values in ('old')",
        )
        .await;
    database.execute("insert into orders values (3, 'old')").await;
    let came = events(&receiver, 5).await;
    assert!(came.iter().all(|(_, data)| data["table"] == "orders"), "{came:#?}");
    let types: Vec<&str> = came.iter().map(|(its, _)| its.as_str()).collect();
    let created = "orders.created";
    assert_eq!(types, [created, created, "orders.deleted", created, created]);
    assert_eq!(came[2].1["old"], json!({ "id": 1, "status": "new" }));
    assert_eq!(came[3].1["record"], json!({ "id": 1, "status": "paid" }));
    assert_eq!(came[4].1["record"], json!({ "id": 3, "status": "old" }));
    let requests = receiver.requests("/crm");
    let of_move: HashSet<u64> = requests
        .iter()
        .filter(|request| {
            request.json()["metadata"]["sequence"] == 2
                || request.header("x-webhook-event") == "orders.deleted"
        })
        .filter_map(|request| request.json()["metadata"]["xid"].as_u64())
        .collect();
    assert_eq!(of_move.len(), 2, "the move is one transaction: {of_move:?}");
    // The leaf's own identity decides whether the application's update works.
    let update = connect(&database.url).await.expect("a connection");
    let statements = "alter table orders_new replica identity nothing; insert into orders values (4, 'new'); \
                      update orders set id = 5 where status = 'new'";
    let refused = update.batch_execute(statements).await;
    assert!(refused.is_err_and(|error| error.code().is_some_and(|code| code.code() == "55000")));
    sidecar.stop().await;
}

#[tokio::test]
async fn fact_14_a_large_value_that_did_not_change_is_taken_from_the_old_row_or_listed_as_unavailable() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    for table in ["keyed", "whole"] {
        database
            .execute(&format!(
                "create table {table} (id int primary key, n int, big text); \
                 alter table {table} alter big set storage external"
            ))
            .await;
    }
    database.execute("alter table whole replica identity full").await;
    let mut sidecar = all_of(&database, &receiver).await;
    let big = "y".repeat(9000);
    for table in ["keyed", "whole"] {
        database.execute(&format!("insert into {table} values (1, 1, '{big}')")).await;
        database.execute(&format!("update {table} set n = 2")).await;
        database.execute(&format!("update {table} set big = 'z'")).await;
    }
    let came = events(&receiver, 6).await;
    let keyed = of_type(&came, "keyed.updated");
    assert_eq!(keyed[0]["record"], json!({ "id": 1, "n": 2 }), "neither null nor a marker");
    assert_eq!((&keyed[0]["unavailable"], &keyed[0]["changed"]), (&json!(["big"]), &Value::Null));
    assert_eq!(keyed[1]["record"], json!({ "id": 1, "n": 2, "big": "z" }));
    assert_eq!(keyed[1]["unavailable"], json!([]));
    let whole = of_type(&came, "whole.updated");
    assert_eq!(whole[0]["record"], json!({ "id": 1, "n": 2, "big": big }));
    assert_eq!((&whole[0]["unavailable"], &whole[0]["changed"]), (&json!([]), &json!(["n"])));
    assert_eq!(whole[1]["old"], json!({ "id": 1, "n": 2, "big": big }));
    assert_eq!(whole[1]["changed"], json!(["big"]));
    sidecar.stop().await;
}

#[tokio::test]
async fn fact_15_an_old_key_holds_the_key_alone_and_an_old_row_holds_its_nulls() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    for table in ["keyed", "whole"] {
        database.execute(&format!("create table {table} (id int primary key, n int, note text)")).await;
    }
    database.execute("alter table whole replica identity full").await;
    let mut sidecar = all_of(&database, &receiver).await;
    for table in ["keyed", "whole"] {
        database.execute(&format!("insert into {table} values (1, null, 'x')")).await;
        database.execute(&format!("update {table} set note = 'y'")).await;
        database.execute(&format!("update {table} set id = 2")).await;
        database.execute(&format!("delete from {table}")).await;
    }
    let came = events(&receiver, 8).await;
    let keyed = of_type(&came, "keyed.updated");
    assert_eq!((&keyed[0]["old"], &keyed[1]["old"]), (&Value::Null, &json!({ "id": 1 })));
    assert_eq!(of_type(&came, "keyed.deleted")[0]["old"], json!({ "id": 2 }));
    let whole = of_type(&came, "whole.updated");
    assert_eq!(whole[1]["old"], json!({ "id": 1, "n": null, "note": "y" }));
    assert_eq!(of_type(&came, "whole.deleted")[0]["old"], json!({ "id": 2, "n": null, "note": "y" }));
    sidecar.stop().await;
}

#[tokio::test]
async fn fact_16_under_a_full_identity_it_is_still_the_primary_key_that_tells_rows_apart() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create table whole (n int, id int primary key); alter table whole replica identity full;
             create table loose (n int, id int); alter table loose replica identity full",
        )
        .await;
    let mut sidecar = all_of(&database, &receiver).await;
    for table in ["whole", "loose"] {
        database.execute(&format!("insert into {table} values (5, 1), (6, 2)")).await;
        database.execute(&format!("update {table} set n = n + 2")).await;
    }
    receiver.expect("/crm", 8).await;
    let lanes = async |table: &str| {
        let sql = "select string_agg(distinct row_key, ' ' order by row_key), count(distinct lane), count(*) \
                   from walhook.deliveries where table_name = $1 and status = 'delivered'";
        eventually("the rows", PATIENCE, async || {
            database.rows(sql, &[&table]).await[0].get::<_, i64>(2) == 4
        })
        .await;
        let row = &database.rows(sql, &[&table]).await[0];
        (row.get::<_, String>(0), row.get::<_, i64>(1))
    };
    // Each row is a lane through its changes; without a primary key the whole table is one.
    assert_eq!(lanes("whole").await, ("1 2".to_owned(), 2));
    assert_eq!(lanes("loose").await.1, 1);
    sidecar.stop().await;
}

#[tokio::test]
async fn fact_20_a_truncate_of_several_tables_is_an_event_of_each() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database
        .execute(
            "create table parents (id int primary key);
             create table children (id int primary key, parent int references parents);
             create table others (id int primary key)",
        )
        .await;
    let mut sidecar = all_of(&database, &receiver).await;
    database.execute("truncate parents, others restart identity cascade").await;
    let came = events(&receiver, 3).await;
    let types: HashSet<&str> = came.iter().map(|(its, _)| its.as_str()).collect();
    assert_eq!(types, HashSet::from(["parents.truncated", "children.truncated", "others.truncated"]));
    for (_, data) in &came {
        assert_eq!(
            (&data["operation"], &data["record"], &data["old"]),
            (&json!("truncate"), &Value::Null, &Value::Null)
        );
    }
    let mut places: Vec<u64> = receiver
        .requests("/crm")
        .iter()
        .filter_map(|request| request.json()["metadata"]["sequence"].as_u64())
        .collect();
    places.sort_unstable();
    assert_eq!(places, [1, 2, 3]);
    sidecar.stop().await;
}

#[tokio::test]
async fn fact_23_rows_of_a_savepoint_that_was_rolled_back_are_never_sent_however_large_the_transaction() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    // So little that the server has to do something with the transaction before it ends.
    database
        .execute(
            "alter database current set logical_decoding_work_mem to '64kB'"
                .replace("current", &database.name)
                .as_str(),
        )
        .await;
    let mut sidecar = started(&database, &receiver).await;
    database
        .execute(
            "begin;
             insert into orders select i, 'kept', 1, repeat('x', 100) from generate_series(1, 400) i;
             savepoint a;
             insert into orders select i, 'rolled back', 1, repeat('x', 100) from generate_series(401, 1900) i;
             update orders set status = 'rolled back';
             rollback to a;
             insert into orders select i, 'kept', 1, repeat('x', 100) from generate_series(401, 801) i;
             commit",
        )
        .await;
    database.execute("insert into orders values (9999, 'last', 1, null)").await;
    let requests = receiver.expect("/crm", 802).await;
    let last = requests.iter().filter(|request| request.column("status") == "last").count();
    let kept = requests.iter().filter(|request| request.column("status") == "kept").count();
    assert_eq!((kept, last), (801, 1));
    let ids: HashSet<_> = requests.iter().map(|request| request.column("id").to_string()).collect();
    assert_eq!(ids.len(), 802);
    database.is_followed().await;
    let spooled = "select (spill_txns > 0 and stream_txns = 0)::int::int8 from pg_stat_replication_slots \
                   where slot_name = current_database()";
    eventually("a transaction that was spooled", PATIENCE, async || database.number(spooled).await == 1)
        .await;
    sidecar.stop().await;
}
