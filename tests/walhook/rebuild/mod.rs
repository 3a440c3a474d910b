//! A receiver that applies what it got has the tables, whatever is done to them and to the sidecar meanwhile.
//!
//! A writer commits random transactions over three tables ([`generate`]): rows come, change, change their key, go;
//! tables are emptied; columns are added, dropped, renamed, retyped; replica identities change; savepoints are undone.
//! What it does to a table's shape it also writes down in a table of its own, in the same transaction, because events
//! tell of rows only. The sidecar is stopped and killed all the while. In the end a model ([`model`]) applies the
//! events and must hold what the server holds.
//!
//! `WALHOOK_SEED` repeats a run's statements, `WALHOOK_SOAK=N` makes it N times as long.

pub(crate) mod generate;
mod model;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{
    Answer, Database, Receiver, Request, Run, Sidecar, background, beside_others, connect, eventually, knob,
};
use generate::Generator;
use model::Model;

pub(crate) const TABLES: [&str; 3] = ["amber", "birch", "cedar"];
const RESTARTS: u64 = 24;
/// What the last deliveries may take: a lease of a killed process has to run out first.
const SETTLING: Duration = Duration::from_secs(300);

pub(crate) async fn create_tables(database: &Database) {
    database
        .execute("create sequence alts; create table ddl (n bigserial primary key, tbl text, what jsonb)")
        .await;
    for table in TABLES {
        database
            .execute(&format!(
                "create table {table} (id int8 primary key, alt int8 not null unique, c0 int4, c1 numeric(12,2), c2 text);
                 alter table {table} alter c2 set storage external"
            ))
            .await;
    }
}

fn run(receiver: &Receiver) -> Run {
    let waits = vec!["\"100ms\""; 100].join(", ");
    let keys = |ordering: &str| {
        format!(
            "events = [\"amber.*\", \"birch.*\", \"cedar.*\", \"ddl.*\"]\nordering = \"{ordering}\"\n\
             timeout = \"500ms\"\nretry = {{ schedule = [{waits}], jitter = 0.5 }}"
        )
    };
    Run::default()
        .webhook("rows", &receiver.url("/rows"), &keys("row"))
        .webhook("strict", &receiver.url("/strict"), &keys("strict"))
        .expecting("\"level\":\"WARN\"")
}

/// Commits transactions until told to stop; gives how many.
async fn keep_writing(url: String, mut generator: Generator, stop: Arc<AtomicBool>) -> u64 {
    let client = connect(&url).await.expect("a connection");
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let text = generator.transaction();
        if let Err(error) = client.batch_execute(&text).await {
            panic!("the test's own statements must work: {error:?}\n{text}");
        }
        count += 1;
        tokio::time::sleep(Duration::from_millis(generator.pause_ms())).await;
    }
    count
}

/// One life of the sidecar: mostly to a working one, ended in order or not.
async fn one_life(sidecar: &mut Sidecar, dice: &mut fastrand::Rng) {
    sidecar.spawn();
    if dice.u8(0..4) > 0 {
        sidecar.ready().await;
        tokio::time::sleep(Duration::from_millis(dice.u64(0..700))).await;
        if dice.bool() {
            sidecar.stop().await;
            return;
        }
    } else {
        tokio::time::sleep(Duration::from_millis(dice.u64(0..400))).await;
    }
    assert!(!sidecar.has_ended(), "it ended by itself\n{}", sidecar.log_text());
    sidecar.kill9().await;
}

/// Waits until nothing is owed any more.
async fn settle(database: &Database) {
    let end = database.text("select pg_current_wal_lsn()::text").await;
    let query = format!(
        "select (select count(*) from walhook.deliveries where status in ('pending', 'retrying', 'held'))
              + (select count(*) from pg_replication_slots where slot_name = '{}' and confirmed_flush_lsn < '{end}')",
        database.name
    );
    eventually("nothing is owed any more", SETTLING, async || database.number(&query).await == 0).await;
    assert_eq!(
        database.number("select count(*) from walhook.deliveries where status <> 'delivered'").await,
        0
    );
}

