//! Memory is a constant: whatever the size of a transaction, whatever waits in the ledger.
//!
//! `WALHOOK_MILLION` makes the million smaller where somebody is in a hurry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use walhook::cluster::{Cluster, Options};
use walhook::domain::limits;

use crate::order::latency_p99;
use crate::support::{Answer, Database, Receiver, Run, Sidecar, alone, connect, eventually, knob, run_once};

const LIMIT_KIB: u64 = 96 * 1024;
const PATIENCE: Duration = Duration::from_secs(1200);
/// So much more log than before may be kept at any moment: what is being written.
const RETAINED_MORE: i64 = 4 * 1024 * 1024;
/// How long the ledger stands still, below the time after which its connection counts as dead.
const LEDGER_STANDS: Duration = Duration::from_secs(20);
/// So much may be sent while it does: what may be unwritten, and what is claimed.
const SENT_UNWRITTEN: usize = limits::UNWRITTEN + limits::IN_FLIGHT;
/// What a receiver that is well again takes for an answer, and how many it is sent at once.
const HEALED_TAKES: Duration = Duration::from_millis(100);
const HEALED_WIDTH: u32 = 64;

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

/// Every row goes out in batches, and every tenth by itself besides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_a_million_rows_passes_within_96_mebibytes() {
    let _turn = alone().await;
    let count = knob("WALHOOK_MILLION", 1_000_000);
    let cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (database, one, many) =
        (Database::on(&cluster).await, Receiver::start().await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    one.only_count();
    many.only_count();
    let arrived = Arc::new(AtomicU64::new(0));
    let adds = Arc::clone(&arrived);
    many.script("/many", move |request| {
        let members = request.header("x-webhook-batch").parse().expect("a batch");
        adds.fetch_add(members, Ordering::Relaxed);
        Answer::Status(200)
    });
    let keys = "events = [\"orders.*\"]\nconcurrency = 64";
    let run = Run::default()
        .webhook("one", &one.url("/one"), &format!("{keys}\nfilter = \"record.id % 10 == 0\""))
        .webhook("many", &many.url("/many"), &format!("{keys}\nbatch = {{ max_events = 100 }}"));
    // What a million rows write may keep a slow disk busy for longer than a batch's commit may take.
    let sidecar = Sidecar::start(&database, run.expecting("the ledger cannot be written")).await;

    let started = Instant::now();
    database.execute(&million_rows(count)).await;
    one.expect_count(count / 10, PATIENCE).await;
    let delivered = "select count(*) from walhook.deliveries where status = 'delivered'";
    let owed = i64::try_from(count + count / 10).expect("a small number");
    eventually("all recorded", PATIENCE, async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        database.number(delivered).await == owed
    })
    .await;
    judge("a transaction of a million rows", &sidecar, started);
    assert_eq!((one.count(), arrived.load(Ordering::Relaxed)), (count / 10, count), "some were sent twice");
}

