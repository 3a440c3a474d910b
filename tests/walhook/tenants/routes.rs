//! Every route that there is, walked by a tenant that has no business there.

use serde_json::{Value, json};

use super::{CANARY, OURS, all_delivered, database, hook, live, started, tenant};
use crate::api::Client;
use crate::support::{Database, Receiver, beside_others};

/// What there is of globex and of the operator, as the ledger has it.
async fn standing(database: &Database) -> String {
    database
        .text(
            "select concat((select jsonb_agg(to_jsonb(w) order by name) from walhook.webhooks w where tenant = 'globex'),
                 (select jsonb_agg(to_jsonb(s) order by webhook) from walhook.webhook_states s),
                 (select string_agg(concat(id, status, attempts), ' ' order by id) from walhook.deliveries),
                 (select string_agg(concat(id, revoked_at), ' ' order by id) from walhook.api_keys),
                 (select count(*) from walhook.backfills), (select count(*) from walhook.retries))",
        )
        .await
}

/// The newest delivery of a webhook.
async fn newest(operator: &Client, webhook: &str) -> String {
    let page = operator.get(&format!("/api/webhooks/{webhook}/deliveries?limit=1")).await.is(200).json();
    page["data"][0]["id"].as_str().expect("a delivery").to_owned()
}

#[tokio::test]
async fn no_route_tells_or_changes_anything_of_another_tenant_or_of_the_operator() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let (_sidecar, operator) = started(&database, &receiver, "").await;
    let (acme, globex) = (tenant(&operator, "acme").await, tenant(&operator, "globex").await);
    let path = format!("/{CANARY}");
    hook(&globex, "crm", &receiver.url(&path)).await;
    let noted = json!({ "description": CANARY, "headers": { "x-key": CANARY }, "metadata": { "k": CANARY } });
    globex.send("PATCH", "/api/webhooks/globex~crm", &[("if-match", "*")], &noted).await.is(200);
    live(&database, &receiver, &path, "globex").await;
    database
        .execute(&format!("insert into orders values (1, 'globex', '{CANARY}'), (2, null, '{OURS}')"))
        .await;
    all_delivered(&database).await;
    for webhook in ["globex~crm", "ours"] {
        operator.post(&format!("/api/webhooks/{webhook}/retry"), &json!({})).await.is(202);
    }
    let before = standing(&database).await;
    let document = operator.get("/api/openapi.json").await.json();
    let base = document["servers"][0]["url"].as_str().expect("where the routes are");
    let mut walked = Vec::new();
    for webhook in ["globex~crm", "ours"] {
        let delivery = newest(&operator, webhook).await;
        for (path, verbs) in document["paths"].as_object().expect("paths") {
            let filled = path.replace("{id}", webhook).replace("{delivery_id}", &delivery);
            let filled = format!(
                "{base}{}",
                filled.replace("{job}", "1").replace("{name}", webhook).replace("{version}", "v1")
            )
            .replace("{type}", "hidden.created");
            assert!(!filled.contains('{'), "a parameter that this test does not know: {filled}");
            for verb in ["get", "post", "put", "patch", "delete"] {
                if verbs[verb].is_null() {
                    continue;
                }
                if verb == "get" && path.starts_with("/webhooks/{id}") && !path.contains("{job}") {
                    operator.get(&filled).await.is(200);
                }
                let headers = [("content-type", "application/json"), ("if-match", "*")];
                let answer = acme.ask(&verb.to_uppercase(), &filled, &headers, body(verb, &filled)).await;
                let told = answer.text();
                if path.contains('{') {
                    assert!([403, 404].contains(&answer.status), "{verb} {filled}: {} {told}", answer.status);
                }
                assert!(answer.status < 500, "{verb} {filled}: {told}");
                let own = told.replace(&filled, "").replace(&delivery, "").replace(webhook, "");
                for foreign in [CANARY, OURS, "globex", "\"ours\""] {
                    assert!(!own.contains(foreign), "{verb} {filled} tells of {foreign}: {told}");
                }
                walked.push(answer.status);
            }
        }
    }
    assert!(walked.len() > 30 && walked.contains(&403) && walked.contains(&200), "{walked:?}");
    assert_eq!(standing(&database).await, before, "nothing was changed");
}

/// A body that would do something, where it were allowed.
fn body(verb: &str, path: &str) -> &'static str {
    match verb {
        "get" | "delete" => "",
        "patch" => "{\"description\": \"taken over\"}",
        _ if path.ends_with("/pause") || path.ends_with("/disable") => "{\"reason\": \"taken over\"}",
        _ => "{}",
    }
}

#[tokio::test]
async fn what_is_not_its_own_is_to_a_tenant_as_if_it_were_not_there() {
    let _turn = beside_others().await;
    let (database, receiver) = (database().await, Receiver::start().await);
    let (_sidecar, operator) = started(&database, &receiver, "").await;
    let (acme, globex) = (tenant(&operator, "acme").await, tenant(&operator, "globex").await);
    hook(&globex, "crm", &receiver.url("/globex")).await;
    live(&database, &receiver, "/globex", "globex").await;
    all_delivered(&database).await;
    let delivery = newest(&operator, "globex~crm").await;
    let nosuch = "nosuch".to_owned();
    for (verb, end) in [
        ("GET", String::new()),
        ("PATCH", String::new()),
        ("PUT", String::new()),
        ("DELETE", String::new()),
        ("POST", "/enable".to_owned()),
        ("POST", "/pause".to_owned()),
        ("POST", "/test".to_owned()),
        ("GET", "/stats".to_owned()),
        ("POST", "/rotate-secret".to_owned()),
        ("GET", "/retry".to_owned()),
        ("POST", "/retry".to_owned()),
        ("GET", "/retry/1".to_owned()),
        ("GET", "/deliveries".to_owned()),
        ("GET", format!("/deliveries/{delivery}")),
        ("POST", format!("/deliveries/{delivery}/retry")),
        ("POST", format!("/deliveries/{delivery}/cancel")),
    ] {
        let mut told: Vec<(Value, Vec<(String, String)>)> = Vec::new();
        for name in ["globex~crm", "globex~nosuch", "ours", "acme~nosuch", &nosuch] {
            if name == "acme~nosuch" && (end.contains(&delivery) || end == "/retry/1") {
                // In its own house it is told that there is no such delivery, and no such job.
                continue;
            }
            let headers = [("content-type", "application/json"), ("if-match", "\"1\"")];
            let body = if verb == "GET" || verb == "DELETE" { "" } else { "{}" };
            let answer = acme.ask(verb, &format!("/api/webhooks/{name}{end}"), &headers, body).await.is(404);
            let text = answer.text().replace(answer.header("x-request-id"), "").replace(name, "NAME");
            let mut kept: Vec<_> = answer.headers.clone().into_iter().collect();
            kept.retain(|(name, _)| {
                !["date", "x-request-id", "content-length", "ratelimit"].contains(&name.as_str())
            });
            kept.sort();
            told.push((serde_json::from_str(&text).expect("JSON"), kept));
        }
        assert!(told.iter().all(|one| *one == told[0]), "{verb} {end}: {told:?}");
    }
}
