//! What must not leave: masked and excluded values, answers that nobody wants kept, and row values in logs.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Run, Sidecar, beside_others, eventually, run_once, speaks_http2,
};

/// Stands in rows, and nowhere else.
const CANARY: &str = "kanarienvogel";

const PEOPLE: &str = "create table people (id int8 primary key, email text, card text, name text, token text,
    salary int8, born date);
    alter table people replica identity full";

const MASKS: &str = "[tables.people]\nexclude = [\"token\"]\n\
    mask = { email = \"partial\", card = \"partial\", name = \"hash\", salary = \"null\", born = \"redact\" }\n";

#[tokio::test]
async fn masks_of_every_kind_hold_in_bodies_conditions_and_the_ledger() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database.execute(PEOPLE).await;
    let key = "a key of thirty-two bytes, or so";
    let toml = format!("[security]\nmask_key = \"{key}\"\n\n{MASKS}");
    let all = "events = [\"people.*\"]";
    // What is masked is masked for conditions too: none of these sees a value.
    let unmasked =
        "events = [\"people.*\"]\nfilter = \"record.salary != null || record.born != '[redacted]'\"";
    let run = Run::with(toml).webhook("all", &receiver.url("/all"), all).webhook(
        "peek",
        &receiver.url("/peek"),
        unmasked,
    );
    let _sidecar = Sidecar::start(&database, run).await;
    let values = "'ada@example.com', '4111111111111111', 'Ada', 'kanarienvogel', 90000, '1815-12-10'";
    database.execute(&format!("insert into people values (1, {values})")).await;
    database.execute("update people set salary = 91000, card = null where id = 1").await;

    let came = receiver.expect("/all", 2).await;
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key of any length");
    mac.update(b"Ada");
    let name = hex::encode(mac.finalize().into_bytes());
    let row = |card: Value| json!({ "id": 1, "email": "a***@example.com", "card": card, "name": name, "salary": null, "born": "[redacted]" });
    assert_eq!(came[0].json()["data"]["record"], row(json!("***1111")));
    assert_eq!(came[1].json()["data"]["record"], row(Value::Null));
    assert_eq!(came[1].json()["data"]["old"], row(json!("***1111")));
    assert_eq!(came[1].json()["data"]["changed"], json!(["card", "salary"]));
    for request in &came {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        for secret in ["ada@", "4111111", "Ada", CANARY, "90000", "91000", "1815"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    assert!(receiver.requests("/peek").is_empty());
    let kept = "select count(*) from walhook.deliveries where status = 'delivered'
        and encode(body, 'escape') !~ 'kanarienvogel|4111111|90000|1815'";
    eventually("both are kept, masked", PATIENCE, async || database.number(kept).await == 2).await;
}

#[tokio::test]
async fn a_hash_without_a_key_is_the_plain_one_that_it_was() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database.execute(PEOPLE).await;
    let run = Run::with(MASKS).webhook("all", &receiver.url("/all"), "events = [\"people.*\"]");
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into people (id, name) values (1, 'Ada')").await;
    let record = receiver.expect("/all", 1).await[0].json()["data"]["record"].clone();
    assert_eq!(record["name"], json!(hex::encode(Sha256::digest("Ada"))));
}

#[tokio::test]
async fn a_key_that_is_masked_stands_nowhere_in_the_ledger_and_its_rows_stay_in_order() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database.execute("create table cards (number text primary key, owner text)").await;
    receiver.answers("/crm", &[Answer::Status(500)]);
    let toml = "[tables.cards]\nmask = { number = \"partial\" }\n";
    let keys = "events = [\"cards.*\"]\nretry = { schedule = [\"50ms\"], jitter = 0 }";
    let _sidecar =
        Sidecar::start(&database, Run::with(toml).webhook("crm", &receiver.url("/crm"), keys)).await;
    database.execute("insert into cards values ('4111111111111111', 'a')").await;
    database.execute("update cards set owner = 'b'; update cards set owner = 'c'").await;
    let came =
        receiver.wait("/crm", "all", PATIENCE, |came| came.iter().filter(|r| r.accepted).count() >= 3).await;
    let accepted: Vec<Value> = came.iter().filter(|r| r.accepted).map(|r| r.column("owner")).collect();
    assert_eq!(accepted, [json!("a"), json!("b"), json!("c")]);
    assert_eq!(came[0].column("number"), json!("***1111"));
    let rows = "select count(*) from walhook.deliveries where status = 'delivered' and row_key = ''";
    eventually("rows without a key", PATIENCE, async || database.number(rows).await == 3).await;
    let told = "select count(*) from walhook.deliveries d where d::text like '%411111111111%'";
    assert_eq!(database.number(told).await, 0);
}

