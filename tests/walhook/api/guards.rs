//! What stands before the routes: rates, origins, slow senders, the reference, the probe; and what is kept of it all.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{OPEN, key, served, served_by};
use crate::support::{Database, Receiver, Run, beside_others, run_once};

/// With a key of `[server]`, which the harness writes itself.
fn with(key: &str, value: &str) -> Run {
    let mut run = Run::with(OPEN);
    run.environment.push((format!("WALHOOK_SERVER__{key}"), value.to_owned()));
    run
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_again_and_others_go_on() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served_by(&database, with("RATE_LIMIT", "20/h")).await;
    let (_, reader) = key(&operator, &["webhook:read"]).await;
    let reader = operator.with_key(Some(&reader));
    for left in (0..20).rev() {
        let answer = reader.get("/api/webhooks").await.is(200);
        assert_eq!(answer.header("ratelimit-policy"), "\"key\";q=20;w=3600");
        assert_eq!(answer.header("ratelimit"), format!("\"key\";r={left};t=0"));
    }
    let refused = reader.get("/api/webhooks").await.is(429);
    assert_eq!(refused.kind(), "rate");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=181).contains(&wait), "{wait}");
    assert!(refused.header("ratelimit").starts_with("\"key\";r=0;t="));
    operator.get("/api/webhooks").await.is(200);
}

#[tokio::test]
async fn web_pages_use_the_api_where_their_origin_is_named_and_else_nowhere() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let asks = [
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "authorization,if-match"),
    ];
    let (mut closed, operator) = served(&database, OPEN).await;
    let refused = operator.with_key(None).ask("OPTIONS", "/api/webhooks", &asks, "").await.is(405);
    assert_eq!(refused.header("access-control-allow-origin"), "");
    assert_eq!(
        operator
            .ask("GET", "/api/webhooks", &asks[..1], "")
            .await
            .is(200)
            .header("access-control-allow-origin"),
        ""
    );
    closed.terminate().await;

    let run = with("CORS_ORIGINS", "[\"https://app.example.com\"]");
    let (_sidecar, operator) = served_by(&database, run).await;
    let nobody = operator.with_key(None);
    let allowed = nobody.ask("OPTIONS", "/api/webhooks", &asks, "").await.is(200);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example.com");
    assert!(allowed.header("access-control-allow-headers").contains("if-match"));
    assert_eq!(allowed.header("access-control-allow-credentials"), "");
    let other = [("origin", "https://evil.example.com"), asks[1]];
    assert_eq!(
        nobody.ask("OPTIONS", "/api/webhooks", &other, "").await.header("access-control-allow-origin"),
        ""
    );
    let answer = operator.ask("GET", "/api/webhooks", &asks[..1], "").await.is(200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.com");
    assert!(answer.header("access-control-expose-headers").contains("etag"));
    // A preflight tells nothing that needs a key.
    nobody.ask("GET", "/api/webhooks", &asks[..1], "").await.is(401);
}

#[tokio::test]
async fn who_is_slow_with_a_requests_head_is_hung_up_on_and_others_are_answered_meanwhile() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(&operator.address).await.unwrap();
        stream.write_all(b"GET /api/webhooks HTTP/1.1\r\nhost: ").await.unwrap();
        slow.push(stream);
    }
    operator.get("/api/webhooks").await.is(200);
    let most = walhook::domain::limits::HEAD_WITHIN + Duration::from_secs(30);
    for mut stream in slow {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(most, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "it is still open");
    }
}

#[tokio::test]
async fn the_reference_is_one_page_that_runs_nothing() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    for path in ["/api/reference", "/api/v1/reference"] {
        let page = operator.with_key(None).get(path).await.is(200);
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
        assert!(page.text().contains("/webhooks/{id}/retry") && !page.text().contains("<script"));
    }
}

