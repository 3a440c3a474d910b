//! Nothing is left half-made: a verb is wholly done, with its entry in the audit and its answer for whoever asks again, or not
//! at all, wherever between its writes the process is killed; and nothing is done that the audit does not take.
//!
//! The first test needs the feature `failpoints`: at a fail point's `return` the binary aborts.

use serde_json::{Value, json};

use super::{ADMIN, Client, OPEN, served_by};
use crate::support::{
    Answer as Reply, Database, PATIENCE, Receiver, Run, Sidecar, background, beside_others, eventually,
};

/// Everything that verbs write, but for what moves on by itself.
const STANDING: &str = "
select concat_ws(E'\\n',
    (select string_agg(concat_ws(' ', name, url, secret, events, version), ', ' order by name) from walhook.webhooks),
    (select string_agg(concat_ws(' ', webhook, status, reason), ', ' order by webhook) from walhook.webhook_states),
    (select string_agg(concat_ws(' ', id, name, revoked_at), ', ' order by id) from walhook.api_keys),
    (select count(*) from walhook.retries), (select count(*) from walhook.backfills),
    (select string_agg(concat_ws(' ', id, status), ', ' order by id) from walhook.deliveries where status <> 'delivered'),
    (select count(*) from walhook.deliveries where operation = 'test'),
    (select string_agg(concat_ws(' ', encode(id, 'hex'), status, answer), ', ' order by id) from walhook.idempotent_answers),
    (select string_agg(concat_ws(' ', id, action, object), ', ' order by id) from walhook.audit))";

/// A verb: its name in the audit, and how it is asked for.
struct Verb {
    action: &'static str,
    method: &'static str,
    path: &'static str,
    body: Value,
}

fn verb(action: &'static str, method: &'static str, path: &'static str, body: Value) -> Verb {
    Verb { action, method, path, body }
}

/// Each after the other, on a webhook `crm` that has dead letters.
fn verbs() -> Vec<Verb> {
    let new = json!({ "name": "new", "url": "https://a.example.com/in", "events": ["orders.created"] });
    vec![
        verb("webhook.create", "POST", "/api/webhooks", new),
        verb("webhook.update", "PATCH", "/api/webhooks/new", json!({ "url": "https://b.example.com/in" })),
        verb("webhook.rotate", "POST", "/api/webhooks/new/rotate-secret", json!({})),
        verb("webhook.pause", "POST", "/api/webhooks/new/pause", json!({ "reason": "a test" })),
        verb("webhook.resume", "POST", "/api/webhooks/new/resume", json!({})),
        verb("webhook.delete", "DELETE", "/api/webhooks/new", Value::Null),
        verb("webhook.cancel_held", "POST", "/api/webhooks/paused/resume", json!({ "cancel_held": true })),
        verb("key.create", "POST", "/api/keys", json!({ "name": "new", "scopes": ["webhook:read"] })),
        verb("retry.create", "POST", "/api/webhooks/crm/retry", json!({ "event": "nosuch" })),
        verb(
            "backfill.create",
            "POST",
            "/api/webhooks/crm/backfill",
            json!({ "table": "orders", "rows_per_second": 1 }),
        ),
    ]
}

impl Verb {
    async fn ask(&self, client: &Client) -> super::Answer {
        let headers = [("if-match", "*"), ("idempotency-key", self.action)];
        let headers = if self.action == "webhook.create" { &headers[..] } else { &headers[..1] };
        match &self.body {
            Value::Null => client.ask(self.method, self.path, headers, "").await,
            body => client.send(self.method, self.path, headers, body).await,
        }
    }
}

/// One that is held; its id is of no log's.
const HELD: &str = "
insert into walhook.webhook_states (webhook, status, reason) values ('paused', 'paused', 'by hand');
insert into walhook.deliveries (id, event_id, event_type, webhook, lane, status, attempts, committed_at,
    schema_name, table_name, row_key, operation, content_type, body)
values ('dlv_' || repeat('0', 36), 'evt', 'orders.created', 'paused', 1, 'held', 0, now(), 'public', 'orders', '1', 'insert',
    'application/json', '{}')";

/// A webhook with a dead letter, and one that is paused, which nothing touches any more.
async fn stage(database: &Database, receiver: &Receiver, operator: &Client) {
    receiver.script("/crm", |_| Reply::Status(503));
    let webhook = json!({
        "name": "crm", "url": receiver.url("/crm"), "events": ["orders.*"], "breaker": false,
        "retry": { "schedule": ["10ms"], "jitter": 0 },
    });
    operator.post("/api/webhooks", &webhook).await.is(201);
    let failed = "select count(*) from walhook.deliveries where status = 'failed'";
    let mut next = 0;
    eventually("a dead letter", PATIENCE, async || {
        next += 1;
        database.execute(&format!("insert into orders values ({next}, 'paid', 1, null)")).await;
        database.number(failed).await > 0
    })
    .await;
    let open = "select count(*) from walhook.deliveries where status not in ('delivered', 'failed')";
    eventually("nothing open", PATIENCE, async || database.number(open).await == 0).await;
    let here = database.text("select pg_current_wal_insert_lsn()::text").await;
    let confirmed = format!(
        "select count(*) from pg_replication_slots where slot_name = '{}' and confirmed_flush_lsn >= '{here}'",
        database.name
    );
    eventually("the log is confirmed", PATIENCE, async || database.number(&confirmed).await > 0).await;
    let paused = json!({ "name": "paused", "url": "https://a.example.com/in", "events": ["*"] });
    operator.post("/api/webhooks", &paused).await.is(201);
    database.execute(HELD).await;
}

