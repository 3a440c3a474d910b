//! Webhooks over the API.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use walhook::ledger::webhooks::COLUMNS;

use super::{Client, OPEN, key, served, served_by};
use crate::support::{Answer as Reply, Database, PATIENCE, Receiver, Run, beside_others, eventually};

const FILE: &str = "[[webhooks]]\nname = \"filed\"\nurl = \"https://filed.example.com/geheim?k=geheim\"\n\
                    secret = \"geheim-geheim-geheim-geheim\"\nevents = [\"orders.*\"]\n\
                    headers = { \"x-key\" = \"geheim\" }\n";

async fn made(client: &Client, name: &str) -> Value {
    let webhook = json!({ "name": name, "url": "https://a.example.com/in", "events": ["orders.*"] });
    client.post("/api/webhooks", &webhook).await.is(201).json()
}

#[tokio::test]
async fn a_webhook_made_over_the_api_is_live_and_its_secret_is_shown_once() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let (sidecar, operator) = served(&database, OPEN).await;
    let webhook = json!({
        "name": "shop", "url": receiver.url("/shop?key=geheim"), "events": ["orders.*"],
        "headers": { "x-key": "geheim" }, "auth": { "kind": "bearer", "token": "geheim" },
        "description": "for the shop", "metadata": { "team": [1, 2] }, "timeout": "5s", "concurrency": 4,
        "retry": { "schedule": ["1s"] }, "disable_after": false,
    });
    let answer = operator.post("/api/webhooks", &webhook).await.is(201);
    assert_eq!(answer.header("location"), "/api/webhooks/shop");
    let secret = answer.json()["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() > 40, "{secret}");
    let shown = operator.get("/api/webhooks/shop").await.is(200);
    assert_eq!(shown.header("etag"), answer.header("etag"));
    let document = shown.json();
    for (name, value) in [
        ("id", json!("shop")),
        ("secret", json!("***")),
        ("url", json!(receiver.url("/shop?key=***"))),
        ("headers", json!({ "x-key": "***" })),
        ("auth", json!({ "kind": "bearer", "token": "***" })),
        ("metadata", json!({ "team": [1, 2] })),
        ("concurrency", json!(4)),
        ("disable_after", json!(false)),
        ("source", json!("database")),
        ("status", json!("active")),
    ] {
        assert_eq!(document[name], value, "{name}: {document}");
    }

    let mut id = 0;
    eventually("a delivery", PATIENCE, async || {
        id += 1;
        database.execute(&format!("insert into orders values ({id}, 'paid', 1, null)")).await;
        !receiver.requests("/shop?key=geheim").is_empty()
    })
    .await;
    let request = receiver.requests("/shop?key=geheim").remove(0);
    let verifier = standardwebhooks::Webhook::new(&secret).unwrap();
    verifier.verify(&request.body, &request.headers).expect("the signature of the secret that was shown");
    assert_eq!((request.header("x-key"), request.header("authorization")), ("geheim", "Bearer geheim"));

    let mut told = shown.text() + &operator.get("/api/webhooks").await.text();
    told += &operator.get("/api/audit").await.text();
    told += &sidecar.log_text();
    for never in ["geheim", secret.as_str()] {
        assert!(!told.contains(never), "{never} is told");
    }
}

#[tokio::test]
async fn every_mistake_of_a_declaration_is_told_by_its_pointer() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, FILE).await;
    let wrong = json!({
        "name": "a", "url": "http://127.0.0.1/x", "events": ["a b"], "filter": "record.", "tiemout": "1s",
        "retry": { "jitter": 7 }, "headers": { "x/y": "1", "host": "h" }, "description": 7, "metadata": [],
        "secret": "***",
    });
    let told = operator.post("/api/webhooks", &wrong).await.is(422);
    let pointers: BTreeSet<String> = told.wrong().into_iter().collect();
    for pointer in [
        "/events/0",
        "/filter",
        "/tiemout",
        "/retry/jitter",
        "/headers/x~1y",
        "/headers/host",
        "/description",
        "/metadata",
        "/secret",
        "/url",
    ] {
        assert!(pointers.contains(pointer), "{pointer}: {}", told.text());
    }
    assert!(told.text().contains("timeout"), "the nearest key is named: {}", told.text());
    assert_eq!(
        operator.post("/api/webhooks", &json!({})).await.is(422).wrong(),
        ["/name", "/url", "/events"]
    );
    let sly = json!({ "name": "a", "url": "https://169.254.169.254/latest", "events": ["*"] });
    assert_eq!(operator.post("/api/webhooks", &sly).await.is(422).wrong(), ["/url"]);
    let taken = json!({ "name": "filed", "url": "https://a.example.com", "events": ["*"] });
    assert_eq!(operator.post("/api/webhooks", &taken).await.is(409).kind(), "exists");
    made(&operator, "b").await;
    let twice = json!({ "name": "b", "url": "https://a.example.com", "events": ["*"] });
    assert_eq!(operator.post("/api/webhooks", &twice).await.is(409).kind(), "exists");
    assert_eq!(database.number("select count(*) from walhook.webhooks").await, 1);
    let acts = "select string_agg(action || ' ' || object, ', ' order by action) from walhook.audit";
    assert_eq!(database.text(acts).await, "address.refused a, webhook.create b");
}

