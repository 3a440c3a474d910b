//! What is typed does what the API does: to a running instance by HTTP, or straight on the database, with one set of documents.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Run, SECRET, Sidecar, beside_others, eventually, run_once,
};

/// The operator's token.
pub const ADMIN: &str = "an-operators-own-token";
pub const OPEN: &str = "[security]\nallow_http = true\nallow_networks = [\"127.0.0.0/8\"]\n";

/// Somebody at a terminal. What they type goes to the instance, or to the database.
pub struct Person {
    home: TempDir,
    environment: Vec<(String, String)>,
}

/// What a command said.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn is(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// Insists on parts of what it said to the person.
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(
                self.out.contains(part) || self.err.contains(part),
                "no `{part}` in:\n{}{}",
                self.out,
                self.err
            );
        }
        self
    }
}

impl Person {
    /// Without an instance: the same file as the sidecar's.
    pub fn at_the_database(database: &Database, toml: &str) -> Self {
        let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
        let text = format!("[database]\nurl = \"{}\"\nslot = \"{}\"\n\n{toml}", database.url, database.name);
        std::fs::write(home.path().join("walhook.toml"), text).expect("a file");
        let config = home.path().join("walhook.toml").to_str().expect("a plain path").to_owned();
        Self { home, environment: vec![("WALHOOK_CONFIG".to_owned(), config)] }
    }

    /// With an instance and a key, and without any file.
    pub fn far_away(sidecar: &Sidecar, key: &str) -> Self {
        let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
        let server = format!("http://{}", sidecar.address().expect("an address"));
        let environment = vec![
            ("WALHOOK_API_URL".to_owned(), server),
            ("WALHOOK_API_KEY".to_owned(), key.to_owned()),
            ("WALHOOK_CONFIG".to_owned(), "/nowhere/walhook.toml".to_owned()),
        ];
        Self { home, environment }
    }

    pub async fn types(&self, arguments: &[&str]) -> Said {
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let output = run_once(arguments, &environment).await;
        let text = |bytes| String::from_utf8(bytes).expect("plain text");
        let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        for never in ["panicked", "backtrace", SECRET, ADMIN] {
            let told = said.out.contains(never) || said.err.contains(never);
            assert!(!told, "`{never}` in:\n{}{}", said.out, said.err);
        }
        said
    }

    /// Types, and insists on the exit code and on parts of what is said.
    pub async fn hears(&self, code: i32, arguments: &[&str], parts: &[&str]) {
        self.types(arguments).await.is(code).says(parts);
    }

    /// Types what answers with a document.
    pub async fn reads(&self, arguments: &[&str]) -> Value {
        self.types(&[arguments, &["--json"]].concat()).await.is(0).json()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a plain path").to_owned()
    }
}

pub async fn served(database: &Database, mut run: Run) -> Sidecar {
    run.environment.push(("WALHOOK_SERVER__ADMIN_TOKEN".to_owned(), ADMIN.to_owned()));
    Sidecar::start(database, run).await
}

