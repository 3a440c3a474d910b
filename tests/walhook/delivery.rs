//! A committed change reaches the receiver as documented: headers, body, signature, attempts.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::backfill::done;
use crate::support::{
    Answer, Database, PATIENCE, Receiver, Request, Run, SECRET, Sidecar, beside_others, eventually,
};

const QUICK: &str =
    "events = [\"orders.*\"]\nretry = { schedule = [\"100ms\", \"100ms\", \"100ms\"], jitter = 0 }";

#[expect(clippy::disallowed_methods, reason = "compared with the machine's own clock")]
fn check_headers(request: &Request, event: &str, attempt: &str) {
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("user-agent"), concat!("walhook/", env!("CARGO_PKG_VERSION")));
    let id = request.header("webhook-id");
    assert!(!id.is_empty() && id.len() <= 40, "{id}");
    assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{id}");
    let sent: i64 = request.header("webhook-timestamp").parse().expect("Unix seconds");
    assert!((jiff::Timestamp::now().as_second() - sent).abs() < 60, "{sent}");
    assert_eq!(request.header("x-webhook-id"), id);
    assert_eq!(request.header("x-webhook-event"), event);
    assert_eq!(request.header("x-webhook-timestamp"), request.header("webhook-timestamp"));
    assert_eq!(request.header("x-webhook-attempt"), attempt);
    let standard = standardwebhooks::Webhook::new(SECRET).expect("a secret");
    standard.verify(&request.body, &request.headers).expect("a signature that verifies");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key of any length");
    mac.update(&request.body);
    let plain = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    assert_eq!(request.header("x-webhook-signature"), plain);
}

/// The body with what differs from run to run checked and taken out.
fn settled(request: &Request, database: &str) -> Value {
    let mut body = request.json();
    let id = body["id"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("evt_") && id.len() <= 40, "{id}");
    let committed: jiff::Timestamp = body["timestamp"].as_str().expect("a time").parse().expect("ISO 8601");
    assert!(committed.as_second() > 1_700_000_000);
    assert!(body["timestamp"].as_str().expect("a time").ends_with('Z'));
    let metadata = body["metadata"].as_object_mut().expect("metadata");
    let lsn = metadata.remove("lsn").expect("an LSN");
    assert!(lsn.as_str().expect("text").contains('/'), "{lsn}");
    assert!(metadata.remove("xid").expect("a transaction id").as_u64().expect("a number") > 0);
    assert_eq!(metadata.remove("database").expect("a name"), json!(database));
    body.as_object_mut().expect("an object").retain(|key, _| key != "id" && key != "timestamp");
    body
}

#[tokio::test]
async fn an_insert_an_update_and_a_delete_arrive_as_documented() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default().webhook("crm", &receiver.url("/crm"), QUICK);
    let _sidecar = Sidecar::start(&database, run).await;

    database.execute("insert into orders values (7, 'paid', 12.50, null)").await;
    database.execute("update orders set status = 'shipped' where id = 7").await;
    database.execute("delete from orders where id = 7").await;
    let requests = receiver.expect("/crm", 3).await;

    let types = ["orders.created", "orders.updated", "orders.deleted"];
    for (request, event) in requests.iter().zip(types) {
        check_headers(request, event, "1");
    }
    let bodies: Vec<Value> = requests.iter().map(|request| settled(request, &database.name)).collect();
    let row = |status: &str| json!({ "id": 7, "status": status, "total": "12.50", "note": null });
    let expect = |event: &str, operation: &str, record: Value, old: Value| {
        json!({
            "type": event,
            "data": {
                "operation": operation, "schema": "public", "table": "orders",
                "record": record, "old": old, "changed": null, "unavailable": [],
            },
            "metadata": { "sequence": 1, "webhook": "crm" },
        })
    };
    assert_eq!(bodies[0], expect("orders.created", "insert", row("paid"), Value::Null));
    assert_eq!(bodies[1], expect("orders.updated", "update", row("shipped"), Value::Null));
    assert_eq!(bodies[2], expect("orders.deleted", "delete", Value::Null, json!({ "id": 7 })));
    let ids: Vec<&str> = requests.iter().map(Request::id).collect();
    assert!(ids.is_sorted() && ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

#[tokio::test]
async fn a_full_replica_identity_tells_the_old_row_and_what_changed() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    database.execute("alter table orders replica identity full").await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"orders.updated\"]");
    let _sidecar = Sidecar::start(&database, run).await;

    database.execute("insert into orders values (1, 'paid', 1.10, null)").await;
    database.execute("update orders set status = 'shipped', note = 'fragile' where id = 1").await;
    let data = receiver.expect("/crm", 1).await[0].json()["data"].clone();
    assert_eq!(data["old"], json!({ "id": 1, "status": "paid", "total": "1.10", "note": null }));
    assert_eq!(data["changed"], json!(["status", "note"]));
}

