//! The database becomes another: a standby is promoted, a backup is restored, somebody points at the wrong server.
//!
//! Each test has servers of its own. A standby with a copy of the slot is followed to (Postgres 17 and later; on an
//! older server that test ends at once); everything else stops walhook with the choice to make.

use std::net::Ipv4Addr;

use walhook::cluster::{Cluster, Copied, Mode, Options};

use crate::support::{
    Database, ORDERS, PATIENCE, Proxy, Receiver, Run, Sidecar, beside_others, eventually, witness,
};

const TABLES: [&str; 2] = ["apples", "pears"];
const KEYS: &str = "events = [\"apples.*\", \"pears.*\"]\ntimeout = \"1s\"\n\
                    retry = { schedule = [\"50ms\", \"100ms\", \"200ms\", \"400ms\", \"1s\", \"1s\", \"1s\"] }";
const SEVENTEEN: i64 = 170_000;

fn cluster() -> Cluster {
    Cluster::create(&Options::default()).expect("a cluster")
}

/// A standby of the cluster that follows it and keeps its slots in step, as the manual says.
async fn standby_of(primary: &mut Cluster) -> Cluster {
    primary
        .execute("postgres", "select pg_create_physical_replication_slot('standby')")
        .await
        .expect("a slot");
    let conninfo = format!(
        "host=127.0.0.1 port={} user=postgres password={} dbname=postgres",
        primary.port(),
        primary.password()
    );
    let settings = [
        ("primary_conninfo", conninfo),
        ("primary_slot_name", "standby".to_owned()),
        ("sync_replication_slots", "on".to_owned()),
        ("hot_standby_feedback", "on".to_owned()),
        ("wal_retrieve_retry_interval", "200ms".to_owned()),
    ];
    let mut standby = primary.copy(Copied::Standby, &settings).expect("a copy");
    standby.start().expect("a standby");
    primary
        .execute("postgres", "alter system set synchronized_standby_slots = 'standby'")
        .await
        .expect("a setting");
    primary.execute("postgres", "select pg_reload_conf()").await.expect("a reload");
    standby
}

/// Random transactions until the server is gone, or so many.
async fn load(database: &Database, seed: u64, count: usize) {
    let mut dice = fastrand::Rng::with_seed(seed);
    for _ in 0..count {
        database.execute(&witness::transaction(&mut dice, &TABLES, 8)).await;
    }
}

async fn all_arrives(database: &Database, receiver: &Receiver) {
    let committed = witness::committed(database).await;
    let enough = |requests: &[_]| witness::accepted(requests) >= committed.len();
    let what = format!("all of {} changes", committed.len());
    let requests = receiver.wait("/crm", &what, PATIENCE * 2, enough).await;
    witness::judge(&committed, &requests);
}

#[tokio::test]
async fn i1_i2_a_promoted_standby_is_followed_without_loss_with_the_same_ids_and_in_row_order() {
    let _turn = beside_others().await;
    let receiver = Receiver::start().await;
    if Database::new().await.version().await < SEVENTEEN {
        return;
    }
    let mut primary = cluster();
    let mut standby = standby_of(&mut primary).await;
    let mut database = Database::on(&primary).await;
    witness::create_tables(&database, &TABLES).await;
    let (first, second) = (format!("127.0.0.1:{}", primary.port()), format!("127.0.0.1:{}", standby.port()));
    database.url = database.url.replace(&first, &format!("{second},{first}"));

    // Made without, then altered.
    let run = Run::default().webhook("crm", &receiver.url("/crm"), KEYS).expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    sidecar.stop().await;
    sidecar.next_run(|mut run| {
        run.environment.push(("WALHOOK_DATABASE__SLOT_FAILOVER".to_owned(), "true".to_owned()));
        run
    });
    sidecar.spawn();
    sidecar.ready().await;
    let there = Database::on_copy(&database, &standby).await;
    load(&database, 17, 40).await;
    let copied = "select count(*) from pg_replication_slots where synced and not temporary and failover";
    // The standby looks after up to half a minute, and the copy is made once the slot has moved on.
    eventually("the copy of the slot", PATIENCE * 5, async || {
        load(&database, 18, 1).await;
        there.number(copied).await == 1
    })
    .await;
    load(&database, 19, 100).await;
    // What the standby has by now it keeps; what it lacks was never sent to anybody.
    primary.stop(Mode::Immediate).expect("an end");
    there.execute("do $$ begin assert pg_promote(true); end $$").await;
    sidecar.logged("beginning anew").await;
    load(&there, 20, 60).await;
    all_arrives(&there, &receiver).await;
    assert!(!sidecar.has_ended(), "it did not follow\n{}", sidecar.log_text());
    assert_eq!(there.number("select timeline::int8 from walhook.sources").await, 2);
    assert_eq!(there.number("select count(*) from walhook.forks where generation = 2").await, 1);
    // The pages are where they were.
    assert!(sidecar.page("/metrics").await.contains("walhook_source_connections_total"));
    // Once more, from the same position: nothing new, and no second fork.
    sidecar.restart().await;
    load(&there, 21, 5).await;
    all_arrives(&there, &receiver).await;
    assert_eq!(there.number("select count(*) from walhook.forks").await, 1);
    sidecar.stop().await;
    standby.stop(Mode::Fast).expect("an end");
}