/// A webhook's life, command by command.
async fn declares_and_switches(person: &Person, name: &str) {
    let create = ["webhooks", "create", name, "--url", "https://crm.example.com/in?key=geheim"];
    let fields =
        ["--events", "orders.created,orders.updated", "--header", "X-Team: geheim", "--set", "timeout=5s"];
    let made = person.types(&[&create[..], &fields].concat()).await.is(0);
    // The secret stands alone on standard output.
    assert!(made.out.starts_with("whsec_") && made.out.lines().count() == 1, "{}", made.out);
    made.says(&["is declared", "shown this once"]);
    let shown = person.reads(&["webhooks", "get", name]).await;
    for (field, value) in [
        ("url", json!("https://crm.example.com/in?key=***")),
        ("events", json!(["orders.created", "orders.updated"])),
        ("headers", json!({"X-Team": "***"})),
        ("timeout", json!("5s")),
        ("secret", json!("***")),
        ("source", json!("database")),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    let change = ["webhooks", "update", name, "--set", "retry.jitter=0", "--unset", "timeout"];
    person.hears(0, &change, &["is at version"]).await;
    person.hears(0, &["webhooks", "pause", name, "--reason", "noon"], &["is paused"]).await;
    person.hears(0, &["webhooks", "get", name], &["status", "paused", "noon", "{\"jitter\":0}"]).await;
    person.hears(0, &["webhooks", "resume", name], &["is active"]).await;
    person.hears(0, &["webhooks", "disable", name], &["is disabled", "held"]).await;
    person.hears(1, &["webhooks", "resume", name], &["cannot be resumed", "It is disabled."]).await;
    person.hears(0, &["webhooks", "enable", name, "--json"], &["\"status\":\"active\""]).await;
}

#[tokio::test]
async fn i13_commands_do_by_an_instance_what_they_do_on_the_database() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let file = format!(
        "{OPEN}\n[templates.slack]\nbody = '{{{{data.record.id}}}}'\n[[webhooks]]\nname = \"filed\"\nurl = \"https://a.example.com/in\"\nsecret = \"{SECRET}\"\n\
         events = [\"orders.*\"]\n"
    );
    let sidecar = served(&database, Run::with(&file)).await;
    let [here, there] = [Person::at_the_database(&database, &file), Person::far_away(&sidecar, ADMIN)];
    declares_and_switches(&here, "crm0").await;
    declares_and_switches(&there, "crm1").await;

    // Both see one and the same, as one and the same documents.
    for list in [
        &["webhooks", "list", "--json"][..],
        &["webhooks", "list", "--limit", "1", "--json"],
        &["webhooks", "get", "filed", "--json"],
        &["audit", "--json"],
        &["audit", "--object", "crm0", "--all", "--json"],
        &["audit", "--action", "webhook.c*", "--actor-kind", "admin", "--since", "1h", "--json"],
        &["events"],
        &["templates"],
        &["templates", "slack", "--json"],
        &["deliveries", "list", "--json"],
        &["webhooks", "list"],
        &["audit", "--limit", "3"],
    ] {
        let [one, other] = [here.types(list).await.is(0), there.types(list).await.is(0)];
        assert_eq!((one.out, one.err), (other.out, other.err), "{list:?}");
    }
    there.hears(0, &["events"], &["orders.created", "orders.deleted"]).await;
    there.hears(0, &["events", "orders.created"], &["a sample:", "\"record\"", "its JSON Schema:"]).await;
    there.hears(0, &["templates", "slack"], &["slack (application/json)", "data.record.id"]).await;
    there.hears(1, &["events", "orders.creatd"], &["there is no event"]).await;
    let all = there.reads(&["webhooks", "list", "--all"]).await;
    let names: Vec<&Value> = all["data"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["crm0", "crm1", "filed"]);
    assert_eq!(all["next_cursor"], Value::Null);
    let page = there.reads(&["webhooks", "list", "--limit", "2"]).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = here.reads(&["webhooks", "list", "--cursor", cursor]).await;
    assert_eq!(rest["data"][0]["name"], "filed");
    here.hears(0, &["webhooks", "list", "--limit", "2"], &["there is more", cursor]).await;
    for (name, kind) in [("crm0", "command"), ("crm1", "admin")] {
        let acts = here.reads(&["audit", "--object", name]).await;
        let acts = acts["data"].as_array().unwrap();
        assert!(acts.len() >= 5 && acts.iter().all(|act| act["actor_kind"] == kind), "{acts:?}");
    }

    for (person, name) in [(&here, "crm0"), (&there, "crm1")] {
        let stale = ["webhooks", "delete", name, "--version", "0"];
        person.hears(1, &stale, &["was changed since it was read", "hint:"]).await;
        person.hears(0, &["webhooks", "delete", name], &["is removed"]).await;
        person.hears(1, &["webhooks", "get", name], &["there is no webhook"]).await;
    }
}