#[tokio::test]
async fn nothing_of_an_answer_is_kept_where_that_is_switched_off() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.answers("/crm", &[Answer::Status(500)]);
    let toml = "[ledger]\ncapture_response = \"0\"\nstore_bodies = \"none\"\n";
    let keys = "events = [\"orders.*\"]\nretry = { schedule = [\"50ms\"], jitter = 0 }";
    let run = Run::with(toml).webhook("crm", &receiver.url("/crm"), keys);
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    receiver.expect("/crm", 2).await;
    let kept = "select count(*) from walhook.deliveries where status = 'delivered' and body is null and attempts = 2";
    eventually("it is delivered, without its body", PATIENCE, async || database.number(kept).await == 1)
        .await;
    let answers = "select count(*) from walhook.attempts where response is not null";
    assert_eq!(database.number(answers).await, 0);
}

/// Webhooks of every kind, and what is wrong with some of them.
async fn of_every_kind(receiver: &Receiver) -> Run {
    receiver.answers("/failing", &[Answer::Status(500)]);
    receiver.script("/dead", |_| Answer::With(422, "x-said", CANARY.to_owned()));
    let given = "{\"access_token\":\"t-1\",\"token_type\":\"Bearer\",\"expires_in\":3600}";
    receiver.script("/give", |_| Answer::Body(200, given.to_owned()));
    let oauth2 = format!(
        "auth = {{ kind = \"oauth2\", token_url = \"{}\", client_id = \"me\", client_secret = \"hunter2\" }}",
        receiver.url("/give")
    );
    let keys = "events = [\"birds.*\"]\nretry = { schedule = [\"50ms\"], jitter = 0, give_up_on = [422] }";
    let hook = |run: Run, name: &str, more: &str| {
        run.webhook(name, &receiver.url(&format!("/{name}")), &format!("{keys}\n{more}"))
    };
    let toml = "[delivery]\nmax_body = \"64KiB\"\n\n\
        [templates.wrong]\nbody = '{\"a\": {{data.record.name}}}'\n\
        [templates.missing]\ncontent_type = \"text/plain\"\nbody = '{{#each data.record.extra.list}}{{this.nope}}{{/each}}'\n\
        [templates.date]\ncontent_type = \"text/plain\"\nbody = '{{date data.record.name \"%Y\"}}'\n";
    let mut run = Run::with(toml);
    for (name, more) in [
        ("fine", ""),
        ("failing", ""),
        ("dead", ""),
        ("zipped", "compression = \"gzip\"\ncompression_threshold = \"0\""),
        ("binary", "format = \"cloudevents-binary\""),
        ("wrong", "template = \"wrong\""),
        ("missing", "template = \"missing\""),
        ("date", "template = \"date\""),
        ("condition", "filter = \"int(record.n) > 5\""),
        ("column", "filter = \"record.extra.nope == 'x'\""),
        ("batched", "batch = { max_events = 10, max_wait = \"50ms\" }"),
        ("token", &oauth2),
    ] {
        run = hook(run, name, more);
    }
    let (port, certificate) = speaks_http2().await;
    let authority = certificate.replace('\n', "\\n");
    let tls = format!("{keys}\ntls = {{ ca = \"{authority}\" }}");
    run = run.webhook("http2", &format!("https://localhost:{port}/"), &tls);
    let verbose = "trace,tokio_postgres::query=trace,handlebars::render=trace";
    run.environment.push(("WALHOOK_LOG".to_owned(), verbose.to_owned()));
    run.expecting("gave deliveries up")
        .expecting("cannot be answered")
        .expecting("deliveries")
        .expecting("a backfill cannot go on")
}

