//! What an operator does: sees what is wrong and since when, sends again, tries things out, and leaves without a trace.

use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;
use walhook::cluster::{Cluster, Options};

use crate::support::{
    Answer, Database, ORDERS, PATIENCE, Receiver, Run, SECRET, Sidecar, beside_others, eventually, run_once,
};

/// One retry after a moment, so that a dead letter is soon there.
const BRIEF: &str = "events = [\"orders.*\"]\nretry = { schedule = [\"50ms\"], jitter = 0 }";

/// A file like the one that the sidecar has, for commands that run beside it.
struct Desk {
    home: TempDir,
}

impl Desk {
    fn new(database: &Database, toml: &str) -> Self {
        Self::with_url(&database.url, &database.name, toml)
    }

    fn with_url(url: &str, slot: &str, toml: &str) -> Self {
        let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
        let text = format!("[database]\nurl = \"{url}\"\nslot = \"{slot}\"\n\n{toml}");
        std::fs::write(home.path().join("walhook.toml"), text).expect("a file");
        Self { home }
    }

    /// Runs a command, and gives its exit code and everything it said.
    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.output(arguments).await;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).expect("plain text");
        for never in ["panicked", "backtrace", SECRET] {
            assert!(!said.contains(never), "`{never}` in:\n{said}");
        }
        (output.status.code(), said)
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.output(arguments).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()))
        })
    }

    async fn output(&self, arguments: &[&str]) -> Output {
        let file = self.home.path().join("walhook.toml");
        let config = ["--config", file.to_str().expect("a plain path")];
        run_once(&[arguments, &config].concat(), &[]).await
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a plain path").to_owned()
    }
}

fn contains(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "nothing about `{part}` in:\n{said}");
    }
}

#[tokio::test]
async fn operator_sees_a_dead_endpoint_and_sends_its_dead_letters_again_with_the_same_id_and_bytes() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default().webhook("crm", &receiver.url("/crm"), BRIEF).expecting("gave deliveries up");
    let desk = Desk::new(&database, &run.toml);
    let mut sidecar = Sidecar::start(&database, run).await;
    receiver.script("/crm", |_| Answer::Status(500));
    database.execute("insert into orders values (1, 'paid', 1, null), (2, 'paid', 2, null)").await;
    let failed = "select count(*) from walhook.deliveries where status = 'failed'";
    eventually("two dead letters", PATIENCE, async || database.number(failed).await == 2).await;

    let (code, said) = desk.run(&["status"]).await;
    assert_eq!(code, Some(0), "{said}");
    contains(&said, &["streaming (PID", "crm", "active", "HTTP 500", "ago", "`walhook retry crm`"]);
    let status = desk.json(&["status", "--json"]).await;
    let webhook = &status["webhooks"][0];
    assert_eq!((&webhook["failed"], &webhook["last_error"]), (&json!(2), &json!("HTTP 500")), "{status}");

    let (code, said) = desk.run(&["retry", "crm", "--dry-run"]).await;
    assert_eq!(code, Some(0), "{said}");
    contains(&said, &["2 failed deliveries would be sent again"]);
    assert_eq!(database.number(failed).await, 2);

    let tried = receiver.requests("/crm");
    receiver.script("/crm", |_| Answer::Status(204));
    let first = tried[0].id().to_owned();
    let (code, said) = desk.run(&["retry", &first]).await;
    assert_eq!(code, Some(0), "{said}");
    contains(&said, &["1 delivery is on the way again"]);
    let (code, said) = desk.run(&["retry", "crm"]).await;
    assert_eq!(code, Some(0), "{said}");
    let all = receiver
        .wait("/crm", "both taken", PATIENCE, |came| {
            came.iter().filter(|request| request.accepted).count() == 2
        })
        .await;
    for taken in all.iter().filter(|request| request.accepted) {
        let before = tried.iter().find(|request| request.id() == taken.id()).expect("the same id");
        assert_eq!(taken.body, before.body);
    }
    let delivered = "select count(*) from walhook.deliveries where status = 'delivered'";
    eventually("both delivered", PATIENCE, async || database.number(delivered).await == 2).await;

    let (code, said) = desk.run(&["retry", &first]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["cannot be sent again", "It is delivered; --status delivered sends it again"]);
    let (code, said) =
        desk.run(&["retry", "crm", "--error", "5xx", "--since", "1h", "--event", "orders.*"]).await;
    assert_eq!(code, Some(0), "{said}");
    contains(&said, &["crm has no failed deliveries that can be sent again"]);
    let (code, said) = desk.run(&["retry", &first, "--status", "delivered", "--rate", "5/s"]).await;
    assert_eq!(code, Some(1), "{said}");
    contains(&said, &["was sent again at", "--attempts 3"]);
    let (code, said) = desk.run(&["retry", &first, "--status", "delivered", "--attempts", "3"]).await;
    assert_eq!(code, Some(0), "{said}");
    let taken = |came: &[crate::support::Request]| {
        came.iter().filter(|request| request.accepted && request.id() == first).count() == 2
    };
    receiver.wait("/crm", "the first once more", PATIENCE, taken).await;
    eventually("both delivered", PATIENCE, async || database.number(delivered).await == 2).await;
    let (code, said) = desk.run(&["retry", "cmr"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["there is no webhook \"cmr\"", "Perhaps you meant \"crm\"."]);
    sidecar.stop().await;
    let (_, said) = desk.run(&["status"]).await;
    contains(&said, &["nobody streams", "No walhook is running"]);
}

