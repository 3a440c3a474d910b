//! Memory is a constant: whatever the size of a transaction, whatever waits in the ledger.
//!
//! `WALHOOK_MILLION` makes the million smaller where somebody is in a hurry.

use std::time::Duration;

use tokio::time::Instant;
use walhook::cluster::{Cluster, Options};

use crate::support::{Answer, Database, Receiver, Run, Sidecar, alone, eventually, knob};

const LIMIT_KIB: u64 = 96 * 1024;
const PATIENCE: Duration = Duration::from_secs(1200);

/// The most memory that a process ever had resident, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

fn million_rows(count: u64) -> String {
    format!(
        "insert into orders select g, 'paid', g / 100.0, 'a note of some length, as people write them' \
         from generate_series(1, {count}) g"
    )
}

fn judge(what: &str, sidecar: &Sidecar, started: Instant) {
    let peak = peak_kib(sidecar.pid());
    println!("{what}: {} MiB at most, {:?}", peak / 1024, started.elapsed());
    assert!(peak < LIMIT_KIB, "{what}: {peak} KiB resident");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_a_million_rows_passes_within_96_mebibytes() {
    let _turn = alone().await;
    let count = knob("WALHOOK_MILLION", 1_000_000);
    let cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    receiver.only_count();
    let run =
        Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]\nconcurrency = 64");
    let sidecar = Sidecar::start(&database, run).await;

    let started = Instant::now();
    database.execute(&million_rows(count)).await;
    receiver.expect_count(count, PATIENCE).await;
    let open = "select count(*) from walhook.deliveries where status <> 'delivered'";
    eventually("all recorded", PATIENCE, async || database.number(open).await == 0).await;
    judge("a transaction of a million rows", &sidecar, started);
    assert_eq!(receiver.count(), count, "some were sent twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_a_million_rows_and_a_start_with_it_stay_within_96_mebibytes() {
    let _turn = alone().await;
    let count = knob("WALHOOK_MILLION", 1_000_000);
    let cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (database, receiver, dead) =
        (Database::on(&cluster).await, Receiver::start().await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    database.execute("create table customers (id int8 primary key)").await;
    receiver.script("/crm", |_| Answer::Status(200));
    dead.refuse();
    let dead_keys = "events = [\"orders.*\"]\nconcurrency = 64\nretry = { schedule = [\"2h\"] }";
    let run = Run::default()
        .webhook("dead", &dead.url("/dead"), dead_keys)
        .webhook("crm", &receiver.url("/crm"), "events = [\"customers.*\"]")
        .expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;

    let started = Instant::now();
    database.execute(&million_rows(count)).await;
    let open = "select count(*) from walhook.deliveries where status in ('pending', 'retrying')";
    let owed = i64::try_from(count).expect("a small number");
    eventually("a backlog", PATIENCE, async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        database.number(open).await == owed
    })
    .await;
    judge("a backlog of a million rows", &sidecar, started);

    let started = Instant::now();
    sidecar.restart().await;
    database.execute("insert into customers values (1)").await;
    receiver.expect("/crm", 1).await;
    println!("a start with it, to the first delivery: {:?}", started.elapsed());
    tokio::time::sleep(Duration::from_secs(5)).await;
    judge("a start with a million open rows", &sidecar, started);
    assert_eq!(database.number(open).await, owed, "the backlog changed");
}