/// What was accepted, each delivery once, in the order of arrival.
fn accepted(requests: Vec<Request>) -> Vec<Request> {
    let mut bytes: HashMap<String, bytes::Bytes> = HashMap::new();
    let mut first = Vec::new();
    for request in requests {
        let known = bytes.entry(request.id().to_owned()).or_insert_with(|| request.body.clone());
        assert_eq!(*known, request.body, "{} changed its bytes", request.id());
        if request.accepted {
            first.push(request);
        }
    }
    let mut seen = std::collections::HashSet::new();
    first.retain(|request| seen.insert(request.id().to_owned()));
    first
}

/// Applies in commit order, compares with the server, and checks that every row's events arrived in that order.
async fn judge(database: &Database, requests: Vec<Request>) -> usize {
    let mut arrivals: Vec<(usize, Request)> = accepted(requests).into_iter().enumerate().collect();
    arrivals.sort_by(|one, other| one.1.id().cmp(other.1.id()));
    let mut model = Model::new(&TABLES);
    let mut newest: HashMap<String, &(usize, Request)> = HashMap::new();
    for arrival in &arrivals {
        let (arrived, request) = arrival;
        let Some(row) = model.apply(&request.json()) else { continue };
        if let Some((before, overtaken)) = newest.insert(row.clone(), arrival) {
            assert!(
                before < arrived,
                "in {row}, {} came before {}: {} before {}",
                request.id(),
                overtaken.id(),
                request.json(),
                overtaken.json()
            );
        }
    }
    for table in TABLES {
        model.compare(database, table).await;
    }
    arrivals.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applying_the_events_in_row_order_rebuilds_every_table_through_restarts_and_schema_changes() {
    let _turn = beside_others().await;
    let seed = knob("WALHOOK_SEED", u64::from(std::process::id()));
    let restarts = RESTARTS * knob("WALHOOK_SOAK", 1).max(1);
    println!("WALHOOK_SEED={seed} repeats these statements; {restarts} restarts");
    let mut dice = fastrand::Rng::with_seed(seed);
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    create_tables(&database).await;
    let mut moody = dice.fork();
    for path in ["/rows", "/strict"] {
        let mut dice = moody.fork();
        receiver.script(path, move |_| match dice.u16(0..1000) {
            0..10 => Answer::Status(500),
            10..13 => Answer::Drop,
            13..30 => Answer::Late(Duration::from_millis(dice.u64(1..80)), 200),
            _ => Answer::Status(200),
        });
    }
    let mut sidecar = Sidecar::start(&database, run(&receiver)).await;
    let stop = Arc::<AtomicBool>::default();
    let generator = Generator::new(dice.fork(), &TABLES);
    let writer = background(keep_writing(database.url.clone(), generator, stop.clone()));
    sidecar.kill9().await;
    for _ in 0..restarts {
        one_life(&mut sidecar, &mut dice).await;
        assert!(!writer.is_finished(), "the writer gave up");
    }
    stop.store(true, Ordering::Relaxed);
    let transactions = writer.await.expect("a writer");
    sidecar.restart().await;
    settle(&database).await;

    let strict = receiver.requests("/strict");
    let in_order = accepted(strict.clone());
    let ids: Vec<&str> = in_order.iter().map(Request::id).collect();
    let wrong = ids.windows(2).find(|two| two[0] > two[1]);
    assert_eq!(wrong, None, "strict deliveries out of order");
    let events = judge(&database, strict).await;
    assert_eq!(judge(&database, receiver.requests("/rows")).await, events);
    sidecar.stop().await;
    println!("{transactions} transactions, {events} events, {restarts} restarts");
    assert!(events > 200, "too little was done: {events} events");
}
