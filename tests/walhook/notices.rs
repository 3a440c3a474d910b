//! Webhooks that ask for it are told about the machinery itself: once, not too often, and never of themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use walhook::cluster::{Cluster, Options};

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Request, Run, Sidecar, beside_others, eventually, refused, run_once,
};

const OFTEN: &str = "[notices]\nevery = \"1s\"\n";
const ALL: &str = "events = [\"webhook.*\", \"delivery.*\", \"source.*\"]";

/// The first so many that came on a path. What a killed process had sent comes again, with the same id.
async fn told(receiver: &Receiver, path: &str, count: usize) -> Vec<Request> {
    let enough = |came: &[Request]| came.iter().filter(|request| request.nth == 1).count() >= count;
    let came = receiver.wait(path, &format!("{count} notices"), PATIENCE * 2, enough).await;
    came.into_iter().filter(|request| request.nth == 1).collect()
}

fn types(requests: &[Request]) -> Vec<String> {
    requests.iter().map(|request| request.header("x-webhook-event").to_owned()).collect()
}

fn of_type(requests: &[Request], event_type: &str) -> Vec<Value> {
    let of = requests.iter().filter(|r| r.nth == 1 && r.header("x-webhook-event") == event_type);
    of.map(|request| request.json()["data"]["record"].clone()).collect()
}

async fn orders(database: &Database, from: u32, to: u32) {
    let insert = format!("insert into orders select n, 'a', 1, null from generate_series({from}, {to}) n");
    database.execute(&insert).await;
}

/// Runs a command with the sidecar's file.
async fn say(sidecar: &Sidecar, arguments: &[&str]) -> (bool, String) {
    let file = sidecar.file();
    let config = ["--config", file.to_str().expect("a plain path")];
    let output = run_once(&[arguments, &config].concat(), &[]).await;
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("plain text");
    (output.status.success(), said)
}

#[tokio::test]
async fn others_are_told_that_a_webhook_fails_and_that_it_works_again_and_who_asked_for_rows_is_not() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let well = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&well);
    receiver.script("/crm", move |_| Answer::Status(if answers.load(Ordering::SeqCst) { 200 } else { 503 }));
    let keys = "events = [\"orders.*\", \"webhook.*\"]\nbreaker = { min_attempts = 5, probe_after = \"300ms\", \
                probe_max = \"600ms\" }\nretry = { schedule = [\"200ms\", \"1h\"], jitter = 0 }";
    let filtered = "events = [\"source.*\", \"webhook.failing\"]\nfilter = \"operation == 'notice' && record.webhook == 'crm'\"";
    let run = Run::with(OFTEN)
        .webhook("crm", &receiver.url("/crm"), keys)
        .webhook("ops", &receiver.url("/ops"), ALL)
        .webhook("cloud", &receiver.url("/cloud"), &format!("{filtered}\nformat = \"cloudevents\""))
        .webhook("rows", &receiver.url("/rows"), "events = [\"*\"]\nordering = \"strict\"");
    let mut sidecar = Sidecar::start(&database, run).await;

    orders(&database, 1, 50).await;
    let failing = told(&receiver, "/ops", 1).await.remove(0);
    let body = failing.json();
    assert_eq!(body["type"], json!("webhook.failing"), "{body}");
    let data = &body["data"];
    assert_eq!(
        (&data["operation"], &data["table"], &data["schema"]),
        (&json!("notice"), &Value::Null, &Value::Null)
    );
    let record = &data["record"];
    assert_eq!((&record["webhook"], &record["state"]), (&json!("crm"), &json!("failing")), "{record}");
    assert_eq!(record["reason"], json!("HTTP 503"));
    assert!(record["since"].is_string() && record["failures"].as_u64() >= Some(5), "{record}");
    assert!(record["waiting"]["oldest_seconds"].is_u64(), "{record}");
    assert!(record["next"].as_str().expect("a text").contains("walhook pause crm"), "{record}");
    assert!(failing.header("webhook-signature").starts_with("v1,"));
    let cloud = told(&receiver, "/cloud", 1).await.remove(0).json();
    assert_eq!((&cloud["type"], &cloud["data"]["record"]), (&json!("webhook.failing"), record));
    assert_eq!(cloud.get("subject"), None);

    // The next process finds it told.
    sidecar.restart().await;
    well.store(true, Ordering::SeqCst);
    let came = told(&receiver, "/ops", 2).await;
    assert_eq!(types(&came), ["webhook.failing", "webhook.recovered"]);
    assert_eq!(of_type(&came, "webhook.recovered")[0]["state"], json!("active"));
    receiver.expect("/rows", 50).await;
    for path in ["/crm", "/rows"] {
        assert!(types(&receiver.requests(path)).iter().all(|of| of == "orders.created"), "{path}");
    }
    let rows = "select string_agg(event_type || ' ' || row_key || ' ' || status, ', ' order by id) \
                from walhook.deliveries where webhook = 'ops'";
    eventually("both recorded", PATIENCE, async || {
        database.text(rows).await == "webhook.failing crm delivered, webhook.recovered crm delivered"
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_is_disabled_by_410_or_by_hand_is_told_of_and_that_it_is_enabled() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Status(410));
    let slack = "[templates.slack]\ncontent_type = \"application/json\"\n\
                 body = '''{\"text\": \"{{type}}: {{data.record.webhook}}\"}'''\n";
    let run = Run::with(format!("{OFTEN}{slack}"))
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]")
        .webhook("ops", &receiver.url("/ops"), "events = [\"webhook.*\"]")
        .webhook("chat", &receiver.url("/chat"), "events = [\"webhook.disabled\"]\ntemplate = \"slack\"")
        .expecting("gave deliveries up")
        .expecting("the webhook is disabled");
    let sidecar = Sidecar::start(&database, run).await;
    orders(&database, 1, 1).await;
    let disabled = told(&receiver, "/ops", 1).await.remove(0).json()["data"]["record"].clone();
    assert_eq!((&disabled["webhook"], &disabled["state"]), (&json!("crm"), &json!("disabled")));
    assert!(disabled["reason"].as_str().expect("a reason").contains("410"), "{disabled}");
    assert!(disabled["next"].as_str().expect("a text").contains("walhook enable crm"), "{disabled}");
    assert_eq!(told(&receiver, "/chat", 1).await[0].json(), json!({ "text": "webhook.disabled: crm" }));
    receiver.script("/crm", |_| Answer::Status(200));
    assert!(say(&sidecar, &["enable", "crm"]).await.0);
    told(&receiver, "/ops", 2).await;
    assert!(say(&sidecar, &["disable", "crm"]).await.0);
    told(&receiver, "/ops", 3).await;
    // A pause is meant, and no trouble; plain SQL is as good as a command.
    assert!(say(&sidecar, &["enable", "crm"]).await.0);
    told(&receiver, "/ops", 4).await;
    assert!(say(&sidecar, &["pause", "crm"]).await.0);
    database.execute("update walhook.webhook_states set status = 'disabled', reason = 'by SQL'").await;
    let came = told(&receiver, "/ops", 5).await;
    let (off, on) = ("webhook.disabled", "webhook.recovered");
    assert_eq!(types(&came), [off, on, off, on, off]);
    assert_eq!(of_type(&came, off)[2]["reason"], json!("by SQL"));
}

