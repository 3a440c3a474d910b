//! What a tenant is told of the event types that there are: those that are public, and nothing else of anybody's.

use serde_json::{Value, json};

use super::{CANARY, OPEN, OURS, database, tenant};
use crate::api::{Client, served_by};
use crate::support::{Database, PATIENCE, Receiver, Run, Sidecar, beside_others, eventually};

/// Deletions of orders are the operator's own, and so is everything of the other tables.
const TOML: &str = r#"
[tables.orders]
tenant = "workspace"
public = ["created", "updated"]
exclude = ["salary"]
mask = { email = "hash", phone = "redact" }
description = "What a workspace has ordered."

[tables.hidden]
description = "0urs-canary of a table"

[[events]]
type = "order.done"
table = "orders"
on = ["update"]
when = "record.note == 'done'"
description = "An order is done."
public = true

[[events]]
type = "order.audited"
table = "orders"
on = ["update"]
description = "0urs-canary of an event"

[[events]]
type = "orders.created"
table = "hidden"
on = ["insert"]
description = "0urs-canary of an event that has the name of a public one"

[[events]]
type = "order.packed"
on = ["message"]
description = "0urs-canary of a message"
"#;

async fn shop() -> Database {
    let database = database().await;
    database
        .execute(&format!(
            "alter table orders add salary numeric, add email text, add phone text, add level int default 7;
             insert into orders (id, workspace, note, salary, email, phone)
             values (1, 'globex', '{CANARY}', 4711, '{CANARY}@example.com', '{CANARY}'), (2, 'acme', 'acme-row', 1, 'a', 'b')"
        ))
        .await;
    database
}

async fn types(client: &Client) -> Vec<Value> {
    let (mut found, mut path) = (Vec::new(), "/api/events?limit=1".to_owned());
    loop {
        let page = client.get(&path).await.is(200).json();
        found.extend(page["data"].as_array().expect("a page").clone());
        let Some(cursor) = page["next_cursor"].as_str() else { return found };
        path = format!("/api/events?limit=1&cursor={cursor}");
    }
}

/// An operator, acme and globex, each with webhooks.
async fn subscribed(database: &Database, receiver: &Receiver) -> (Sidecar, [Client; 2]) {
    let run = Run::with(format!("{OPEN}{TOML}"));
    let url = receiver.url(&format!("/{OURS}"));
    let (sidecar, operator) = served_by(database, run.webhook("ours", &url, "events = [\"*\"]")).await;
    let (acme, globex) = (tenant(&operator, "acme").await, tenant(&operator, "globex").await);
    for (whose, name, events) in [
        (&acme, "crm", json!(["orders.*", "order.*"])),
        (&acme, "other", json!(["orders.created"])),
        (&globex, CANARY, json!(["*"])),
    ] {
        let webhook = json!({ "name": name, "url": receiver.url("/in"), "events": events });
        whose.post("/api/webhooks", &webhook).await.is(201);
    }
    (sidecar, [operator, acme])
}

