//! What a tenant tries with its own hands: names, lists, keys of others, rights.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{CANARY, PUBLIC, all_delivered, database, hook, live, started, tenant, walhook};
use crate::api::{Client, served};
use crate::support::{PATIENCE, Receiver, beside_others, eventually};

fn names(page: &Value) -> Vec<&str> {
    page["data"].as_array().expect("a page").iter().filter_map(|one| one["name"].as_str()).collect()
}

#[tokio::test]
async fn a_tenants_webhook_is_named_after_it_and_no_answer_says_what_others_have() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let (_sidecar, operator) = started(&database, &receiver, "").await;
    let (acme, globex) = (tenant(&operator, "acme").await, tenant(&operator, "globex").await);
    let webhook = |name: &str| json!({ "name": name, "url": "https://a.example.com", "events": ["*"] });
    for name in ["crm", "ours"] {
        for client in [&acme, &globex] {
            let made = client.post("/api/webhooks", &webhook(name)).await.is(201);
            let whose = made.json()["tenant"].as_str().expect("a tenant").to_owned();
            assert_eq!(made.json()["id"], json!(format!("{whose}~{name}")));
            assert_eq!(made.header("location"), format!("/api/webhooks/{whose}~{name}"));
        }
    }
    acme.post("/api/webhooks", &webhook("crm")).await.is(409);
    // Whether there is such a webhook or not.
    for name in ["globex~crm", "globex~nosuch"] {
        assert_eq!(acme.post("/api/webhooks", &webhook(name)).await.is(422).wrong(), ["/name"]);
    }
    for tenant in [json!("globex"), json!(null), json!(7)] {
        let mut foreign = webhook("other");
        foreign["tenant"] = tenant;
        assert_eq!(acme.post("/api/webhooks", &foreign).await.is(422).wrong(), ["/tenant"]);
    }
    assert_eq!(names(&acme.get("/api/webhooks").await.is(200).json()), ["acme~crm", "acme~ours"]);
    assert_eq!(names(&operator.get("/api/webhooks").await.is(200).json()).len(), 5);
    let any = [("if-match", "*")];
    for stolen in [json!({ "tenant": "globex" }), json!({ "name": "globex~new" }), json!({ "name": "new" })] {
        acme.send("PATCH", "/api/webhooks/acme~crm", &any, &stolen).await.is(422);
    }
    let left_out =
        acme.send("PATCH", "/api/webhooks/acme~crm", &any, &json!({ "tenant": null })).await.is(200);
    assert_eq!(left_out.json()["tenant"], "acme");
    // The operator names them by the same rule, and nobody else's name has the mark.
    let mut given = webhook("acme~more");
    assert_eq!(operator.post("/api/webhooks", &given).await.is(422).wrong(), ["/name"]);
    given["tenant"] = json!("acme");
    operator.post("/api/webhooks", &given).await.is(201);
    given["name"] = json!("acme");
    assert_eq!(operator.post("/api/webhooks", &given).await.is(422).wrong(), ["/name"]);
}

#[tokio::test]
async fn a_webhook_cannot_change_hands_nor_come_back_in_others() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let (_sidecar, operator) = started(&database, &receiver, "").await;
    let (acme, globex) = (tenant(&operator, "acme").await, tenant(&operator, "globex").await);
    hook(&globex, "crm", &receiver.url("/globex")).await;
    live(&database, &receiver, "/globex", "globex").await;
    all_delivered(&database).await;
    for stolen in [
        "update walhook.webhooks set tenant = 'acme' where name = 'globex~crm'",
        "update walhook.webhooks set tenant = null where name = 'globex~crm'",
        "insert into walhook.webhooks (name, url, events) values ('globex~x', 'https://a.example.com', '{*}')",
        "insert into walhook.webhooks (name, tenant, url, events) values ('x~crm', 'acme', 'https://a.example.com', '{*}')",
    ] {
        let refused = crate::support::connect(&database.url).await.expect("a session");
        let error = refused.execute(stolen, &[]).await.expect_err("the database refuses it");
        let constraint = error.as_db_error().and_then(|error| error.constraint().map(str::to_owned));
        assert_eq!(constraint.as_deref(), Some("webhooks_named_by_tenant"), "{stolen}");
    }
    let page = globex.get("/api/deliveries?limit=1").await.is(200).json();
    let id = page["data"][0]["id"].as_str().expect("a delivery").to_owned();
    globex.ask("DELETE", "/api/webhooks/globex~crm", &[], "").await.is(204);
    hook(&acme, "crm", &receiver.url("/acme")).await;
    for path in [
        format!("/api/webhooks/acme~crm/deliveries/{id}"),
        format!("/api/webhooks/globex~crm/deliveries/{id}"),
    ] {
        acme.get(&path).await.is(404);
        acme.post(&format!("{path}/retry"), &json!({})).await.is(404);
    }
    assert_eq!(acme.get("/api/deliveries?webhook=acme~crm").await.is(200).json()["data"], json!([]));
}

