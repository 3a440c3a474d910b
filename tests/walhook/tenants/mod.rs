//! Tenants: a product's customers, with webhooks of their own and no eyes for anybody else's rows. Each test is one of two
//! customers that tries to see the other's, or the operator.

mod catalogue;
mod hands;
mod routes;
mod rows;

use serde_json::{Value, json};

use crate::api::{Client, served_by};
use crate::support::{Database, PATIENCE, Receiver, Run, Sidecar, eventually, run_once};

/// Stands in everything of globex: in its rows, its URL, its headers, its notes.
const CANARY: &str = "gl0bex-canary";
/// The same of the operator.
const OURS: &str = "0urs-canary";

/// What tenants may be told of.
const PUBLIC: &str = "[tables.orders]\ntenant = \"workspace\"\npublic = true\n";
/// The receivers of the tests stand on the same machine.
const OPEN: &str = "[security]\ntenants = { allow_http = true, allow_networks = [\"127.0.0.0/8\"] }\n";

/// Orders of workspaces, by `id`; `hidden` says nothing of tenants.
async fn database() -> Database {
    let database = Database::new().await;
    database
        .execute(
            "create table orders (id int8 primary key, workspace text, note text);
             alter table orders replica identity full;
             create table hidden (id int8 primary key, workspace text, note text)",
        )
        .await;
    database
}

/// A sidecar with a webhook of the operator's.
async fn started(database: &Database, receiver: &Receiver, toml: &str) -> (Sidecar, Client) {
    let run = Run::with(format!("{OPEN}{PUBLIC}{toml}"));
    let url = receiver.url(&format!("/{OURS}"));
    served_by(database, run.webhook("ours", &url, "events = [\"*\", \"*.schema_changed\"]")).await
}

/// A key of a tenant's that reads and writes.
async fn tenant(operator: &Client, tenant: &str) -> Client {
    let asked = json!({ "name": tenant, "tenant": tenant, "scopes": ["webhook:read", "webhook:write"] });
    let made = operator.post("/api/keys", &asked).await.is(201).json();
    assert_eq!(made["tenant"], tenant);
    operator.with_key(made["key"].as_str())
}

/// A webhook that a tenant makes for itself, greedily.
async fn hook(of: &Client, name: &str, url: &str) -> Value {
    let webhook = json!({
        "name": name, "url": url, "events": ["*", "*.schema_changed", "*.truncated", "walhook.*"], "filter": "true",
        "retry": { "schedule": ["100ms"], "jitter": 0 },
    });
    of.post("/api/webhooks", &webhook).await.is(201).json()
}

/// Waits until a row that is inserted now comes to a webhook: from then on it is live.
async fn live(database: &Database, receiver: &Receiver, path: &str, workspace: &str) {
    let one_more = format!(
        "insert into orders select greatest(1000000, max(id)) + 1, '{workspace}', 'warm {workspace}' from orders"
    );
    eventually("a live webhook", PATIENCE, async || {
        database.execute(&one_more).await;
        !receiver.requests(path).is_empty()
    })
    .await;
}

/// Waits until everything that was committed by now is owed by the ledger, and until nothing of that is open.
async fn all_delivered(database: &Database) {
    let here = database.text("select pg_current_wal_insert_lsn()::text").await;
    let confirmed = format!(
        "select count(*) from pg_replication_slots where database = current_database() and confirmed_flush_lsn >= '{here}'"
    );
    eventually("the log is confirmed", PATIENCE, async || database.number(&confirmed).await > 0).await;
    let open =
        "select count(*) from walhook.deliveries where status not in ('delivered', 'failed', 'cancelled')";
    eventually("no open delivery", PATIENCE, async || database.number(open).await == 0).await;
}

async fn walhook(sidecar: &Sidecar, arguments: &[&str]) -> (Option<i32>, String) {
    let file = sidecar.file();
    let mut all = arguments.to_vec();
    all.extend(["--config", file.to_str().expect("a plain path")]);
    let output = run_once(&all, &[]).await;
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