#[tokio::test]
async fn a_webhook_goes_out_to_a_file_and_comes_back_and_no_change_is_lost() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let sidecar = served(&database, Run::with(OPEN)).await;
    let person = Person::far_away(&sidecar, ADMIN);
    let toml = person.write(
        "crm.toml",
        "[[webhooks]]\nname = \"crm\"\nurl = \"https://crm.example.com/in\"\nevents = [\"orders.*\"]\n\
         filter = \"record.total > 100\"\nretry = { schedule = [\"1s\"] }\n",
    );
    let secret = person.write("secret", &format!("{SECRET}\n"));
    let made =
        person.types(&["webhooks", "create", "--file", &toml, "--secret-file", &secret, "--json"]).await;
    let made = made.is(0).json();
    assert_eq!((&made["filter"], &made["secret"]), (&json!("record.total > 100"), &json!("***")));
    let again = ["webhooks", "create", "--file", &toml, "--idempotency-key", "one"];
    person.types(&again).await.is(1).says(&["there is a webhook \"crm\" already"]);

    let shown = person.types(&["webhooks", "get", "crm", "--json"]).await.is(0).out;
    let edited = person.write("crm.json", &shown.replace("record.total > 100", "record.total > 7"));
    person
        .types(&["webhooks", "update", "crm", "--replace", "--file", &edited])
        .await
        .is(0)
        .says(&["is at version"]);
    // Somebody else's change in between is not written over: the file has the version that was read.
    person
        .types(&["webhooks", "update", "crm", "--replace", "--file", &edited])
        .await
        .is(1)
        .says(&["was changed since it was read", "Read it again"]);
    person
        .types(&[
            "webhooks",
            "update",
            "crm",
            "--version",
            &made["version"].to_string(),
            "--url",
            "https://b.example.com/",
        ])
        .await
        .is(1);
    let now = person.types(&["webhooks", "get", "crm", "--json"]).await.is(0).json();
    assert_eq!(
        (&now["filter"], &now["url"]),
        (&json!("record.total > 7"), &json!("https://crm.example.com/in"))
    );
    assert_eq!(database.text("select secret from walhook.webhooks").await, SECRET);
}

#[tokio::test]
async fn a_dead_letter_is_found_seen_and_sent_again_by_commands() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let once = "events = [\"orders.*\"]\nretry = { schedule = [], jitter = 0 }";
    let run = Run::with(OPEN).webhook("crm", &receiver.url("/crm"), once).expecting("gave deliveries up");
    let file = run.toml.clone();
    let sidecar = served(&database, run).await;
    let people = [Person::at_the_database(&database, &file), Person::far_away(&sidecar, ADMIN)];
    receiver.script("/crm", |_| Answer::Body(500, "not today".to_owned()));
    database.execute("insert into orders values (1, 'paid', 1, null), (2, 'paid', 2, null)").await;
    let failed = "select count(*) from walhook.deliveries where status = 'failed'";
    eventually("two dead letters", PATIENCE, async || database.number(failed).await == 2).await;
    receiver.script("/crm", |_| Answer::Status(204));
    for (person, key) in people.iter().zip(["1", "2"]) {
        let search =
            ["deliveries", "list", "--status", "failed", "--since", "1h", "--error", "5xx", "--key", key];
        person.types(&search).await.is(0).says(&["crm", "orders.created", "failed", "HTTP 500", "dlv_"]);
        let found = person.types(&[&search[..], &["--json"]].concat()).await.is(0).json();
        let id = found["data"][0]["id"].as_str().expect("one").to_owned();
        let seen = person.types(&["deliveries", "get", "crm", &id]).await.is(0);
        seen.says(&[&id, "webhook-id: ", "\"paid\"", "HTTP 500", "not today", "fail_reason"]);
        person.types(&["deliveries", "cancel", "crm", &id]).await.is(1).says(&["cannot be cancelled"]);
        person.types(&["deliveries", "retry", "crm", &id]).await.is(0).says(&["is on its way again"]);
        let now = ["deliveries", "get", "crm", &id, "--json"];
        eventually("it is delivered", PATIENCE, async || {
            person.types(&now).await.is(0).json()["status"] == "delivered"
        })
        .await;
        person
            .types(&["webhooks", "test", "crm", "orders.updated"])
            .await
            .is(0)
            .says(&["delivered: HTTP 204"]);
        person.types(&["deliveries", "retry", "crm", "dlv_none"]).await.is(1).says(&["there is no delivery"]);
        person
            .types(&["deliveries", "list", "--status", "lost"])
            .await
            .is(1)
            .says(&["status: expected some of"]);
    }
    receiver.script("/crm", |_| Answer::Status(500));
    people[1].types(&["webhooks", "test", "crm", "--json"]).await.is(1).says(&["\"http_status\":500"]);
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_remedy_and_changes_nothing() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let sidecar = served(&database, Run::with("")).await;
    for person in [Person::far_away(&sidecar, ADMIN), Person::at_the_database(&database, "")] {
        let bad = person.write("bad.toml", "secret = geheim");
        for (code, arguments, parts) in [
            (
                1,
                &["webhooks", "create", "crm", "--url", "ftp://a", "--filter", "record.total >"][..],
                &["fields are wrong", "\n  url: ", "\n  events: ", "\n  filter: "][..],
            ),
            (1, &["webhooks", "create", "crm", "--set", "evnts=[]"], &["Perhaps you meant \"events\"."]),
            (1, &["webhooks", "get", "a/b?c"], &["there is no webhook \"a/b?c\""]),
            (1, &["webhooks", "update", "crm"], &["nothing is to be changed"]),
            (2, &["webhooks", "create"], &["Usage:"]),
            (2, &["webhooks", "update", "crm", "--set", "timeout"], &["expected FIELD=VALUE"]),
            (2, &["deliveries", "list", "--since", "yesterday"], &["expected a time"]),
            (1, &["webhooks", "create", "--file", &bad], &["it is not TOML: line 1"]),
            (1, &["webhooks", "create", "--file", "/nowhere/x"], &["cannot read /nowhere/x"]),
            (2, &["webhooks", "list", "--server", "ftp://a"], &["where the instance listens"]),
        ] {
            let said = person.types(arguments).await.is(code);
            assert!(!said.err.contains("geheim"), "{}", said.err);
            said.says(parts);
        }
    }
    assert_eq!(database.number("select count(*) from walhook.webhooks").await, 0);
}