/// Kills the process at a point of a verb, and starts it again.
async fn killed_at(point: &str, verb: &Verb, sidecar: &mut Sidecar) -> Client {
    sidecar.next_run(|run| run.fail_at(&format!("{point}=return")));
    sidecar.restart().await;
    let client = Client::of(sidecar, ADMIN);
    let Verb { action, method, path, body } = verb;
    let again = Verb { action, method, path, body: body.clone() };
    // The connection breaks, and whoever reads it fails.
    let asking = background(async move { again.ask(&client).await });
    assert!(!sidecar.ended().await.success(), "{action}: {point} was never reached");
    assert!(asking.await.is_err(), "{action}: there was an answer");
    sidecar.next_run(|mut run| {
        run.environment.retain(|(name, _)| name != "FAILPOINTS");
        run
    });
    sidecar.spawn();
    sidecar.ready().await;
    Client::of(sidecar, ADMIN)
}

#[tokio::test]
#[cfg_attr(not(feature = "failpoints"), ignore = "needs the feature `failpoints`")]
async fn a_kill_between_the_writes_of_a_verb_leaves_all_of_it_or_nothing() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::with(OPEN).expecting("\"level\":\"WARN\"");
    let (mut sidecar, operator) = served_by(&database, run).await;
    stage(&database, &receiver, &operator).await;
    for verb in verbs() {
        let action = verb.action;
        let before = database.text(STANDING).await;
        for point in ["before_audit", "after_audit"] {
            killed_at(point, &verb, &mut sidecar).await;
            assert_eq!(database.text(STANDING).await, before, "{action} left something behind at {point}");
        }
        let client = killed_at("before_answer", &verb, &mut sidecar).await;
        let after = database.text(STANDING).await;
        assert_ne!(after, before, "{action}");
        let noted =
            format!("select count(*) from walhook.audit where action = '{action}' and actor_kind = 'admin'");
        // Those of the stage.
        let of_others = if action == "webhook.create" { 2 } else { 0 };
        assert_eq!(database.number(&noted).await, 1 + of_others, "{action} is in the audit");
        if action == "webhook.create" {
            // Who asks again gets the answer that was lost, with the secret that was made then.
            let answer = verb.ask(&client).await.is(201).json();
            let secret = database.text("select secret from walhook.webhooks where name = 'new'").await;
            assert_eq!(answer["secret"], json!(secret));
            assert_eq!(database.text(STANDING).await, after, "it was made once");
        }
    }
    // The secret that signs is the one that is stored: a rotation that was cut short left no trace of another.
    sidecar.stop().await;
}

#[tokio::test]
async fn what_the_audit_does_not_take_is_not_done() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::with(OPEN).expecting("the API met a fault").expecting("gave deliveries up");
    let (_sidecar, operator) = served_by(&database, run).await;
    stage(&database, &receiver, &operator).await;
    let dead = database.text("select min(id) from walhook.deliveries where status = 'failed'").await;
    let made = operator
        .post("/api/keys", &json!({ "name": "old", "scopes": ["webhook:read"] }))
        .await
        .is(201)
        .json();
    database
        .execute(
            "create function walhook.refuse() returns trigger language plpgsql as
             $$ begin raise exception 'the audit is closed'; end $$;
             create trigger closed before insert on walhook.audit for each row execute function walhook.refuse()",
        )
        .await;
    let before = database.text(STANDING).await;
    let mut asked = verbs();
    for verb in &mut asked {
        if verb.path.contains("/new") && verb.action != "webhook.create" {
            verb.path = match verb.action {
                "webhook.update" | "webhook.delete" => "/api/webhooks/crm",
                "webhook.rotate" => "/api/webhooks/crm/rotate-secret",
                "webhook.pause" => "/api/webhooks/crm/pause",
                _ => "/api/webhooks/paused/resume",
            };
        }
    }
    for verb in &asked {
        assert_eq!(verb.ask(&operator).await.is(500).kind(), "fault", "{}", verb.action);
        assert_eq!(database.text(STANDING).await, before, "{}", verb.action);
    }
    let (none, anew) = (json!({}), json!({ "cancel_held": true }));
    for (path, body) in [
        ("/api/webhooks/crm/test".to_owned(), &none),
        ("/api/webhooks/crm/disable".to_owned(), &none),
        ("/api/webhooks/paused/resume".to_owned(), &anew),
        (format!("/api/webhooks/crm/deliveries/{dead}/retry"), &none),
        (format!("/api/webhooks/paused/deliveries/dlv_{}/cancel", "0".repeat(36)), &none),
    ] {
        assert_eq!(operator.post(&path, body).await.is(500).kind(), "fault", "{path}");
        assert_eq!(database.text(STANDING).await, before, "{path}");
    }
    let key = made["id"].as_str().expect("an id");
    operator.ask("DELETE", &format!("/api/keys/{key}"), &[], "").await.is(500);
    let by_sql = connect_and_write(&database).await;
    assert!(by_sql.contains("the audit is closed"), "{by_sql}");
    assert_eq!(database.text(STANDING).await, before);
}

/// What somebody is told who writes a webhook by SQL.
async fn connect_and_write(database: &Database) -> String {
    let session = crate::support::connect(&database.url).await.expect("a session");
    let refused =
        session.batch_execute("update walhook.webhooks set concurrency = 2").await.expect_err("a refusal");
    refused.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default()
}
