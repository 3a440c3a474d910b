//! What concerns the security of the whole stands in the audit: who was refused what, whichever way they came, what others
//! changed by SQL; and never a secret.

use serde_json::{Value, json};

use super::{ADMIN, Client, OPEN, key, served};
use crate::support::{Database, PATIENCE, Run, Sidecar, beside_others, connect, eventually, run_once};

/// The entries of an action, oldest first.
async fn entries(operator: &Client, query: &str) -> Vec<Value> {
    let page = operator.get(&format!("/api/audit?limit=200&{query}")).await.is(200).json();
    page["data"].as_array().expect("a page").iter().rev().cloned().collect()
}

/// Actor's kind, object, and one thing of the detail, of each.
fn told(entries: &[Value], detail: &str) -> Vec<(String, Value, Value)> {
    let one = |entry: &Value| {
        let kind = entry["actor_kind"].as_str().expect("a kind").to_owned();
        (kind, entry["object"].clone(), entry["detail"][detail].clone())
    };
    entries.iter().map(one).collect()
}

#[tokio::test]
async fn who_could_not_log_in_is_in_the_audit_once_and_no_key_is() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    let ((gone_id, gone), (old_id, old)) =
        (key(&operator, &["admin"]).await, key(&operator, &["webhook:read"]).await);
    operator.ask("DELETE", &format!("/api/keys/{gone_id}"), &[], "").await.is(200);
    database.execute(&format!("update walhook.api_keys set expires_at = now() where id = '{old_id}'")).await;
    let secret = "ab".repeat(32);
    let made_up_id = format!("wk_{}", "0".repeat(16));
    let made_up = format!("{made_up_id}_{secret}");
    for wrong in [&gone, &old, &made_up, &format!("{ADMIN}x")] {
        for _ in 0..2 {
            operator.with_key(Some(wrong)).get("/api/webhooks").await.is(401);
        }
    }
    // Who gives no key at all has not tried to log in.
    operator.with_key(None).get("/api/webhooks").await.is(401);
    let logins = entries(&operator, "action=login.*").await;
    assert_eq!(
        told(&logins, "reason"),
        [
            ("key".to_owned(), json!(gone_id), json!("revoked")),
            ("key".to_owned(), json!(old_id), json!("expired")),
            ("unknown".to_owned(), json!(made_up_id), json!("unknown")),
        ]
    );
    assert_eq!(logins[0]["actor"], format!("a test ({gone_id})"));
    for login in &logins {
        assert_eq!(login["from_address"], "127.0.0.1");
        assert!(login["at"].is_string() && login["detail"]["request"].is_string(), "{login}");
    }
    assert_eq!(entries(&operator, "actor_kind=unknown").await.len(), 1);
    let whole = database.text("select string_agg(a::text, ' ') from walhook.audit a").await;
    for hidden in [&secret, ADMIN, gone.rsplit('_').next().unwrap(), old.rsplit('_').next().unwrap()] {
        assert!(!whole.contains(hidden), "{hidden} is in the audit");
    }
}

