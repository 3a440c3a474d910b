//! `kill -9` before and after each step that matters, and Postgres crashing underneath.
//!
//! Needs the feature `failpoints`: at a fail point's `return` the binary aborts.

use std::time::Duration;

use walhook::cluster::{Cluster, Mode, Options};
use walhook::domain::{CommitLsn, DeliveryId, Lsn, Origin, Place};

use crate::support::{Answer, Database, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, witness};

const TABLES: [&str; 2] = ["apples", "pears"];
const KEYS: &str = "events = [\"apples.*\", \"pears.*\"]\ntimeout = \"1s\"\n\
                    retry = { schedule = [\"50ms\", \"100ms\", \"200ms\", \"400ms\", \"1s\", \"1s\", \"1s\"] }";
/// A lease of the killed process may have to run out first.
const AFTER_A_KILL: Duration = Duration::from_secs(90);

async fn all_arrives(database: &Database, receiver: &Receiver) {
    let committed = witness::committed(database).await;
    let enough = |requests: &[_]| witness::accepted(requests) >= committed.len();
    let what = format!("all of {} changes", committed.len());
    let requests = receiver.wait("/crm", &what, AFTER_A_KILL, enough).await;
    witness::judge(&committed, &requests);
}

async fn killed_at(point: &str, skips: &[u32], answers: &[Answer]) {
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    witness::create_tables(&database, &TABLES).await;
    receiver.answers("/crm", answers);
    let mut dice = fastrand::Rng::with_seed(7);
    let run = Run::default().webhook("crm", &receiver.url("/crm"), KEYS).expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    for skip in skips {
        sidecar.terminate().await;
        sidecar.next_run(|run| run.fail_at(&format!("{point}={skip}*off->return")));
        sidecar.spawn();
        // Busy until the process is gone, and a little longer.
        let mut commits_after = 0;
        for _ in 0..2000 {
            let text = witness::transaction(&mut dice, &TABLES, 8);
            database.execute(&text).await;
            commits_after += u32::from(sidecar.has_ended());
            if commits_after > 5 {
                break;
            }
        }
        assert!(!sidecar.ended().await.success(), "{point} was never reached");
        sidecar.next_run(|mut run| {
            run.environment.clear();
            run
        });
        sidecar.spawn();
        sidecar.ready().await;
    }
    all_arrives(&database, &receiver).await;
    sidecar.stop().await;
}

macro_rules! killed {
    ($($name:ident $point:literal $skips:expr;)*) => {$(
        #[tokio::test]
        #[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
        async fn $name() {
            let _turn = beside_others().await;
            killed_at($point, &$skips, &[]).await;
        }
    )*};
}

killed! {
    i1_a_kill_before_a_send_loses_nothing "before_send" [0, 5, 23];
    i1_a_kill_after_a_send_loses_nothing "after_send" [0, 5, 23];
    i1_a_kill_before_a_ledger_commit_loses_nothing "before_ledger_commit" [0, 3];
    i3_a_kill_after_a_ledger_commit_loses_nothing "after_ledger_commit" [0, 3];
    i1_a_kill_before_a_confirm_loses_nothing "before_confirm" [0, 2];
    i3_a_kill_after_a_confirm_loses_nothing "after_confirm" [0, 2];
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn i5_a_kill_between_retries_keeps_id_bytes_and_order() {
    let _turn = beside_others().await;
    killed_at("after_send", &[11], &[Answer::Status(500), Answer::Drop]).await;
    killed_at("after_ledger_commit", &[2], &[Answer::Status(500), Answer::Drop]).await;
}

#[tokio::test]
async fn a_crash_of_postgres_under_load_is_ridden_out() {
    let _turn = beside_others().await;
    let mut cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (mut database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    witness::create_tables(&database, &TABLES).await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), KEYS).expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    let mut dice = fastrand::Rng::with_seed(11);
    for _ in 0..3 {
        for _ in 0..100 {
            database.execute(&witness::transaction(&mut dice, &TABLES, 8)).await;
        }
        cluster.restart(Mode::Immediate).expect("a restart");
        database.reconnect().await;
    }
    database.execute(&witness::transaction(&mut dice, &TABLES, 8)).await;
    all_arrives(&database, &receiver).await;
    assert!(!sidecar.has_ended(), "it did not ride it out\n{}", sidecar.log_text());
    sidecar.stop().await;
}

#[tokio::test]
async fn a_receiver_that_was_away_gets_everything_when_it_is_back() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    witness::create_tables(&database, &TABLES).await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), KEYS).expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    let mut dice = fastrand::Rng::with_seed(13);
    receiver.refuse();
    for _ in 0..50 {
        database.execute(&witness::transaction(&mut dice, &TABLES, 8)).await;
    }
    let waiting = "select count(*) from walhook.deliveries where status in ('pending', 'retrying')";
    crate::support::eventually("rows that wait", PATIENCE, async || database.number(waiting).await > 0).await;
    receiver.welcome();
    all_arrives(&database, &receiver).await;
    sidecar.stop().await;
}

/// Of the two deliveries that a change owes the ledger has the one that sorts first and is made last, and each batch after the
/// restart is one delivery: it meets the other one first.
#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn i3_a_kill_between_two_deliveries_of_one_change_sends_the_recorded_one_no_second_time() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let system = database.text("select system_identifier::text from pg_control_system()").await;
    let origin = Origin { system: system.parse().expect("a number"), generation: 1 };
    let place = Place { origin, commit: CommitLsn(Lsn(1)), sequence: 1 };
    let of = |name: &String| DeliveryId::of(&place, "", name);
    let names = |letter: &str| (0..9).map(|n| format!("{letter}{n}")).collect::<Vec<_>>();
    // The first is owed first, and sorts after the other.
    let first = names("a").into_iter().max_by_key(of).expect("names");
    let other = names("b").into_iter().min_by_key(of).expect("names");
    assert!(of(&first) > of(&other), "{first} and {other} have unlikely fingerprints");
    let keys = "events = [\"orders.*\"]\ntimeout = \"60s\"";
    let memory = |bytes: &str| ("WALHOOK_DELIVERY__MEMORY".to_owned(), bytes.to_owned());
    let mut run = Run::default()
        .webhook(&first, &receiver.url("/first"), keys)
        .webhook(&other, &receiver.url("/other"), keys)
        .fail_at("after_ledger_commit=return");
    run.environment.push(memory("64MiB"));
    receiver.script("/first", |_| Answer::Hang);
    let mut sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1, repeat('x', 600000))").await;
    assert!(!sidecar.ended().await.success(), "it was to end after the first row of the ledger");
    let recorded = "select string_agg(webhook, ',') from walhook.deliveries";
    assert_eq!(database.text(recorded).await, other);
    receiver.script("/first", |_| Answer::Status(200));
    sidecar.next_run(|mut run| {
        run.environment = vec![memory("1MiB")];
        run
    });
    sidecar.spawn();
    sidecar.ready().await;
    // It comes after all else that its row owes.
    database.execute("update orders set status = 'last' where id = 1").await;
    for path in ["/first", "/other"] {
        let is_last = |request: &Request| request.accepted && request.column("status") == "last";
        let requests = receiver.wait(path, path, PATIENCE, |requests| requests.iter().any(is_last)).await;
        assert_eq!(requests.iter().filter(|request| request.accepted).count(), 2, "{path}");
    }
    sidecar.stop().await;
}
