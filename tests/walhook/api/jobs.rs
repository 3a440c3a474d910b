//! Retries and backfills over the API; a webhook's numbers and its new secret.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ADMIN, Client, OPEN, key, served_by};
use crate::support::{Answer as Reply, Database, PATIENCE, Receiver, Run, beside_others, eventually};

fn webhook(receiver: &Receiver, name: &str) -> Value {
    json!({
        "name": name, "url": receiver.url(&format!("/{name}")), "events": ["orders.*"],
        "retry": { "schedule": ["10ms"], "jitter": 0 }, "breaker": false,
    })
}

/// Waits until a job is over; answers how it stands.
async fn over(client: &Client, path: &str) -> Value {
    eventually("the job is over", PATIENCE, async || {
        !client.get(path).await.is(200).json()["finished_at"].is_null()
    })
    .await;
    client.get(path).await.is(200).json()
}

/// How often each change of the table came.
fn requests_by_id(receiver: &Receiver) -> HashMap<String, usize> {
    let mut by_id = HashMap::new();
    for request in receiver.requests("/crm") {
        if request.json()["data"]["operation"] == "insert" {
            *by_id.entry(request.id().to_owned()).or_default() += 1;
        }
    }
    by_id
}

const FAILED: &str = "select count(*) from walhook.deliveries where webhook = 'crm' and status = 'failed'";
const DELIVERED: &str = "select count(*) from walhook.deliveries where webhook = 'crm' and status = 'delivered' and operation = 'insert'";

#[tokio::test]
async fn dead_letters_are_counted_and_sent_again_by_a_job_that_outlives_a_restart() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Reply::Status(503));
    let (mut sidecar, operator) = served_by(&database, Run::with(OPEN).expecting("gave deliveries up")).await;
    operator.post("/api/webhooks", &webhook(&receiver, "crm")).await.is(201);
    eventually("it is heard", PATIENCE, async || {
        operator.post("/api/webhooks/crm/test", &json!({})).await.status == 200
    })
    .await;
    database.execute("insert into orders select n, 'paid', n, null from generate_series(1, 40) n").await;
    eventually("dead letters", PATIENCE, async || database.number(FAILED).await >= 41).await;

    let count = json!({ "dry_run": true, "event": "orders.created", "error": "5xx" });
    let counted = operator.post("/api/webhooks/crm/retry", &count).await.is(200).json();
    assert_eq!((&counted["count"], &counted["left_out"]), (&json!(40), &json!(0)), "{counted}");
    let none = json!({ "dry_run": true, "status": ["delivered"], "until": "2000-01-01T00:00:00Z" });
    assert_eq!(operator.post("/api/webhooks/crm/retry", &none).await.is(200).json()["count"], 0);
    assert_eq!(database.number("select count(*) from walhook.retries").await, 0, "counting asks for nothing");

    receiver.script("/crm", |_| Reply::Status(200));
    let before = requests_by_id(&receiver);
    let slow = json!({ "per_second": 5, "event": "orders.created" });
    let begun = tokio::time::Instant::now();
    let made = operator.post("/api/webhooks/crm/retry", &slow).await.is(202).json();
    let path = format!("/api/webhooks/crm/retry/{}", made["id"]);
    eventually("a step", PATIENCE, async || operator.get(&path).await.is(200).json()["sent"] != 0).await;
    sidecar.restart().await;
    let operator = Client::of(&sidecar, ADMIN);
    let done = over(&operator, &path).await;
    // Eight steps, a second between two of them; the restart may have made one of these shorter.
    assert!(begun.elapsed() >= Duration::from_secs(6), "too fast: {:?}", begun.elapsed());
    assert_eq!((&done["status"], &done["found"], &done["sent"]), (&json!("done"), &json!(40), &json!(40)));
    eventually("all arrive", PATIENCE, async || database.number(DELIVERED).await == 40).await;
    let after = requests_by_id(&receiver);
    assert_eq!(before.len(), 40);
    let twice: Vec<_> = before.iter().filter(|(id, count)| after[*id] > *count + 2).collect();
    assert!(twice.is_empty(), "sent again more than once, but for what the kill had in flight: {twice:?}");
    let once_more = before.iter().filter(|(id, count)| after[*id] == *count + 1).count();
    assert!(once_more >= 40 - 16, "{once_more} came once more");
    assert!(before.iter().all(|(id, count)| after[id] > *count), "some never came again");
}

