//! Commands that many write down once and run from anywhere: keys, numbers, secrets, templates, retries and backfills, by an
//! instance over HTTP and straight on the database, with the same documents.

use serde_json::{Value, json};

use crate::commands::{ADMIN, OPEN, Person, served};
use crate::support::{Answer, Database, PATIENCE, Receiver, Run, beside_others, eventually};

const SHARED: &str = "whsec_c29tZXRoaW5nIGVsc2UgdG8gc2lnbiB3aXRo";

#[tokio::test]
async fn i13_keys_are_made_listed_and_revoked_from_anywhere() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let sidecar = served(&database, Run::with("")).await;
    let [here, there] = [Person::at_the_database(&database, ""), Person::far_away(&sidecar, ADMIN)];
    for (person, name) in [(&here, "here"), (&there, "there")] {
        let create = ["keys", "create", name, "--scope", "webhook:read", "--expires", "90d"];
        let made = person.types(&create).await.is(0);
        assert!(made.out.starts_with("wk_") && made.out.lines().count() == 1, "{}", made.out);
        // It opens what it is for, and nothing else.
        let reader = Person::far_away(&sidecar, made.out.trim());
        reader.hears(0, &["webhooks", "list"], &["there is nothing to list"]).await;
        reader.hears(1, &["keys", "list"], &["needs the scope admin"]).await;
        reader.hears(1, &["webhooks", "reveal", "crm"], &["needs the scope admin"]).await;
        let id = made.out.trim().rsplit_once('_').expect("a key").0.to_owned();
        person.hears(0, &["keys", "revoke", &id], &[&id, name, "is refused from now on"]).await;
        reader.hears(1, &["webhooks", "list"], &["not one that is valid now"]).await;
        let tenants = ["keys", "create", "t", "--scope", "webhook:read", "--tenant", "acme"];
        let made = person.reads(&tenants).await;
        assert_eq!((&made["tenant"], &made["scopes"]), (&json!("acme"), &json!(["webhook:read"])));
        person.hears(1, &["keys", "revoke", "wk_nosuch"], &["there is no key \"wk_nosuch\""]).await;
        person.hears(2, &["keys", "create", "x", "--scope", "all"], &["expected one of webhook:read"]).await;
    }
    for list in [&["keys", "list", "--json"][..], &["keys", "list"], &["keys", "list", "--limit", "1"]] {
        let [one, other] = [here.types(list).await.is(0), there.types(list).await.is(0)];
        assert_eq!((one.out, one.err), (other.out, other.err), "{list:?}");
    }
    let all = there.reads(&["keys", "list", "--all"]).await;
    assert_eq!(all["data"].as_array().map(Vec::len), Some(4));
    there.hears(0, &["keys", "list"], &["STATE", "revoked", "acme", "valid"]).await;
    let kinds = "select string_agg(distinct actor_kind, ',' order by actor_kind) from walhook.audit where action like 'key.%'";
    assert_eq!(database.text(kinds).await, "admin,command");
}