#[tokio::test]
async fn a_webhook_of_the_file_is_seen_and_never_written() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (sidecar, operator) = served(&database, FILE).await;
    let shown = operator.get("/api/webhooks/filed").await.is(200);
    let document = shown.json();
    assert_eq!(
        (&document["source"], &document["url"]),
        (&json!("file"), &json!("https://filed.example.com/***"))
    );
    assert!(!shown.text().contains("geheim") && shown.header("etag").is_empty(), "{document}");
    let any = [("if-match", "*")];
    for (method, body) in [("PUT", json!({})), ("PATCH", json!({})), ("DELETE", json!(null))] {
        let refused = operator.send(method, "/api/webhooks/filed", &any, &body).await.is(409);
        assert_eq!(refused.kind(), "read-only");
        let path = sidecar.file();
        assert!(refused.text().contains(path.to_str().unwrap()), "{}", refused.text());
    }
    // Its state is no part of the file.
    let paused =
        operator.post("/api/webhooks/filed/pause", &json!({ "reason": "noon" })).await.is(200).json();
    assert_eq!((&paused["status"], &paused["reason"]), (&json!("paused"), &json!("noon")));
    operator.post("/api/webhooks/filed/resume", &json!({})).await.is(200);
    operator.post("/api/webhooks/filed/disable", &json!({})).await.is(200);
    assert_eq!(operator.post("/api/webhooks/filed/resume", &json!({})).await.is(409).kind(), "state");
    let enabled = operator.ask("POST", "/api/webhooks/filed/enable", &[], "").await.is(200).json();
    assert_eq!(enabled["status"], "active");
    operator.post("/api/webhooks/nosuch/pause", &json!({})).await.is(404);
    operator.post("/api/webhooks/filed/pause", &json!({ "raeson": "x" })).await.is(422);
    let states = "select string_agg(action, ' ' order by id) from walhook.audit";
    let expect = "webhook.pause webhook.resume webhook.disable webhook.enable";
    assert_eq!(database.text(states).await, expect);
}

#[tokio::test]
async fn two_writers_never_lose_ones_change() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, "").await;
    made(&operator, "a").await;
    let path = "/api/webhooks/a";
    let first = operator.get(path).await.is(200).header("etag").to_owned();
    operator.send("PATCH", path, &[], &json!({ "timeout": "9s" })).await.is(428);
    operator.send("PUT", path, &[], &json!({})).await.is(428);
    operator.send("PATCH", path, &[("if-match", "7")], &json!({})).await.is(400);
    operator.send("PATCH", path, &[("if-match", "\"no-such\"")], &json!({})).await.is(412);

    let writes = (0..8).map(|n| {
        let (operator, first) = (operator.clone(), first.clone());
        async move {
            let body = json!({ "description": format!("writer {n}") });
            operator.send("PATCH", path, &[("if-match", first.as_str())], &body).await.status
        }
    });
    let mut came = join_all(writes).await;
    came.sort_unstable();
    assert_eq!(came, [vec![200], vec![412; 7]].concat(), "one writer won, and the others know");

    let secret = "select secret from walhook.webhooks where name = 'a'";
    let kept = database.text(secret).await;
    let mut document = operator.get(path).await.json();
    document["events"] = json!(["*"]);
    let written = operator.send("PUT", path, &[("if-match", "*")], &document).await.is(200);
    assert_eq!(written.json()["events"], json!(["*"]));
    assert_ne!(written.header("etag"), first);
    assert_eq!(database.text(secret).await, kept, "what was read and written back is as it was");
    operator.send("PATCH", path, &[("if-match", "*")], &json!({ "secret": null })).await.is(200);
    assert_eq!(database.number("select count(*) from walhook.webhooks where secret is null").await, 1);
    let renamed = operator.send("PUT", path, &[("if-match", "*")], &json!({ "name": "b" })).await.is(422);
    assert!(renamed.wrong().contains(&"/name".to_owned()));

    operator.send("DELETE", path, &[("if-match", first.as_str())], &json!(null)).await.is(412);
    operator.ask("DELETE", path, &[], "").await.is(204);
    operator.get(path).await.is(404);
    operator.ask("DELETE", path, &[], "").await.is(404);
    // A new one of the name is another: no tag of the old one fits.
    made(&operator, "a").await;
    operator.send("PATCH", path, &[("if-match", first.as_str())], &json!({})).await.is(412);
    let audit = operator.get("/api/audit?object=a&limit=200").await.is(200).json();
    let actions: Vec<&str> =
        audit["data"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    let update = "webhook.update";
    assert_eq!(actions, ["webhook.create", "webhook.delete", update, update, update, "webhook.create"]);
    assert_eq!(audit["data"][2]["detail"]["before"]["secret"], "***");
}