#[tokio::test]
async fn who_guesses_on_and_who_has_no_right_is_in_the_audit_however_often_they_come() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    let (reader_id, reader) = key(&operator, &["webhook:read"]).await;
    let (_, writer) = key(&operator, &["webhook:write"]).await;
    let asked = json!({ "name": "acme", "tenant": "acme", "scopes": ["webhook:read"] });
    let tenant = operator.post("/api/keys", &asked).await.is(201).json();
    let tenant = operator.with_key(tenant["key"].as_str());
    let (reader, writer) = (operator.with_key(Some(&reader)), operator.with_key(Some(&writer)));
    for turn in 0..5 {
        reader.post("/api/webhooks", &json!({})).await.is(403);
        reader.ask("DELETE", &format!("/api/webhooks/{turn}"), &[], "").await.is(403);
        reader.get("/api/keys").await.is(403);
        tenant.get("/api/templates").await.is(403);
        let condition = json!({ "table": "orders", "condition": "true" });
        writer.post("/api/webhooks/crm/backfill", &condition).await.is(403);
    }
    let refused = entries(&operator, "action=access.refused").await;
    assert_eq!(
        told(&refused, "needs"),
        [
            ("key".to_owned(), json!("POST /webhooks"), json!("webhook:write")),
            ("key".to_owned(), json!("DELETE /webhooks/0"), json!("webhook:write")),
            ("key".to_owned(), json!("GET /keys"), json!("admin")),
            ("key".to_owned(), json!("GET /templates"), json!("nothing of a tenant's")),
            ("key".to_owned(), json!("a condition in SQL"), json!("admin")),
        ]
    );
    assert_eq!(refused[0]["actor"], format!("a test ({reader_id})"));
    assert_eq!(refused[0]["from_address"], "127.0.0.1");

    let most = walhook::domain::limits::API_GUESSES;
    for guess in 0..most {
        operator.with_key(Some(&format!("guess {guess}"))).get("/api/webhooks").await.is(401);
    }
    for _ in 0..5 {
        operator.with_key(Some("another")).get("/api/webhooks").await.is(429);
    }
    let logins = "select string_agg(concat_ws(' ', action, object, detail ->> 'reason'), ', ' order by id)
                  from walhook.audit where action like 'login.%'";
    assert_eq!(
        database.text(logins).await,
        "login.refused unknown, login.locked_out 127.0.0.1, login.refused locked out"
    );
}

#[tokio::test]
async fn an_address_that_a_webhook_may_not_have_is_in_the_audit_with_who_wanted_it() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (sidecar, operator) = served(&database, "").await;
    let asked = json!({ "name": "acme", "tenant": "acme", "scopes": ["webhook:read", "webhook:write"] });
    let tenant = operator.post("/api/keys", &asked).await.is(201).json();
    let tenant = operator.with_key(tenant["key"].as_str());
    let webhook = |name: &str, url: &str| json!({ "name": name, "url": url, "events": ["orders.*"] });
    let good = "https://crm.example.com/in";
    operator.post("/api/webhooks", &webhook("crm", good)).await.is(201);
    for _ in 0..3 {
        operator
            .post("/api/webhooks", &webhook("meta", "https://169.254.169.254/latest?key=geheim"))
            .await
            .is(422);
    }
    let any = [("if-match", "*")];
    let patch = json!({ "url": "https://[::1]/in" });
    operator.send("PATCH", "/api/webhooks/crm", &any, &patch).await.is(422);
    tenant.post("/api/webhooks", &webhook("own", "https://10.1.2.3/in")).await.is(422);
    let mut token = webhook("token", good);
    token["auth"] = json!({ "kind": "oauth2", "token_url": "https://192.168.0.1/t", "client_id": "a", "client_secret": "geheim" });
    operator.post("/api/webhooks", &token).await.is(422);
    // So is a name that leads to nothing else.
    operator.post("/api/webhooks", &webhook("name", "https://localhost:1/in")).await.is(422);
    // What is wrong in another way concerns nobody's security.
    operator.post("/api/webhooks", &webhook("ftp", "ftp://crm.example.com")).await.is(422);

    let file = sidecar.file();
    let config = file.to_str().expect("a plain path");
    let create = ["webhooks", "create", "shell", "--url", "https://127.0.0.2/in", "--events", "orders.*"];
    let output = run_once(&[&create[..], &["--config", config]].concat(), &[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));

    let refused = entries(&operator, "action=address.refused").await;
    let mut told = told(&refused, "address");
    let resolved = told.remove(4);
    assert_eq!((resolved.1, refused[4]["detail"]["key"].clone()), (json!("name"), json!("url")));
    assert!(["127.0.0.1", "::1"].contains(&resolved.2.as_str().unwrap()), "{}", resolved.2);
    assert_eq!(
        told,
        [
            ("admin".to_owned(), json!("meta"), json!("169.254.169.254")),
            ("admin".to_owned(), json!("crm"), json!("::1")),
            ("key".to_owned(), json!("own"), json!("10.1.2.3")),
            ("admin".to_owned(), json!("token"), json!("192.168.0.1")),
            ("command".to_owned(), json!("shell"), json!("127.0.0.2")),
        ]
    );
    assert_eq!(refused[3]["detail"]["key"], "auth.token_url");
    assert!(refused[2]["from_address"] == "127.0.0.1" && !json!(refused).to_string().contains("geheim"));
    assert_eq!(database.number("select count(*) from walhook.webhooks").await, 1, "nothing was made");
}

