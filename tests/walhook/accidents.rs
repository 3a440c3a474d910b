//! What happens to databases: each accident ends in recovery, or in a loud stop with the choice to make.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;
use walhook::cluster::{Cluster, Mode, Options};

use crate::support::witness;
use crate::support::{
    Answer, Database, Network, PATIENCE, Proxy, Receiver, Run, Sidecar, alone, beside_others, eventually,
    refused,
};

const KEYS: &str = "events = [\"orders.*\"]\nretry = { schedule = [\"200ms\", \"200ms\"], jitter = 0 }";
const RECREATE: &str = "WALHOOK_DATABASE__ON_SLOT_LOST";

fn run(receiver: &Receiver) -> Run {
    Run::default().webhook("crm", &receiver.url("/crm"), KEYS)
}

fn recreating(receiver: &Receiver) -> Run {
    let mut run = run(receiver).expecting("lost").expecting("the replication stream is down");
    run.environment.push((RECREATE.to_owned(), "recreate".to_owned()));
    run
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn insert(database: &Database, id: i64) {
    database.execute(&format!("insert into orders values ({id}, 'paid', 1, null)")).await;
}

/// Takes the slot away from under a sidecar: its walsender is ended, and the slot dropped before it is back.
async fn drop_slot_in_use(database: &Database) {
    let sql =
        "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active";
    eventually("the slot to be dropped", PATIENCE, async || {
        database.rows(sql, &[&database.name]).await;
        let gone = "do $$ begin perform pg_drop_replication_slot(slot_name) from pg_replication_slots \
                    where slot_name = current_database(); exception when object_in_use then null; end $$";
        database.execute(gone).await;
        let left = "select count(*) from pg_replication_slots where slot_name = current_database()";
        database.number(left).await == 0
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_is_dropped_under_it_ends_the_process_with_the_choice() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let expected = run(&receiver).expecting("does not exist").expecting("the replication stream is down");
    let mut sidecar = Sidecar::start(&database, expected.expecting("walhook: ").expecting("hint")).await;
    drop_slot_in_use(&database).await;
    assert_eq!(sidecar.ended().await.code(), Some(1), "{}", sidecar.log_text());
    let said = sidecar.log_text();
    assert!(said.contains("on_slot_lost") && said.contains("cannot be read any more"), "{said}");
}

#[tokio::test]
async fn a_slot_that_is_dropped_under_it_is_made_again_where_that_was_chosen_and_the_gap_is_shown() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let mut sidecar = Sidecar::start(&database, recreating(&receiver)).await;
    insert(&database, 1).await;
    receiver.expect("/crm", 1).await;
    drop_slot_in_use(&database).await;
    sidecar.logged("going on with a new one").await;
    eventually("a new slot", PATIENCE, async || {
        // While it is being made it is active too.
        let streamed =
            "select count(*) from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid
            where s.slot_name = current_database()";
        database.number(streamed).await == 1
    })
    .await;
    insert(&database, 2).await;
    let requests = receiver.expect("/crm", 2).await;
    assert_ne!(requests[0].id(), requests[1].id());
    assert!(!sidecar.has_ended());
    let gap = "select count(*) from walhook.gaps where to_lsn is not null and reason = 'the slot is gone'";
    assert_eq!(database.number(gap).await, 1);
    eventually("the gap on its pages", PATIENCE, async || {
        let said = sidecar.page("/readyz").await;
        said.starts_with("streaming")
            && said.contains("the slot is gone")
            && sidecar.page("/metrics").await.contains("\nwalhook_gaps 1")
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_publication_that_is_dropped_under_it_is_a_loss_that_is_said_and_can_be_gone_on_from() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let expected =
        run(&receiver).expecting("a publication was dropped").expecting("hint").expecting("detail");
    let mut sidecar = Sidecar::start(&database, expected).await;
    insert(&database, 1).await;
    receiver.expect("/crm", 1).await;
    database.execute("drop publication walhook").await;
    insert(&database, 2).await;
    assert_eq!(sidecar.ended().await.code(), Some(1), "{}", sidecar.log_text());
    assert!(sidecar.log_text().contains("on_slot_lost"), "{}", sidecar.log_text());

    sidecar
        .next_run(|_| recreating(&receiver).expecting("publication").expecting("hint").expecting("detail"));
    sidecar.spawn();
    sidecar.logged("going on with a new one").await;
    eventually("a stream with the publication made anew", PATIENCE, async || {
        let sql = "select count(*) from pg_replication_slots s, pg_publication p \
                   where s.slot_name = current_database() and s.active and p.pubname = 'walhook'";
        let closed = "select count(*) from walhook.gaps where not is_open";
        database.number(closed).await == 1 && database.number(sql).await == 1
    })
    .await;
    insert(&database, 3).await;
    let requests = receiver.expect("/crm", 2).await;
    assert_eq!(requests[1].column("id"), 3);
    sidecar.stop().await;
}

#[tokio::test]
async fn log_that_was_removed_before_it_was_read_is_a_gap_with_its_bounds() {
    let _turn = beside_others().await;
    let cluster = crate::support::cluster_of_little_log();
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    let mut sidecar = Sidecar::start(&database, run(&receiver)).await;
    insert(&database, 1).await;
    receiver.expect("/crm", 1).await;
    sidecar.stop().await;
    insert(&database, 2).await;
    for _ in 0..12 {
        database.execute("select pg_switch_wal(); create table if not exists filler (x text); insert into filler select repeat('x', 100) from generate_series(1, 50000); checkpoint").await;
        let lost = "select count(*) from pg_replication_slots where wal_status = 'lost'";
        if database.number(lost).await == 1 {
            break;
        }
    }
    let file = format!(
        "[database]\nurl = \"{}\"\nslot = \"{}\"\n[server]\nlisten = \"127.0.0.1:0\"\n{}",
        database.url,
        database.name,
        run(&receiver).toml
    );
    let (code, said) = refused(&file).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("is lost") && said.contains("max_slot_wal_keep_size") && said.contains("on_slot_lost"),
        "{said}"
    );
    assert_eq!(database.number("select count(*) from walhook.gaps").await, 0);

    sidecar.next_run(|_| recreating(&receiver));
    sidecar.restart().await;
    insert(&database, 3).await;
    let requests = receiver.expect("/crm", 2).await;
    assert_eq!(requests[1].column("id"), 3);
    let bounds =
        "select count(*) from walhook.gaps where from_lsn < to_lsn and reason = 'the slot was invalidated'";
    assert_eq!(database.number(bounds).await, 1);
}

#[tokio::test]
async fn a_connection_that_is_cut_or_goes_silent_is_noticed_and_nothing_is_lost() {
    let _turn = beside_others().await;
    let settings = vec![("wal_sender_timeout".to_owned(), "3s".to_owned())];
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let (mut database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    witness::create_tables(&database, &["orders"]).await;
    let proxy = Proxy::start(at(cluster.port())).await;
    let direct = std::mem::take(&mut database.url);
    database.url = proxy.in_front_of(&direct);
    let mut sidecar = Sidecar::start(&database, run(&receiver).expecting("\"level\":\"WARN\"")).await;
    let mut dice = fastrand::Rng::with_seed(17);
    for network in [Network::Cut, Network::HalfOpen] {
        for round in 0..40 {
            database.execute(&witness::transaction(&mut dice, &["orders"], 8)).await;
            if round == 20 {
                proxy.turn(network);
            }
        }
        let committed = witness::committed(&database).await.len();
        let all = |requests: &[crate::support::Request]| witness::accepted(requests) >= committed;
        // Half a minute until the ledger's connection is given up, and as long again where its transaction stands.
        receiver.wait("/crm", "every change", PATIENCE * 6, all).await;
    }
    witness::judge(&witness::committed(&database).await, &receiver.requests("/crm"));
    assert!(!sidecar.has_ended());
    // What arrived may be unwritten still, where the server keeps the old connection's transaction: then no stop drains.
    database.is_followed().await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_server_of_little_patience_keeps_the_link_of_a_pipeline_that_is_blocked() {
    // A second is little for a machine that others keep busy.
    let _turn = alone().await;
    let settings = vec![("wal_sender_timeout".to_owned(), "1s".to_owned())];
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    let expected =
        run(&receiver).expecting("the ledger cannot be written").expecting("could not be looked after");
    let mut sidecar = Sidecar::start(&database, expected).await;
    receiver.script("/crm", |_| Answer::Status(500));
    // Nothing can be recorded, so memory fills up and intake stops.
    database.execute("begin; lock table walhook.deliveries in access exclusive mode").await;
    let writer = crate::support::connect(&database.url).await.expect("a connection");
    writer
        .batch_execute(
            "insert into orders select n, 'a', 1, repeat('x', 2000) from generate_series(1, 20000) n",
        )
        .await
        .expect("rows");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        let active =
            "select active::int::int8 from pg_replication_slots where slot_name = current_database()";
        let row = writer.query_one(active, &[]).await.expect("a slot");
        assert_eq!(row.get::<_, i64>(0), 1, "the server hung up\n{}", sidecar.log_text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let connections = "walhook_source_connections_total 1\n";
    assert!(sidecar.page("/metrics").await.contains(connections), "it had to connect again");
    receiver.script("/crm", |_| Answer::Status(200));
    receiver.only_count();
    database.execute("commit").await;
    eventually("all delivered", PATIENCE * 4, async || {
        database.number("select count(*) from walhook.deliveries where status = 'delivered'").await == 20000
    })
    .await;
    sidecar.stop().await;
}

/// A server whose disk is full refuses rows with this code.
const DISK_FULL: &str = "
create function walhook.full_disk() returns trigger language plpgsql as $$
begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
create trigger full_disk before insert on walhook.deliveries_delivered for each row execute function walhook.full_disk();
create trigger full_disk before insert on walhook.deliveries_open for each row execute function walhook.full_disk()";

#[tokio::test]
async fn a_ledger_whose_disk_is_full_is_waited_for_and_said() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let mut sidecar =
        Sidecar::start(&database, run(&receiver).expecting("the ledger cannot be written")).await;
    database.execute(DISK_FULL).await;
    for id in 1..=20 {
        insert(&database, id).await;
    }
    eventually("its page to say so", PATIENCE, async || {
        sidecar.page("/readyz").await.contains("No space left on device")
    })
    .await;
    let confirmed = "select count(*) from pg_replication_slots where slot_name = current_database() \
                     and pg_current_wal_lsn() > confirmed_flush_lsn";
    assert_eq!(database.number(confirmed).await, 1, "confirmed what has no row");
    database.execute("drop function walhook.full_disk() cascade").await;
    eventually("every row", PATIENCE, async || {
        database.number("select count(*) from walhook.deliveries where status = 'delivered'").await == 20
    })
    .await;
    eventually("readiness", PATIENCE, async || sidecar.page("/readyz").await.starts_with("streaming")).await;
    sidecar.stop().await;
    let ids: std::collections::HashSet<_> =
        receiver.requests("/crm").iter().map(|request| request.id().to_owned()).collect();
    assert_eq!(ids.len(), 20);
}

#[tokio::test]
async fn rights_that_are_taken_away_while_it_runs_end_it_with_the_reason_and_nothing_is_lost() {
    let _turn = beside_others().await;
    let (mut database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let role = format!("app_{}", database.name);
    let grants = format!(
        "create role {role} login replication password 'w'; grant create on database {0} to {role}; \
         alter table orders owner to {role}",
        database.name
    );
    database.execute(&grants).await;
    let (_, tail) = database.url.split_once('@').expect("a password");
    database.url = format!("postgres://{role}:w@{tail}");
    let expected = run(&receiver).expecting("permission denied").expecting("the ledger").expecting("hint");
    let mut sidecar = Sidecar::start(&database, expected).await;
    insert(&database, 1).await;
    receiver.expect("/crm", 1).await;
    let recorded = "select count(*) from walhook.deliveries where status = 'delivered'";
    eventually("its row", PATIENCE, async || database.number(recorded).await == 1).await;
    database.execute(&format!("revoke insert on all tables in schema walhook from {role}")).await;
    insert(&database, 2).await;
    assert_eq!(sidecar.ended().await.code(), Some(1), "{}", sidecar.log_text());
    assert!(sidecar.log_text().contains("permission denied for table deliveries"), "{}", sidecar.log_text());
    database.execute(&format!("grant insert on all tables in schema walhook to {role}")).await;
    sidecar.restart().await;
    let ids = |requests: &[crate::support::Request]| requests.iter().any(|request| request.column("id") == 2);
    receiver.wait("/crm", "the second row", PATIENCE, ids).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_server_that_is_restarted_in_order_is_waited_for_and_nothing_is_lost_or_repeated() {
    let _turn = beside_others().await;
    let mut cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (mut database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    witness::create_tables(&database, &["orders"]).await;
    let mut sidecar = Sidecar::start(&database, run(&receiver).expecting("\"level\":\"WARN\"")).await;
    let mut dice = fastrand::Rng::with_seed(29);
    for round in 0..3 {
        for _ in 0..30 {
            database.execute(&witness::transaction(&mut dice, &["orders"], 8)).await;
        }
        let streamed = "\nwalhook_source_connections_total ";
        let before = sidecar.page("/metrics").await.split_once(streamed).map(|(_, rest)| rest.chars().next());
        cluster.restart(Mode::Fast).expect("a restart");
        database.reconnect().await;
        eventually("another connection", PATIENCE, async || {
            let now =
                sidecar.page("/metrics").await.split_once(streamed).map(|(_, rest)| rest.chars().next());
            now != before && sidecar.page("/readyz").await.starts_with("streaming")
        })
        .await;
        assert!(!sidecar.has_ended(), "round {round}");
    }
    let committed = witness::committed(&database).await;
    let all = |requests: &[crate::support::Request]| witness::accepted(requests) >= committed.len();
    receiver.wait("/crm", "every change", PATIENCE * 2, all).await;
    witness::judge(&committed, &receiver.requests("/crm"));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_slot_of_another_plugin_or_database_is_refused_and_left_alone() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let elsewhere = Database::new().await;
    let (ours, theirs) = (format!("{}_p", database.name), format!("{}_d", database.name));
    let make = "select pg_create_logical_replication_slot($1, $2)";
    let mut foreign = vec![(&elsewhere, &theirs, "pgoutput", elsewhere.name.clone())];
    // A server without the other plugin's file cannot make such a slot.
    let tried = crate::support::connect(&database.url).await.expect("a connection");
    if tried.query(make, &[&ours, &"test_decoding"]).await.is_ok() {
        foreign.push((&database, &ours, "test_decoding", "test_decoding".to_owned()));
    }
    for (where_made, slot, plugin, named) in foreign {
        if plugin == "pgoutput" {
            where_made.rows(make, &[slot, &plugin]).await;
        }
        let file = format!(
            "[database]\nurl = \"{}\"\nslot = \"{slot}\"\non_slot_lost = \"recreate\"\n[server]\nlisten = \"127.0.0.1:0\"\n{}",
            database.url,
            run(&receiver).toml
        );
        let (code, said) = refused(&file).await;
        assert_eq!(code, Some(1), "{said}");
        for part in ["is not ours", &named, "database.slot"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let sql =
            "select count(*) from pg_replication_slots where slot_name = $1 and plugin = $2 and not active";
        assert_eq!(database.rows(sql, &[slot, &plugin]).await[0].get::<_, i64>(0), 1);
        where_made.rows("select pg_drop_replication_slot($1)", &[slot]).await;
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_looked_up_is_told_and_delays_no_stop() {
    let _turn = beside_others().await;
    let (mut database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let role = format!("app_{}", database.name);
    let grants = format!(
        "create role {role} login replication password 'w'; grant create on database {0} to {role}; \
         alter table orders owner to {role}; alter table orders replica identity full",
        database.name
    );
    database.execute(&grants).await;
    let (_, tail) = database.url.split_once('@').expect("a password");
    database.url = format!("postgres://{role}:w@{tail}");
    let mut patient = run(&receiver).expecting("\"level\":\"WARN\"");
    patient.environment.push(("WALHOOK_DELIVERY__SHUTDOWN_GRACE".to_owned(), "60s".to_owned()));
    let mut sidecar = Sidecar::start(&database, patient).await;
    database.execute(&format!("alter role {role} connection limit 1")).await;
    insert(&database, 1).await;
    let told = "the primary key of orders cannot be looked up";
    eventually("its page to say so", PATIENCE, async || {
        let page = sidecar.page("/readyz").await;
        page.contains(told) && page.contains("too many connections for role")
    })
    .await;
    let began = Instant::now();
    sidecar.stop().await;
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());

    database.execute(&format!("alter role {role} connection limit -1")).await;
    sidecar.restart().await;
    receiver.expect("/crm", 1).await;
    database.execute("create table more (id int8 primary key)").await;
    assert!(!sidecar.page("/readyz").await.contains("intake"));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_standby_takes_over_within_ten_seconds_of_a_death_under_load() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    witness::create_tables(&database, &["orders"]).await;
    let expected = run(&receiver).expecting("standby");
    let mut first = Sidecar::start(&database, expected.clone()).await;
    let mut second = Sidecar::prepare(&database, expected);
    second.spawn();
    second.logged("standby").await;
    eventually("its page to say so", PATIENCE, async || second.page("/readyz").await.starts_with("standby"))
        .await;
    let mut dice = fastrand::Rng::with_seed(23);
    let mut died = None;
    for round in 0..400 {
        database.execute(&witness::transaction(&mut dice, &["orders"], 8)).await;
        if round == 390 {
            first.kill9().await;
            died = Some(Instant::now());
        }
    }
    second.ready().await;
    let took = died.expect("a death").elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let committed = witness::committed(&database).await;
    let all = |requests: &[crate::support::Request]| witness::accepted(requests) >= committed.len();
    receiver.wait("/crm", "every change", PATIENCE * 2, all).await;
    witness::judge(&committed, &receiver.requests("/crm"));
    second.stop().await;
}

#[tokio::test]
async fn a_table_that_comes_later_is_published_within_half_a_minute_and_leaves_with_its_webhook() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let file = Run::default().webhook(
        "crm",
        &receiver.url("/crm"),
        "events = [\"order*.created\", \"audit.created\"]",
    );
    let mut sidecar = Sidecar::prepare(&database, file.clone());
    database.execute("create table audit (id int8 primary key)").await;
    sidecar.spawn();
    sidecar.ready().await;
    let published = async |table: &str| {
        let sql = "select count(*) from pg_publication_tables where pubname = 'walhook' and tablename = $1";
        database.rows(sql, &[&table]).await[0].get::<_, i64>(0) == 1
    };
    assert!(published("orders").await && published("audit").await);
    database.execute("create table orders_eu (id int8 primary key)").await;
    eventually("the new table", Duration::from_secs(30), async || published("orders_eu").await).await;
    database.execute("insert into orders_eu values (7)").await;
    let requests = receiver.expect("/crm", 1).await;
    assert_eq!(requests[0].header("x-webhook-event"), "orders_eu.created");
    let fewer = Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"order*.created\"]");
    sidecar.write_file(&database, &fewer.toml);
    sidecar.signal("HUP").await;
    eventually("the other table to leave", PATIENCE, async || !published("audit").await).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_publication_of_somebody_elses_for_all_tables_works_without_feedback() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    database
        .execute("create publication theirs for all tables with (publish_via_partition_root = true)")
        .await;
    let mut theirs = Run::default().webhook("all", &receiver.url("/all"), "events = [\"*\"]");
    theirs.environment.push(("WALHOOK_DATABASE__PUBLICATION".to_owned(), "theirs".to_owned()));
    theirs.environment.push(("WALHOOK_DATABASE__MANAGE_PUBLICATION".to_owned(), "false".to_owned()));
    let mut sidecar = Sidecar::start(&database, theirs.expecting("its changes are dropped")).await;
    insert(&database, 1).await;
    receiver.expect("/all", 1).await;
    database.is_followed().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.requests("/all").len(), 1, "the ledger's own rows came back as events");
    assert_eq!(database.number("select count(*) from pg_publication").await, 1);
    sidecar.stop().await;
}