#[tokio::test]
async fn a_create_that_is_repeated_under_its_key_makes_one_webhook() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, "").await;
    let webhook = json!({ "name": "once", "url": "https://a.example.com", "events": ["*"] });
    let ask = async |client: &Client, key: &str, body: &Value| {
        client.send("POST", "/api/webhooks", &[("idempotency-key", key)], body).await
    };
    let all = join_all((0..6).map(|_| ask(&operator, "k1", &webhook))).await;
    let first = all[0].clone().is(201);
    for answer in &all {
        assert_eq!(answer.clone().is(201).json(), first.json(), "each has the same answer, its secret too");
    }
    assert_eq!(database.number("select count(*) from walhook.webhooks").await, 1);
    assert_eq!(database.number("select count(*) from walhook.audit").await, 1);
    let kept = database.text("select answer::text from walhook.idempotent_answers").await;
    assert!(!kept.contains("whsec_"), "{kept}");

    let mut other = webhook.clone();
    other["name"] = json!("other");
    assert_eq!(ask(&operator, "k1", &other).await.is(422).kind(), "idempotency-key");
    // What failed leaves the key free; and a key is its holder's own.
    ask(&operator, "k2", &json!({ "name": "x" })).await.is(422);
    ask(&operator, "k2", &other).await.is(201);
    let (_, writer) = key(&operator, &["webhook:write"]).await;
    assert_eq!(ask(&operator.with_key(Some(&writer)), "k1", &webhook).await.is(409).kind(), "exists");
    ask(&operator, &"k".repeat(256), &webhook).await.is(400);
    // A day later the key is free again, and the name is not.
    database.execute("update walhook.idempotent_answers set created_at = now() - interval '25 hours'").await;
    assert_eq!(ask(&operator, "k1", &webhook).await.is(409).kind(), "exists");
}

#[tokio::test]
async fn every_key_that_the_table_has_can_be_written_and_is_described() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, FILE).await;
    let sql = "select attname from pg_attribute where attrelid = 'walhook.webhooks'::regclass and attnum > 0
        and not attisdropped and attname not in ('version', 'created_at', 'updated_at') order by 1";
    let columns: BTreeSet<String> = database.rows(sql, &[]).await.iter().map(|row| row.get(0)).collect();
    let written: BTreeSet<String> = COLUMNS.map(str::to_owned).into();
    assert_eq!(written, columns);
    let document = operator.get("/api/openapi.json").await.is(200).json();
    let described = document["components"]["schemas"]["Webhook"]["properties"].as_object().unwrap();
    let missing: Vec<&String> = columns.iter().filter(|name| !described.contains_key(*name)).collect();
    assert_eq!(missing, Vec::<&String>::new());
    let webhook = json!({ "name": "many", "url": "https://example.com/hooks", "events": ["orders.*"],
        "batch": { "max_events": 10, "max_wait": "50ms" }, "sla": "2s" });
    operator.post("/api/webhooks", &webhook).await.is(201);
    let shown = operator.get("/api/webhooks/many").await.is(200).json();
    assert_eq!((&shown["batch"]["max_events"], &shown["sla"]), (&json!(10), &json!("2s")));
}