#[tokio::test]
async fn an_address_that_is_not_dialled_is_in_the_audit_once_and_nobody_waits_for_that() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let run = Run::with("").expecting("gave deliveries up");
    let (_sidecar, operator) = super::served_by(&database, run).await;
    // By SQL, which looks no name up.
    let webhook = |name: &str| {
        format!(
            "insert into walhook.webhooks (name, url, events, breaker, retry) values ('{name}',
             'https://localhost:1/in', '{{orders.*}}', 'false', '{{\"schedule\": [\"10ms\", \"10ms\"], \"jitter\": 0}}')"
        )
    };
    for name in ["one", "two"] {
        database.execute(&webhook(name)).await;
        eventually("it is heard", PATIENCE, async || {
            operator.post(&format!("/api/webhooks/{name}/test"), &json!({})).await.status == 200
        })
        .await;
    }
    // Whoever writes waits: the deliveries go on and end all the same.
    let other = connect(&database.url).await.expect("a session");
    other.batch_execute("begin; lock table walhook.audit in share mode").await.expect("a lock");
    database.execute("insert into orders select n, 'paid', n, null from generate_series(1, 20) n").await;
    let ended =
        "select count(*) from walhook.deliveries where status = 'failed' and event_type = 'orders.created'
                 and operation = 'insert'";
    eventually("all have failed", PATIENCE, async || database.number(ended).await == 40).await;
    other.batch_execute("rollback").await.expect("a rollback");
    let entries = "select count(*) from walhook.audit where action = 'address.refused'";
    eventually("they are told", PATIENCE, async || database.number(entries).await == 2).await;
    database.execute("insert into orders select n, 'paid', n, null from generate_series(21, 40) n").await;
    eventually("all have failed", PATIENCE, async || database.number(ended).await == 80).await;
    let told = database
        .text(
            "select string_agg(concat_ws(' ', actor_kind, actor, object, detail ->> 'when'), ', ' order by object)
             from walhook.audit where action = 'address.refused'",
        )
        .await;
    assert_eq!(told, "walhook walhook one at an attempt, walhook walhook two at an attempt");
    let address = database
        .text("select string_agg(distinct detail ->> 'address', ' ') from walhook.audit where action = 'address.refused'")
        .await;
    assert!(["127.0.0.1", "::1"].contains(&&*address), "{address}");
}

/// A role of this test's own, which may write webhooks and nothing of the audit.
async fn app_role(database: &Database) -> (String, String) {
    let role = format!("app_{}", database.name);
    database
        .execute(&format!(
            "create role {role} login password 'x';
             grant usage on schema walhook to {role};
             grant select, insert, update, delete on walhook.webhooks to {role};
             grant select, update on walhook.catalog_version to {role};
             grant usage on sequence walhook.webhook_versions to {role}"
        ))
        .await;
    let (_, server) = database.url.split_once('@').expect("a user");
    (role.clone(), format!("postgres://{role}:x@{server}"))
}