#[tokio::test]
async fn a_webhook_is_made_only_where_its_receiver_can_be_reached_if_that_is_asked_for() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let (_sidecar, operator) = served(&database, OPEN).await;
    let webhook = |name: &str, url: &str| json!({ "name": name, "url": url, "events": ["orders.*"] });
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let refused = operator.post("/api/webhooks?probe=true", &webhook("a", &closed)).await.is(422);
    assert_eq!(refused.wrong(), ["/url"]);
    assert!(refused.text().contains("cannot be reached"), "{}", refused.text());
    // What may not be reached is not tried.
    let refused = operator.post("/api/webhooks?probe=true", &webhook("a", "http://10.1.2.3/")).await.is(422);
    assert_eq!(refused.wrong(), ["/url"]);
    assert!(!refused.text().contains("cannot be reached:"), "{}", refused.text());
    assert_eq!(
        operator.post("/api/webhooks?probe=maybe", &webhook("a", &closed)).await.is(400).wrong(),
        ["probe"]
    );
    operator.post("/api/webhooks?probe=true", &webhook("a", &receiver.url("/a"))).await.is(201);
    operator.post("/api/webhooks", &webhook("b", &closed)).await.is(201);
    assert!(receiver.requests("/a").is_empty(), "nothing is sent to it");
}

#[tokio::test]
async fn the_audit_is_searched_by_who_what_and_when() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    let (id, writer) = key(&operator, &["webhook:write"]).await;
    let writer = operator.with_key(Some(&writer));
    for name in ["a", "b"] {
        let webhook = json!({ "name": name, "url": "https://a.example.com", "events": ["*"] });
        writer.post("/api/webhooks", &webhook).await.is(201);
    }
    operator.post("/api/webhooks/a/pause", &json!({})).await.is(200);
    let actions = async |query: &str| -> Vec<String> {
        let page = operator.get(&format!("/api/audit?{query}")).await.is(200).json();
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["action"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(actions("").await, ["webhook.pause", "webhook.create", "webhook.create", "key.create"]);
    assert_eq!(actions("object=a").await, ["webhook.pause", "webhook.create"]);
    assert_eq!(actions("action=webhook.*&actor_kind=key").await, ["webhook.create", "webhook.create"]);
    assert_eq!(actions(&format!("actor=*{id}*&object=b")).await, ["webhook.create"]);
    assert_eq!(actions("actor_kind=admin&action=key.*").await, ["key.create"]);
    assert!(actions("until=2000-01-01T00:00:00Z").await.is_empty());
    assert_eq!(actions("since=2000-01-01T00:00:00Z&limit=1").await.len(), 1);
    let wrong = operator.get("/api/audit?actor_kind=god&since=soon&cursor=x").await.is(400);
    assert_eq!(wrong.wrong(), ["cursor", "actor_kind", "since"]);
}

#[tokio::test]
async fn what_the_command_line_sends_again_is_in_the_audit_too() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (sidecar, operator) = served(&database, OPEN).await;
    let dead = "insert into walhook.deliveries (id, event_id, event_type, webhook, lane, status, attempts, committed_at,
            schema_name, table_name, row_key, operation, content_type, body, finished_at, fail_reason, last_attempt_at,
            last_took_ms, last_outcome, last_http_status)
        values ('dlv_1', 'evt', 'orders.created', 'gone', 1, 'failed', 1, now(), 'public', 'orders', '1', 'insert',
            'application/json', '{}', now(), 'gave up', now(), 1, 'responded', 500)";
    database.execute(dead).await;
    let file = sidecar.file();
    let config = file.to_str().expect("a plain path");
    let output = run_once(&["retry", "gone", "--yes", "--config", config], &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page = operator.get("/api/audit?action=retry.create").await.is(200).json();
    let entry = &page["data"][0];
    assert_eq!((&entry["actor_kind"], &entry["object"]), (&json!("command"), &json!("gone")));
    assert_eq!(entry["detail"]["after"]["status"], json!(["failed"]));
    let now = database.text("select status from walhook.deliveries where id = 'dlv_1'").await;
    assert_ne!(now, "failed", "it waits for its webhook's return");
}
