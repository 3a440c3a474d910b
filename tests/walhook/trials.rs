//! Test sends count nowhere, are tried once, and arrive at once or not at all.

use serde_json::json;
use walhook::domain::{CommitLsn, Delivery, DeliveryId, Lsn, Operation, Origin, Place};
use walhook::ledger::replay::{Ended, Which, count, left_out};
use walhook::ledger::{states, trigger};

use crate::api::{OPEN, served_by};
use crate::ledger::Desk;
use crate::support::{Answer, Database, PATIENCE, Receiver, Run, beside_others, eventually};

const KEYS: &str =
    "events = [\"orders.*\"]\nretry = { schedule = [\"50ms\", \"50ms\"], jitter = 0 }\nbreaker = false";

#[tokio::test]
async fn a_test_that_is_answered_410_disables_nothing_counts_nowhere_and_is_not_sent_again() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = Run::with(OPEN).webhook("crm", &receiver.url("/crm"), KEYS);
    let (sidecar, operator) = served_by(&database, toml).await;
    // It fails, and is not sent again on the schedule; it is well again, and nobody is told of that either.
    for status in [500, 410, 200] {
        receiver.script("/crm", move |_| Answer::Status(status));
        let told = operator.post("/api/webhooks/crm/test", &json!({})).await.is(200).json();
        assert_eq!(told["http_status"], status, "{told}");
    }
    database.execute("insert into orders values (1, 'a', 1, null)").await;
    let came = receiver.expect("/crm", 4).await;
    assert_eq!(came[3].column("id"), 1, "a webhook that a test was answered 410 by is sent to");
    let rows =
        "select string_agg(status || ' ' || attempts, ', ' order by recorded_at, id) from walhook.deliveries
                where operation = 'test'";
    assert_eq!(database.text(rows).await, "failed 1, failed 1, delivered 1");
    assert_eq!(database.number("select count(*) from walhook.webhook_states").await, 0);
    let reason = "select distinct fail_reason from walhook.deliveries where status = 'failed'";
    assert_eq!(database.text(reason).await, "it was a test, which is tried once");

    eventually("the row is counted", PATIENCE, async || {
        sidecar.page("/metrics").await.contains("walhook_deliveries_delivered_total 1\n")
    })
    .await;
    let metrics = sidecar.page("/metrics").await;
    for line in [
        "walhook_deliveries_failed_total 0\n",
        "walhook_attempts_total{outcome=\"responded\"} 1\n",
        "walhook_attempt_duration_seconds_count 1\n",
        "walhook_delivery_age_seconds_count 1\n",
    ] {
        assert!(metrics.contains(line), "{line} in:\n{metrics}");
    }
    let log = sidecar.log_text();
    for news in ["works again", "gave deliveries up", "attempts of the webhook fail"] {
        assert!(!log.contains(news), "{news}: {log}");
    }

    let counted = operator.post("/api/webhooks/crm/retry", &json!({ "dry_run": true })).await.is(200).json();
    assert_eq!((&counted["count"], &counted["left_out"]), (&json!(0), &json!(0)), "{counted}");
    let failed = "select min(id) from walhook.deliveries where status = 'failed'";
    let path = format!("/api/webhooks/crm/deliveries/{}/retry", database.text(failed).await);
    let refused = operator.post(&path, &json!({})).await.is(409);
    assert!(refused.text().contains("It was a test"), "{}", refused.text());
    assert_eq!(receiver.requests("/crm").len(), 4);
}