#[tokio::test]
async fn what_is_changed_by_sql_is_in_the_audit_with_the_role_that_did_it_and_no_secret() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    let (role, url) = app_role(&database).await;
    let app = connect(&url).await.expect("a session");
    for statement in [
        "insert into walhook.webhooks (name, url, secret, events, headers)
         values ('crm', 'https://me:geheim@crm.example.com/in?key=geheim', 'whsec_geheimgeheim', '{orders.*}', '{\"x-key\": \"geheim\"}')",
        "update walhook.webhooks set secret = 'whsec_geheimnochmal'",
        "update walhook.webhooks set url = 'https://crm.example.com/in?token=geheim', concurrency = 3",
        "update walhook.webhooks set secret = 'whsec_geheim3', concurrency = 4",
        "update walhook.webhooks set concurrency = 4",
        "delete from walhook.webhooks",
    ] {
        app.batch_execute(statement).await.expect(statement);
    }
    let rolled_back = app.batch_execute("begin; insert into walhook.webhooks (name, url, events) values ('no', 'https://a.example.com', '{*}'); rollback");
    rolled_back.await.expect("a rollback");
    let (id, _) = key(&operator, &["webhook:read"]).await;
    database
        .execute(&format!(
            "insert into walhook.webhook_states (webhook, status, reason) values ('crm', 'paused', 'by hand');
             delete from walhook.webhook_states;
             update walhook.api_keys set revoked_at = now() where id = '{id}';
             update walhook.api_keys set last_used_at = now() where id = '{id}'"
        ))
        .await;
    let sql = entries(&operator, "actor_kind=sql").await;
    let acts: Vec<String> = sql
        .iter()
        .map(|e| format!("{} {}", e["action"].as_str().unwrap(), e["object"].as_str().unwrap()))
        .collect();
    assert_eq!(
        acts,
        [
            "webhook.create crm",
            "webhook.rotate crm",
            "webhook.update crm",
            "webhook.update crm",
            "webhook.rotate crm",
            "webhook.delete crm",
            "webhook.pause crm",
            "webhook.resume crm",
            &format!("key.revoke {id}"),
        ]
    );
    assert!(sql[..6].iter().all(|e| e["actor"] == role && e["from_address"] == "127.0.0.1"), "{sql:?}");
    assert_ne!(sql[6]["actor"], role);
    let after = &sql[0]["detail"]["after"];
    assert_eq!((&after["secret"], &after["headers"]), (&json!("***"), &json!("***")));
    assert_eq!(after["url"], "https://crm.example.com/in");
    assert_eq!(sql[2]["detail"]["after"], json!({ "url": "https://crm.example.com/in", "concurrency": "3" }));
    let whole = database.text("select string_agg(a::text, ' ') from walhook.audit a").await;
    assert!(!whole.contains("geheim"), "{whole}");

    database
        .execute(
            "insert into walhook.webhooks (name, url, events) values ('x', 'https://a.example.com', '{*}')",
        )
        .await;
    database.execute("truncate walhook.webhooks").await;
    let last = entries(&operator, "actor_kind=sql&action=webhook.delete").await;
    assert_eq!(last.last().map(|entry| entry["detail"].clone()), Some(json!({ "all": true })));
    drop(app);
    database.execute(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn what_walhook_changes_for_somebody_is_in_the_audit_once_as_theirs() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    let made = json!({ "name": "ours", "url": "https://crm.example.com/in", "events": ["*"] });
    operator.post("/api/webhooks", &made).await.is(201);
    operator.post("/api/webhooks/ours/pause", &json!({})).await.is(200);
    operator.post("/api/webhooks/ours/rotate-secret", &json!({})).await.is(200);
    operator.ask("DELETE", "/api/webhooks/ours", &[], "").await.is(204);
    let ours = entries(&operator, "object=ours").await;
    assert!(ours.len() == 4 && ours.iter().all(|entry| entry["actor_kind"] == "admin"), "{ours:?}");
    assert!(entries(&operator, "actor_kind=sql").await.is_empty());
}

#[tokio::test]
async fn refusals_are_read_from_the_command_line_too() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (sidecar, operator): (Sidecar, Client) = served(&database, OPEN).await;
    operator.with_key(Some("wrong")).get("/api/webhooks").await.is(401);
    let file = sidecar.file();
    let config = ["--config", file.to_str().expect("a plain path")];
    for filter in [["--action", "login.*"], ["--actor-kind", "unknown"]] {
        let output = run_once(&[&["audit"], &filter[..], &config].concat(), &[]).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("login.refused") && said.contains("127.0.0.1"), "{filter:?}: {said}");
    }
}