#[tokio::test]
async fn a_retry_that_is_ended_by_hand_sends_no_more() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let (_sidecar, operator) = served_by(&database, Run::with(OPEN)).await;
    operator.post("/api/webhooks", &webhook(&receiver, "crm")).await.is(201);
    eventually("it is heard", PATIENCE, async || {
        operator.post("/api/webhooks/crm/test", &json!({})).await.status == 200
    })
    .await;
    database.execute("insert into orders select n, 'paid', n, null from generate_series(1, 20) n").await;
    eventually("all arrive", PATIENCE, async || database.number(DELIVERED).await == 20).await;
    let after = requests_by_id(&receiver);
    let again = json!({ "status": "delivered", "per_second": 1, "event": "orders.created" });
    let made = operator.post("/api/webhooks/crm/retry", &again).await.is(202).json();
    let path = format!("/api/webhooks/crm/retry/{}", made["id"]);
    eventually("a step", PATIENCE, async || operator.get(&path).await.is(200).json()["sent"] != 0).await;
    let ended = operator.ask("POST", &format!("{path}/cancel"), &[], "").await.is(200).json();
    assert_eq!(ended["status"], "cancelled");
    let sent = usize::try_from(ended["sent"].as_u64().unwrap()).unwrap();
    let total = |of: &HashMap<String, usize>| of.values().sum::<usize>();
    eventually("what was sent arrives", PATIENCE, async || {
        total(&requests_by_id(&receiver)) == total(&after) + sent
    })
    .await;
    // Two more steps would have been made by now, were it not over.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(total(&requests_by_id(&receiver)), total(&after) + sent, "it goes on");
    assert_eq!(operator.get(&path).await.is(200).json()["sent"], ended["sent"]);
    assert_eq!(operator.ask("POST", &format!("{path}/cancel"), &[], "").await.is(409).kind(), "state");
    let listed = operator.get("/api/webhooks/crm/retry?limit=1").await.is(200).json();
    assert_eq!((&listed["data"][0]["id"], listed["next_cursor"].is_string()), (&made["id"], false));
    let actions = "select string_agg(action, ' ' order by id) from walhook.audit where action like 'retry.%'";
    assert_eq!(database.text(actions).await, "retry.create retry.cancel");

    for (wrong, places) in [
        (json!({ "status": "held" }), vec!["/status"]),
        (
            json!({ "status": [], "per_second": 0, "since": "soon", "rate": 1 }),
            vec!["/status", "/since", "/per_second", "/rate"],
        ),
        (json!({ "error": "tls" }), vec!["/error"]),
        (json!({ "dry_run": "yes" }), vec!["/dry_run"]),
    ] {
        assert_eq!(operator.post("/api/webhooks/crm/retry", &wrong).await.is(422).wrong(), places);
    }
    operator.post("/api/webhooks/nosuch/retry", &json!({})).await.is(404);
    for list in ["retry", "backfill"] {
        operator.get(&format!("/api/webhooks/nosuch/{list}")).await.is(404);
    }
    for nosuch in ["999", "x", "99999999999999999999"] {
        operator.get(&format!("/api/webhooks/crm/retry/{nosuch}")).await.is(404);
    }
    let (_, reader) = key(&operator, &["webhook:read"]).await;
    operator.with_key(Some(&reader)).post("/api/webhooks/crm/retry", &json!({})).await.is(403);
}

