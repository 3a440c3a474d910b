//! Everything at once, at random: kills of walhook, crashes of Postgres, a receiver at its worst.
//!
//! `WALHOOK_SEED` repeats a run's dice, `WALHOOK_SOAK=N` makes it N times as long, `WALHOOK_KILLS` sets the number of
//! kills. The time is bounded: past it, the test goes on to its judgement and fails if the kills were too few.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use walhook::cluster::{Cluster, Mode, Options};

use crate::support::{
    Answer, Database, Receiver, Request, Run, Sidecar, background, beside_others, knob, witness,
};

const TABLES: [&str; 3] = ["apples", "pears", "plums"];
const ROWS: i64 = 40;
const POINTS: [&str; 6] = [
    "before_send",
    "after_send",
    "before_ledger_commit",
    "after_ledger_commit",
    "before_confirm",
    "after_confirm",
];
/// What the last deliveries may take: a lease of a killed process has to run out first.
const SETTLING: Duration = Duration::from_secs(150);

fn run(receiver: &Receiver) -> Run {
    // Attempts must not run out: the receiver is away for a good part of the time.
    let waits = vec!["\"100ms\""; 100].join(", ");
    let keys = |events: &str| {
        format!("events = [{events}]\ntimeout = \"500ms\"\nretry = {{ schedule = [{waits}], jitter = 0.5 }}")
    };
    Run::default()
        .webhook("worst", &receiver.url("/worst"), &keys("\"apples.*\", \"pears.*\", \"plums.*\""))
        .webhook("mild", &receiver.url("/mild"), &keys("\"apples.*\""))
        .expecting("\"level\":\"WARN\"")
}

/// Mostly well, now and then in every bad way.
fn at_its_worst(mut dice: fastrand::Rng) -> impl FnMut(&Request) -> Answer + Send + 'static {
    move |_| match dice.u16(0..1000) {
        0..40 => Answer::Status(500),
        40..60 => Answer::Drop,
        60..64 => Answer::Hang,
        64..84 => Answer::Late(Duration::from_millis(dice.u64(1..300)), 200),
        84..90 => Answer::With(503, "retry-after", "1".to_owned()),
        _ => Answer::Status(200),
    }
}

/// Commits random transactions until told to stop; a crash of the server is no reason to.
async fn keep_writing(url: String, seed: u64, stop: Arc<AtomicBool>) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while !stop.load(Ordering::Relaxed) {
        let Ok(client) = crate::support::connect(&url).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let text = witness::transaction(&mut dice, &TABLES, ROWS);
            // Two writers may lock rows crosswise; the server undoes one of them.
            if client.batch_execute(&text).await.is_err() && client.batch_execute("rollback").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(dice.u64(0..30))).await;
        }
    }
}

/// One life of the sidecar, to its violent end.
async fn one_life(sidecar: &mut Sidecar, dice: &mut fastrand::Rng, crash: impl FnOnce()) {
    let at_a_point = cfg!(feature = "failpoints") && dice.bool();
    sidecar.next_run(|mut run| {
        run.environment.clear();
        if !at_a_point {
            return run;
        }
        let point = POINTS[dice.usize(..POINTS.len())];
        let skips = if dice.bool() { dice.u32(0..4) } else { dice.u32(0..40) };
        run.fail_at(&format!("{point}={skips}*off->return"))
    });
    sidecar.spawn();
    if at_a_point {
        let deadline = Instant::now() + Duration::from_millis(1500);
        while !sidecar.has_ended() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    } else {
        // A third of the kills fall into the start.
        if dice.u8(0..3) > 0 {
            sidecar.ready().await;
            if dice.u8(0..10) == 0 {
                tokio::task::block_in_place(crash);
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.u64(0..800))).await;
        assert!(!sidecar.has_ended(), "it ended by itself\n{}", sidecar.log_text());
    }
    if sidecar.has_ended() {
        sidecar.ended().await;
    } else {
        sidecar.kill9().await;
    }
}

/// Waits until every committed change was accepted, and judges.
async fn settle(database: &Database, receiver: &Receiver) -> usize {
    let committed = witness::committed(database).await;
    let mild: Vec<_> = committed.iter().filter(|change| change.0 == "apples").cloned().collect();
    for (path, owed) in [("/worst", &committed), ("/mild", &mild)] {
        let what = format!("all of {} changes", owed.len());
        let enough = |requests: &[Request]| witness::accepted(requests) >= owed.len();
        let requests = receiver.wait(path, &what, SETTLING, enough).await;
        witness::judge(owed, &requests);
    }
    committed.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_every_committed_change_arrives_in_order_and_nothing_else() {
    let _turn = beside_others().await;
    let seed = knob("WALHOOK_SEED", u64::from(std::process::id()));
    let soak = knob("WALHOOK_SOAK", 1).max(1);
    let kills = knob("WALHOOK_KILLS", 200 * soak);
    println!("WALHOOK_SEED={seed} repeats these dice; {kills} kills");
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (mut database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    witness::create_tables(&database, &TABLES).await;
    receiver.script("/worst", at_its_worst(dice.fork()));
    let mut sidecar = Sidecar::start(&database, run(&receiver)).await;
    sidecar.kill9().await;

    let stop = Arc::<AtomicBool>::default();
    let writers = [dice.u64(..), dice.u64(..)]
        .map(|seed| background(keep_writing(database.url.clone(), seed, stop.clone())));
    let deadline = Instant::now() + Duration::from_secs(1200 * soak);
    let (mut killed, mut crashed) = (0, 0);
    while killed < kills && Instant::now() < deadline {
        if dice.u8(0..6) == 0 {
            receiver.refuse();
        } else {
            receiver.welcome();
        }
        one_life(&mut sidecar, &mut dice, || {
            cluster.restart(Mode::Immediate).expect("a restart");
            crashed += 1;
        })
        .await;
        killed += 1;
    }
    // The last life sees Postgres crash under it and stays.
    receiver.welcome();
    sidecar.next_run(|mut run| {
        run.environment.clear();
        run
    });
    sidecar.restart().await;
    cluster.restart(Mode::Immediate).expect("a restart");
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    database.reconnect().await;
    let changes = settle(&database, &receiver).await;
    sidecar.stop().await;
    println!(
        "{changes} changes, {killed} kills, {} crashes of Postgres, {} requests",
        crashed + 1,
        receiver.count()
    );
    assert!(killed >= kills, "only {killed} kills within the time");
}