#[tokio::test]
async fn i12_secrets_are_rotated_and_revealed_from_anywhere_by_whoever_may_do_everything() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let sidecar = served(&database, Run::with(OPEN)).await;
    let [here, there] = [Person::at_the_database(&database, OPEN), Person::far_away(&sidecar, ADMIN)];
    for (person, name) in [(&here, "crm0"), (&there, "crm1")] {
        let create = ["webhooks", "create", name, "--url", "https://a.example.com/", "--events", "orders.*"];
        person.types(&[&create[..], &["--secret", SHARED]].concat()).await.is(0);
        let revealed = person.types(&["webhooks", "reveal", name]).await.is(0);
        assert_eq!(revealed.out, format!("{SHARED}\n"));
        let rotated = person.types(&["webhooks", "rotate", name, "--overlap", "1h"]).await.is(0);
        let new = rotated.out.trim().to_owned();
        assert!(new.starts_with("whsec_") && rotated.out.lines().count() == 1 && new != SHARED);
        rotated.says(&["with the one before it too", "plain text"]);
        let revealed = person.reads(&["webhooks", "reveal-secret", name]).await;
        assert_eq!((&revealed["webhook"], &revealed["secrets"][0]["secret"]), (&json!(name), &json!(new)));
        assert!(revealed["secrets"][1]["until"].is_string(), "{revealed}");
        let again = person.reads(&["webhooks", "rotate-secret", name, "--overlap", "0s"]).await;
        assert_eq!((&again["previous_until"], &again["encrypted"]), (&Value::Null, &json!(false)));
        person.hears(2, &["webhooks", "rotate", name, "--overlap", "soon"], &["expected a duration"]).await;
        person.hears(1, &["webhooks", "reveal", "crm9"], &["there is no webhook \"crm9\""]).await;
    }
    // Who may write makes a new secret, and sees none that is there; what is shown is on the record first.
    let made = here.types(&["keys", "create", "w", "--scope", "webhook:write"]).await.is(0);
    let writer = Person::far_away(&sidecar, made.out.trim());
    writer.types(&["webhooks", "rotate", "crm0"]).await.is(0);
    writer.hears(1, &["webhooks", "reveal", "crm0"], &["needs the scope admin"]).await;
    let create = ["keys", "create", "t", "--scope", "webhook:write", "--tenant", "acme"];
    let made = here.types(&create).await.is(0);
    let tenant = Person::far_away(&sidecar, made.out.trim());
    tenant.hears(1, &["webhooks", "reveal", "crm0"], &["this is the operator's alone"]).await;
    tenant.hears(1, &["webhooks", "reveal", "acme~own"], &["this is the operator's alone"]).await;
    let count = "select count(*) from walhook.audit where action = 'webhook.reveal'";
    assert_eq!(database.number(count).await, 4);
    database.execute("alter table walhook.audit add constraint closed check (action = '') not valid").await;
    here.types(&["webhooks", "reveal", "crm0"]).await.is(1);
    let told = database.text("select string_agg(a::text, ' ') from walhook.audit a").await;
    assert!(!told.contains("whsec_"), "{told}");
}

#[tokio::test]
async fn templates_are_kept_tried_and_removed_from_anywhere() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let file = format!("{OPEN}[templates.filed]\nbody = '{{}}'\n");
    let sidecar = served(&database, Run::with(&file)).await;
    let [here, there] = [Person::at_the_database(&database, &file), Person::far_away(&sidecar, ADMIN)];
    for (person, name) in [(&here, "sms0"), (&there, "sms1")] {
        let text = person.write("sms.hbs", "Order {{data.record.id}}\n");
        let create = ["templates", "create", name, "--file", &text, "--content-type", "text/plain"];
        let first = [&create[..], &["--description", "for phones"]].concat();
        person.hears(0, &first, &[&format!("{name}@v1 is kept")]).await;
        let data = person.write("event.json", "{\"record\": {\"id\": 7}}");
        let pinned = format!("{name}@v1");
        let render = ["templates", "render", &pinned, "--data", &data];
        person.hears(0, &render, &["content-type: text/plain", "Order 7"]).await;
        let raw = person.types(&[&render[..], &["--raw"]].concat()).await.is(0);
        assert_eq!(raw.out, "Order 7\n");
        let draft = person.write("draft.hbs", "{\"n\": {{data.record.id}}}");
        let tried = ["templates", "render", "--file", &draft, "--data", &data];
        assert_eq!(person.reads(&tried).await["body"]["content"], "{\"n\": 7}");
        let second =
            ["templates", "create", name, "--text", "No {{data.record.id}}", "--content-type", "text/plain"];
        assert_eq!(person.reads(&second).await["version"], "v2");
        let latest = format!("{name}, which is {name}@v2");
        person.hears(0, &["templates", name], &[&latest, "No {{", "for: for phones"]).await;
        person.hears(0, &["templates", "show", &pinned], &["Order {{data.record.id}}"]).await;
        let hook = ["webhooks", "create", name, "--url", "https://a.example.com/", "--events", "orders.*"];
        person.types(&[&hook[..], &["--template", &pinned]].concat()).await.is(0);
        let used = format!("is used by {name}");
        person.hears(1, &["templates", "delete", &pinned], &[&used, "hint:"]).await;
        person
            .hears(1, &["templates", "create", "filed", "--text", "{}"], &["is declared in", "hint:"])
            .await;
        let bad = ["templates", "create", name, "--text", "{{#if"];
        person.hears(1, &bad, &["text: the template is not valid", "line 1"]).await;
        person.hears(1, &["templates", "delete", "nosuch"], &["there is no template \"nosuch\""]).await;
        person.hears(2, &["templates", "create", name], &["--file"]).await;
    }
    for list in [
        &["templates"][..],
        &["templates", "list", "--json"],
        &["templates", "sms0"],
        &["templates", "show", "filed", "--json"],
        &["templates", "show", "sms1@v2", "--json"],
    ] {
        let [one, other] = [here.types(list).await.is(0), there.types(list).await.is(0)];
        assert_eq!((one.out, one.err), (other.out, other.err), "{list:?}");
    }
    there.hears(0, &["templates", "list"], &["filed", "file", "database", "v1,v2"]).await;
    for (person, name) in [(&here, "sms0"), (&there, "sms1")] {
        person.types(&["webhooks", "delete", name, "--yes"]).await.is(0);
        person.hears(0, &["templates", "delete", &format!("{name}@v1")], &["is removed"]).await;
        person.hears(0, &["templates", "delete", name], &["with all its versions is removed"]).await;
    }
    assert_eq!(database.number("select count(*) from walhook.templates").await, 0);
}