/// Rows with the canary go through everything that could tell of them.
#[tokio::test]
async fn the_most_verbose_log_holds_no_value_of_a_row() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    let table = "create table birds (id int8 primary key, name text, extra jsonb, n text)";
    database.execute(table).await;
    let mut sidecar = Sidecar::start(&database, of_every_kind(&receiver).await).await;
    let row = |id: u32, name: &str| {
        let extra = format!("{{\"list\": [{{\"bird\": \"{CANARY}\"}}]}}");
        format!("insert into birds values ({id}, {name}, '{extra}', '{CANARY}');")
    };
    let large = format!("repeat('{CANARY}', 10000)");
    let update =
        format!("update birds set name = '{CANARY} two' where id = 1; delete from birds where id = 1;");
    let message =
        format!("select pg_logical_emit_message(true, 'walhook:birds.seen', '{CANARY} is no JSON');");
    database.execute(&(row(1, &format!("'{CANARY}'")) + &row(2, &large) + &update + &message)).await;

    let open = "select count(*) from walhook.deliveries where status not in ('delivered', 'failed')";
    let ended = "select count(*) from walhook.deliveries where finished_at is not null";
    eventually("everything has ended", PATIENCE, async || {
        database.number(ended).await >= 20 && database.number(open).await == 0
    })
    .await;
    let rendered =
        "select count(distinct webhook) from walhook.deliveries where fail_reason like 'template %'";
    eventually("templates that fail", PATIENCE, async || database.number(rendered).await == 3).await;
    let large = "select count(*) from walhook.deliveries where fail_reason like '%the body is over%'";
    assert!(database.number(large).await > 0);
    let reasons = format!("select count(*) from walhook.deliveries where fail_reason like '%{CANARY}%'");
    assert_eq!(database.number(&reasons).await, 0);
    let versions = "select count(*) from walhook.deliveries where webhook in ('http2', 'batched', 'token')
        and status = 'delivered'";
    eventually("HTTP/2, a batch and a token were used", PATIENCE, async || {
        database.number(versions).await >= 9 && receiver.requests("/give").len() == 1
    })
    .await;
    by_hand(&database, &sidecar).await;
    sidecar.stop().await;
    let lines = sidecar.lines();
    assert!(lines.iter().any(|line| line["level"] == "TRACE"), "it was verbose");
    let bytes: Vec<String> = CANARY.bytes().map(|byte| byte.to_string()).collect();
    for line in &lines {
        let text = line.to_string();
        for form in [CANARY, &hex::encode(CANARY), &bytes.join(", "), "6b616e617269"] {
            assert!(!text.contains(form), "a row's value in the log: {text}");
        }
    }
}

