//! What no route or every route answers, and the description of all of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{OPEN, served};
use crate::support::{Database, beside_others};

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_its_place() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    let json_type = [("content-type", "application/json")];
    let post = async |headers: &[(&str, &str)], body: &str| {
        operator.ask("POST", "/api/webhooks", headers, body).await
    };

    assert_eq!(operator.get("/api/nosuch").await.is(404).kind(), "not-found");
    assert_eq!(operator.get("/api/v1/webhooks/a/nosuch").await.is(404).kind(), "not-found");
    let refused = operator.ask("PATCH", "/api/webhooks", &[], "").await.is(405);
    assert_eq!(refused.header("allow"), "GET,HEAD,POST");
    let refused = post(&json_type, "{\"name\": ").await.is(400);
    assert!(refused.text().contains("line 1, column 9"), "{}", refused.text());
    assert_eq!(post(&json_type, "[1]").await.is(422).wrong(), [""]);
    assert_eq!(post(&json_type, "{\"name\": \"a\\u0000\"}").await.is(422).wrong(), ["/name"]);
    post(&[("content-type", "text/plain")], "{}").await.is(415);
    post(&[json_type[0], ("content-encoding", "gzip")], "{}").await.is(415);
    // It is announced too long, and refused before it comes.
    let long = [json_type[0], ("content-length", "100000000")];
    assert_eq!(post(&long, "{\"name\": \"").await.is(413).kind(), "too-long");
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    post(&json_type, &deep).await.is(400);

    for (query, wrong) in [
        ("cursor=made-up", vec!["cursor"]),
        ("cursor=ZGVsaXZlcnk6eA", vec!["cursor"]),
        ("limit=0&limt=3", vec!["limit", "limt"]),
        ("limit=1&limit=2", vec!["limit"]),
        ("limit=201", vec!["limit"]),
        ("a%00=b", vec!["a\u{fffd}"]),
    ] {
        assert_eq!(operator.get(&format!("/api/webhooks?{query}")).await.is(400).wrong(), wrong, "{query}");
    }
    let query = "status=lost&since=yesterday&error=9xx&cursor=AAAA";
    let refused = operator.get(&format!("/api/deliveries?{query}")).await.is(400);
    assert_eq!(refused.wrong(), ["cursor", "status", "error", "since"]);
    operator.get("/api/webhooks/%00").await.is(404);
    operator.get("/api/webhooks/%ff").await.is(404);
    assert_eq!(database.number("select count(*) from walhook.webhooks").await, 0);
}

#[tokio::test]
async fn an_answer_has_the_requests_id_and_is_compressed_where_that_is_asked_for() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    let with = async |headers: &[(&str, &str)]| operator.ask("GET", "/api/openapi.json", headers, "").await;
    assert_eq!(with(&[("x-request-id", "mine-1.a_b")]).await.header("x-request-id"), "mine-1.a_b");
    for odd in ["a b", "<script>", &"x".repeat(101)] {
        let id = with(&[("x-request-id", odd)]).await.header("x-request-id").to_owned();
        assert!(id.len() == 32 && id != odd, "{id}");
    }
    let plain = with(&[]).await;
    let small = with(&[("accept-encoding", "gzip")]).await;
    assert_eq!(small.header("content-encoding"), "gzip");
    assert!(small.body.len() * 3 < plain.body.len(), "{} of {}", small.body.len(), plain.body.len());
}

/// Names of schemas that a part of the document refers to.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                let name = reference.strip_prefix("#/components/schemas/").expect("a reference within");
                found.insert(name.to_owned());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_describes_every_route_and_no_other() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let (_sidecar, operator) = served(&database, OPEN).await;
    let document = operator.with_key(None).get("/api/openapi.json").await.is(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    assert_eq!(document, operator.get("/api/v1/openapi.json").await.json());
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    let known = document["components"]["schemas"].as_object().unwrap();
    for name in &used {
        assert!(known.contains_key(name), "nothing is named {name}");
    }

    let nobody = operator.with_key(None);
    let mut ids = BTreeSet::new();
    let mut count = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = [
            ("{id}", "crm"),
            ("{delivery_id}", "dlv_0"),
            ("{job}", "1"),
            ("{type}", "a.b"),
            ("{name}", "a"),
            ("{version}", "v1"),
        ]
        .into_iter()
        .fold(path.clone(), |path, (parameter, value)| path.replace(parameter, value));
        assert!(!filled.contains('{'), "{path}");
        for method in ["get", "put", "post", "delete", "patch"] {
            let answered = nobody.ask(&method.to_uppercase(), &format!("/api{filled}"), &[], "").await;
            let Some(operation) = item.get(method) else {
                assert_eq!(answered.status, 405, "{method} {path} is not described");
                continue;
            };
            count += 1;
            // It is there, and open to nobody.
            assert_eq!(answered.status, 401, "{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
            assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{method} {path}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(in_path, path.matches('{').count(), "{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let description = response["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{method} {path} {status}: what the answer is");
            }
            let responses = operation["responses"].as_object().unwrap();
            let wrong = responses.iter().filter(|(status, _)| status.starts_with(['4', '5']));
            for (status, response) in wrong {
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, &json!("#/components/schemas/Problem"), "{method} {path} {status}");
            }
            for status in ["401", "403", "429", "500", "503"] {
                assert!(responses.contains_key(status), "{method} {path} {status}");
            }
        }
    }
    assert!(count >= 38, "{count} operations");
}
