//! Logical messages are events without a table, and no message of anybody's breaks the stream.

use serde_json::{Value, json};

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, eventually, refused, run_once,
};

const PACKED: &str = "[[events]]\ntype = \"order.packed\"\non = [\"message\"]\n";

async fn emit(database: &Database, prefix: &str, content: &str) {
    let query = "select pg_logical_emit_message(true, $1, $2::text)";
    database.rows(query, &[&prefix, &content]).await;
}

#[tokio::test]
async fn a_transactional_message_arrives_as_documented_and_its_place_counts_like_a_rows() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::with(PACKED)
        .webhook("crm", &receiver.url("/crm"), "events = [\"order.packed\", \"orders.created\"]")
        .webhook("cloud", &receiver.url("/cloud"), "events = [\"order.packed\"]\nformat = \"cloudevents\"")
        .webhook("sequin", &receiver.url("/sequin"), "events = [\"order.packed\"]\nformat = \"sequin\"")
        .webhook("supa", &receiver.url("/supa"), "events = [\"order.packed\"]\nformat = \"supabase\"");
    let mut sidecar = Sidecar::start(&database, run).await;

    database
        .execute(
            "begin;
             insert into orders values (1, 'paid', 1, null);
             select pg_logical_emit_message(true, 'another extension', 'x');
             select pg_logical_emit_message(true, 'walhook:order.packed', '{\"id\": 7, \"n\": 1.10}');
             insert into orders values (2, 'paid', 1, null);
             commit;",
        )
        .await;
    let requests = receiver.expect("/crm", 3).await;
    let find = |event: &str, sequence: u64| {
        let found = requests.iter().find(|r| {
            r.header("x-webhook-event") == event && r.json()["metadata"]["sequence"] == json!(sequence)
        });
        found.unwrap_or_else(|| panic!("no {event} at {sequence}")).clone()
    };
    find("orders.created", 1);
    find("orders.created", 4);
    let packed = find("order.packed", 3);
    assert_eq!(
        packed.json()["data"],
        json!({
            "operation": "message", "schema": null, "table": null, "record": { "id": 7, "n": 1.10 },
            "old": null, "changed": null, "unavailable": [],
        })
    );
    assert!(std::str::from_utf8(&packed.body).expect("text").contains(r#"{"id": 7, "n": 1.10}"#));
    let cloud = receiver.expect("/cloud", 1).await[0].json();
    assert_eq!((&cloud["type"], cloud.get("subject")), (&json!("order.packed"), None));
    let sequin = receiver.expect("/sequin", 1).await[0].json();
    assert_eq!((&sequin["action"], &sequin["metadata"]["table_name"]), (&json!("message"), &Value::Null));
    let supa = receiver.expect("/supa", 1).await[0].json();
    assert_eq!((&supa["type"], &supa["record"]["id"]), (&json!("MESSAGE"), &json!(7)));
    sidecar.stop().await;
}

#[tokio::test]
async fn filters_see_a_messages_payload_as_record_and_messages_of_one_key_keep_their_order() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    receiver.script("/all", |request| {
        let first_of_a = request.json()["data"]["record"]["n"] == 1;
        Answer::Status(if first_of_a && request.nth <= 3 { 500 } else { 200 })
    });
    let quick = "retry = { schedule = [\"150ms\", \"150ms\", \"150ms\"], jitter = 0 }";
    let run = Run::default()
        .webhook("all", &receiver.url("/all"), &format!("events = [\"step.*\"]\n{quick}"))
        .webhook(
            "big",
            &receiver.url("/big"),
            "events = [\"step.*\"]\nfilter = \"record.n > 2 && operation == 'message' && type == 'step.b'\"",
        );
    let _sidecar = Sidecar::start(&database, run).await;

    for (prefix, n, key) in
        [("walhook:step.a", 1, "a"), ("walhook:step.b", 2, "a"), ("walhook:step.b", 3, "b")]
    {
        emit(&database, prefix, &json!({ "key": key, "n": n }).to_string()).await;
    }
    let came = receiver
        .wait("/all", "all three", PATIENCE, |rs| rs.iter().filter(|r| r.accepted).count() == 3)
        .await;
    let accepted: Vec<Value> =
        came.iter().filter(|r| r.accepted).map(|r| r.json()["data"]["record"]["n"].clone()).collect();
    assert_eq!(accepted, [3, 1, 2], "the other key goes on, the same key waits");
    let big = receiver.expect("/big", 1).await;
    assert_eq!((big.len(), &big[0].json()["data"]["record"]["n"]), (1, &json!(3)));
    let keys = "select string_agg(row_key, ',' order by id) from walhook.deliveries where webhook = 'all'";
    eventually("three rows", PATIENCE, async || {
        database.text(&format!("select coalesce(({keys}), '')")).await == "a,a,b"
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_not_transactional_or_rolled_back_or_of_another_prefix_is_no_event() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"*\"]")
        .expecting("it is not transactional");
    let sidecar = Sidecar::start(&database, run).await;

    database.execute("select pg_logical_emit_message(false, 'walhook:a', '{}')").await;
    database
        .execute(
            "begin;
             select pg_logical_emit_message(false, 'walhook:b', '{}');
             select pg_logical_emit_message(true, 'walhook:c', '{}');
             select pg_logical_emit_message(false, 'theirs', '{}');
             rollback",
        )
        .await;
    for prefix in ["walhook", "", "walhook.mark", "walhook_x:y", "WALHOOK:x"] {
        emit(&database, prefix, "{}").await;
    }
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    let requests = receiver.expect("/crm", 1).await;
    let types: Vec<&str> = requests.iter().map(|r| r.header("x-webhook-event")).collect();
    assert_eq!(types, ["orders.created"]);
    let page = sidecar.page("/metrics").await;
    assert!(page.contains("walhook_messages_ignored_total 2"), "{page}");
}

#[tokio::test]
async fn megabytes_of_messages_that_are_no_events_do_not_hold_up_the_rows_after_them() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"*\"]")
        .expecting("it is not transactional");
    let mut sidecar = Sidecar::start(&database, run).await;

    for (id, prefix) in [(1, "other"), (2, "walhook:order.packed")] {
        for (count, bytes) in [(20, 300_000), (20_000, 200)] {
            let many = format!(
                "select pg_logical_emit_message(false, '{prefix}', repeat('x', {bytes})) from generate_series(1, {count})"
            );
            database.execute(&many).await;
        }
        database.execute(&format!("insert into orders values ({id}, 'paid', 1, null)")).await;
        receiver.expect("/crm", id).await;
    }
    // Within a transaction too, where only some of it is an event.
    database
        .execute(
            "begin; insert into orders values (3, 'paid', 1, null);
             select pg_logical_emit_message(true, 'other', repeat('x', 300000)) from generate_series(1, 20);
             insert into orders values (4, 'paid', 1, null); commit",
        )
        .await;
    receiver.expect("/crm", 4).await;
    database.is_followed().await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_bad_message_becomes_a_failed_delivery_with_its_reason_and_the_stream_goes_on() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    let run = Run::default()
        .webhook("crm", &receiver.url("/crm"), "events = [\"*\"]\nfilter = \"has(record.id)\"")
        .expecting("gave deliveries up")
        .expecting("a condition cannot be answered");
    let mut sidecar = Sidecar::start(&database, run).await;

    emit(&database, "walhook:a", "{").await;
    emit(&database, "walhook:b", "").await;
    database.execute(r"select pg_logical_emit_message(true, 'walhook:c', '\x22ff22'::bytea)").await;
    emit(&database, "walhook:no type at all", "{\"id\": 1}").await;
    emit(&database, &format!("walhook:{}", "x".repeat(100_000)), "{\"id\": 1}").await;
    // Over the limit of a frame: the content, then the prefix itself.
    database
        .execute("select pg_logical_emit_message(true, 'walhook:d', to_json(repeat('x', 17000000))::text)")
        .await;
    database
        .execute("select pg_logical_emit_message(true, 'walhook:' || repeat('y', 17000000), '{\"id\": 1}')")
        .await;
    database
        .execute("select pg_logical_emit_message(false, 'walhook:' || repeat('y', 17000000), '{}')")
        .await;
    // Over the limit of a body, and JSON that no number or string can hold.
    emit(&database, "walhook:e", &json!({ "id": "x".repeat(2_000_000) }).to_string()).await;
    emit(&database, "walhook:f", "{\"id\": 1e999999, \"s\": \"\\ud800\"}").await;
    emit(&database, "walhook:last", "{\"id\": 1}").await;

    receiver
        .wait("/crm", "the last", PATIENCE, |rs| {
            rs.iter().any(|r| {
                r.header("x-webhook-event") == "walhook:last" || r.header("x-webhook-event") == "last"
            })
        })
        .await;
    let failed = "select event_type, operation, fail_reason from walhook.deliveries where status = 'failed' order by id";
    eventually("the dead letters", PATIENCE, async || database.rows(failed, &[]).await.len() == 7).await;
    let rows = database.rows(failed, &[]).await;
    let told: Vec<(String, String)> = rows.iter().map(|r| (r.get(0), r.get(2))).collect();
    let expect = [
        ("a", "no JSON"),
        ("b", "empty"),
        ("c", "not UTF-8"),
        ("no type at all", "no event type"),
        ("xxx", "no event type"),
        ("d", "more than the"),
        ("e", "over"),
    ];
    for ((event_type, reason), (wanted, part)) in told.iter().zip(expect) {
        assert!(event_type.starts_with(wanted) && reason.contains(part), "{event_type}: {reason}");
    }
    assert!(rows.iter().all(|row| row.get::<_, String>(1) == "message"));
    sidecar.stop().await;
}