/// Every page of a list of deliveries, and what stands in its cursors.
async fn walked(client: &Client, query: &str) -> (Vec<Value>, String) {
    let (mut seen, mut cursors, mut path) = (Vec::new(), String::new(), format!("/api/deliveries?{query}"));
    loop {
        let page = client.get(&path).await.is(200).json();
        seen.extend(page["data"].as_array().expect("a page").iter().cloned());
        let Some(cursor) = page["next_cursor"].as_str() else { return (seen, cursors) };
        let engines = [&BASE64_STANDARD, &BASE64_URL_SAFE, &BASE64_URL_SAFE_NO_PAD];
        let decoded = engines.iter().find_map(|engine| engine.decode(cursor).ok()).unwrap_or_default();
        cursors.extend([cursor, " ", &String::from_utf8_lossy(&decoded), " "]);
        path = format!("/api/deliveries?{query}&cursor={cursor}");
    }
}

#[tokio::test]
async fn searches_and_cursors_stay_within_the_tenant() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let (_sidecar, operator) = started(&database, &receiver, "").await;
    let (acme, globex) = (tenant(&operator, "acme").await, tenant(&operator, "globex").await);
    hook(&acme, "crm", &receiver.url("/acme")).await;
    hook(&globex, "crm", &receiver.url("/globex")).await;
    live(&database, &receiver, "/acme", "acme").await;
    live(&database, &receiver, "/globex", "globex").await;
    database
        .execute(&format!(
            "insert into orders select i, case i % 2 when 0 then 'acme' else 'globex' end,
                 case i % 2 when 0 then 'a' else '{CANARY}' end from generate_series(1, 40) i"
        ))
        .await;
    let owed = "select count(*) from walhook.deliveries where webhook like '%~crm' and row_key::int8 <= 40";
    eventually("all rows", PATIENCE, async || database.number(owed).await == 40).await;
    all_delivered(&database).await;
    let foreign: Vec<String> = database
        .rows("select id from walhook.deliveries where webhook not like 'acme~%'", &[])
        .await
        .iter()
        .map(|row| row.get(0))
        .collect();
    let own = database.number("select count(*) from walhook.deliveries where webhook like 'acme~%'").await;
    for limit in [1, 7, 200] {
        let (seen, cursors) = walked(&acme, &format!("limit={limit}")).await;
        assert_eq!(i64::try_from(seen.len()).expect("few"), own, "each of its own, once");
        assert!(seen.iter().all(|one| one["webhook"] == "acme~crm"));
        let mut ids: Vec<_> = seen.iter().filter_map(|one| one["id"].as_str()).collect();
        ids.dedup();
        assert_eq!(ids.len(), seen.len());
        for id in &foreign {
            assert!(!cursors.contains(id.as_str()), "a cursor has somebody else's id");
        }
    }
    for (query, count) in
        [("key=1", 0), ("key=2", 1), ("event=*&key=3", 0), ("table=orders&key=40", 1), ("error=5xx", 0)]
    {
        assert_eq!(walked(&acme, query).await.0.len(), count, "{query}");
    }
    for webhook in ["globex~crm", "ours", "nosuch"] {
        acme.get(&format!("/api/deliveries?webhook={webhook}")).await.is(404);
    }
    // A cursor is a place; somebody else's shows what is one's own behind it.
    let page = globex.get("/api/deliveries?limit=1").await.is(200).json();
    let cursor = page["next_cursor"].as_str().expect("more");
    let behind = acme.get(&format!("/api/deliveries?cursor={cursor}")).await.is(200);
    assert!(!behind.text().contains(CANARY) && !behind.text().contains("globex"), "{}", behind.text());
}