#[tokio::test]
async fn who_cannot_be_asked_and_who_may_not_ask_is_told() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let sidecar = served(&database, Run::with("")).await;
    let (operator, list) = (Person::far_away(&sidecar, ADMIN), ["webhooks", "list"]);
    let wrong = Person::far_away(&sidecar, "wk_0000000000000000_x");
    wrong.hears(1, &list, &["not one that is valid now", "walhook keys create"]).await;
    let mut nobody = Person::far_away(&sidecar, ADMIN);
    nobody.environment.retain(|(name, _)| name != "WALHOOK_API_KEY");
    nobody.hears(1, &list, &["there is no key for http://127.0.0.1:", "--key-file"]).await;
    let key = nobody.write("key", &format!("{ADMIN}\n"));
    let with_key = |file| [&list[..], &["--key-file", file]].concat();
    nobody.hears(0, &with_key(key.as_str()), &["there is nothing to list"]).await;
    nobody.hears(1, &with_key("/nowhere/key"), &["cannot read /nowhere/key"]).await;

    // Nobody listens there, and what listens there is another.
    let at = |server| [&list[..], &["--server", server]].concat();
    let refused = "http://127.0.0.1:1 cannot be asked: connection refused";
    operator.hears(1, &at("http://127.0.0.1:1"), &[refused, "hint:"]).await;
    let receiver = Receiver::start().await;
    receiver.script("/api/webhooks?limit=50", |_| Answer::Body(502, "<html>".to_owned()));
    operator
        .hears(1, &at(&receiver.url("")), &["answered 502 with what is no answer of walhook's API"])
        .await;
    // A database that cannot be had is told as every other command tells it.
    let mut elsewhere = Person::at_the_database(&database, "");
    elsewhere.environment.push(("WALHOOK_DATABASE__SCHEMA".to_owned(), "elsewhere".to_owned()));
    elsewhere.hears(1, &["audit"], &["there is no ledger in schema \"elsewhere\"", "hint:"]).await;
}