#[tokio::test]
async fn i7_dead_letters_of_one_row_are_sent_again_in_order_one_at_a_time() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let once = "events = [\"orders.*\"]\nretry = { schedule = [], jitter = 0 }";
    let run = Run::default().webhook("crm", &receiver.url("/crm"), once).expecting("gave deliveries up");
    let desk = Desk::new(&database, &run.toml);
    let _sidecar = Sidecar::start(&database, run).await;
    receiver.script("/crm", |_| Answer::Status(500));
    database.execute("insert into orders values (1, '0', 1, null)").await;
    for step in 1..5 {
        database.execute(&format!("update orders set status = '{step}' where id = 1")).await;
    }
    let failed = "select count(*) from walhook.deliveries where status = 'failed'";
    eventually("five dead letters", PATIENCE, async || database.number(failed).await == 5).await;
    // The earlier an event, the later its answer: what overtakes shows.
    receiver.script("/crm", |request| {
        let step: u64 = request.column("status").as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        Answer::Late(std::time::Duration::from_millis(250 - 50 * step), 200)
    });
    let (code, said) = desk.run(&["retry", "crm"]).await;
    assert_eq!(code, Some(0), "{said}");
    let delivered = "select count(*) from walhook.deliveries where status = 'delivered'";
    eventually("all delivered", PATIENCE, async || database.number(delivered).await == 5).await;
    let came = receiver.requests("/crm");
    let taken: Vec<_> = came.iter().filter(|request| request.accepted).collect();
    let order: Vec<_> = taken.iter().map(|request| request.column("status")).collect();
    assert_eq!(order, ["0", "1", "2", "3", "4"]);
    for pair in taken.windows(2) {
        assert!(
            pair[1].at.duration_since(pair[0].at).as_millis() >= 50,
            "two of a lane were under way at once"
        );
    }
}