#[tokio::test]
async fn a_slot_that_shall_fail_over_is_refused_before_17_and_nothing_is_made() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    if database.version().await >= SEVENTEEN {
        return;
    }
    let mut run = Run::default()
        .webhook("crm", "http://127.0.0.1:9/crm", "events = [\"orders.*\"]")
        .expecting("slot_failover")
        .expecting("detail:");
    run.environment.push(("WALHOOK_DATABASE__SLOT_FAILOVER".to_owned(), "true".to_owned()));
    let mut sidecar = Sidecar::prepare(&database, run);
    sidecar.spawn();
    assert_eq!(sidecar.ended().await.code(), Some(1), "{}", sidecar.log_text());
    assert!(sidecar.log_text().contains("needs Postgres 17 or later"), "{}", sidecar.log_text());
    assert_eq!(database.number("select count(*) from pg_publication").await, 0);
    assert_eq!(database.number("select count(*) from pg_namespace where nspname = 'walhook'").await, 0);
}

/// A cluster with a sidecar's slot and one delivered change, and a database with its ledger where that is apart.
struct Before {
    cluster: Cluster,
    database: Database,
    receiver: Receiver,
    sidecar: Sidecar,
}

async fn before(ledger: Option<&Database>) -> Before {
    let (cluster, receiver) = (cluster(), Receiver::start().await);
    let database = Database::on(&cluster).await;
    database.execute(ORDERS).await;
    let keys = "events = [\"orders.*\"]";
    let mut run = Run::default().webhook("crm", &receiver.url("/crm"), keys);
    for part in ["detail:", "hint:", "the ledger", "is not the one this slot", "has forked"] {
        run = run.expecting(part);
    }
    if let Some(ledger) = ledger {
        run.environment.push(("WALHOOK_LEDGER__URL".to_owned(), ledger.url.clone()));
    }
    let mut sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'first')").await;
    receiver.wait("/crm", "the first", PATIENCE, |requests| !requests.is_empty()).await;
    sidecar.stop().await;
    Before { cluster, database, receiver, sidecar }
}