/// A disk that stands still, a standby that does not confirm: the ledger answers questions and takes nothing in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_ledger_takes_nothing_in_little_is_sent_and_afterwards_the_rest_once() {
    let _turn = alone().await;
    let cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    receiver.only_count();
    let run =
        Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]\nconcurrency = 64");
    let sidecar = Sidecar::start(&database, run).await;

    let (count, started) = (knob("WALHOOK_MILLION", 1_000_000).min(40_000), Instant::now());
    let operate = async |verb: &str| {
        let config = sidecar.file();
        let output = run_once(&["--config", &config.display().to_string(), verb, "crm"], &[]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    operate("pause").await;
    database.execute(&million_rows(count)).await;
    let recorded = "select count(*) from walhook.deliveries";
    let owed = i64::try_from(count).expect("a small number");
    eventually("all of it in the ledger", PATIENCE, async || database.number(recorded).await == owed).await;
    operate("resume").await;
    receiver.expect_count(1000, PATIENCE).await;
    // What holds this lock keeps the writer from its row, and nobody from claiming.
    let client = connect(&database.url).await.expect("a connection");
    client.batch_execute("begin; lock table walhook.sources in exclusive mode").await.expect("the lock");
    let before = receiver.count();
    tokio::time::sleep(LEDGER_STANDS).await;
    let meanwhile = receiver.count() - before;
    client.batch_execute("commit").await.expect("the end of the lock");
    assert!(
        meanwhile <= u64::try_from(SENT_UNWRITTEN).expect("a small number"),
        "{meanwhile} were sent while nothing could be written"
    );
    receiver.expect_count(count, PATIENCE).await;
    let open = "select count(*) from walhook.deliveries where status <> 'delivered'";
    eventually("all recorded", PATIENCE, async || database.number(open).await == 0).await;
    println!("{meanwhile} were sent while the ledger stood still");
    judge("a ledger that stands still", &sidecar, started);
    assert_eq!(receiver.count(), count, "some were sent twice");
}

/// The time that the slowest of a hundred of the application's statements takes, but for one.
async fn slow_statement(database: &Database, first: u64) -> Duration {
    let mut took = Vec::new();
    for id in first..first + 100 {
        let begun = Instant::now();
        database.execute(&format!("insert into orders values ({id}, 'a', 1, null)")).await;
        took.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort();
    took[98]
}

/// How much log the server keeps for the slot, where it could be cut by now.
async fn retained_bytes(database: &Database) -> i64 {
    // Where the log may be cut moves on with the next snapshot that the server writes into it.
    database.execute("checkpoint").await;
    let kept = "select (pg_current_wal_lsn() - restart_lsn)::int8 from pg_replication_slots \
                where slot_name = current_database()";
    database.number(kept).await
}

/// What every receiver's outage of two hours amounts to at two changes a second, three retries included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_every_receiver_keeps_no_log_and_slows_no_statement_of_the_application() {
    let _turn = alone().await;
    let cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (database, dead) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    dead.refuse();
    let keys = "events = [\"orders.*\"]\nretry = { schedule = [\"500ms\", \"1s\", \"2h\"] }";
    let run = Run::default()
        .webhook("one", &dead.url("/one"), keys)
        .webhook("two", &dead.url("/two"), keys)
        .expecting("\"level\":\"WARN\"");
    let before = slow_statement(&database, 1_000_000).await;
    let sidecar = Sidecar::start(&database, run).await;
    let started = Instant::now();
    let (retained, began) =
        (retained_bytes(&database).await, database.text("select pg_current_wal_lsn()::text").await);
    for batch in 0..144 {
        let rows = format!(
            "insert into orders select g, 'paid', 1, 'note' from generate_series({0}, {0} + 99) g",
            batch * 100
        );
        database.execute(&rows).await;
    }
    let during = slow_statement(&database, 2_000_000).await;
    let kept = "select count(*) from walhook.deliveries where status in ('pending', 'retrying')";
    eventually("all of it in the ledger", PATIENCE, async || database.number(kept).await == 2 * 14_500).await;
    eventually("a slot that is up to date", Duration::from_secs(30), async || {
        database.slot_lag_bytes().await < 1024 * 1024
    })
    .await;
    let written = database.number(&format!("select (pg_current_wal_lsn() - '{began}')::int8")).await;
    assert!(
        written > 4 * RETAINED_MORE,
        "only {written} bytes of log: too few to tell whether they are kept"
    );
    eventually("a slot that keeps no more log than before", Duration::from_secs(60), async || {
        retained_bytes(&database).await <= retained + RETAINED_MORE
    })
    .await;
    println!("a statement took {before:?} before and {during:?} during the outage; {written} bytes of log");
    assert!(during <= (before * 4).max(Duration::from_millis(50)), "{before:?} became {during:?}");
    judge("an outage of every receiver", &sidecar, started);
}

/// Ten minutes by hand: `WALHOOK_PGBENCH_SECONDS=600`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_pgbench_at_full_speed_without_a_matching_webhook_the_lag_is_gone_and_memory_flat() {
    let _turn = alone().await;
    let seconds = knob("WALHOOK_PGBENCH_SECONDS", 15);
    let cluster = Cluster::create(&Options::default()).expect("a cluster");
    let pgbench = cluster.binaries().program("pgbench");
    if !pgbench.is_file() {
        println!("skipped: no pgbench beside this server");
        return;
    }
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    let pgbench = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(&pgbench);
        command.args(arguments).arg(&database.url).kill_on_drop(true);
        let output = command.output().await.expect("pgbench");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    pgbench(&["--initialize", "--quiet", "--scale=5"]).await;
    let keys = "events = [\"pgbench_accounts.*\", \"pgbench_tellers.*\"]\nfilter = \"false\"";
    let sidecar =
        Sidecar::start(&database, Run::default().webhook("none", &receiver.url("/none"), keys)).await;
    let load = |seconds: u64| format!("--time={}", seconds.max(1));
    pgbench(&["--client=4", &load(seconds / 3)]).await;
    let early = peak_kib(sidecar.pid());
    let said = pgbench(&["--client=4", &load(seconds - seconds / 3)]).await;
    eventually("no lag", Duration::from_secs(10), async || database.slot_lag_bytes().await < 64 * 1024).await;
    let late = peak_kib(sidecar.pid());
    let speed = said.lines().find(|line| line.starts_with("tps")).unwrap_or_default();
    println!("pgbench: {speed}; resident {} then {} MiB at most", early / 1024, late / 1024);
    assert!(late < early + 8 * 1024, "{early} KiB became {late} KiB");
    assert!(receiver.requests("/none").is_empty());
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
    let dead_keys = "events = [\"orders.*\"]\nconcurrency = 64\nretry = { schedule = [\"2h\"] }\n\
                     breaker = { probe_after = \"1s\", probe_max = \"1s\" }";
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
    // Whatever waits, the log does not: the slot is where it would be without a receiver's outage.
    eventually("a slot that is up to date", Duration::from_secs(30), async || {
        database.slot_lag_bytes().await < 1024 * 1024
    })
    .await;
    eventually("a slot that keeps no log", Duration::from_secs(60), async || {
        retained_bytes(&database).await < 32 * 1024 * 1024
    })
    .await;

    let started = Instant::now();
    sidecar.restart().await;
    database.execute("insert into customers values (1)").await;
    receiver.expect("/crm", 1).await;
    println!("a start with it, to the first delivery: {:?}", started.elapsed());
    tokio::time::sleep(Duration::from_secs(5)).await;
    judge("a start with a million open rows", &sidecar, started);
    assert_eq!(database.number(open).await, owed, "the backlog changed");

    heal((&database, &receiver, &dead), open).await;
    judge("a million rows that leave", &sidecar, started);
}