#[tokio::test]
async fn failed_deliveries_are_told_together_none_is_missed_over_a_kill_and_samples_can_be_seen() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/crm", |_| Answer::Status(422));
    let keys = "events = [\"orders.*\"]\nbreaker = false\nretry = { give_up_on = [422] }";
    let run = Run::with("[notices]\nevery = \"3s\"\n")
        .webhook("crm", &receiver.url("/crm"), keys)
        .webhook("ops", &receiver.url("/ops"), ALL)
        .expecting("gave deliveries up");
    let mut sidecar = Sidecar::start(&database, run).await;
    let began = Instant::now();
    orders(&database, 1, 1).await;
    let first = told(&receiver, "/ops", 1).await.remove(0).json();
    let record = &first["data"]["record"];
    assert_eq!((&first["type"], &record["failures"]), (&json!("delivery.failed"), &json!(1)));
    assert_eq!((&record["webhook"], &record["event_type"]), (&json!("crm"), &json!("orders.created")));
    assert_eq!(
        (&record["reason"], &record["error"]),
        (&json!("HTTP 422 is in retry.give_up_on"), &json!("HTTP 422"))
    );
    assert!(record["next"].as_str().expect("a text").contains("walhook retry crm"), "{record}");
    let sample = "select count(*) from walhook.deliveries where status = 'failed' and id = ";
    let id = record["delivery"].as_str().expect("an id");
    assert_eq!(database.number(&format!("{sample}'{id}'")).await, 1);

    orders(&database, 2, 60).await;
    let failed = "select count(*) from walhook.deliveries where status = 'failed'";
    eventually("all failed", PATIENCE, async || database.number(failed).await == 60).await;
    sidecar.kill9().await;
    sidecar.restart().await;
    let count = |came: &[Request]| -> i64 {
        let each = of_type(came, "delivery.failed");
        each.iter().map(|record| record["failures"].as_i64().expect("a number")).sum()
    };
    let came = receiver.wait("/ops", "all told", PATIENCE, |came| count(came) >= 60).await;
    assert_eq!(count(&came), 60);
    let came: Vec<Request> = came.into_iter().filter(|request| request.nth == 1).collect();
    let most = began.elapsed().as_secs() / 3 + 1;
    assert!(u64::try_from(came.len()).expect("few") <= most, "{} in {most} times 3 s", came.len());
    assert_eq!(database.number("select count(*) from walhook.failures").await, 0);

    let (done, said) = say(&sidecar, &["trigger", "ops", "webhook.failing"]).await;
    assert!(done && !said.contains("does not subscribe"), "{said}");
    let (done, said) = say(&sidecar, &["trigger", "crm", "source.gap"]).await;
    assert!(!done && said.contains("does not subscribe"), "{said}");
    let tested = told(&receiver, "/ops", came.len() + 1).await.pop().expect("the test").json();
    assert_eq!((&tested["type"], &tested["data"]["operation"]), (&json!("webhook.failing"), &json!("test")));
    assert_eq!(tested["data"]["record"]["webhook"], json!("crm"));
    let (done, said) = say(&sidecar, &["render", "ops", "--event", "source.lagging", "--raw"]).await;
    let shown: Value = serde_json::from_str(&said).expect("a body");
    assert!(done && shown["data"]["record"]["lag_bytes"].is_u64(), "{said}");
    // Tests and what tells of failures are no failures to tell of: the last one was of a test.
    assert_eq!(database.number("select count(*) from walhook.failures").await, 0);
}