#[tokio::test]
async fn a_list_is_walked_page_by_page_while_it_changes() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, FILE).await;
    for name in ["e", "B", "z9", "a-1"] {
        made(&operator, name).await;
    }
    let (mut names, mut path) = (Vec::new(), "/api/webhooks?limit=2".to_owned());
    loop {
        let page = operator.get(&path).await.is(200).json();
        for webhook in page["data"].as_array().unwrap() {
            names.push(webhook["name"].as_str().unwrap().to_owned());
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/webhooks?limit=2&cursor={cursor}");
        // What goes behind the reader's back moves nothing.
        operator.ask("DELETE", "/api/webhooks/B", &[], "").await;
    }
    assert_eq!(names, ["B", "a-1", "e", "filed", "z9"]);
}

#[tokio::test]
async fn a_test_is_answered_with_how_its_attempt_went() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = format!(
        "[[webhooks]]\nname = \"own\"\nurl = \"{}\"\nevents = [\"orders.*\"]\nretry = {{ schedule = [] }}\n",
        receiver.url("/own")
    );
    let run = Run::with(toml).expecting("gave deliveries up");
    let (_sidecar, operator) = served_by(&database, run).await;
    let path = "/api/webhooks/own/test";
    let tested = operator.ask("POST", path, &[], "").await.is(200).json();
    assert_eq!((&tested["status"], &tested["http_status"]), (&json!("delivered"), &json!(200)));
    assert!(tested["event"].as_str().unwrap().starts_with("orders."), "{tested}");
    receiver.script("/own", |_| Reply::Status(503));
    let given = json!({ "event": "orders.updated", "data": { "record": { "id": 7 } } });
    let tested = operator.post(path, &given).await.is(200).json();
    assert_eq!((&tested["status"], &tested["http_status"]), (&json!("failed"), &json!(503)));
    assert_eq!(receiver.requests("/own")[1].column("id"), 7);
    let wrong = operator.post(path, &json!({ "event": "nosuch", "dta": 1 })).await.is(422);
    assert_eq!(wrong.wrong(), ["/dta"]);
    assert_eq!(operator.post(path, &json!({ "event": "nosuch" })).await.is(422).wrong(), ["/event"]);
    assert_eq!(operator.post(path, &json!({ "data": 7 })).await.is(422).wrong(), ["/data"]);
    operator.post("/api/webhooks/nosuch/test", &json!({})).await.is(404);
    operator.post("/api/webhooks/own/pause", &json!({})).await.is(200);
    assert_eq!(operator.post(path, &json!({})).await.is(409).kind(), "state");
}

#[tokio::test]
async fn what_is_secret_is_stored_encrypted_where_there_is_a_key_and_still_changed_in_part() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = format!("{OPEN}encryption_key = \"{}\"\n", "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=");
    let (_sidecar, operator) = served(&database, &toml).await;
    let webhook = json!({
        "name": "shop", "url": receiver.url("/shop"), "events": ["orders.*"],
        "headers": { "x-one": "geheim-1", "x-two": "geheim-2" },
    });
    let create = [("idempotency-key", "k")];
    let made = operator.send("POST", "/api/webhooks", &create, &webhook).await.is(201).json();
    let again = operator.send("POST", "/api/webhooks", &create, &webhook).await.is(201).json();
    assert_eq!(made, again, "the secret too");
    let patch = json!({ "headers": { "x-two": null, "x-three": "geheim-3" } });
    let patched =
        operator.send("PATCH", "/api/webhooks/shop", &[("if-match", "*")], &patch).await.is(200).json();
    assert_eq!(patched["headers"], json!({ "x-one": "***", "x-three": "***" }));
    let secret = made["secret"].as_str().unwrap();
    let stored = database.text("select to_jsonb(w)::text from walhook.webhooks w").await;
    assert!(!stored.contains("geheim") && !stored.contains(secret), "{stored}");

    let mut id = 0;
    let came = |header: &str| receiver.requests("/shop").iter().any(|r| r.header(header) == "geheim-3");
    eventually("a delivery with the new header", PATIENCE, async || {
        id += 1;
        database.execute(&format!("insert into orders values ({id}, 'paid', 1, null)")).await;
        came("x-three")
    })
    .await;
    let requests = receiver.requests("/shop");
    let last = requests.iter().rfind(|request| request.header("x-three") == "geheim-3").unwrap();
    assert_eq!((last.header("x-one"), last.header("x-two")), ("geheim-1", ""));
    standardwebhooks::Webhook::new(secret).unwrap().verify(&last.body, &last.headers).expect("its signature");
}