#[tokio::test]
async fn i4_a_failed_attempt_is_retried_with_the_same_id_and_bytes_until_it_is_delivered() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.answers("/crm", &[Answer::Status(500), Answer::Drop]);
    let run = Run::default().webhook("crm", &receiver.url("/crm"), QUICK);
    let _sidecar = Sidecar::start(&database, run).await;

    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    let requests = receiver.expect("/crm", 3).await;
    for (request, attempt) in requests.iter().zip(["1", "2", "3"]) {
        check_headers(request, "orders.created", attempt);
        assert_eq!((request.id(), &request.body), (requests[0].id(), &requests[0].body));
        let sent =
            |request: &Request| request.header("webhook-timestamp").parse::<i64>().expect("Unix seconds");
        assert!(sent(request) >= sent(&requests[0]), "an attempt has its own time");
    }
    let query = "select count(*) from walhook.deliveries where status = 'delivered' and attempts = 3";
    eventually("a delivered row", PATIENCE, async || database.number(query).await == 1).await;
    let attempts = "select count(*) from walhook.attempts";
    eventually("its three attempts", PATIENCE, async || database.number(attempts).await == 3).await;
    assert_eq!(receiver.requests("/crm").len(), 3);
}

#[tokio::test]
async fn i8_a_receiver_that_only_fails_leaves_a_dead_letter_and_further_rows_go_on() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |request| {
        if request.column("id") == 1 { Answer::Status(302) } else { Answer::Status(204) }
    });
    let run = Run::default().webhook("crm", &receiver.url("/crm"), QUICK).expecting("gave deliveries up");
    let _sidecar = Sidecar::start(&database, run).await;

    database
        .execute(
            "insert into orders values (1, 'paid', 1, null); insert into orders values (2, 'paid', 1, null)",
        )
        .await;
    let failed = "select count(*) from walhook.deliveries where status = 'failed' and attempts = 4";
    eventually("a dead letter", PATIENCE, async || database.number(failed).await == 1).await;
    let row = database.text("select row_key from walhook.deliveries where status = 'delivered'").await;
    assert!(row.contains('2'), "{row}");
    assert_eq!(receiver.requests("/crm").iter().filter(|request| request.column("id") == 1).count(), 4);
}

#[tokio::test]
async fn retry_after_lengthens_a_wait_and_a_give_up_status_ends_the_delivery() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.answers("/slow", &[Answer::With(503, "retry-after", "2".to_owned())]);
    receiver.answers("/no", &[Answer::Status(422)]);
    let keys = "events = [\"orders.*\"]\nretry = { schedule = [\"50ms\"], jitter = 0, give_up_on = [422] }";
    let run = Run::default().webhook("slow", &receiver.url("/slow"), keys).webhook(
        "no",
        &receiver.url("/no"),
        keys,
    );
    let _sidecar = Sidecar::start(&database, run.expecting("gave deliveries up")).await;

    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    let slow = receiver.expect("/slow", 2).await;
    let waited = slow[1].at.duration_since(slow[0].at);
    assert!(waited.as_millis() >= 1900, "{waited:?}");
    let failed = "select count(*) from walhook.deliveries where webhook = 'no' and status = 'failed'";
    eventually("a dead letter", PATIENCE, async || database.number(failed).await == 1).await;
    assert_eq!(receiver.requests("/no").len(), 1);
}

