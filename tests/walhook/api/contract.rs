//! The API keeps what its description promises, whatever is sent: schemathesis, which makes requests of the description
//! that fit it and that do not, finds no fault (5xx), no status that is not described, and no answer of another shape; with
//! every right, with a few, and with none.
//!
//! `WALHOOK_CONTRACT_EXAMPLES` is how many requests of each kind an operation gets beside those of its limits, and
//! `WALHOOK_SEED` makes them again. Everything that is sent stays on this machine: URLs in documents lead to a receiver here.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::tools::{beside_installer, output, python, succeeds};
use super::{ADMIN, Client, OPEN, key, served_by};
use crate::support::{Answer, Database, PATIENCE, Receiver, Run, Sidecar, beside_others, eventually, knob};

const PATIENT: Duration = Duration::from_secs(1800);

/// A sidecar with something of everything.
struct Stage {
    _database: Database,
    receiver: Receiver,
    sidecar: Sidecar,
    operator: Client,
    home: TempDir,
    dead: String,
}

impl Stage {
    async fn set() -> Self {
        let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
        // Whoever tries everything asks for backfills of a webhook and removes it.
        let run = Run::with(OPEN)
            .expecting("gave deliveries up")
            .expecting("was disabled")
            .expecting("a backfill cannot go on");
        let (sidecar, operator) = served_by(&database, run).await;
        let crm = json!({
            "name": "crm", "url": receiver.url("/crm"), "events": ["orders.*"], "retry": { "schedule": [] },
        });
        operator.post("/api/webhooks", &crm).await.is(201);
        receiver.script("/crm", |_| Answer::Status(500));
        let mut id = 0;
        let failed = "select id from walhook.deliveries where status = 'failed' limit 1";
        eventually("a dead letter", PATIENCE, async || {
            id += 1;
            database.execute(&format!("insert into orders values ({id}, 'paid', 1, null)")).await;
            !database.rows(failed, &[]).await.is_empty()
        })
        .await;
        let dead = database.text(failed).await;
        receiver.script("/crm", |_| Answer::Status(204));
        let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
        Self { _database: database, receiver, sidecar, operator, home, dead }
    }

    /// The tool, ready to be told what to do. With `known`, paths have the names of things that are there.
    fn schemathesis(&self, scope: &str, key: Option<&str>, known: &str) -> Command {
        let config = self.home.path().join("schemathesis.toml");
        let base =
            std::fs::read_to_string(beside_installer("schemathesis/schemathesis.toml")).expect("a file");
        std::fs::write(&config, base + known).expect("a file");
        let mut command = Command::new(python("schemathesis"));
        command.arg("--config-file").arg(config).arg("run");
        command.arg(format!("http://{}/api/openapi.json", self.sidecar.address().expect("an address")));
        command.args(["--checks", "all", "--continue-on-failure", "--no-shrink"]);
        command.args(["--request-timeout", "60", "--no-color", "--warnings", "off", "--seed"]);
        command.arg(knob("WALHOOK_SEED", 1).to_string());
        if let Some(key) = key {
            command.arg("--header").arg(format!("Authorization: Bearer {key}"));
        }
        command.env("SCHEMATHESIS_HOOKS", beside_installer("schemathesis/hooks.py"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("WALHOOK_CONTRACT_RECEIVER", self.receiver.url("/other"));
        command.env("WALHOOK_CONTRACT_KEY", key.unwrap_or_default());
        command.env("WALHOOK_CONTRACT_SCOPE", scope).current_dir(self.home.path());
        command
    }

    /// Webhooks and deliveries in paths are those that are there.
    fn known(&self) -> String {
        format!(
            "\n[[operations]]\ninclude-path-regex = \"^/webhooks/\"\n\
             parameters = {{ \"path.id\" = \"crm\", \"path.delivery_id\" = \"{}\" }}\n",
            self.dead
        )
    }
}

/// Requests at the limits of what is described, on both sides of them.
fn at_limits(command: &mut Command) -> &mut Command {
    command.args(["--phases", "examples,coverage", "--exclude-checks", "ignored_auth"])
}

/// Requests at random. Where a body may be left out the tool takes its absence for a wrong one at times: what must be refused
/// is seen at the limits.
fn at_random(command: &mut Command) -> &mut Command {
    command.args(["--phases", "fuzzing", "--exclude-checks", "ignored_auth,negative_data_rejection"]);
    command.arg("--max-examples").arg(knob("WALHOOK_CONTRACT_EXAMPLES", 3).to_string())
}

#[tokio::test]
async fn no_request_meets_a_fault_or_an_answer_that_is_not_described() {
    let _turn = beside_others().await;
    let stage = Stage::set().await;
    let known = stage.known();
    succeeds(at_limits(&mut stage.schemathesis("admin", Some(ADMIN), "")), PATIENT).await;
    succeeds(at_random(&mut stage.schemathesis("admin", Some(ADMIN), "")), PATIENT).await;
    // What there is stays there.
    let keep = ["--exclude-operation-id", "delete_webhook"];
    let kept = || stage.schemathesis("admin", Some(ADMIN), &known);
    succeeds(at_limits(kept().args(keep)), PATIENT).await;
    succeeds(at_random(kept().args(keep)), PATIENT).await;
}

#[tokio::test]
async fn every_operation_is_closed_to_whoever_lacks_its_right() {
    let _turn = beside_others().await;
    let stage = Stage::set().await;
    let known = &stage.known();
    succeeds(at_limits(&mut stage.schemathesis("", None, known)), PATIENT).await;
    let before = stage.operator.get("/api/webhooks/crm").await.is(200).json();
    for scope in ["webhook:read", "webhook:write"] {
        let (_, key) = key(&stage.operator, &[scope]).await;
        succeeds(at_random(&mut stage.schemathesis(scope, Some(&key), known)), PATIENT).await;
        if scope == "webhook:read" {
            // What was refused has changed nothing.
            assert_eq!(stage.operator.get("/api/webhooks/crm").await.is(200).json(), before);
        }
    }
    // The check can fail: whoever says to have a right and has none is found out.
    let mut lies = stage.schemathesis("admin", Some("wk_0000000000000000_x"), known);
    let lies = output(at_random(&mut lies), PATIENT).await;
    let told = String::from_utf8_lossy(&lies.stdout);
    assert!(!lies.status.success() && told.contains("only_with_rights"), "{told}");
}
