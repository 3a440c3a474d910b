//! SIGTERM: what is in flight ends, the rest is written down, and nothing recorded is sent again.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Answer, Database, Receiver, Request, Run, Sidecar, beside_others, witness};

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
        assert_eq!(sidecar.terminate().await, Some(0), "{}", sidecar.log_text());
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
    assert_eq!(sidecar.terminate().await, Some(0), "{}", sidecar.log_text());
    assert!(asked.elapsed() < GRACE, "{:?}", asked.elapsed());
    let open = "select count(*) from walhook.deliveries where status in ('pending', 'retrying')";
    assert_eq!(database.number(open).await, 1, "it was not put into the ledger");
}
