//! Who may do what.

use serde_json::json;

use super::{ADMIN, Client, OPEN, key, served};
use crate::support::{Database, Run, Sidecar, beside_others, get, run_once};

#[tokio::test]
async fn without_a_valid_key_nothing_is_told_and_nothing_is_done() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (sidecar, operator) = served(&database, OPEN).await;
    let nobody = operator.with_key(None);
    for (method, path) in [
        ("GET", "/api/webhooks"),
        ("POST", "/api/webhooks"),
        ("GET", "/api/v1/deliveries"),
        ("DELETE", "/api/webhooks/nosuch"),
        ("GET", "/api/audit"),
    ] {
        let refused = nobody.ask(method, path, &[], "{").await.is(401);
        assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"walhook\"", "{method} {path}");
    }
    let (id, good) = key(&operator, &["webhook:read"]).await;
    let (stem, secret) = good.rsplit_once('_').unwrap();
    let other = format!("{stem}_{}", secret.chars().rev().collect::<String>());
    let unknown = format!("wk_{}_{secret}", "0".repeat(16));
    for wrong in [&other, &unknown, &id, &"x".to_owned(), &format!("{ADMIN}x")] {
        let refused = operator.with_key(Some(wrong)).get("/api/webhooks").await.is(401);
        assert!(refused.header("www-authenticate").contains("invalid_token"));
        assert!(!refused.text().contains(secret));
    }
    operator.with_key(Some(&good)).get("/api/webhooks").await.is(200);
    for open in ["/healthz", "/readyz", "/metrics"] {
        let address = sidecar.address().unwrap();
        assert_eq!(get(&address, open).await.map(|(status, _)| status), Some(200), "{open}");
    }
    let kept = database.text("select string_agg(to_jsonb(k)::text, '') from walhook.api_keys k").await;
    assert!(!kept.contains(secret) && kept.contains(&id), "{kept}");
    let log = sidecar.log_text();
    assert!(!log.contains(secret) && !log.contains(ADMIN), "a key is in the log");
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_until_it_is_revoked_or_expires() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    let (read_id, read) = key(&operator, &["webhook:read"]).await;
    let (write_id, write) = key(&operator, &["webhook:write"]).await;
    let (reader, writer) = (operator.with_key(Some(&read)), operator.with_key(Some(&write)));
    let webhook = json!({ "name": "a", "url": "https://a.example.com", "events": ["*"] });

    reader.get("/api/webhooks").await.is(200);
    let refused = reader.post("/api/webhooks", &webhook).await.is(403);
    assert!(refused.header("www-authenticate").contains("scope=\"webhook:write\""));
    writer.get("/api/webhooks").await.is(403);
    writer.post("/api/webhooks", &webhook).await.is(201);
    for path in ["/api/keys", "/api/audit"] {
        reader.get(path).await.is(403);
        writer.get(path).await.is(403);
        operator.get(path).await.is(200);
    }
    let made = json!({ "name": "more", "scopes": ["admin"] });
    writer.post("/api/keys", &made).await.is(403);
    let wrong = json!({ "name": " ", "scopes": ["webhook:all"], "tenant": 7, "expires": "soon" });
    let told = operator.post("/api/keys", &wrong).await.is(422);
    assert_eq!(told.wrong(), ["/scopes", "/tenant", "/expires"]);

    let used = "select count(*) from walhook.api_keys where last_used_at is not null";
    assert_eq!(database.number(used).await, 2);
    let stamp = "select string_agg(last_used_at::text, ',' order by id) from walhook.api_keys";
    let before = database.text(stamp).await;
    reader.get("/api/webhooks").await.is(200);
    assert_eq!(database.text(stamp).await, before, "the last use is written at most once a minute");

    operator.ask("DELETE", &format!("/api/keys/{read_id}"), &[], "").await.is(200);
    reader.get("/api/webhooks").await.is(401);
    operator.ask("DELETE", "/api/keys/wk_0000", &[], "").await.is(404);
    database
        .execute(&format!("update walhook.api_keys set expires_at = now() where id = '{write_id}'"))
        .await;
    writer.post("/api/webhooks", &webhook).await.is(401);

    let actions = "select string_agg(action, ' ' order by id) from walhook.audit where object like 'wk_%'";
    let noted = "key.create key.create key.revoke login.refused key.update login.refused";
    assert_eq!(database.text(actions).await, noted);
    let from = "select distinct actor_kind || ' ' || actor || ' ' || host(from_address) from walhook.audit
                where object like 'wk_%' and action in ('key.create', 'key.revoke')";
    assert_eq!(database.text(from).await, "admin admin 127.0.0.1");
}

#[tokio::test]
async fn who_guesses_is_locked_out_even_with_the_right_key() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    for _ in 0..walhook::domain::limits::API_GUESSES {
        operator.with_key(Some("wrong")).get("/api/webhooks").await.is(401);
    }
    for key in ["wrong", ADMIN] {
        let refused = operator.with_key(Some(key)).get("/api/webhooks").await.is(429);
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=61).contains(&wait), "{wait}");
    }
    let noted =
        "select count(*) from walhook.audit where action = 'login.locked_out' and object = '127.0.0.1'";
    assert_eq!(database.number(noted).await, 1);
}

#[tokio::test]
async fn without_an_operators_token_a_loopback_api_opens_to_the_token_of_this_run() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let mut sidecar = Sidecar::start(&database, Run::with(OPEN)).await;
    let token_of = |said: String| said.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    let first = token_of(sidecar.said());
    assert!(first.starts_with("wt_"), "{}", sidecar.said());
    Client::of(&sidecar, "").with_key(None).get("/api/webhooks").await.is(401);
    Client::of(&sidecar, &first).get("/api/webhooks").await.is(200);
    assert!(!sidecar.log_text().contains(&first), "the token is in the log");
    sidecar.restart().await;
    let second = token_of(sidecar.said());
    assert_ne!(first, second);
    Client::of(&sidecar, &first).get("/api/webhooks").await.is(401);
    Client::of(&sidecar, &second).get("/api/webhooks").await.is(200);
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked_from_the_shell_too() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (sidecar, operator) = served(&database, OPEN).await;
    let file = sidecar.file();
    let shell = async |arguments: &[&str]| {
        let config = ["--config", file.to_str().expect("a plain path")];
        let output = run_once(&[arguments, &config].concat(), &[]).await;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("plain text");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, key, _) = shell(&["keys", "create", "shell", "--scope", "admin", "--expires", "90d"]).await;
    assert_eq!(code, Some(0));
    let client = operator.with_key(Some(key.trim()));
    client.get("/api/audit").await.is(200);
    let (_, list, _) = shell(&["keys", "list", "--json"]).await;
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let listed = &list["data"][0];
    assert_eq!((&listed["name"], &listed["scopes"]), (&json!("shell"), &json!(["admin"])));
    assert!(!list.to_string().contains(key.trim()), "a key is listed");
    let id = listed["id"].as_str().unwrap();
    assert!(key.starts_with(id));
    assert_eq!(shell(&["keys", "revoke", id]).await.0, Some(0));
    client.get("/api/audit").await.is(401);
    assert!(shell(&["keys", "list"]).await.1.contains("revoked"));
    let (code, _, said) = shell(&["keys", "revoke", "wk_nosuch"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no key \"wk_nosuch\""), "{said}");
    assert_eq!(shell(&["keys", "create", "x", "--scope", "everything"]).await.0, Some(2));
    let by = "select distinct actor_kind from walhook.audit where action like 'key.%'";
    assert_eq!(database.text(by).await, "command");
}
