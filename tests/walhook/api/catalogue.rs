//! Event types and templates over the API.

use serde_json::{Value, json};

use super::{Client, key, served_by};
use crate::support::{Database, Receiver, Run, beside_others};

const TABLE: &str = "
create type mood as enum ('glad', 'sad');
create table things (
    id bigint primary key, name text, price numeric(10, 2), made timestamptz, tags text[], flags bool[][], doc jsonb,
    ok boolean, ratio float8, mood mood, code uuid, raw bytea, secret_note text, email text, views int8[]);
create schema shop;
create table shop.carts (id int primary key);";

const TOML: &str = r#"
[tables.things]
int8 = "string"
exclude = ["secret_note"]
mask = { email = "hash" }
description = "What the shop sells."

[[events]]
type = "thing.sold"
table = "things"
on = ["update"]
when = "record.ok"
description = "Somebody bought it."

[[events]]
type = "order.packed"
on = ["message"]

[[webhooks]]
name = "crm"
url = "http://127.0.0.1:9/"
events = ["things.*", "thing.sold"]
template = "short@v1"

[templates.short]
body = '{"now": "{{data.record.name}}"}'
content_type = "application/json"
[templates.short.versions.v1]
body = '{"then": "{{data.record.name}}"}'

[templates.plain]
body = "{{data.record.id}} {{type}}"
content_type = "text/plain"
"#;

/// Whether a value is as a schema says, as far as these schemas go: type, enum, const, anyOf, properties, required, items.
fn fits(schema: &Value, root: &Value, value: &Value) -> Result<(), String> {
    if let Some(place) = schema["$ref"].as_str() {
        return fits(root.pointer(place.trim_start_matches('#')).expect("a place"), root, value);
    }
    let wrong = |why: &str| Err(format!("{value} {why} {schema}"));
    let is = |word: &str| match word {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    };
    let typed = match &schema["type"] {
        Value::String(word) => is(word),
        Value::Array(words) => words.iter().any(|word| is(word.as_str().unwrap())),
        _ => true,
    };
    if !typed {
        return wrong("is of another type than");
    }
    if schema.get("const").is_some_and(|constant| constant != value)
        || schema["enum"].as_array().is_some_and(|all| !all.contains(value))
    {
        return wrong("is another value than");
    }
    if let Some(any) = schema["anyOf"].as_array()
        && !any.iter().any(|one| fits(one, root, value).is_ok())
    {
        return wrong("is none of");
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            return wrong(&format!("has no {name}, which needs"));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            fits(property, root, value)?;
        }
    }
    for item in value.as_array().into_iter().flatten() {
        fits(&schema["items"], root, item)?;
    }
    Ok(())
}