/// What is asked for by hand goes through the same machinery: a condition of a backfill that fails on a row, and events with
/// data of their own.
async fn by_hand(database: &Database, sidecar: &Sidecar) {
    let file = sidecar.file().display().to_string();
    let condition = "n::int > 5";
    let said =
        run_once(&["backfill", "fine", "--table", "birds", "--where", condition, "--config", &file], &[])
            .await;
    let said = String::from_utf8([said.stdout, said.stderr].concat()).expect("plain text");
    assert!(!said.contains(CANARY), "{said}");
    let told = "select reason from walhook.backfills where status = 'failed'";
    let reason = database.text(told).await;
    assert!(reason.contains("cannot read the table's rows"), "{reason}");
    assert!(reason.contains("invalid_text_representation (SQLSTATE 22P02)"), "{reason}");
    assert!(!reason.contains(CANARY), "{reason}");
    let home = tempfile::tempdir().expect("a directory");
    for (name, data) in [
        ("good.json", format!("{{\"record\": {{\"id\": 9, \"name\": \"{CANARY}\", \"n\": \"{CANARY}\"}}}}")),
        ("bad.json", format!("{{\"record\": \"{CANARY}\", \"operation\": \"{CANARY}\", {CANARY}")),
    ] {
        let path = home.path().join(name);
        std::fs::write(&path, data).expect("a file");
        let path = path.display().to_string();
        for webhook in ["fine", "failing", "wrong", "date", "condition"] {
            let ended =
                run_once(&["trigger", webhook, "birds.created", "--data", &path, "--config", &file], &[])
                    .await;
            assert!(webhook != "fine" || ended.status.success() == (name == "good.json"), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn a_real_row_is_rendered_and_triggered_masked_and_only_read() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::new().await, Receiver::start().await);
    database.execute(PEOPLE).await;
    database
        .execute("insert into people (id, name, token, salary) select n, 'p' || n, 'kanarienvogel', n from generate_series(8, 10) n;
                  create table pairs (a int4, b text, n numeric, primary key (a, b)); insert into pairs values (1, 'x', 1.50)")
        .await;
    let toml = format!(
        "{MASKS}\n[templates.line]\ncontent_type = \"text/plain\"\nbody = \"{{{{data.operation}}}} {{{{data.table}}}} {{{{json data.record}}}}\"\n"
    );
    let run = Run::with(toml).webhook("all", &receiver.url("/all"), "events = [\"people.*\", \"pairs.*\"]");
    let sidecar = Sidecar::start(&database, run).await;
    let file = sidecar.file().display().to_string();
    let walhook = async |arguments: &[&str]| {
        let output = run_once(&[arguments, &["--config", &file]].concat(), &[]).await;
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("plain text");
        assert!(!said.contains(CANARY), "{said}");
        (output.status.code(), said)
    };
    let (code, said) = walhook(&["render", "--template", "line", "--raw", "--row", "people"]).await;
    let hash = |name: &str| hex::encode(Sha256::digest(name));
    let row = |id: u32| {
        format!(
            "{{\"id\":{id},\"email\":null,\"card\":null,\"name\":\"{}\",\"salary\":null,\"born\":null}}",
            hash(&format!("p{id}"))
        )
    };
    assert_eq!((code, said), (Some(0), format!("snapshot people {}", row(10))));
    let (_, said) = walhook(&["render", "all", "--raw", "--row", "people:9"]).await;
    let body: Value = serde_json::from_str(&said).expect("a standard body");
    assert_eq!((&body["type"], &body["data"]["record"]["id"]), (&json!("people.created"), &json!(9)));
    let (_, said) = walhook(&["render", "--format", "raw", "--raw", "--row", "pairs:1,x"]).await;
    assert_eq!(
        serde_json::from_str::<Value>(&said).expect("data")["record"],
        json!({ "a": 1, "b": "x", "n": "1.50" })
    );
    for (row, part) in [
        ("people:11", "table people has no row 11"),
        ("pairs:1", "has 2 columns"),
        ("peple", "Perhaps you meant \"people\""),
        ("people:x", "invalid_text_representation (SQLSTATE 22P02)"),
    ] {
        let (code, said) = walhook(&["render", "--format", "raw", "--row", row]).await;
        assert_eq!(code, Some(1), "{row}");
        assert!(said.contains(part), "{row}: {said}");
    }
    let (_, said) = walhook(&["check"]).await;
    assert!(said.contains("masked by a hash without a key: people.name"), "{said}");
    let (code, said) = walhook(&["trigger", "all", "people.updated", "--row", "people:8"]).await;
    assert_eq!(code, Some(0), "{said}");
    let sent = receiver.expect("/all", 1).await.remove(0).json();
    assert_eq!((&sent["data"]["operation"], &sent["data"]["record"]["id"]), (&json!("test"), &json!(8)));
    assert_eq!(sent["data"]["record"]["name"], json!(hash("p8")));
}