#[tokio::test]
async fn a_test_of_a_webhook_that_is_sent_batches_goes_alone_and_counts_nowhere_either() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let keys = format!("{KEYS}\nbatch = {{ max_wait = \"50ms\" }}");
    let toml = Run::with(OPEN).webhook("crm", &receiver.url("/crm"), &keys);
    let (sidecar, operator) = served_by(&database, toml).await;
    for status in [500, 410] {
        receiver.script("/crm", move |_| Answer::Status(status));
        let told = operator.post("/api/webhooks/crm/test", &json!({})).await.is(200).json();
        assert_eq!(told["http_status"], status, "{told}");
    }
    receiver.script("/crm", |_| Answer::Status(200));
    database.execute("insert into orders values (1, 'a', 1, null)").await;
    let came = receiver.expect("/crm", 3).await;
    assert_eq!(
        came[2].json()[0]["data"]["record"]["id"],
        1,
        "a test was sent again, or the webhook is disabled"
    );
    let rows =
        "select string_agg(status || ' ' || attempts, ', ') from walhook.deliveries where operation = 'test'";
    assert_eq!(database.text(rows).await, "failed 1, failed 1");
    assert_eq!(database.number("select count(*) from walhook.webhook_states").await, 0);
    assert!(sidecar.page("/metrics").await.contains("walhook_deliveries_failed_total 0\n"));
}

#[tokio::test]
async fn a_test_is_not_held_by_a_pause_and_sent_some_other_day() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = Run::with(OPEN).webhook("crm", &receiver.url("/crm"), KEYS);
    let (_sidecar, operator) = served_by(&database, toml).await;
    // Tests that wait, as if nobody had come to them yet; one is of long ago.
    let test = |id: &str, due: &str, age: &str| {
        format!(
            "insert into walhook.deliveries (id, event_id, event_type, webhook, lane, status, due_at, committed_at,
                 schema_name, table_name, row_key, operation, content_type, body)
             values ('{id}', 'e', 'orders.created', 'crm', 1, 'pending', {due}, now() - interval '{age}', '', '', '',
                 'test', 'text/plain', 'x')"
        )
    };
    database.execute(&test("dlv_0000old", "'epoch'", "1 hour")).await;
    let late = "select coalesce(max(fail_reason), '') from walhook.deliveries where id = 'dlv_0000old'";
    eventually("nobody waits for it", PATIENCE, async || {
        database.text(late).await.contains("could not be sent while anybody waited")
    })
    .await;
    database.execute(&test("dlv_0000new", "now() + interval '1 hour'", "0")).await;
    operator.post("/api/webhooks/crm/pause", &json!({})).await.is(200);
    let ended = "select coalesce(max(fail_reason), '') from walhook.deliveries where id = 'dlv_0000new'";
    eventually("it has ended", PATIENCE, async || database.text(ended).await.contains("is paused")).await;
    operator.post("/api/webhooks/crm/resume", &json!({})).await.is(200);
    database.execute("insert into orders values (1, 'a', 1, null)").await;
    receiver
        .wait("/crm", "the row", PATIENCE, |all| {
            all.iter().any(|r| r.header("content-type") == "application/json")
        })
        .await;
    assert_eq!(receiver.requests("/crm").len(), 1, "a test was sent");
}

#[tokio::test]
async fn tests_end_where_their_webhook_is_not_sent_to_and_are_never_sent_again() {
    let _turn = beside_others().await;
    let mut desk = Desk::new().await;
    let session = desk.ledger.session("walhook control").await.expect("a session");
    // Its id is below those of all deliveries that changes make.
    let first = Place { origin: Origin { system: 7, generation: 0 }, commit: CommitLsn(Lsn(1)), sequence: 1 };
    let id = DeliveryId::of(&first, "", "crm");
    let test = Delivery { id, operation: Operation::Test, ..desk.delivery(1, 1) };
    trigger::insert(&session.client, &test).await.expect("a row");
    desk.insert(2, 2, walhook::ledger::record::State::Pending, None);
    desk.hear(1).await;
    assert_eq!(trigger::end(&session.client, "other", "no").await.expect("an answer"), 0);
    assert_eq!(trigger::end(&session.client, "crm", "paused").await.expect("an answer"), 1);
    while states::hold(&session.client, "crm").await.expect("held") > 0 {}
    assert_eq!(desk.all().await, ["failed 0", "held 0"]);
    let which = Which { webhook: Some("crm".into()), ended: vec![Ended::Failed], ..Which::default() };
    assert_eq!(count(&session.client, &which).await.expect("a census").count, 0);
    assert_eq!(left_out(&session.client, &which).await.expect("an answer").count, 0);
}
