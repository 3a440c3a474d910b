//! Templates kept in the database: in versions that never change, used at once, and never taken from a webhook.

use serde_json::{Value, json};

use super::{Client, OPEN, key, served_by};
use crate::support::{Database, PATIENCE, Receiver, Request, Run, beside_others, eventually, run_once};

const FILED: &str = "[templates.filed]\nbody = \"{}\"\n";

async fn hook(operator: &Client, (name, template): (&str, &str), url: &str) -> Value {
    let webhook = json!({ "name": name, "url": url, "events": ["orders.*"], "template": template });
    operator.post("/api/webhooks", &webhook).await.is(201).json()
}

/// Rows are inserted, from this number on, until a receiver has one with such a text. Returns the next number.
async fn until(
    (database, receiver): (&Database, &Receiver),
    (path, text): (&str, &str),
    mut number: usize,
) -> usize {
    eventually(text, PATIENCE, async || {
        let row = format!("insert into orders values ({number}, 'paid', 1, null)");
        database.execute(&row).await;
        number += 1;
        receiver.requests(path).iter().any(|request| says(request, text))
    })
    .await;
    number
}

fn says(request: &Request, text: &str) -> bool {
    String::from_utf8_lossy(&request.body).contains(text)
}

async fn status_of(operator: &Client, webhook: &str) -> (String, String) {
    let webhook = operator.get(&format!("/api/webhooks/{webhook}")).await.is(200).json();
    let text = |field: &str| webhook[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

#[tokio::test]
async fn a_template_makes_bodies_by_its_latest_version_and_what_is_pinned_stays() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let (mut sidecar, operator) = served_by(&database, Run::with(OPEN)).await;
    let one = json!({ "name": "chat", "text": "{\"text\": \"one {{data.record.id}}\"}", "description": "for the shop" });
    let made = operator.post("/api/templates", &one).await.is(201);
    assert_eq!(made.header("location"), "/api/templates/chat/versions/v1");
    let (first, made) = (made.header("etag").to_owned(), made.json());
    assert_eq!((&made["version"], &made["source"]), (&json!("v1"), &json!("database")));
    assert_eq!(made["content_type"], "application/json");
    hook(&operator, ("crm", "chat"), &receiver.url("/crm")).await;
    hook(&operator, ("pinned", "chat@v1"), &receiver.url("/pinned")).await;
    let next = until((&database, &receiver), ("/crm", "one "), 1).await;
    let next = until((&database, &receiver), ("/pinned", "one "), next).await;
    let body = receiver.requests("/crm")[0].json();
    assert!(body["text"].as_str().is_some_and(|text| text.starts_with("one ")), "{body}");

    // Of two who have read the same, the second is told.
    let two = json!({ "name": "chat", "text": "{\"text\": \"two {{data.record.id}}\"}" });
    let made = operator.send("POST", "/api/templates", &[("if-match", &first)], &two).await.is(201);
    assert_eq!(made.json()["version"], "v2");
    let stale = operator.send("POST", "/api/templates", &[("if-match", &first)], &two).await.is(412);
    assert_eq!(stale.kind(), "stale");
    let stale = operator.ask("DELETE", "/api/templates/chat", &[("if-match", &first)], "").await.is(412);
    assert_eq!(stale.kind(), "stale");
    let next = until((&database, &receiver), ("/crm", "two "), next).await;
    let shown = operator.get("/api/templates/chat").await.is(200);
    assert_eq!(shown.header("etag"), made.header("etag"));
    let shown = shown.json();
    assert_eq!((&shown["latest"]["version"], &shown["webhooks"]), (&json!("v2"), &json!(["crm", "pinned"])));
    assert_eq!(shown["versions"]["v1"]["description"], "for the shop");
    let rendered = json!({ "template": "chat@v1", "data": { "record": { "id": 7 } } });
    let rendered = operator.post("/api/templates/render", &rendered).await.is(200).json();
    assert_eq!(rendered["body"]["content"], "{\"text\": \"one 7\"}");

    // It outlives the instance.
    sidecar.restart().await;
    let operator = Client::of(&sidecar, super::ADMIN);
    let last = until((&database, &receiver), ("/crm", &format!("two {next}\"")), next).await;
    until((&database, &receiver), ("/pinned", &format!("one {next}\"")), last).await;
    assert!(receiver.requests("/pinned").iter().all(|request| says(request, "one ")));

    // What webhooks use stays.
    let delete = async |path: &str| operator.ask("DELETE", path, &[], "").await;
    for (path, users) in [
        ("/api/templates/chat", "is used by crm, pinned"),
        ("/api/templates/chat/versions/v1", "template \"chat@v1\" is used by pinned"),
        ("/api/templates/chat/versions/v2", "template \"chat@v2\" is used by crm"),
    ] {
        let refused = delete(path).await.is(409);
        assert_eq!(refused.kind(), "in-use");
        assert!(refused.text().contains(&users.replace('"', "\\\"")), "{}", refused.text());
    }
    delete("/api/webhooks/pinned").await.is(204);
    delete("/api/templates/chat/versions/v1").await.is(204);
    delete("/api/templates/chat/versions/v1").await.is(404);
    delete("/api/webhooks/crm").await.is(204);
    delete("/api/templates/chat").await.is(204);
    operator.get("/api/templates/chat").await.is(404);
    let acts = operator.get("/api/audit?action=template.*").await.is(200).json();
    let acts: Vec<String> = acts["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|act| format!("{} {}", act["action"].as_str().unwrap(), act["object"].as_str().unwrap()))
        .collect();
    let expect = [
        "template.delete chat@v2",
        "template.delete chat@v1",
        "template.create chat@v2",
        "template.create chat@v1",
    ];
    assert_eq!(acts, expect);
}

#[tokio::test]
async fn what_is_wrong_with_a_template_is_told_with_its_place_and_nothing_is_kept() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served_by(&database, Run::with(FILED)).await;
    let post = async |document: &Value| operator.post("/api/templates", document).await;
    let broken =
        json!({ "name": "a b", "text": "first\n  {{#each x}}", "content_type": "json", "version": "v~1" });
    let refused = post(&broken).await.is(422);
    assert_eq!(refused.wrong(), ["/name", "/version", "/content_type", "/text"]);
    assert!(refused.text().contains("line 2"), "{}", refused.text());
    let odd = json!({ "name": 7, "body": "{}" });
    assert_eq!(post(&odd).await.is(422).wrong(), ["/name", "/text", "/body"]);
    let helper = json!({ "name": "chat", "text": "{{shout data.record.id}}" });
    let refused = post(&helper).await.is(422);
    assert!(
        refused.text().contains("there is no helper") && refused.text().contains("line 1, column"),
        "{}",
        refused.text()
    );
    for name in ["filed", "render"] {
        let answer = post(&json!({ "name": name, "text": "{}" })).await;
        assert_eq!(answer.status, if name == "filed" { 409 } else { 422 }, "{}", answer.text());
        if name == "filed" {
            assert!(
                answer.kind() == "read-only" && answer.text().contains("walhook.toml"),
                "{}",
                answer.text()
            );
        }
    }
    assert_eq!(operator.ask("DELETE", "/api/templates/filed", &[], "").await.is(409).kind(), "read-only");
    operator.ask("DELETE", "/api/templates/nosuch", &[], "").await.is(404);
    assert_eq!(database.number("select count(*) from walhook.templates").await, 0);

    // A repetition keeps nothing twice; the same key for something else is refused.
    let chat = json!({ "name": "chat", "text": "{\"a\": 1}", "version": "autumn" });
    let keyed = async |document: &Value| {
        operator.send("POST", "/api/templates", &[("idempotency-key", "k1")], document).await
    };
    let (first, again) = (keyed(&chat).await.is(201), keyed(&chat).await.is(201));
    assert_eq!((first.json(), first.header("etag")), (again.json(), again.header("etag")));
    keyed(&json!({ "name": "other", "text": "{}" })).await.is(422);
    assert_eq!(post(&chat).await.is(409).kind(), "exists");
    assert_eq!(database.number("select count(*) from walhook.templates").await, 1);
    let must = operator
        .send("POST", "/api/templates", &[("if-match", "*")], &json!({ "name": "new", "text": "{}" }))
        .await;
    must.is(412);

    // A webhook of the API is judged with what is there.
    let webhook = |template: &str| json!({ "name": "crm", "url": "https://crm.example.com/", "events": ["orders.*"], "template": template });
    let refused = operator.post("/api/webhooks", &webhook("chat@autmn")).await.is(422);
    assert_eq!(refused.wrong(), ["/template"]);
    assert!(refused.text().contains("Perhaps you meant \\\"chat@autumn\\\""), "{}", refused.text());
    operator.post("/api/webhooks", &webhook("chat@autumn")).await.is(201);

    // Who may only read keeps nothing, and templates are no tenant's business.
    let (_, reader) = key(&operator, &["webhook:read"]).await;
    let reader = operator.with_key(Some(&reader));
    reader.get("/api/templates/chat/versions/autumn").await.is(200);
    reader.post("/api/templates", &chat).await.is(403);
    reader.ask("DELETE", "/api/templates/chat", &[], "").await.is(403);
    let tenant = json!({ "name": "t", "scopes": ["webhook:read", "webhook:write"], "tenant": "acme" });
    let tenant = operator.post("/api/keys", &tenant).await.is(201).json();
    let tenant = operator.with_key(tenant["key"].as_str());
    for answer in [tenant.get("/api/templates").await, tenant.post("/api/templates", &chat).await] {
        assert_eq!(answer.is(403).kind(), "tenant");
    }
}

#[tokio::test]
async fn i8_a_bad_template_by_sql_sets_aside_the_webhooks_that_use_it_and_nothing_else() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::with(format!("{OPEN}{FILED}")).expecting("cannot be used");
    let (sidecar, operator) = served_by(&database, run).await;
    let sql = "insert into walhook.templates (name, content_type, body) values ('line', 'text/plain', 'good {{data.record.id}}')";
    database.execute(sql).await;
    assert_eq!(database.text("select version from walhook.templates").await, "v1");
    for (name, template) in [("latest", "line"), ("pinned", "line@v1")] {
        hook(&operator, (name, template), &receiver.url(&format!("/{name}"))).await;
    }
    let next = until((&database, &receiver), ("/latest", "good "), 1).await;
    let next = until((&database, &receiver), ("/pinned", "good "), next).await;

    database
        .execute("insert into walhook.templates (name, body) values ('line', 'bad {{#if}'), ('filed', '{}')")
        .await;
    sidecar.logged("a webhook of the database cannot be used").await;
    let (status, reason) = status_of(&operator, "latest").await;
    assert_eq!(status, "unusable");
    for part in ["the template \"line\" cannot be used", "line@v2", "line 1"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    let problem = operator.get("/api/templates/line").await.is(200).json()["latest"]["problem"].to_string();
    assert!(problem.contains("the template is not valid"), "{problem}");
    assert_eq!(operator.get("/api/templates/filed").await.is(200).json()["source"], "file");
    let file = sidecar.file();
    let check = run_once(&["check", "--config", file.to_str().expect("a plain path")], &[]).await;
    let check = String::from_utf8([check.stdout, check.stderr].concat()).expect("plain text");
    for part in [
        "line@v2: its row cannot be used",
        "filed@v1: its row cannot be used",
        "declares a template of this name",
    ] {
        assert!(check.contains(part), "{part}: {check}");
    }
    assert_eq!(status_of(&operator, "pinned").await.0, "active");
    let before = receiver.requests("/pinned").len();
    let next = until((&database, &receiver), ("/pinned", &format!("good {next}")), next).await;
    assert!(receiver.requests("/pinned").len() > before);

    // No version changes, whoever asks; another one heals it.
    for change in ["body = 'x'", "version = 'v9'", "number = 1"] {
        let script = format!(
            "do $$ begin update walhook.templates set {change} where version = 'v2';
             raise exception 'it was changed'; exception when restrict_violation then null; end $$"
        );
        database.execute(&script).await;
    }
    database.execute("update walhook.templates set description = 'for people'").await;
    let good = json!({ "name": "line", "text": "better {{data.record.id}}", "content_type": "text/plain" });
    operator.post("/api/templates", &good).await.is(201);
    let next = until((&database, &receiver), ("/latest", "better "), next).await;
    assert_eq!(status_of(&operator, "latest").await.0, "active");
    let gone = operator.ask("DELETE", "/api/templates/line/versions/v2", &[], "").await;
    assert_eq!(gone.is(204).text(), "");

    // What SQL takes away is told too, and comes back.
    database.execute("delete from walhook.templates where version = 'v1'").await;
    eventually("it is set aside", PATIENCE, async || status_of(&operator, "pinned").await.0 == "unusable")
        .await;
    let back = json!({ "name": "line", "version": "v1", "text": "again {{data.record.id}}", "content_type": "text/plain" });
    operator.post("/api/templates", &back).await.is(201);
    until((&database, &receiver), ("/pinned", "again "), next).await;
}