#[tokio::test]
async fn a_hanging_receiver_costs_an_attempt_its_timeout() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.answers("/crm", &[Answer::Hang]);
    let keys = format!("{QUICK}\ntimeout = \"500ms\"");
    let _sidecar =
        Sidecar::start(&database, Run::default().webhook("crm", &receiver.url("/crm"), &keys)).await;

    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    let requests = receiver.expect("/crm", 2).await;
    let between = requests[1].at.duration_since(requests[0].at).as_millis();
    assert!((500..5000).contains(&between), "{between} ms");
}

#[tokio::test]
async fn filters_prefixes_masks_named_events_and_templates_do_what_the_file_says() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    database.execute("alter table orders replica identity full").await;
    let toml = r#"
[tables.orders]
event = "order"
exclude = ["note"]
mask = { status = "redact" }

[[events]]
type = "order.grew"
table = "orders"
on = ["update"]
when = "record.total > old.total"

[templates.line]
content_type = "text/plain"
body = "order {{data.record.id}} costs {{data.record.total}}"
"#;
    let run = Run::with(toml)
        .webhook(
            "big",
            &receiver.url("/big"),
            "events = [\"order.created\"]\nfilter = \"record.total > 100\"",
        )
        .webhook("grew", &receiver.url("/grew"), "events = [\"order.grew\"]\ntemplate = \"line\"");
    let _sidecar = Sidecar::start(&database, run).await;

    database.execute("insert into orders values (1, 'paid', 99, 'x')").await;
    database.execute("insert into orders values (2, 'paid', 101, 'x')").await;
    database.execute("update orders set total = 50 where id = 2").await;
    database.execute("update orders set total = 60 where id = 2").await;
    let big = receiver.expect("/big", 1).await;
    assert_eq!(
        big[0].json()["data"]["record"],
        json!({ "id": 2, "status": "[redacted]", "total": "101.00" })
    );
    let grew = receiver.expect("/grew", 1).await;
    assert_eq!(grew[0].body, "order 2 costs 60.00");
    assert_eq!(grew[0].header("content-type"), "text/plain");
    assert_eq!((receiver.requests("/big").len(), receiver.requests("/grew").len()), (1, 1));
}

#[tokio::test]
async fn its_pages_say_that_it_lives_and_streams_and_what_it_counts() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    // A condition over a value that is null cannot be answered.
    let odd = "events = [\"orders.*\"]\nfilter = \"record.note.size() > 1\"";
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), QUICK)
        .webhook("erp", &receiver.url("/erp"), QUICK)
        .webhook("odd", &receiver.url("/odd"), odd)
        .webhook("ops", &receiver.url("/ops"), "events = [\"webhook.*\"]")
        .expecting("a condition cannot be answered");
    let mut sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders select i, 'paid', 1, null from generate_series(1, 3) i").await;
    receiver.expect("/crm", 3).await;
    receiver.expect("/erp", 3).await;
    done(&sidecar, &["backfill", "erp", "--table", "orders"]).await;
    receiver.expect("/erp", 6).await;
    done(&sidecar, &["disable", "crm"]).await;
    receiver.expect("/ops", 1).await;
    database.is_followed().await;
    sidecar.page("/healthz").await;
    for last in ["memory_young_bytes 0", "deliveries_delivered_total 10"] {
        let line = format!("\nwalhook_{last}\n");
        eventually(last, PATIENCE, async || sidecar.page("/metrics").await.contains(&line)).await;
    }
    let metrics = sidecar.page("/metrics").await;
    assert!(metrics.contains("# HELP walhook_"), "{metrics}");
    for (name, count) in [
        ("source_changes_total", 3),
        ("events_total", 6),
        ("conditions_errors_total", 3),
        ("backfills_deliveries_total", 3),
        ("notices_total", 1),
        ("deliveries_failed_total", 0),
        ("notices_left_out_total", 0),
    ] {
        let line = format!("\nwalhook_{name} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    for name in ["source_transactions_total", "ledger_rows_total"] {
        let value = metrics.lines().find_map(|line| line.strip_prefix(&format!("walhook_{name} ")));
        assert!(
            value.is_some_and(|value| value.parse::<u64>().is_ok_and(|count| count > 0)),
            "{name}: {metrics}"
        );
    }
    sidecar.stop().await;
}