#[tokio::test]
async fn existing_rows_are_delivered_by_a_job_that_can_be_paused_resumed_and_ended() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    database.execute("insert into orders select n, 'paid', n, null from generate_series(1, 30) n").await;
    let (_sidecar, operator) = served_by(&database, Run::with(OPEN)).await;
    operator.post("/api/webhooks", &webhook(&receiver, "crm")).await.is(201);
    eventually("it is heard", PATIENCE, async || {
        operator.post("/api/webhooks/crm/test", &json!({})).await.status == 200
    })
    .await;

    let slow = json!({ "table": "orders", "rows_per_second": 1, "condition": "id <= 20" });
    let made = operator.post("/api/webhooks/crm/backfill", &slow).await.is(202).json();
    let path = format!("/api/webhooks/crm/backfill/{}", made["id"]);
    let steer = async |verb: &str| operator.ask("POST", &format!("{path}/{verb}"), &[], "").await;
    assert_eq!(steer("pause").await.is(200).json()["status"], "paused");
    assert_eq!(steer("pause").await.is(409).kind(), "state");
    assert_eq!(steer("resume").await.is(200).json()["status"], "pending");
    assert_eq!(steer("cancel").await.is(200).json()["status"], "cancelled");
    let quick = json!({ "table": "orders", "condition": "id > 20" });
    let made = operator.post("/api/webhooks/crm/backfill", &quick).await.is(202).json();
    let done = over(&operator, &format!("/api/webhooks/crm/backfill/{}", made["id"])).await;
    assert_eq!((&done["status"], &done["rows_done"]), (&json!("done"), &json!(10)), "{done}");
    receiver
        .wait("/crm", "the rows", PATIENCE, |all| {
            all.iter()
                .filter(|r| {
                    r.json()["data"]["operation"] == "snapshot"
                        && r.json()["data"]["record"]["id"].as_i64() > Some(20)
                })
                .count()
                == 10
        })
        .await;
    let listed = operator.get("/api/webhooks/crm/backfill").await.is(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let actions =
        "select string_agg(action, ' ' order by id) from walhook.audit where action like 'backfill.%'";
    let expect = "backfill.create backfill.pause backfill.resume backfill.cancel backfill.create";
    assert_eq!(database.text(actions).await, expect);

    let refused =
        async |document: Value| operator.post("/api/webhooks/crm/backfill", &document).await.is(422).wrong();
    assert_eq!(refused(json!({})).await, ["/table"]);
    assert_eq!(refused(json!({ "table": "nosuch" })).await, ["/table"]);
    assert_eq!(refused(json!({ "table": "orders", "condition": "1 = 1) or (true" })).await, ["/condition"]);
    assert_eq!(
        refused(json!({ "table": 1, "since": "x", "rows_per_second": 0 })).await,
        ["/table", "/since", "/rows_per_second"]
    );
    operator.post("/api/webhooks/nosuch/backfill", &quick).await.is(404);
    operator.get(&path.replace("/crm/", "/other/")).await.is(404);
    // What the database runs is for whoever may do everything.
    let (_, writer) = key(&operator, &["webhook:write"]).await;
    operator.with_key(Some(&writer)).post("/api/webhooks/crm/backfill", &quick).await.is(403);
}

#[tokio::test]
async fn a_webhooks_numbers_are_read_and_its_secret_is_replaced() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = format!(
        "{OPEN}[[webhooks]]\nname = \"filed\"\nurl = \"{}\"\nevents = [\"x*\"]\n",
        receiver.url("/filed")
    );
    let (_sidecar, operator) = served_by(&database, Run::with(toml)).await;
    let made = operator.post("/api/webhooks", &webhook(&receiver, "crm")).await.is(201).json();
    let first = made["secret"].as_str().unwrap().to_owned();
    eventually("it is heard", PATIENCE, async || {
        operator.post("/api/webhooks/crm/test", &json!({})).await.status == 200
    })
    .await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    receiver.wait("/crm", "the row", PATIENCE, |all| all.iter().any(|r| r.column("id") == 1)).await;
    let path = "/api/webhooks/crm/stats";
    eventually("it is counted", PATIENCE, async || {
        operator.get(path).await.is(200).json()["windows"][0]["deliveries"]["delivered"] == 1
    })
    .await;
    let told = operator.get(&format!("{path}?window=10m,3d")).await.is(200).json();
    let names: Vec<&Value> = told["windows"].as_array().unwrap().iter().map(|w| &w["window"]).collect();
    assert_eq!(names, ["10m", "3d"]);
    assert_eq!(operator.get(&format!("{path}?window=soon")).await.is(400).wrong(), ["window"]);
    operator.get("/api/webhooks/nosuch/stats").await.is(404);

    let rotate = "/api/webhooks/crm/rotate-secret";
    let rotated = operator.post(rotate, &json!({ "overlap": "1h" })).await.is(200).json();
    let second = rotated["secret"].as_str().unwrap();
    assert!(second.starts_with("whsec_") && second != first && rotated["previous_until"].is_string());
    assert_eq!(rotated["signing"], 2);
    let seen = operator.get("/api/webhooks/crm").await.is(200);
    assert!(!seen.text().contains(second), "it is shown once");
    eventually("it signs twice", PATIENCE, async || {
        operator.post("/api/webhooks/crm/test", &json!({})).await.is(200);
        receiver
            .requests("/crm")
            .last()
            .is_some_and(|r| r.header("webhook-signature").split(' ').count() == 2)
    })
    .await;
    assert_eq!(operator.post(rotate, &json!({ "overlap": "2y" })).await.is(422).wrong(), ["/overlap"]);
    assert_eq!(
        operator.post("/api/webhooks/filed/rotate-secret", &json!({})).await.is(409).kind(),
        "read-only"
    );
    operator.post("/api/webhooks/nosuch/rotate-secret", &json!({})).await.is(404);
    let noted = "select detail::text from walhook.audit where action = 'webhook.rotate'";
    assert!(!database.text(noted).await.contains(second));
}