#[tokio::test]
async fn dead_letters_are_sent_again_and_counted_from_anywhere() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let once = "events = [\"orders.*\"]\nretry = { schedule = [], jitter = 0 }\nbreaker = false";
    let run = Run::with(OPEN).webhook("crm", &receiver.url("/crm"), once).expecting("gave deliveries up");
    let file = run.toml.clone();
    let mut sidecar = served(&database, run).await;
    let people = [Person::at_the_database(&database, &file), Person::far_away(&sidecar, ADMIN)];
    let failed = "select count(*) from walhook.deliveries where status = 'failed'";
    let delivered = "select count(*) from walhook.deliveries where status = 'delivered'";
    for (turn, person) in people.iter().enumerate() {
        let before = i64::try_from(4 * turn).expect("a few");
        receiver.script("/crm", |_| Answer::Status(500));
        let first = 10 * turn;
        let rows = format!(
            "insert into orders select n, 'paid', n, null from generate_series({first}, {first} + 3) n"
        );
        database.execute(&rows).await;
        eventually("dead letters", PATIENCE, async || database.number(failed).await == 4).await;
        let counted = person.reads(&["retry", "crm", "--dry-run", "--error", "5xx"]).await;
        assert_eq!(counted, json!({ "dry_run": true, "count": 4, "left_out": 0, "reasons": [] }));
        person.hears(0, &["retry", "crm", "--dry-run"], &["4 failed deliveries would be sent again"]).await;
        receiver.script("/crm", |_| Answer::Status(204));
        let id = database.text("select min(id) from walhook.deliveries where status = 'failed'").await;
        let usage = ["retry", &id, "--error", "5xx"];
        person.hears(2, &usage, &["choose among the deliveries of a webhook"]).await;
        person.hears(0, &["retry", &id], &["1 delivery is on the way again"]).await;
        eventually("one is there", PATIENCE, async || database.number(delivered).await == before + 1).await;
        person.hears(1, &["retry", &id], &["cannot be sent again", "--status delivered"]).await;
        person
            .hears(0, &["retry", "crm", "--yes", "--rate", "100/s"], &["3 deliveries are on the way again"])
            .await;
        eventually("all are there", PATIENCE, async || database.number(delivered).await == before + 4).await;
        person.hears(0, &["retry", "crm"], &["crm has no failed deliveries"]).await;
        person
            .hears(1, &["retry", "cmr"], &["there is no webhook \"cmr\"", "Perhaps you meant \"crm\"."])
            .await;
        database.execute(LATER).await;
        let held = person.types(&["webhooks", "pause", "crm", "--reason", "noon"]).await.is(0);
        held.says(&["is paused"]);
        let replay = ["retry", "crm", "--status", "delivered", "--dry-run"];
        person.hears(0, &replay, &["crm is paused (noon)", "would be sent again"]).await;
        person.types(&["webhooks", "resume", "crm"]).await.is(0);
        let detached = person.reads(&["retry", "crm", "--status", "delivered", "--detach", "--yes"]).await;
        assert_eq!(
            (&detached["webhook"], &detached["asked"]["status"]),
            (&json!("crm"), &json!(["delivered"]))
        );
        let done = "select count(*) from walhook.retries where status not in ('done')";
        eventually("it is done", PATIENCE, async || database.number(done).await == 0).await;
        eventually("all are there", PATIENCE, async || database.number(delivered).await == before + 4).await;
    }
    numbers_are_the_same(&people).await;
    // Without an instance it is asked for all the same, and waits for one.
    sidecar.stop().await;
    database.execute(LATER).await;
    let replay = ["retry", "crm", "--status", "delivered", "--yes"];
    people[0].hears(0, &replay, &["no walhook has begun with it"]).await;
    assert_eq!(database.number("select count(*) from walhook.retries where status = 'pending'").await, 1);
}

