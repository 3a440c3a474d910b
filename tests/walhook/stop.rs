//! SIGTERM: what is in flight ends, the rest is written down, and nothing recorded is sent again. And the database's own
//! stop, which walhook does not keep up.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use walhook::cluster::{Cluster, Mode, Options};

use crate::support::{
    Answer, Database, ORDERS, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, eventually, witness,
};

const TABLES: [&str; 2] = ["apples", "pears"];
const KEYS: &str =
    "events = [\"apples.*\", \"pears.*\"]\nconcurrency = 4\nretry = { schedule = [\"100ms\", \"1s\"] }";
/// `shutdown_grace`, and what a busy machine adds.
const GRACE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn i3_a_stop_under_load_exits_0_and_the_next_start_repeats_nothing_recorded() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    witness::create_tables(&database, &TABLES).await;
    receiver.script("/crm", |_| Answer::Late(Duration::from_millis(20), 200));
    let mut sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), KEYS)).await;
    let mut dice = fastrand::Rng::with_seed(3);
    for _ in 0..3 {
        for _ in 0..150 {
            database.execute(&witness::transaction(&mut dice, &TABLES, 8)).await;
        }
        let asked = Instant::now();
        sidecar.stop().await;
        assert!(asked.elapsed() < GRACE, "{:?}", asked.elapsed());

        let rows = database.rows("select id from walhook.deliveries where status = 'delivered'", &[]).await;
        let recorded: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let accepted: HashSet<String> =
            receiver.requests("/crm").iter().map(|request| request.id().to_owned()).collect();
        assert!(accepted.is_subset(&recorded), "an answered delivery was not recorded at an orderly stop");
        let before = receiver.requests("/crm").len();
        sidecar.restart().await;
        let committed = witness::committed(&database).await;
        let enough = |requests: &[Request]| witness::accepted(requests) >= committed.len();
        let requests = receiver.wait("/crm", "the rest", Duration::from_secs(60), enough).await;
        let repeated: Vec<&str> =
            requests[before..].iter().map(Request::id).filter(|id| recorded.contains(*id)).collect();
        assert!(repeated.is_empty(), "recorded as delivered, and sent again: {repeated:?}");
        witness::judge(&committed, &requests);
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_receiver_that_hangs() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Hang);
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]\ntimeout = \"60s\"")
        .expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    receiver.expect("/crm", 1).await;
    let asked = Instant::now();
    sidecar.stop().await;
    assert!(asked.elapsed() < GRACE, "{:?}", asked.elapsed());
    let open = "select count(*) from walhook.deliveries where status in ('pending', 'retrying')";
    assert_eq!(database.number(open).await, 1, "it was not put into the ledger");
}

#[tokio::test]
async fn a_database_stops_in_order_though_a_blocked_pipeline_reads_no_more_of_it_and_nothing_is_lost() {
    let _turn = beside_others().await;
    // Where the ledger is in the same server, the stop itself blocks the pipeline; apart, the test does.
    let (mut cluster, ledger) =
        (Cluster::create(&Options::default()).expect("a cluster"), Database::new().await);
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(ORDERS).await;
    receiver.only_count();
    let mut run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]")
        .expecting("\"level\":\"WARN\"")
        .expecting("the ledger cannot be written");
    run.environment.push(("WALHOOK_LEDGER__URL".to_owned(), ledger.url.clone()));
    let mut sidecar = Sidecar::start(&database, run).await;
    ledger.execute("begin; lock table walhook.deliveries in access exclusive mode").await;
    let rows = "insert into orders select n, 'a', 1, repeat('x', 2000) from generate_series(1, 20000) n";
    database.execute(rows).await;
    let writes = "select count(*) from pg_stat_activity where backend_type = 'walsender' \
                  and wait_event = 'WalSenderWriteData'";
    let mut in_a_row = 0;
    eventually("a walsender that can write no more", PATIENCE * 2, async || {
        in_a_row = if database.number(writes).await == 1 { in_a_row + 1 } else { 0 };
        in_a_row > 50
    })
    .await;

    let asked = Instant::now();
    let stop = tokio::task::spawn_blocking(move || cluster.stop(Mode::Fast).map(|()| cluster));
    let mut cluster = stop.await.expect("a thread").expect("an end");
    // A server that does not end in a minute is killed.
    assert!(asked.elapsed() < Duration::from_secs(45), "{:?}", asked.elapsed());
    assert!(!sidecar.has_ended(), "{}", sidecar.log_text());
    cluster.start().expect("a server");
    ledger.execute("commit").await;
    let delivered = "select count(*) from walhook.deliveries where status = 'delivered'";
    eventually("all delivered", PATIENCE * 4, async || ledger.number(delivered).await == 20000).await;
    sidecar.stop().await;
}