/// Points the sidecar at a database where it must stop, and gives what it said.
async fn stops_at(sidecar: &mut Sidecar, database: &Database) -> String {
    sidecar.write_own_file(database);
    let lines = sidecar.lines().len();
    sidecar.spawn();
    assert_eq!(sidecar.ended().await.code(), Some(1), "{}", sidecar.log_text());
    sidecar.lines()[lines..].iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn and_continue(mut run: Run) -> Run {
    run.environment.push(("WALHOOK_DATABASE__ON_TIMELINE_CHANGE".to_owned(), "continue".to_owned()));
    run
}

async fn ids_of(receiver: &Receiver, count: usize) -> Vec<(String, String)> {
    let requests = receiver.wait("/crm", "the changes", PATIENCE, |requests| requests.len() >= count).await;
    let of = |request: &crate::support::Request| {
        (request.column("status").as_str().expect("text").to_owned(), request.id().to_owned())
    };
    requests.iter().map(of).collect()
}

#[tokio::test]
async fn a_restored_backup_stops_it_with_the_choice_and_what_goes_on_has_new_ids() {
    let _turn = beside_others().await;
    let mut it = before(None).await;
    let mut restored = it.cluster.copy(Copied::Recovered, &[]).expect("a copy");
    restored.start().expect("a restored server");
    let other = it.database.on_copy(&restored).await;
    // It answers while it still recovers.
    let recovers = "select pg_is_in_recovery()::int::int8";
    eventually("the end of its recovery", PATIENCE, async || other.number(recovers).await == 0).await;
    let told = stops_at(&mut it.sidecar, &other).await;
    assert!(told.contains("on timeline 2, and the ledger knows timeline 1"), "{told}");
    assert!(told.contains("on_timeline_change") && told.contains("walhook uninstall"), "{told}");
    it.sidecar.next_run(and_continue);
    it.sidecar.spawn();
    it.sidecar.ready().await;
    other.execute("insert into orders values (2, 'second')").await;
    let ids = ids_of(&it.receiver, 2).await;
    assert_eq!([&*ids[0].0, &*ids[1].0], ["first", "second"]);
    // Four digits of generation behind the prefix.
    assert!(ids[0].1.starts_with("dlv_0001") && ids[1].1.starts_with("dlv_0002"), "{ids:?}");
    it.sidecar.stop().await;
}

#[tokio::test]
async fn a_snapshot_older_than_the_ledger_stops_it_and_what_goes_on_uses_no_id_twice() {
    let _turn = beside_others().await;
    let ledger = Database::new().await;
    let mut it = before(Some(&ledger)).await;
    let mut snapshot = it.cluster.copy(Copied::Snapshot, &[]).expect("a copy");
    it.database.reconnect().await;
    it.sidecar.restart().await;
    it.database.execute("insert into orders select n, 'lost' from generate_series(2, 4) n").await;
    it.database.execute("insert into orders values (5, 'lost')").await;
    ids_of(&it.receiver, 5).await;
    it.sidecar.stop().await;
    snapshot.start().expect("a server");
    let other = it.database.on_copy(&snapshot).await;
    let told = stops_at(&mut it.sidecar, &other).await;
    assert!(told.contains("the ledger is ahead of the database"), "{told}");
    assert!(told.contains("on_timeline_change"), "{told}");
    it.sidecar.next_run(and_continue);
    it.sidecar.spawn();
    it.sidecar.ready().await;
    other.execute("insert into orders select n, 'new' from generate_series(2, 4) n").await;
    let ids = ids_of(&it.receiver, 8).await;
    let mut distinct: Vec<&str> = ids.iter().map(|(_, id)| &**id).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!((ids.len(), distinct.len()), (8, 8), "{ids:?}");
    assert!(ids[5..].iter().all(|(status, _)| status == "new"), "{ids:?}");
    it.sidecar.stop().await;
}

/// A sidecar that has read far beyond a snapshot which is put back under it, while it runs; and the snapshot.
async fn reverted(ledger: Option<&Database>) -> (Before, Cluster, Database) {
    let mut it = before(ledger).await;
    let snapshot = it.cluster.copy(Copied::Snapshot, &[]);
    let mut snapshot = snapshot.expect("a copy");
    let proxy = Proxy::start((Ipv4Addr::LOCALHOST, it.cluster.port()).into()).await;
    it.database.url = proxy.in_front_of(&it.database.url);
    it.database.reconnect().await;
    it.sidecar.next_run(|run| run.expecting("\"level\":\"WARN\"").expecting("the ledger cannot be"));
    it.sidecar.write_own_file(&it.database);
    it.sidecar.restart().await;
    // Further than what a server writes by itself when it starts.
    it.database.execute("select pg_switch_wal()").await;
    it.database.execute("insert into orders select n, 'lost' from generate_series(2, 4) n").await;
    ids_of(&it.receiver, 4).await;
    it.cluster.stop(Mode::Immediate).expect("an end");
    snapshot.start().expect("a server");
    proxy.lead_to((Ipv4Addr::LOCALHOST, snapshot.port()).into());
    let other = it.database.on_copy(&snapshot).await;
    (it, snapshot, other)
}

/// What is written to a reverted database arrives, each under an id of its own.
async fn goes_on_with_new_ids(it: &mut Before, other: &Database) {
    other.execute("insert into orders select n, 'new' from generate_series(2, 4) n").await;
    let ids = ids_of(&it.receiver, 7).await;
    let distinct: std::collections::BTreeSet<&str> = ids.iter().map(|(_, id)| &**id).collect();
    assert_eq!((ids.len(), distinct.len()), (7, 7), "{ids:?}");
    assert!(ids[4..].iter().all(|(status, id)| status == "new" && id.starts_with("dlv_0002")), "{ids:?}");
    it.sidecar.stop().await;
}

#[tokio::test]
async fn a_snapshot_put_back_under_a_running_sidecar_stops_it_where_the_ledger_is_ahead() {
    let _turn = beside_others().await;
    let ledger = Database::new().await;
    let (mut it, _snapshot, other) = reverted(Some(&ledger)).await;
    assert_eq!(it.sidecar.ended().await.code(), Some(1), "{}", it.sidecar.log_text());
    let told = it.sidecar.log_text();
    assert!(told.contains("an older state of the server was put back"), "{told}");
    assert!(told.contains("the ledger is ahead of the database"), "{told}");
    it.sidecar.next_run(and_continue);
    it.sidecar.spawn();
    it.sidecar.ready().await;
    goes_on_with_new_ids(&mut it, &other).await;
}

#[tokio::test]
async fn a_snapshot_of_database_and_ledger_put_back_under_a_running_sidecar_is_gone_on_from_and_no_id_is_used_twice()
 {
    let _turn = beside_others().await;
    let (mut it, _snapshot, other) = reverted(None).await;
    it.sidecar.logged("the log has forked: beginning anew").await;
    it.sidecar.ready().await;
    goes_on_with_new_ids(&mut it, &other).await;
    assert_eq!(other.number("select count(*) from walhook.forks where generation = 2").await, 1);
}

#[tokio::test]
async fn a_ledger_that_went_back_under_a_running_sidecar_is_taken_over_again_and_no_id_is_used_twice() {
    let _turn = beside_others().await;
    let ledger = Database::new().await;
    let mut it = before(Some(&ledger)).await;
    it.sidecar.next_run(|run| run.expecting("\"level\":\"WARN\""));
    it.sidecar.spawn();
    it.sidecar.ready().await;
    // The second takeover; a ledger from before it knows of the first alone.
    let epoch = "select epoch from walhook.sources";
    eventually("the takeover", PATIENCE, async || ledger.number(epoch).await == 2).await;
    ledger.execute("update walhook.sources set epoch = 1").await;
    it.database.execute("insert into orders values (2, 'second')").await;
    it.sidecar.logged("the ledger is older than what was written to it").await;
    let told = "select count(*) from walhook.deliveries where status = 'delivered'";
    eventually("its row", PATIENCE, async || ledger.number(told).await == 2).await;
    it.database.execute("insert into orders values (3, 'third')").await;
    eventually("the next one's", PATIENCE, async || ledger.number(told).await == 3).await;
    let ids: std::collections::BTreeSet<_> = ids_of(&it.receiver, 3).await.into_iter().collect();
    let ids: Vec<_> = ids.iter().map(|(status, id)| (&**status, id.get(..8).unwrap_or_default())).collect();
    assert_eq!(ids, [("first", "dlv_0001"), ("second", "dlv_0001"), ("third", "dlv_0002")]);
    it.sidecar.stop().await;
}

#[tokio::test]
async fn another_cluster_under_the_same_ledger_stops_it_and_nothing_is_made_there() {
    let _turn = beside_others().await;
    let ledger = Database::new().await;
    let mut it = before(Some(&ledger)).await;
    let stranger = cluster();
    stranger.create_database(&it.database.name).await.expect("a database");
    let other = it.database.on_copy(&stranger).await;
    other.execute(ORDERS).await;
    let told = stops_at(&mut it.sidecar, &other).await;
    it.sidecar.write_own_file(&it.database);
    assert!(told.contains("not the one this slot was made in"), "{told}");
    assert_eq!(other.number("select count(*) from pg_publication").await, 0);
    let slots = format!("select count(*) from pg_replication_slots where slot_name = '{}'", other.name);
    assert_eq!(other.number(&slots).await, 0);
    it.sidecar.spawn();
    it.sidecar.ready().await;
    it.sidecar.stop().await;
}
