//! The description is good enough to work by: a validator of other people's has nothing against it, and clients that their
//! generators make of it, in two languages, create a webhook and send a delivery again.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::tools::{beside_installer, cached, python, succeeds};
use super::{ADMIN, OPEN, served_by};
use crate::support::{Answer, Database, PATIENCE, Receiver, Run, Sidecar, beside_others, eventually};

/// How long a generator or a compiler may take; they are slow on a busy machine.
const TOOL: Duration = Duration::from_secs(180);

/// A sidecar with one dead letter of webhook `crm`, and the description that it serves.
struct Stage {
    database: Database,
    receiver: Receiver,
    sidecar: Sidecar,
    home: TempDir,
    dead: String,
}

impl Stage {
    async fn set() -> Self {
        let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
        let once = "events = [\"orders.*\"]\nretry = { schedule = [], jitter = 0 }";
        let run = Run::with(OPEN).webhook("crm", &receiver.url("/crm"), once).expecting("gave deliveries up");
        let (sidecar, operator) = served_by(&database, run).await;
        let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
        let document = operator.get("/api/openapi.json").await.is(200);
        std::fs::write(home.path().join("openapi.json"), &document.body).expect("a file");
        receiver.script("/crm", |_| Answer::Status(500));
        database.execute("insert into orders values (1, 'paid', 1, null)").await;
        let failed = "select id from walhook.deliveries where status = 'failed'";
        eventually("a dead letter", PATIENCE, async || database.rows(failed, &[]).await.len() == 1).await;
        let dead = database.text(failed).await;
        receiver.script("/crm", |_| Answer::Status(204));
        Self { database, receiver, sidecar, home, dead }
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    /// Has a client create a webhook and send the dead letter again, and looks at what came of both.
    async fn tried_by(&self, command: &mut Command, name: &str) {
        let server = format!("http://{}", self.sidecar.address().expect("an address"));
        let url = self.receiver.url("/made");
        let arguments = [&server, ADMIN, name, &url, "crm", &self.dead];
        let told = succeeds(command.args(arguments), TOOL).await;
        let told: Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
        assert!(told["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")), "{told}");
        assert_eq!(told["filter"], "record.total > 1");
        assert_eq!(told["problem"], "urn:walhook:problem:exists");
        assert_eq!(told["failed"], serde_json::json!([self.dead]));
        assert_eq!(told["retried"], self.dead.as_str());
        assert!(told["attempts"].as_u64() >= Some(1), "{told}");

        // The receiver has it, with the id that it had, and the new webhook has what comes now.
        let again =
            |came: &[crate::support::Request]| came.iter().any(|one| one.accepted && one.id() == self.dead);
        self.receiver.wait("/crm", "the dead letter", PATIENCE, again).await;
        let mut id = 10;
        eventually("the new webhook is live", PATIENCE, async || {
            id += 1;
            self.database.execute(&format!("insert into orders values ({id}, 'paid', 2, null)")).await;
            !self.receiver.requests("/made").is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn a_python_client_made_of_the_description_creates_a_webhook_and_retries_a_delivery() {
    let _turn = beside_others().await;
    let stage = Stage::set().await;
    let description = stage.path().join("openapi.json");
    succeeds(Command::new(python("openapi-spec-validator")).arg(&description), TOOL).await;
    // The validator can say no.
    let broken = std::fs::read_to_string(&description).expect("a file").replace("\"title\":\"walhook\",", "");
    std::fs::write(stage.path().join("broken.json"), broken).expect("a file");
    let refused =
        Command::new(python("openapi-spec-validator")).arg(stage.path().join("broken.json")).output();
    assert!(
        !refused.await.expect("it was there before").status.success(),
        "it finds nothing wrong with anything"
    );

    let mut generator = Command::new(python("openapi-python-client"));
    generator.args(["generate", "--meta", "none", "--fail-on-warning", "--path"]).arg(&description);
    generator.arg("--config").arg(beside_installer("python/config.yaml"));
    generator.arg("--output-path").arg(stage.path().join("walhook_client"));
    succeeds(&mut generator, TOOL).await;
    let mut client = Command::new(python("python"));
    client.arg(beside_installer("python/client.py"));
    client.env("PYTHONPATH", stage.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    stage.tried_by(&mut client, "by_python").await;
}

#[tokio::test]
async fn a_typescript_client_made_of_the_description_creates_a_webhook_and_retries_a_delivery() {
    let _turn = beside_others().await;
    let stage = Stage::set().await;
    let modules = cached("clients-typescript/node_modules");
    std::os::unix::fs::symlink(&modules, stage.path().join("node_modules")).expect("a link");
    for name in ["client.ts", "tsconfig.json", "package.json"] {
        let file = beside_installer("typescript").join(name);
        std::fs::copy(file, stage.path().join(name)).expect("a copy");
    }
    let tool = |name: &str| {
        let mut command = Command::new("node");
        command.arg(modules.join(name)).current_dir(stage.path());
        command
    };
    let generate = ["openapi.json", "--output", "api.d.ts"];
    succeeds(tool("openapi-typescript/bin/cli.js").args(generate), TOOL).await;
    succeeds(tool("typescript/bin/tsc").args(["--project", "."]), TOOL).await;
    let mut client = Command::new("node");
    client.arg(stage.path().join("made/client.js"));
    stage.tried_by(&mut client, "by_typescript").await;
}