#[tokio::test]
async fn a_tenant_is_shown_the_public_types_with_its_own_subscribers_and_nothing_else() {
    let _turn = beside_others().await;
    let (database, receiver) = (shop().await, Receiver::start().await);
    let (_sidecar, [operator, acme]) = subscribed(&database, &receiver).await;
    let events = types(&acme).await;
    let names: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(names, ["order.done", "orders.created", "orders.updated"]);
    let told = json!(events).to_string();
    for foreign in [
        CANARY,
        OURS,
        "globex",
        "ours",
        "hidden",
        "salary",
        "4711",
        "acme-row",
        "deleted",
        "truncated",
        "audited",
    ] {
        assert!(!told.contains(foreign), "{foreign} is told: {told}");
    }
    let [done, created, updated] = &events[..] else { panic!("{events:?}") };
    assert_eq!(done["description"], "A row of orders was updated. An order is done.");
    assert_eq!(created["description"], "A row of orders was created. What a workspace has ordered.");
    assert_eq!((&done["subscribers"], &done["subscriber_count"]), (&json!(["acme~crm"]), &json!(1)));
    assert_eq!(created["subscribers"], json!(["acme~crm", "acme~other"]));
    assert_eq!(updated["operations"], json!(["update"]));
    // What is masked is masked in the sample too, and what a hash is of is not to be guessed from it.
    let record = &created["sample"]["data"]["record"];
    assert_eq!(
        created["json_schema"]["$defs"]["row"]["properties"]["level"]["type"],
        json!(["integer", "null"])
    );
    assert!(record["level"].is_i64() && record["phone"].is_string(), "{record}");
    let again = acme.get("/api/events/orders.created").await.is(200).json();
    assert_ne!(again["sample"]["data"]["record"]["email"], record["email"]);

    // The operator is told of everything.
    let all = types(&operator).await;
    let of = |name: &str| all.iter().find(|event| event["type"] == name).cloned().expect("a type");
    let mine = of("orders.created");
    assert_eq!(mine["subscriber_count"], 4, "{mine}");
    assert_eq!(of("order.audited")["subscribers"], json!(["ours"]));
    assert!(all.len() > 10 && all.iter().any(|event| event["type"] == "webhook.failing"));
}

#[tokio::test]
async fn an_event_type_that_is_not_public_is_to_a_tenant_as_if_it_were_not_there() {
    let _turn = beside_others().await;
    let (database, receiver) = (shop().await, Receiver::start().await);
    let (_sidecar, [_, acme]) = subscribed(&database, &receiver).await;
    let names = ["order.done", "orders.created", "orders.updated"];
    for name in &names {
        assert_eq!(acme.get(&format!("/api/events/{name}")).await.is(200).json()["type"], *name);
    }
    let mut told = Vec::new();
    for name in [
        "orders.deleted",
        "orders.truncated",
        "orders.schema_changed",
        "hidden.created",
        "order.audited",
        "order.packed",
        "webhook.failing",
        "zzz.zzz",
    ] {
        let answer = acme.get(&format!("/api/events/{name}")).await.is(404);
        let mut problem = answer.json();
        // What comes near is of its own.
        let hint = problem["hint"].take();
        let hint = hint.as_str().unwrap_or_default();
        assert!(hint.starts_with("GET ") || names.iter().any(|own| hint.contains(own)), "{hint}");
        told.push(problem.to_string().replace(name, "NAME"));
    }
    assert!(told.iter().all(|one| one.contains("NAME") && *one == told[0]), "{told:#?}");
    // Nor does it come near what is not its own, by the cursor or by the route beside it.
    for path in ["/api/events?cursor=b3JkZXJz", "/api/events?tenant=globex", "/api/events?limit=0"] {
        assert_eq!(acme.get(path).await.is(400).kind(), "parameters", "{path}");
    }
    acme.post("/api/templates/render", &json!({ "format": "standard", "event": "order.audited" }))
        .await
        .is(403);
}

#[tokio::test]
async fn what_is_public_follows_the_file_and_a_key_without_the_right_is_told_nothing() {
    let _turn = beside_others().await;
    let database = shop().await;
    let (sidecar, operator) = served_by(&database, Run::with(format!("{OPEN}{TOML}"))).await;
    let acme = tenant(&operator, "acme").await;
    assert_eq!(types(&acme).await.len(), 3);
    acme.with_key(None).get("/api/events").await.is(401);
    sidecar.write_file(&database, &format!("{OPEN}[tables.orders]\ntenant = \"workspace\"\n"));
    sidecar.signal("HUP").await;
    eventually("nothing is public", PATIENCE, async || types(&acme).await.is_empty()).await;
    acme.get("/api/events/orders.created").await.is(404);
    // A table that loses its tenants is nobody's.
    sidecar.write_file(&database, &format!("{OPEN}{TOML}"));
    sidecar.signal("HUP").await;
    eventually("they are public again", PATIENCE, async || types(&acme).await.len() == 3).await;
}