#[tokio::test]
async fn operator_pauses_a_webhook_and_enables_it_and_what_was_held_arrives_in_order() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default().webhook("crm", &receiver.url("/crm"), BRIEF);
    let desk = Desk::new(&database, &run.toml);
    let _sidecar = Sidecar::start(&database, run).await;
    let (code, said) = desk.run(&["pause", "crm", "--reason", "noon"]).await;
    assert_eq!(code, Some(0), "{said}");
    // A marker tells that the instance knows by now: what it is owed is held and not sent.
    let held = "select count(*) from walhook.deliveries where status = 'held'";
    let mut marker = 100;
    eventually("a marker is held", PATIENCE, async || {
        marker += 1;
        database.execute(&format!("insert into orders values ({marker}, 'marks', 1, null)")).await;
        database.number(held).await > 0
    })
    .await;
    let settled = "select count(*) from walhook.deliveries where status in ('held', 'delivered')";
    eventually("the markers have come to rest", PATIENCE, async || {
        database.number(settled).await == marker - 100
    })
    .await;
    let before = (database.number(held).await, receiver.requests("/crm").len());
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    database.execute("update orders set status = 'shipped' where id = 1").await;
    eventually("both held", PATIENCE, async || database.number(held).await == before.0 + 2).await;
    assert_eq!(receiver.requests("/crm").len(), before.1, "what is paused was sent");
    let (_, said) = desk.run(&["status"]).await;
    contains(&said, &["paused", "noon", "`walhook enable crm`"]);
    let (code, said) = desk.run(&["trigger", "crm", "orders.created"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["crm", "paused", "noon", "walhook enable crm"]);
    let (code, said) = desk.run(&["enable", "crm"]).await;
    assert_eq!(code, Some(0), "{said}");
    let all = before.1 + usize::try_from(before.0).expect("a small number") + 2;
    let came = receiver.expect("/crm", all).await;
    let of_one: Vec<_> = came.iter().filter(|r| r.column("id") == 1).map(|r| r.column("status")).collect();
    assert_eq!(of_one, [json!("paid"), json!("shipped")]);
    let (_, said) = desk.run(&["enable", "crm"]).await;
    contains(&said, &["active already"]);
    let (code, _) = desk.run(&["disable", "nobody"]).await;
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn operator_triggers_a_test_event_that_verifies_and_hears_how_it_went() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let toml = "[tables.orders]\nexclude = [\"note\"]\n";
    let run = Run::with(toml).webhook("crm", &receiver.url("/crm"), BRIEF).expecting("gave deliveries up");
    let desk = Desk::new(&database, &run.toml);
    let (code, said) = desk.run(&["trigger", "crm", "orders.created"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["there is no ledger", "walhook run"]);
    let mut sidecar = Sidecar::start(&database, run).await;

    let (code, said) = desk.run(&["trigger", "crm", "orders.created"]).await;
    assert_eq!(code, Some(0), "{said}");
    contains(&said, &["delivered: HTTP 200, 1 attempt"]);
    let request = receiver.expect("/crm", 1).await.remove(0);
    standardwebhooks::Webhook::new(SECRET)
        .expect("a secret")
        .verify(&request.body, &request.headers)
        .expect("a signature that verifies");
    let body = request.json();
    assert_eq!((&body["type"], &body["data"]["operation"]), (&json!("orders.created"), &json!("test")));
    assert_eq!(body["data"]["record"], json!({ "id": 1, "status": "sample", "total": "1.50" }));

    let data = desk.write("event.json", "{\"record\": {\"id\": 77, \"total\": 1.10}}");
    let (code, said) = desk.run(&["trigger", "crm", "orders.deleted", "--data", &data]).await;
    assert_eq!(code, Some(0), "{said}");
    let request = receiver.expect("/crm", 2).await.remove(1);
    assert!(String::from_utf8_lossy(&request.body).contains("\"record\":{\"id\": 77, \"total\": 1.10}"));

    receiver.script("/crm", |_| Answer::Status(503));
    let (code, said) = desk.run(&["trigger", "crm", "orders.created"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["HTTP 503"]);
    let (code, said) = desk.run(&["trigger", "crm", "order.created"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["there is no event \"order.created\"", "\"orders.created\""]);
    receiver.script("/crm", |_| Answer::Status(200));
    sidecar.restart().await;
    database.execute("insert into orders values (5, 'paid', 5, null)").await;
    receiver
        .wait("/crm", "a change after the tests", PATIENCE, |came| {
            came.iter().any(|request| request.accepted && request.column("id") == 5)
        })
        .await;
    sidecar.stop().await;
    let (code, said) = desk.run(&["trigger", "crm", "orders.created"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["no walhook is running", "walhook run"]);
}

#[tokio::test]
async fn operator_renders_formats_and_templates_without_a_database() {
    let _turn = beside_others().await;
    let toml = "[templates.line]\ncontent_type = \"text/plain\"\n\
                body = \"\"\"order {{data.record.id}} is\n  {{data.record.statsu}}\"\"\"\n\n\
                [templates.fine]\ncontent_type = \"text/plain\"\nbody = \"order {{data.record.id}}\"\n";
    let desk = Desk::with_url("postgres://nobody@127.0.0.1:9/none", "walhook", toml);
    let (code, said) = desk.run(&["render", "--template", "fine"]).await;
    assert_eq!((code, &*said), (Some(0), "content-type: text/plain\n\norder 7\n"));
    let data = desk.write("event.json", "{\"record\": {\"id\": 8}}");
    let (code, said) = desk.run(&["render", "--template", "fine", "--data", &data, "--raw"]).await;
    assert_eq!((code, &*said), (Some(0), "order 8"));
    let (code, said) = desk.run(&["render", "--template", "line"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["template line", "line 2, column", "data.record.statsu"]);
    let (code, said) = desk.run(&["render", "--template", "fin"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["there is no template \"fin\"", "\"fine\""]);
    let made = desk.json(&["render", "--format", "supabase", "--raw"]).await;
    assert_eq!((&made["type"], &made["old_record"]["status"]), (&json!("UPDATE"), &json!("paid")));
    let (code, _) = desk.run(&["render"]).await;
    assert_eq!(code, Some(2));
}

#[tokio::test]
async fn operator_checks_a_fine_setup_and_nothing_is_changed() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default().webhook("crm", &receiver.url("/crm"), BRIEF);
    let desk = Desk::new(&database, &run.toml);
    let (code, said) = desk.run(&["check"]).await;
    assert_eq!(code, Some(0), "{said}");
    contains(
        &said,
        &["0 errors, 0 warnings", "create publication", "will be made at the first start", "crm"],
    );
    let traces = "select (select count(*) from pg_publication) + (select count(*) from pg_namespace where nspname = 'walhook')";
    assert_eq!(database.number(traces).await, 0);
    assert_eq!(receiver.count(), 0);
    let sidecar = Sidecar::start(&database, run).await;
    let report = desk.json(&["check", "--json"]).await;
    assert_eq!(report["ok"], json!(true), "{report}");
    contains(&report.to_string(), &["holds what webhooks need", "an instance streams"]);
    drop(sidecar);
}

#[tokio::test]
async fn operator_is_told_every_problem_of_tables_conditions_and_receivers_with_its_remedy() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    database
        .execute("create table log (line text); create table customers (id int8 primary key, email text)")
        .await;
    let toml = r#"
[tables.customers]
exclude = ["email"]

[[events]]
type = "order.shipped"
table = "orders"
on = ["update"]
when = "record.status == 'shipped' && old.status != 'shipped'"
"#;
    let run = Run::with(toml)
        .webhook("crm", "http://127.0.0.1:9/", "events = [\"order.shipped\", \"ordres.created\"]")
        .webhook("big", "http://127.0.0.1:9/", "events = [\"orders.*\"]\nfilter = \"record.totel > 100\"")
        .webhook("mail", "http://127.0.0.1:9/", "events = [\"customers.*\"]\nfilter = \"record.email != ''\"")
        .webhook("log", "http://127.0.0.1:9/", "events = [\"log.updated\", \"inventory.*\"]");
    let desk = Desk::new(&database, &run.toml);
    let report = desk.json(&["check", "--json"]).await;
    assert_eq!(report["ok"], json!(false));
    let findings = report["findings"].as_array().expect("a list");
    let expect = |severity: &str, message: &str, hint: &str| {
        let found = findings.iter().any(|finding| {
            finding["severity"] == severity
                && finding["message"].as_str().is_some_and(|text| text.contains(message))
                && finding["hint"].as_str().is_some_and(|text| text.contains(hint))
        });
        assert!(found, "no {severity} `{message}` with `{hint}` in {report:#}");
    };
    expect("error", "no table makes an event \"ordres.created\"", "\"orders.created\"");
    expect("warning", "no table makes an event \"inventory.*\"", "nearest");
    expect(
        "error",
        "\"public\".\"log\" has no replica identity",
        "ALTER TABLE \"public\".\"log\" REPLICA IDENTITY FULL;",
    );
    expect(
        "warning",
        "events.order.shipped.when: it needs \"old\"",
        "ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL;",
    );
    expect("error", "webhooks.big.filter: orders has no column \"totel\"", "\"total\"");
    expect(
        "error",
        "webhooks.mail.filter: column \"email\" of customers is excluded",
        "tables.customers.exclude",
    );
    expect("warning", "crm: http://127.0.0.1:9 cannot be reached", "webhooks.crm.url");
    let (code, said) = desk.run(&["check"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["error   webhooks: ", "\n  hint: ", "4 errors"]);
}

#[tokio::test]
async fn operator_is_told_what_the_file_the_server_and_the_role_lack() {
    let _turn = beside_others().await;
    let webhook = format!(
        "[[webhooks]]\nname = \"crm\"\nurl = \"http://127.0.0.1:9/\"\nsecret = \"{SECRET}\"\n{BRIEF}\n"
    );
    let desk =
        Desk::with_url("postgres://nobody@127.0.0.1:9/none", "walhook", "[delivry]\n\n[server]\nlistn = 1\n");
    let (code, said) = desk.run(&["check"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["delivry", "\"delivery\"", "listn", "\"listen\"", "2 errors"]);
    let desk = Desk::with_url("postgres://nobody@127.0.0.1:9/none", "walhook", &webhook);
    let (code, said) = desk.run(&["check"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["could not connect to Postgres at 127.0.0.1:9/none", "hint"]);

    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let cluster = Cluster::create(&Options { settings, ..Options::default() }).expect("a cluster");
    let database = Database::on(&cluster).await;
    database.execute(ORDERS).await;
    database.execute("create role plain login password 'open-sesame'").await;
    let (start, rest) = database.url.split_once("://").expect("a URL");
    let (_, place) = rest.split_once('@').expect("a URL");
    let desk = Desk::with_url(&format!("{start}://plain:open-sesame@{place}"), "walhook", &webhook);
    let (code, said) = desk.run(&["check"]).await;
    assert_eq!(code, Some(1));
    contains(
        &said,
        &[
            "wal_level is \"replica\"",
            "ALTER SYSTEM SET wal_level = 'logical'",
            "role \"plain\" may not replicate",
            "ALTER ROLE \"plain\" REPLICATION",
            "GRANT CREATE ON DATABASE",
            "the role does not own \"public\".\"orders\"",
            "create publication \"walhook\" for table only \"public\".\"orders\"",
        ],
    );
    assert!(!said.contains("open-sesame"), "{said}");
}

#[tokio::test]
async fn operator_uninstalls_and_nothing_is_left() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::default().webhook("crm", &receiver.url("/crm"), BRIEF);
    let desk = Desk::new(&database, &run.toml);
    let mut sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    receiver.expect("/crm", 1).await;
    let (code, said) = desk.run(&["uninstall", "--yes"]).await;
    assert_eq!(code, Some(1));
    contains(&said, &["an instance streams from slot", "Stop `walhook run`"]);
    sidecar.stop().await;

    let (code, said) = desk.run(&["uninstall"]).await;
    assert_eq!(code, Some(2));
    contains(&said, &["publication walhook", "schema walhook", "--yes"]);
    let traces = format!(
        "select (select count(*) from pg_replication_slots where slot_name = '{}') \
         + (select count(*) from pg_publication) + (select count(*) from pg_namespace where nspname = 'walhook')",
        database.name
    );
    assert_eq!(database.number(&traces).await, 4);
    let (code, said) = desk.run(&["uninstall", "--yes"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(database.number(&traces).await, 0);
    assert_eq!(database.number("select count(*) from orders").await, 1);
    let (code, said) = desk.run(&["uninstall"]).await;
    assert_eq!(code, Some(0), "{said}");
    contains(&said, &["nothing of walhook is in"]);
}