async fn all(client: &Client) -> Vec<Value> {
    let (mut found, mut path) = (Vec::new(), "/api/events?limit=4".to_owned());
    loop {
        let page = client.get(&path).await.is(200).json();
        found.extend(page["data"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { return found };
        path = format!("/api/events?limit=4&cursor={cursor}");
    }
}

#[tokio::test]
async fn the_event_types_are_described_with_a_schema_that_their_samples_keep() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    database.execute(TABLE).await;
    let receiver = Receiver::start().await;
    let run = Run::with(TOML).webhook("plain", &receiver.url("/plain"), "events = [\"things.created\"]");
    let (_sidecar, operator) = served_by(&database, run).await;
    let events = all(&operator).await;
    let names: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert!(names.is_sorted(), "{names:?}");
    for name in [
        "orders.truncated",
        "shop.carts.created",
        "thing.sold",
        "order.packed",
        "webhook.failing",
        "things.schema_changed",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    for event in &events {
        let (schema, sample) = (&event["json_schema"], &event["sample"]);
        assert_eq!(fits(schema, schema, sample), Ok(()), "{}", event["type"]);
        assert!(event["description"].as_str().unwrap().ends_with('.'), "{event}");
        let word = &sample["data"]["operation"];
        assert!(event["operations"].as_array().unwrap().contains(word), "{event}");
    }
    let one = operator.get("/api/events/things.created").await.is(200).json();
    assert_eq!(one["description"], "A row of things was created. What the shop sells.");
    assert_eq!((&one["subscribers"], &one["subscriber_count"]), (&json!(["crm", "plain"]), &json!(2)));
    let columns = &one["json_schema"]["$defs"]["row"]["properties"];
    assert!(columns.get("secret_note").is_none(), "what never leaves is nowhere");
    assert!(!one.to_string().contains("secret_note"));
    for (column, kind) in [
        ("id", json!(["string", "null"])),
        ("price", json!(["string", "null"])),
        ("ok", json!(["boolean", "null"])),
        ("email", json!(["string", "null"])),
        ("tags", json!(["array", "string", "null"])),
    ] {
        assert_eq!(columns[column]["type"], kind, "{column}");
    }
    assert_eq!(columns["raw"]["contentEncoding"], "base64");
    let sold = operator.get("/api/events/thing.sold").await.is(200).json();
    assert!(sold["description"].as_str().unwrap().ends_with("Somebody bought it."), "{sold}");
    let missing = operator.get("/api/events/thing.sould").await.is(404);
    assert!(missing.text().contains("thing.sold"), "{}", missing.text());
    assert_eq!(operator.get("/api/events?cursor=x").await.is(400).wrong(), ["cursor"]);

    // A row as it really comes keeps the schema as well.
    let insert = "insert into things values (1, 'a', 1.50, now(), '{a,null}', '{{t,f},{f,t}}', '[1]', true, 'NaN', 'sad',
                  gen_random_uuid(), '\\x00', 'hidden', 'ada@example.com'), (2)";
    database
        .execute(&insert.replace(
            "(2)",
            "(2, null, null, null, null, null, null, null, null, null, null, null, null, null)",
        ))
        .await;
    let schema = &one["json_schema"];
    for request in receiver.expect("/plain", 2).await {
        assert_eq!(fits(schema, schema, &request.json()), Ok(()));
    }
}

#[tokio::test]
async fn templates_are_listed_with_their_versions_and_tried_without_sending_anything() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    database.execute(TABLE).await;
    let (_sidecar, operator) = served_by(&database, Run::with(TOML)).await;
    let listed = operator.get("/api/templates?limit=1").await.is(200).json();
    assert_eq!((&listed["data"][0]["name"], listed["next_cursor"].is_string()), (&json!("plain"), true));
    let short = operator.get("/api/templates/short").await.is(200).json();
    assert_eq!(short["webhooks"], json!(["crm"]));
    assert_eq!(short["versions"]["v1"]["text"], "{\"then\": \"{{data.record.name}}\"}");
    operator.get("/api/templates/nosuch").await.is(404);

    let data = json!({ "record": { "id": 7, "name": "Ada" } });
    let render = async |document: Value| operator.post("/api/templates/render", &document).await;
    let body = async |document: Value| render(document).await.is(200).json()["body"]["content"].clone();
    assert_eq!(body(json!({ "template": "short", "data": data })).await, "{\"now\": \"Ada\"}");
    assert_eq!(body(json!({ "template": "short@v1", "data": data })).await, "{\"then\": \"Ada\"}");
    assert_eq!(body(json!({ "webhook": "crm", "data": data })).await, "{\"then\": \"Ada\"}");
    let tried = json!({ "text": "{{type}}: {{data.record.id}}", "content_type": "text/plain", "event": "things.deleted", "data": { "record": null, "old": { "id": 1 } } });
    let refused = render(tried).await.is(422);
    assert_eq!(refused.wrong(), ["/data"]);
    let tried = json!({ "text": "{{type}}: {{data.old.id}}", "content_type": "text/plain", "event": "things.deleted" });
    assert_eq!(body(tried).await, "things.deleted: 1");
    let made = render(json!({ "format": "cloudevents", "event": "things.created" })).await.is(200).json();
    assert_eq!(made["content_type"], "application/cloudevents+json");
    assert!(made["body"]["content"].as_str().unwrap().contains("things.created"));

    let refused = render(json!({ "text": "line\n{{#each}" })).await.is(422);
    assert_eq!(refused.wrong(), ["/text"]);
    assert!(refused.text().contains("line 2"), "{}", refused.text());
    for (wrong, places) in [
        (json!({}), vec![""]),
        (json!({ "template": "short", "format": "raw" }), vec![""]),
        (json!({ "template": "nosuch" }), vec!["/template"]),
        (json!({ "webhook": "nosuch" }), vec!["/webhook"]),
        (json!({ "format": "nosuch" }), vec!["/format"]),
        (json!({ "format": "raw", "event": "no.such" }), vec!["/event"]),
        (json!({ "format": "raw", "data": 7, "content_type": "a/b" }), vec!["/content_type"]),
        (json!({ "format": "raw", "data": 7 }), vec!["/data"]),
        (json!({ "text": "x".repeat(20_000) }), vec!["/text"]),
    ] {
        assert_eq!(render(wrong.clone()).await.is(422).wrong(), places, "{wrong}");
    }
    assert_eq!(database.number("select count(*) from walhook.deliveries").await, 0, "nothing was sent");
    let (_, writer) = key(&operator, &["webhook:write"]).await;
    for path in ["/api/events", "/api/templates", "/api/live"] {
        operator.with_key(Some(&writer)).get(path).await.is(403);
    }
}