#[tokio::test]
async fn i11_two_dead_webhooks_that_ask_for_everything_do_not_keep_each_other_busy() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let keys = "events = [\"*\", \"webhook.*\", \"delivery.*\", \"source.*\"]\n\
                retry = { schedule = [\"100ms\"], jitter = 0 }";
    let mut run = Run::with(OFTEN).expecting("gave deliveries up");
    for (name, breaker) in [("a", "breaker = false"), ("b", "breaker = false")] {
        let path = format!("/{name}");
        receiver.script(&path, |_| Answer::Status(500));
        run = run.webhook(name, &receiver.url(&path), &format!("{keys}\n{breaker}"));
    }
    let _sidecar = Sidecar::start(&database, run).await;
    let began = Instant::now();
    orders(&database, 1, 30).await;
    let count = |what: &str| format!("select count(*) from walhook.deliveries where {what}");
    let rows = count("status = 'failed' and operation = 'insert'");
    eventually("all rows failed", PATIENCE, async || database.number(&rows).await == 60).await;
    let quiet = format!(
        "select ({}) + (select count(*) from walhook.failures)",
        count("status not in ('failed', 'delivered')")
    );
    eventually("nothing left to do", PATIENCE, async || database.number(&quiet).await == 0).await;
    let notices = count("operation = 'notice'");
    let told = database.number(&notices).await;
    let seconds = i64::try_from(began.elapsed().as_secs()).expect("a moment");
    assert!(told >= 2 && told <= 2 * (seconds + 1), "{told} in {seconds} s");
    assert_eq!(database.number(&count("operation = 'notice' and status = 'failed'")).await, told);
    // One more failure of each is one more notice to each, and not more, however many of them have failed.
    orders(&database, 31, 31).await;
    eventually("two more", PATIENCE, async || database.number(&notices).await == told + 2).await;
    eventually("nothing left to do", PATIENCE, async || database.number(&quiet).await == 0).await;
    let rounds = Duration::from_secs(3);
    tokio::time::sleep(rounds).await;
    assert_eq!(database.number(&notices).await, told + 2, "they go on by themselves");
}