#[tokio::test]
async fn a_tenant_sets_nothing_that_is_the_operators() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let secret = "[templates.inner]\nbody = '''{\"inner\": {{json data.record}}}'''\n";
    let (_sidecar, operator) = started(&database, &receiver, secret).await;
    let acme = tenant(&operator, "acme").await;
    let webhook = |key: &str, value: Value| {
        let mut webhook = json!({ "name": "a", "url": "https://a.example.com", "events": ["*"] });
        webhook[key] = value;
        webhook
    };
    for (key, value) in [
        ("template", json!("inner")),
        ("template", json!("nosuch")),
        ("tls", json!({ "insecure_skip_verify": true })),
        ("tls", json!({ "ca": "x" })),
        ("proxy", json!("http://127.0.0.1:1")),
        ("concurrency", json!(1000)),
        ("breaker", json!(false)),
        ("disable_after", json!(false)),
        ("held_for", json!("1d")),
        ("rate_limit", json!("1/s")),
        ("batch", json!({ "max_events": 2 })),
    ] {
        let told = acme.post("/api/webhooks", &webhook(key, value)).await.is(422);
        assert_eq!(told.wrong(), [format!("/{key}")], "{}", told.text());
        assert!(!told.text().contains("inner"), "{}", told.text());
    }
    for (key, value) in [
        ("secret", json!({ "env": "HOME" })),
        ("secret", json!([{ "file": "/etc/passwd" }])),
        ("url", json!({ "env": "HOME" })),
        ("headers", json!({ "x-key": { "env": "HOME" } })),
        ("auth", json!({ "kind": "bearer", "token": { "file": "/etc/passwd" } })),
        ("filter", json!("record.x.exists(a, true)")),
        ("url", json!("https://10.0.0.1/in")),
        ("url", json!("http://169.254.169.254/latest")),
    ] {
        let told = acme.post("/api/webhooks", &webhook(key, value.clone())).await.is(422);
        assert!(told.wrong().iter().all(|wrong| wrong.starts_with(&format!("/{key}"))), "{}", told.text());
        assert!(!told.text().contains("/root") && !told.text().contains("root:"), "{}", told.text());
    }
    // What the operator has set for it stays, whatever it writes over it.
    acme.post("/api/webhooks", &webhook("description", json!("mine"))).await.is(201);
    let any = [("if-match", "*")];
    let set = json!({ "template": "inner", "concurrency": 2 });
    operator.send("PATCH", "/api/webhooks/acme~a", &any, &set).await.is(200);
    let kept =
        acme.send("PUT", "/api/webhooks/acme~a", &any, &webhook("description", json!("new"))).await.is(200);
    assert_eq!((&kept.json()["template"], &kept.json()["concurrency"]), (&json!("inner"), &json!(2)));
    acme.send("PATCH", "/api/webhooks/acme~a", &any, &json!({ "template": null })).await.is(422);
    acme.send("PATCH", "/api/webhooks/acme~a", &any, &json!({ "description": "newer" })).await.is(200);
}

#[tokio::test]
async fn what_the_operators_rows_may_reach_a_tenants_may_not() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let toml = format!("{}{PUBLIC}", crate::api::OPEN);
    let (sidecar, operator) = served(&database, &toml).await;
    let acme = tenant(&operator, "acme").await;
    let webhook =
        |url: &str| json!({ "name": "a", "url": url, "events": ["*"], "retry": { "schedule": ["1h"] } });
    operator.post("/api/webhooks", &webhook(&receiver.url("/ours"))).await.is(201);
    assert_eq!(acme.post("/api/webhooks", &webhook(&receiver.url("/acme"))).await.is(422).wrong(), ["/url"]);
    // The operator is told what a name leads to.
    let aimed =
        json!({ "name": "acme~b", "tenant": "acme", "url": "https://localhost:1/in", "events": ["*"] });
    let told = operator.post("/api/webhooks", &aimed).await.is(422);
    assert_eq!(told.wrong(), ["/url"]);
    assert!(told.text().contains("security.tenants.allow_networks"), "{}", told.text());
    // To a tenant a name is looked up when it is dialled; what it is here stays untold.
    acme.post("/api/webhooks", &webhook("https://localhost:1/in")).await.is(201);
    let refused =
        "select count(*) from walhook.deliveries where webhook = 'acme~a' and last_outcome = 'refused'";
    let mut id = 0;
    eventually("a refused delivery", PATIENCE, async || {
        id += 1;
        database.execute(&format!("insert into orders values ({id}, 'acme', 'x')")).await;
        database.number(refused).await > 0
    })
    .await;
    let told = acme.get("/api/webhooks/acme~a/deliveries?error=refused").await.is(200).text();
    assert!(
        told.contains("not on the public internet")
            && told.contains("security.tenants.allow_networks")
            && !told.contains("127.0.0.1")
            && !told.contains("::1"),
        "{told}"
    );
    assert!(receiver.requests("/acme").is_empty());
    drop(sidecar);
}

