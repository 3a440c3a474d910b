//! Several deliveries in one request: one signature, one answer, an end for each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;
use walhook::clock::Clock;
use walhook::sign;

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Request, Run, SECRET, Sidecar, beside_others, eventually, witness,
};

const RETRY: &str = "events = [\"orders.*\"]\nretry = { schedule = [\"100ms\", \"100ms\", \"100ms\", \"100ms\", \"100ms\"], jitter = 0 }\nbreaker = false";

/// The elements of a batch, each as it came.
fn elements(request: &Request) -> Vec<Box<RawValue>> {
    serde_json::from_slice(&request.body).expect("an array")
}

fn row_ids(request: &Request) -> Vec<u64> {
    let array = request.json();
    let elements = array.as_array().expect("an array");
    elements.iter().map(|element| element["data"]["record"]["id"].as_u64().expect("a number")).collect()
}

fn taken(requests: &[Request]) -> usize {
    requests.iter().filter(|request| request.accepted).map(|request| elements(request).len()).sum()
}

async fn orders(database: &Database, from: u32, to: u32) {
    let insert = format!("insert into orders select n, 'a', 1, null from generate_series({from}, {to}) n");
    database.execute(&insert).await;
}

fn count(status: &str) -> String {
    format!("select count(*) from walhook.deliveries where status = '{status}'")
}

#[tokio::test]
async fn a_batch_is_an_array_in_commit_order_under_one_signature_and_each_delivery_has_its_own_end() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let keys =
        format!("{RETRY}\nconcurrency = 1\nsignature = \"github\"\nbatch = {{ max_wait = \"500ms\" }}");
    let _sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), &keys)).await;
    orders(&database, 1, 250).await;
    let came = receiver.wait("/crm", "all 250", PATIENCE, |requests| taken(requests) >= 250).await;
    assert!(came.len() < 25, "{} requests for 250 deliveries", came.len());
    let mut all = Vec::new();
    for request in &came {
        let ids = row_ids(request);
        assert!((1..=100).contains(&ids.len()), "{} in a batch", ids.len());
        assert_eq!(request.header("x-webhook-batch"), ids.len().to_string());
        assert_eq!(request.header("x-webhook-event"), "batch");
        assert_eq!(request.header("x-github-event"), "batch");
        assert_eq!(request.header("x-github-delivery"), request.id());
        assert_eq!(request.header("x-webhook-attempt"), "1");
        assert_eq!(request.header("content-type"), "application/json");
        assert!(request.id().starts_with("bat_") && request.id().len() == 36, "{}", request.id());
        let (now, hour) = (Clock::system().unix_seconds(), Duration::from_secs(3600));
        sign::verify(&[SecretString::from(SECRET)], &request.headers, &request.body, now, hour)
            .expect("verifies");
        all.extend(ids);
    }
    assert_eq!(all, (1..=250).collect::<Vec<_>>());
    eventually("250 ends", PATIENCE, async || database.number(&count("delivered")).await == 250).await;
    assert_eq!(database.number("select count(*) from walhook.attempts where number = 1").await, 250);
    // What was sent is what the ledger keeps, byte for byte.
    let first = elements(&came[0]);
    let body = "select convert_from(body, 'UTF8') from walhook.deliveries order by id limit 1";
    assert_eq!(first[0].get(), database.text(body).await);
}

#[tokio::test]
async fn a_batch_is_bounded_by_bytes_and_what_is_larger_goes_alone() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let keys = format!(
        "{RETRY}\nconcurrency = 1\nformat = \"cloudevents\"\n\
                        batch = {{ max_wait = \"500ms\", max_bytes = \"4KiB\" }}"
    );
    let _sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), &keys)).await;
    let insert = "insert into orders select n, case n when 20 then repeat('x', 6000) else 'a' end, 1, null \
                  from generate_series(1, 60) n";
    database.execute(insert).await;
    let came = receiver.wait("/crm", "all 60", PATIENCE, |requests| taken(requests) >= 60).await;
    for request in &came {
        let ids = row_ids(request);
        assert!(request.body.len() <= 4096 || ids == [20], "{} bytes: {ids:?}", request.body.len());
        assert_eq!(request.header("content-type"), "application/cloudevents-batch+json");
        assert_eq!(request.json()[0]["specversion"], "1.0");
    }
    assert!(came.iter().any(|request| row_ids(request).len() >= 4), "no batch of several");
    assert_eq!(came.iter().flat_map(row_ids).collect::<Vec<_>>(), (1..=60).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_alone_waits_for_company_as_long_as_it_may_and_a_full_batch_does_not_wait() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let delivery = "[delivery]\nhandover_after = \"60s\"\n";
    let batch = |wait: &str| {
        format!("events = [\"orders.created\"]\nbatch = {{ max_events = 3, max_wait = \"{wait}\" }}")
    };
    let run = Run::with(delivery)
        .webhook("crm", &receiver.url("/crm"), &batch("1s"))
        .webhook("patient", &receiver.url("/patient"), &batch("30s"))
        .webhook("plain", &receiver.url("/plain"), "events = [\"orders.created\"]");
    let mut sidecar = Sidecar::start(&database, run).await;
    let begun = Instant::now();
    orders(&database, 1, 1).await;
    let came = receiver.expect("/crm", 1).await;
    assert!(came[0].at - begun >= Duration::from_secs(1), "it did not wait");
    assert_eq!(row_ids(&came[0]), [1], "an array of one");
    assert_eq!(receiver.expect("/plain", 1).await[0].column("id"), 1, "no array where none is wanted");
    assert!(receiver.requests("/patient").is_empty(), "it did not wait");
    orders(&database, 2, 3).await;
    let came = receiver.expect("/patient", 1).await;
    assert_eq!(row_ids(&came[0]), [1, 2, 3]);
    // What waits at a stop is in the ledger, and comes from there.
    orders(&database, 4, 4).await;
    receiver.expect("/plain", 4).await;
    sidecar.stop().await;
    sidecar.restart().await;
    assert_eq!(row_ids(&receiver.expect("/patient", 2).await[1]), [4]);
}