/// What was sent again a moment ago would be left alone.
const LATER: &str = "update walhook.deliveries set sent_again_at = sent_again_at - interval '1 minute'";

/// Of eight dead letters that were sent again.
async fn numbers_are_the_same(people: &[Person]) {
    for numbers in [&["webhooks", "stats", "crm"][..], &["stats", "crm"], &["stats"]] {
        let says: &[&str] =
            if numbers.len() == 1 { &["WEBHOOK", "crm"] } else { &["24h", "HTTP 5xx in 7d", "sla"] };
        for person in people {
            person.types(numbers).await.is(0).says(says);
        }
    }
    for person in people {
        let crm = person.reads(&["stats", "crm", "--since", "3h"]).await;
        assert_eq!(
            (&crm["windows"][0]["window"], &crm["windows"][0]["attempts"]["failed"]),
            (&json!("3h"), &json!(8))
        );
        let since = ["webhooks", "stats", "crm", "--since", "2020-01-01T00:00:00+02:00"];
        assert_eq!(person.reads(&since).await["windows"][0]["window"], "2019-12-31T22:00:00Z");
        let all = person.reads(&["stats"]).await;
        assert_eq!(
            (&all["webhooks"][0]["webhook"], &all["webhooks"][0]["windows"][0]["window"]),
            (&json!("crm"), &json!("24h"))
        );
        person.hears(1, &["stats", "cmr"], &["Perhaps you meant \"crm\"."]).await;
        person.hears(2, &["stats", "--since", "yesterday"], &["how long ago"]).await;
    }
}

#[tokio::test]
async fn existing_rows_are_delivered_from_anywhere() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    database.execute("insert into orders select n, 'paid', n, null from generate_series(1, 300) n").await;
    let run = Run::with(OPEN).webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]");
    let file = run.toml.clone();
    let sidecar = served(&database, run).await;
    let people = [Person::at_the_database(&database, &file), Person::far_away(&sidecar, ADMIN)];
    for (turn, person) in people.iter().enumerate() {
        let (first, second) = (2 * turn + 1, 2 * turn + 2);
        let few = ["backfill", "crm", "--table", "orders", "--where", "id <= 20"];
        let said = person.types(&few).await.is(0);
        said.says(&[
            &format!("backfill {first}: rows of orders go to crm as orders.created"),
            &format!("backfill {first} is done, 20 rows, 20 deliveries"),
        ]);
        let slow = ["backfill", "crm", "--table", "orders", "--rate", "5/s", "--detach"];
        let made = person.reads(&slow).await;
        assert_eq!(
            (&made["id"], &made["running"], &made["event"]),
            (&json!(second), &json!(true), &json!("orders.created"))
        );
        let number = second.to_string();
        for (verb, word) in
            [("pause", "is paused"), ("show", "is paused"), ("resume", "is"), ("cancel", "is cancelled")]
        {
            person.hears(0, &["backfill", verb, &number], &[&format!("backfill {number} "), word]).await;
        }
        person.hears(1, &["backfill", "resume", &number], &["cannot be resumed", "It is cancelled"]).await;
        person.hears(1, &["backfill", "cancel", "77"], &["there is no backfill \"77\"", "hint:"]).await;
        person.hears(1, &["backfill", "crm", "--table", "ordres"], &["Perhaps you meant \"orders\"."]).await;
        person.hears(2, &["backfill", "crm"], &["--table"]).await;
    }
    for list in [
        &["backfill", "--list"][..],
        &["backfill", "--json"],
        &["backfill", "--list", "--json", "--limit", "1"],
    ] {
        let [one, other] = [people[0].types(list).await.is(0), people[1].types(list).await.is(0)];
        assert_eq!((one.out, one.err), (other.out, other.err), "{list:?}");
    }
    let list = people[1].reads(&["backfill", "--list"]).await;
    assert_eq!((&list["data"][0]["id"], &list["data"][3]["rows_done"]), (&json!(4), &json!(20)));
}