#[tokio::test]
async fn keys_of_tenants_open_what_is_the_tenants_and_nothing_else() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let (sidecar, operator) = started(&database, &receiver, "").await;
    for (asked, wrong) in [
        (json!({ "name": "x", "tenant": "acme", "scopes": ["admin"] }), "/scopes"),
        (json!({ "name": "x", "tenant": "acme", "scopes": ["webhook:read", "incoming:write"] }), "/scopes"),
        (json!({ "name": "x", "tenant": "a~b", "scopes": ["webhook:read"] }), "/tenant"),
        (json!({ "name": "x", "tenant": "", "scopes": ["webhook:read"] }), "/tenant"),
    ] {
        assert_eq!(operator.post("/api/keys", &asked).await.is(422).wrong(), [wrong], "{asked}");
    }
    let (code, said) =
        walhook(&sidecar, &["keys", "create", "shop", "--scope", "webhook:read", "--tenant", "acme"]).await;
    let made = said.lines().find(|line| line.starts_with("wk_")).expect("a key");
    assert_eq!(code, Some(0));
    let reader = operator.with_key(Some(made));
    reader.get("/api/webhooks").await.is(200);
    let webhook = json!({ "name": "a", "url": "https://a.example.com", "events": ["*"] });
    reader.post("/api/webhooks", &webhook).await.is(403);
    for path in ["/api/keys", "/api/audit", "/api/audit?object=ours"] {
        assert_eq!(reader.get(path).await.is(403).kind(), "tenant");
    }
    let (_, listed) = walhook(&sidecar, &["keys", "list"]).await;
    assert!(listed.contains("acme"), "{listed}");
    // Whatever the row of the key says.
    let id = made.rsplit_once('_').expect("an id").0;
    database.execute("alter table walhook.api_keys drop constraint api_keys_of_tenants").await;
    let grasping = format!("update walhook.api_keys set scopes = '{{admin}}' where id = '{id}'");
    database.execute(&grasping).await;
    for path in ["/api/keys", "/api/audit", "/api/webhooks"] {
        reader.get(path).await.is(403);
    }
}

#[tokio::test]
async fn idempotency_keys_versions_and_tests_are_each_tenants_own() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let (_sidecar, operator) = started(&database, &receiver, "").await;
    let (acme, globex) = (tenant(&operator, "acme").await, tenant(&operator, "globex").await);
    let once = [("idempotency-key", "the-same")];
    let webhook = json!({ "name": "a", "url": receiver.url("/test"), "events": ["orders.created"] });
    for (client, id) in [(&globex, "globex~a"), (&acme, "acme~a"), (&globex, "globex~a")] {
        let made = client.send("POST", "/api/webhooks", &once, &webhook).await.is(201).json();
        assert_eq!(made["id"], id);
    }
    let secret = |made: Value| made["secret"].as_str().expect("a secret").to_owned();
    let globexes = secret(globex.send("POST", "/api/webhooks", &once, &webhook).await.is(201).json());
    let acmes = secret(acme.send("POST", "/api/webhooks", &once, &webhook).await.is(201).json());
    assert_ne!(globexes, acmes);
    let tag = globex.get("/api/webhooks/globex~a").await.is(200).header("etag").to_owned();
    let change = json!({ "description": "x" });
    acme.send("PATCH", "/api/webhooks/globex~a", &[("if-match", &tag)], &change).await.is(404);
    acme.send("PATCH", "/api/webhooks/acme~a", &[("if-match", &tag)], &change).await.is(412);
    for event in ["hidden.created", "orders.truncated", "walhook.slot_lost", "nosuch"] {
        let told = acme.post("/api/webhooks/acme~a/test", &json!({ "event": event })).await.is(422);
        assert!(
            told.wrong() == ["/event"] && !told.text().replace(event, "").contains("hidden"),
            "{}",
            told.text()
        );
    }
    let tested = acme.post("/api/webhooks/acme~a/test", &json!({})).await.is(200).json();
    assert_eq!((&tested["status"], &tested["event"]), (&json!("delivered"), &json!("orders.created")));
}