#[tokio::test]
async fn whatever_a_receiver_refuses_is_alone_at_last_and_takes_no_other_down() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |request| Answer::Status(if row_ids(request).contains(&13) { 422 } else { 200 }));
    let keys = format!("{RETRY}\nbatch = {{ max_wait = \"500ms\" }}");
    let run = Run::default().webhook("crm", &receiver.url("/crm"), &keys).expecting("gave deliveries up");
    let _sidecar = Sidecar::start(&database, run).await;
    orders(&database, 1, 100).await;
    eventually("99 delivered", PATIENCE, async || database.number(&count("delivered")).await == 99).await;
    eventually("one failed", PATIENCE, async || database.number(&count("failed")).await == 1).await;
    let refused: Vec<_> = receiver.requests("/crm").into_iter().filter(|request| !request.accepted).collect();
    let sizes: Vec<usize> = refused.iter().map(|request| row_ids(request).len()).collect();
    assert_eq!((sizes.len(), sizes.last()), (6, Some(&1)), "{sizes:?}");
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    let attempts: Vec<_> = refused.iter().map(|request| request.header("x-webhook-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3", "4", "5", "6"]);
    let of_13 = "select count(*) from walhook.attempts a join walhook.deliveries d on d.id = a.delivery \
                 where d.status = 'failed' and a.http_status = 422";
    assert_eq!(database.number(of_13).await, 6, "each attempt of its own");
}

/// Requests of batches as requests of their elements, by the elements' ids, for [`witness::judge`]. Of a batch that was
/// refused, only the first of each row counts as sent: those behind it stood behind it. The same batch has the same id.
fn apart(requests: &[Request]) -> Vec<Request> {
    let (mut members, mut bytes) = (BTreeMap::<String, Vec<String>>::new(), HashMap::<String, String>::new());
    let mut apart = Vec::new();
    for request in requests {
        let mut rows = Vec::new();
        let mut ids = Vec::new();
        for element in elements(request) {
            let json: Value = serde_json::from_str(element.get()).expect("JSON");
            let id = json["id"].as_str().expect("an id").to_owned();
            let known = bytes.entry(id.clone()).or_insert_with(|| element.get().to_owned());
            assert_eq!(known, element.get(), "other bytes");
            ids.push(id.clone());
            let mut one = Request { body: element.get().to_owned().into(), ..request.clone() };
            one.headers.insert("webhook-id", id.parse().expect("a header"));
            let row = (json["data"]["table"].clone(), one.column("id"));
            if request.accepted || !rows.contains(&row) {
                apart.push(one);
            }
            rows.push(row);
        }
        assert!(ids.is_sorted(), "not in commit order");
        let known = members.entry(request.id().to_owned()).or_insert_with(|| ids.clone());
        assert_eq!(*known, ids, "another batch under the same id");
    }
    apart
}