#[tokio::test]
async fn a_gap_and_a_log_that_lags_are_told() {
    let _turn = beside_others().await;
    // A server of its own: others' log would be a lag of this one's.
    let cluster = Cluster::create(&Options::default()).expect("a cluster");
    let (database, receiver) = (Database::on(&cluster).await, Receiver::start().await);
    database.execute(crate::support::ORDERS).await;
    receiver.script("/crm", |_| Answer::Status(500));
    // What the first start writes itself is less.
    let lags = "[notices]\nevery = \"1s\"\nlag = \"1h\"\nlag_bytes = \"8MiB\"\n";
    let mut run = Run::with(lags)
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]\nretry = { schedule = [\"1h\"] }")
        .webhook("ops", &receiver.url("/ops"), "events = [\"source.*\"]")
        .expecting("changes between these positions are lost")
        .expecting("the ledger cannot be written")
        .expecting("could not be looked after");
    run.environment.push(("WALHOOK_DATABASE__ON_SLOT_LOST".to_owned(), "recreate".to_owned()));
    let mut sidecar = Sidecar::start(&database, run).await;
    orders(&database, 1, 1).await;
    receiver.expect("/crm", 1).await;
    sidecar.stop().await;
    let active = "select count(*) from pg_replication_slots where active";
    eventually("the slot is left", PATIENCE, async || database.number(active).await == 0).await;
    database.execute("select pg_drop_replication_slot(current_database())").await;
    sidecar.restart().await;
    let gap = told(&receiver, "/ops", 1).await.remove(0).json();
    let record = &gap["data"]["record"];
    assert_eq!((&gap["type"], &record["reason"]), (&json!("source.gap"), &json!("the slot is gone")));
    assert!(record["to_lsn"].is_string() && record["slot"] == json!(database.name), "{record}");
    assert!(record["next"].as_str().expect("a text").contains("walhook backfill"), "{record}");

    // Nothing can be recorded, so nothing can be confirmed; nor can a notice be written before that is over.
    database.execute("begin; lock table walhook.deliveries in access exclusive mode").await;
    let writer = crate::support::connect(&database.url).await.expect("a connection");
    // Behind one that waits nothing is confirmed, not even while the others are being written.
    for rows in ["(2, 2)", "(3, 9000)"] {
        let insert = format!(
            "insert into orders select n, 'a', 1, repeat(md5(n::text), 40) from generate_series{rows} n"
        );
        writer.batch_execute(&insert).await.expect("rows");
    }
    eventually("a lag that is seen", PATIENCE * 6, async || {
        sidecar.log_text().contains("the log lags behind")
    })
    .await;
    database.execute("commit").await;
    let both = |came: &[Request]| types(came).contains(&"source.recovered".to_owned());
    let came = receiver.wait("/ops", "the beginning and the end", PATIENCE * 3, both).await;
    assert_eq!(types(&came), ["source.gap", "source.lagging", "source.recovered"]);
    let lagging = &of_type(&came, "source.lagging")[0];
    assert!(lagging["lag_bytes"].as_u64() >= Some(8 * 1024 * 1024), "{lagging}");
    assert_eq!(lagging["since"], of_type(&came, "source.recovered")[0]["since"]);
}

#[tokio::test]
async fn i5_a_notice_is_told_once_although_the_process_dies_before_it_is_written() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::with(OFTEN)
        .webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]")
        .webhook("ops", &receiver.url("/ops"), ALL)
        .fail_at("before_notice_commit=return")
        .expecting("\"level\":\"WARN\"");
    let mut sidecar = Sidecar::start(&database, run).await;
    let rows = "select count(*) from walhook.deliveries where operation = 'notice'";
    database
        .execute(
            "insert into walhook.webhook_states (webhook, status, reason) values ('crm', 'disabled', 'x')",
        )
        .await;
    sidecar.ended().await;
    assert_eq!(database.number(rows).await, 0);
    sidecar.next_run(|mut run| {
        run.environment.clear();
        run
    });
    sidecar.restart().await;
    told(&receiver, "/ops", 1).await;
    sidecar.restart().await;
    assert!(say(&sidecar, &["enable", "crm"]).await.0);
    let came = told(&receiver, "/ops", 2).await;
    assert_eq!(types(&came), ["webhook.disabled", "webhook.recovered"]);
    assert_eq!(database.number(rows).await, 2);
}

#[tokio::test]
async fn types_of_notices_are_patterns_of_no_table_and_nobody_else_may_declare_them() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let file = |toml: &str| {
        format!(
            "[database]\nurl = \"{}\"\nslot = \"{}\"\n[server]\nlisten = \"127.0.0.1:0\"\n{toml}\n[[webhooks]]\n\
             name = \"crm\"\nurl = \"{}\"\nevents = [\"orders.*\"]\n",
            database.url,
            database.name,
            receiver.url("/crm")
        )
    };
    let declared = "[[events]]\ntype = \"delivery.failed\"\ntable = \"orders\"";
    for (wrong, part) in [
        (declared, "what walhook tells of itself"),
        ("[notices]\nevery = \"1ms\"", "notices.every"),
        ("[notices]\nlags = \"1s\"", "lag"),
        (
            "[[webhooks]]\nname = \"ops\"\nurl = \"http://127.0.0.1:1\"\nevents = [\"webhook.fails\"]",
            "webhook.failing",
        ),
    ] {
        let (code, said) = refused(&file(wrong)).await;
        assert!(code != Some(0) && said.contains(part), "{wrong}: {said}");
    }
    database.execute("create table delivery (id int8 primary key)").await;
    let run = Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]").webhook(
        "ops",
        &receiver.url("/ops"),
        "events = [\"delivery.*\"]",
    );
    let sidecar = Sidecar::prepare(&database, run);
    let (_, said) = say(&sidecar, &["check"]).await;
    assert!(said.contains("means events of rows (delivery.created) and notices"), "{said}");
    assert!(!said.contains("no webhook is told"), "{said}");
    let run = Run::default().webhook("crm", &receiver.url("/crm"), "events = [\"orders.*\"]").webhook(
        "two",
        &receiver.url("/two"),
        "events = [\"*\"]",
    );
    let (_, said) = say(&Sidecar::prepare(&database, run), &["check"]).await;
    assert!(said.contains("no webhook is told when another one fails"), "{said}");
}