/// Of the million this many are left when it is looked at again.
const LEFT: u64 = 40_000;
/// How often something is measured until it holds.
const TRIES: u32 = 3;

/// When its receiver is well again, what waits leaves at full width, and other webhooks' news keep their pace. With
/// `WALHOOK_SOAK` all of it leaves, which takes minutes, and near its end the same is looked at again.
async fn heal((database, receiver, dead): (&Database, &Receiver, &Receiver), open: &str) {
    let alone = latency_p99(database, receiver, ("/crm", customer), 2, 500).await;
    dead.script("/dead", |_| Answer::Late(HEALED_TAKES, 200));
    dead.only_count();
    dead.welcome();
    dead.expect_count(u64::from(HEALED_WIDTH) * 4, Duration::from_secs(60)).await;
    // The machine may be somebody else's for a moment, so it may be measured again.
    let measure = async |first: u64| {
        let (started, before) = (Instant::now(), dead.count());
        let beside = latency_p99(database, receiver, ("/crm", customer), first, 1000).await;
        // By Little's law: how many came, times what each takes, over the time.
        let came = u32::try_from(dead.count() - before).expect("a small number");
        let width = (HEALED_TAKES * came).as_secs_f64() / started.elapsed().as_secs_f64();
        println!("a healed receiver has {width:.0} at once; p99 of others {alone:?}, then {beside:?}");
        (width, beside)
    };
    let is_well = |(width, beside): (f64, Duration)| {
        width >= f64::from(HEALED_WIDTH) * 0.7 && beside <= (alone * 2).max(Duration::from_millis(50))
    };
    let mut first = 502;
    let mut judge = async |what: &str| {
        for _ in 0..TRIES {
            let seen = measure(first).await;
            first += 1000;
            if is_well(seen) {
                return;
            }
        }
        panic!("{what}: neither width nor pace of others was kept in {TRIES} measurements");
    };
    judge("at first").await;
    if knob("WALHOOK_SOAK", 1) > 1 {
        dead.script("/dead", |_| Answer::Status(200));
        let left = i64::try_from(LEFT).expect("a small number");
        eventually("the backlog to leave", PATIENCE, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            database.number(open).await <= left
        })
        .await;
        dead.script("/dead", |_| Answer::Late(HEALED_TAKES, 200));
        judge("near the end").await;
    }
}

fn customer(id: u64) -> String {
    format!("insert into customers values ({id})")
}