#[tokio::test]
async fn i2_messages_and_rows_keep_their_ids_when_the_log_is_read_again() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Hang);
    let keys = "events = [\"*\"]\ntimeout = \"60s\"";
    let run = Run::default().webhook("crm", &receiver.url("/crm"), keys).expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    database
        .execute(
            "begin; select pg_logical_emit_message(true, 'walhook:a', '{}');
             select pg_logical_emit_message(true, 'other', '{}');
             insert into orders values (1, 'paid', 1, null); commit;",
        )
        .await;
    let ids = |requests: &[Request]| {
        let mut ids: Vec<String> = requests.iter().map(|r| r.id().to_owned()).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    let before = ids(&receiver.expect("/crm", 2).await);
    sidecar.kill9().await;
    receiver.script("/crm", |_| Answer::Status(200));
    sidecar.spawn();
    let after = receiver
        .wait("/crm", "both again", std::time::Duration::from_secs(90), |rs| {
            rs.iter().filter(|r| r.accepted).count() >= 2
        })
        .await;
    assert_eq!(ids(&after), before);
}

#[tokio::test]
async fn a_message_type_named_without_a_star_is_declared_or_refused_with_the_remedy() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let file = |declared: &str| {
        format!(
            "[database]\nurl = \"{}\"\nslot = \"{}\"\n[server]\nlisten = \"127.0.0.1:0\"\n{declared}\n[[webhooks]]\n\
             name = \"crm\"\nurl = \"{}\"\nevents = [\"order.packed\"]\n",
            database.url,
            database.name,
            receiver.url("/crm")
        )
    };
    let (code, said) = refused(&file("")).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("[[events]] type = \"order.packed\" on = [\"message\"]"), "{said}");
    for (wrong, part) in [
        ("[[events]]\ntype = \"a\"\non = [\"message\", \"insert\"]\ntable = \"orders\"", "stands alone"),
        ("[[events]]\ntype = \"a\"\non = [\"message\"]\nwhen = \"record.a\"", "filter"),
        ("[[events]]\ntype = \"a\"\non = [\"message\"]\ntable = \"orders\"", "Leave the key out"),
    ] {
        let (code, said) = refused(&file(&format!("{PACKED}{wrong}"))).await;
        assert!(code != Some(0) && said.contains(part), "{wrong}: {said}");
    }
}

#[tokio::test]
async fn trigger_sends_a_sample_of_a_declared_message_type() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    let run = Run::with(PACKED).webhook("crm", &receiver.url("/crm"), "events = [\"order.packed\"]");
    let sidecar = Sidecar::start(&database, run).await;
    let file = sidecar.file();
    let path = file.to_str().expect("a plain path");
    let done = run_once(&["trigger", "crm", "order.packed", "--config", path], &[]).await;
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let request = &receiver.expect("/crm", 1).await[0];
    assert_eq!(
        request.json()["data"],
        json!({
            "operation": "test", "schema": null, "table": null, "record": { "sample": true },
            "old": null, "changed": null, "unavailable": [],
        })
    );
}