async fn through_failures_and_kills(ordering: &str, seed: u64) {
    const TABLES: [&str; 2] = ["apples", "pears"];
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    witness::create_tables(&database, &TABLES).await;
    let (mut dice, mut bad_days) = (fastrand::Rng::with_seed(seed), fastrand::Rng::with_seed(seed + 1));
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    receiver.script("/crm", move |_| match bad_days.u8(0..10) {
        _ if well.load(Ordering::SeqCst) => Answer::Status(200),
        0..2 => Answer::Status(500),
        2 => Answer::Drop,
        3 => Answer::Late(Duration::from_millis(400), 200),
        _ => Answer::Status(200),
    });
    let keys = format!(
        "events = [\"apples.*\", \"pears.*\"]\ntimeout = \"2s\"\nordering = \"{ordering}\"\nbreaker = false\n\
         retry = {{ initial = \"20ms\", factor = 2, max = \"200ms\", max_attempts = 100 }}\n\
         batch = {{ max_events = 20, max_wait = \"20ms\" }}"
    );
    let run = Run::with("[delivery]\nhandover_after = \"200ms\"\n")
        .webhook("crm", &receiver.url("/crm"), &keys)
        .expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    for _ in 0..4 {
        for _ in 0..30 {
            let text: String =
                (0..dice.u8(1..4)).map(|_| witness::transaction(&mut dice, &TABLES, 8)).collect();
            database.execute(&text).await;
        }
        let so_far = receiver.requests("/crm").len();
        receiver.expect("/crm", so_far + 3).await;
        sidecar.kill9().await;
        sidecar.spawn();
        sidecar.ready().await;
    }
    is_well.store(true, Ordering::SeqCst);
    let committed = witness::committed(&database).await;
    let left = "select coalesce(string_agg(concat_ws(' ', id, status, lane, due_at, lease), '; ' order by id), '') \
                from walhook.deliveries where status <> 'delivered'";
    let all = i64::try_from(committed.len()).expect("a number");
    let deadline = Instant::now() + Duration::from_secs(120);
    while database.number(&count("delivered")).await < all {
        assert!(Instant::now() < deadline, "left: {}", database.text(left).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(database.text(left).await, "");
    let requests = receiver.requests("/crm");
    witness::judge(&committed, &apart(&requests));
    assert!(requests.iter().any(|request| elements(request).len() > 3), "no batch to speak of");
    sidecar.stop().await;
}

#[tokio::test]
async fn i7_through_failures_and_kills_every_element_keeps_its_bytes_and_every_row_its_order() {
    let _turn = beside_others().await;
    through_failures_and_kills("row", 3).await;
}

#[tokio::test]
async fn i7_strict_order_holds_in_batches_too() {
    let _turn = beside_others().await;
    through_failures_and_kills("strict", 4).await;
}

#[tokio::test]
async fn i7_a_batch_of_one_row_that_hangs_goes_to_the_ledger_and_comes_back_in_order_after_a_kill() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Hang);
    let keys = format!("{RETRY}\ntimeout = \"60s\"\nbatch = {{ max_events = 10, max_wait = \"1s\" }}");
    let run = Run::with("[delivery]\nhandover_after = \"2s\"\n").webhook("crm", &receiver.url("/crm"), &keys);
    let mut sidecar = Sidecar::start(&database, run).await;
    let updates: Vec<_> = (1..=9).map(|n| format!("update orders set status = 's{n}';")).collect();
    let updates = updates.concat();
    database.execute(&format!("begin; insert into orders values (1, 's0', 1, null); {updates} commit")).await;
    receiver.expect("/crm", 1).await;
    assert_eq!(receiver.requests("/crm")[0].json().as_array().map(Vec::len), Some(10));
    // The slot does not wait for the receiver.
    let leased = "select count(*) from walhook.deliveries where lease is not null";
    eventually("all leased", PATIENCE, async || database.number(leased).await == 10).await;
    database.is_followed().await;
    sidecar.kill9().await;
    receiver.script("/crm", |_| Answer::Status(200));
    sidecar.spawn();
    sidecar.ready().await;
    eventually("all delivered", PATIENCE, async || database.number(&count("delivered")).await == 10).await;
    let came = receiver.requests("/crm");
    let statuses: Vec<String> = came[1..]
        .iter()
        .flat_map(|request| request.json().as_array().cloned().expect("an array"))
        .map(|element| element["data"]["record"]["status"].as_str().expect("text").to_owned())
        .collect();
    assert_eq!(statuses, (0..=9).map(|n| format!("s{n}")).collect::<Vec<_>>());
    let (before, after) = (elements(&came[0]), came[1..].iter().flat_map(elements));
    assert!(
        before.iter().map(|e| e.get()).eq(after.collect::<Vec<_>>().iter().map(|e| e.get())),
        "other bytes"
    );
}

#[tokio::test]
async fn a_row_of_the_database_has_batches_and_410_ends_a_whole_one() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Status(410));
    let run = Run::with("[security]\nallow_http = true\nallow_networks = [\"127.0.0.0/8\"]\n")
        .expecting("gave deliveries up");
    let sidecar = Sidecar::start(&database, run).await;
    let insert = format!(
        "insert into walhook.webhooks (name, url, events, batch) \
         values ('crm', '{}', '{{orders.*}}', '{{\"max_events\": 4, \"max_wait\": \"500ms\"}}')",
        receiver.url("/crm")
    );
    database.execute(&insert).await;
    // The instance knows of it when something comes.
    let mut last = 0;
    eventually("a first batch", PATIENCE, async || {
        last += 4;
        orders(&database, last - 3, last).await;
        !receiver.requests("/crm").is_empty()
    })
    .await;
    let disabled = "select count(*) from walhook.webhook_states where status = 'disabled'";
    eventually("disabled", PATIENCE, async || database.number(disabled).await == 1).await;
    eventually("every one that was sent has failed", PATIENCE, async || {
        let tried: usize = receiver.requests("/crm").iter().map(|request| row_ids(request).len()).sum();
        usize::try_from(database.number(&count("failed")).await) == Ok(tried)
    })
    .await;
    drop(sidecar);
}
