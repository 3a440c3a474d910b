//! Secrets are made, and replaced without downtime. What the database holds of them is the subject of [`at_rest`].

mod at_rest;

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use walhook::clock::Clock;
use walhook::sign::verify;

use crate::support::{
    Database, PATIENCE, Receiver, Request, Run, SECRET, Sidecar, beside_others, eventually, refused, run_once,
};

const OPEN: &str = "[security]\nallow_http = true\nallow_networks = [\"127.0.0.0/8\"]\n";
/// Words that stand in secrets only.
const CANARY: &str = "kanarienvogel";

/// What a command answered: exit code, standard output, standard error.
type Said = (Option<i32>, String, String);

/// Runs a command by the sidecar's file.
async fn walhook(sidecar: &Sidecar, arguments: &[&str]) -> Said {
    let file = sidecar.file().display().to_string();
    let output = run_once(&[arguments, &["--config", &file]].concat(), &[]).await;
    let text = |bytes| String::from_utf8(bytes).expect("plain text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn stored(database: &Database, name: &str, url: &str, secret: &str) {
    let insert = "insert into walhook.webhooks (name, url, secret, events) values ($1, $2, $3, '{orders.*}')";
    database.rows(insert, &[&name, &url, &secret]).await;
}

/// Whether a request verifies by this secret alone.
fn verifies(request: &Request, secret: &str) -> bool {
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let value = request.header(name).parse().expect("a value");
        headers.insert(http::HeaderName::from_static(name), value);
    }
    let now = Clock::system().unix_seconds();
    verify(&[SecretString::from(secret)], &headers, &request.body, now, PATIENCE).is_ok()
}

/// Inserts rows, ids from `first`, until one of them has come that is as wanted; gives all that came of them.
async fn rows_until(
    (database, receiver, path): (&Database, &Receiver, &str),
    first: i64,
    what: &str,
    is_wanted: impl Fn(&Request) -> bool,
) -> Vec<Request> {
    let mut next = first;
    let of_ours = |request: &Request| request.column("id").as_i64() >= Some(first);
    eventually(what, PATIENCE, async || {
        database.execute(&format!("insert into orders values ({next}, 'paid', 1, null)")).await;
        next += 1;
        receiver.requests(path).iter().any(|request| of_ours(request) && is_wanted(request))
    })
    .await;
    receiver.requests(path).into_iter().filter(of_ours).collect()
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_one_before_it_until_the_overlap_is_over() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let sidecar = Sidecar::start(&database, Run::with(OPEN)).await;
    let ours = (&database, &receiver, "/crm");
    stored(&database, "crm", &receiver.url("/crm"), SECRET).await;
    rows_until(ours, 1, "a delivery by the first secret", |request| verifies(request, SECRET)).await;

    let (code, out, err) = walhook(&sidecar, &["webhooks", "rotate", "crm", "--overlap", "4s"]).await;
    assert_eq!(code, Some(0), "{err}");
    let new = out.trim().to_owned();
    assert!(new.starts_with("whsec_") && new != SECRET && !err.contains(&new), "{err}");
    assert!(err.contains("stands in the database as plain text"), "{err}");
    let column = database.text("select secret from walhook.webhooks").await;
    let entries: Value = serde_json::from_str(&column).expect("a list");
    assert_eq!((&entries[0], &entries[1]["secret"]), (&json!(new), &json!(SECRET)));
    let until: Timestamp = entries[1]["until"].as_str().expect("an end").parse().expect("a time");
    let theirs = Webhook::new(&new).expect("a secret that other libraries take");

    // It is looked at when it is signed: nobody touches the row in between.
    let came = rows_until(ours, 1000, "a delivery after the end", |request| {
        verifies(request, &new) && !verifies(request, SECRET)
    })
    .await;
    let mut signed_by_both = 0;
    for request in came.iter().filter(|request| verifies(request, &new)) {
        let at: i64 = request.header("webhook-timestamp").parse().expect("seconds");
        let entries = if at < until.as_second() { 2 } else { 1 };
        assert_eq!(request.header("webhook-signature").split(' ').count(), entries, "{at} of {until}");
        assert_eq!(verifies(request, SECRET), entries == 2);
        signed_by_both += u32::from(entries == 2);
        let mut headers = http::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers
                .insert(http::HeaderName::from_static(name), request.header(name).parse().expect("a value"));
        }
        theirs.verify(&request.body, &headers).expect("it verifies with other people's library");
    }
    let total = came.len();
    assert!(signed_by_both > 0, "none of {total} came while both signed, or the change was too slow");

    // The next one drops what has ended; a key pair is followed by one.
    let (code, out, err) = walhook(&sidecar, &["webhooks", "rotate", "crm"]).await;
    assert_eq!(code, Some(0), "{err}");
    let entries: Value =
        serde_json::from_str(&database.text("select secret from walhook.webhooks").await).expect("a list");
    assert_eq!(entries.as_array().map(Vec::len), Some(2));
    assert_eq!((&entries[0], &entries[1]["secret"]), (&json!(out.trim()), &json!(new)));
    let acts = database
        .rows(
            "select actor_kind, actor = session_user, action, object, detail::text from walhook.audit
             where actor_kind <> 'sql' order by id",
            &[],
        )
        .await;
    assert_eq!(acts.len(), 2);
    for act in &acts {
        let words: (&str, bool, &str, &str) = (act.get(0), act.get(1), act.get(2), act.get(3));
        assert_eq!(words, ("command", true, "webhook.rotate", "crm"));
        let detail: &str = act.get(4);
        assert!(!detail.contains("whsec_"), "{detail}");
    }
}

#[tokio::test]
async fn a_secret_of_the_file_ends_when_the_file_says() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let new = "whsec_bmV3ZXIgc2VjcmV0IG9mIDI0IGJ5dGVzIQ==";
    let webhook = |name: &str, until: &str| {
        let url = receiver.url(&format!("/{name}"));
        format!(
            "[[webhooks]]\nname = \"{name}\"\nurl = \"{url}\"\nevents = [\"orders.*\"]\n\
             secret = [\"{new}\", {{ env = \"OLD_SECRET\", until = \"{until}\" }}]\n"
        )
    };
    let toml = webhook("over", "2026-01-01T00:00:00Z") + &webhook("open", "2999-01-01T00:00:00Z");
    let mut run = Run::with(toml);
    run.environment.push(("OLD_SECRET".to_owned(), SECRET.to_owned()));
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    for (path, old) in [("/over", false), ("/open", true)] {
        let request = receiver.expect(path, 1).await.remove(0);
        assert!(verifies(&request, new), "{path}");
        assert_eq!(verifies(&request, SECRET), old, "{path}");
    }
}

#[tokio::test]
async fn a_key_pair_is_followed_by_a_key_pair_and_an_overlap_of_nothing_ends_at_once() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let sidecar = Sidecar::start(&database, Run::with(OPEN)).await;
    let (code, out, _) = walhook(&sidecar, &["secrets", "new", "--ed25519"]).await;
    let pair: Vec<&str> = out.lines().collect();
    assert_eq!((code, pair.len()), (Some(0), 2));
    stored(&database, "crm", &receiver.url("/crm"), pair[0]).await;
    let ours = (&database, &receiver, "/crm");
    rows_until(ours, 1, "a delivery by the pair", |request| verifies(request, pair[1])).await;

    let (code, out, err) = walhook(&sidecar, &["webhooks", "rotate", "crm", "--overlap", "0s"]).await;
    assert_eq!(code, Some(0), "{err}");
    let public = err.split_whitespace().find(|word| word.starts_with("whpk_")).expect("the public half");
    assert!(out.starts_with("whsk_"));
    assert_eq!(database.text("select secret from walhook.webhooks").await, out.trim());
    rows_until(ours, 1000, "a delivery by the new pair", |request| verifies(request, public)).await;
    let last = receiver.requests("/crm").pop().expect("a delivery");
    assert!(!verifies(&last, pair[1]));
}

#[tokio::test]
async fn new_secrets_need_neither_file_nor_database() {
    let output = run_once(&["secrets", "new"], &[]).await;
    let secret = String::from_utf8(output.stdout).expect("plain text");
    assert_eq!(output.status.code(), Some(0));
    Webhook::new(secret.trim()).expect("a secret that other libraries take");
    let again = run_once(&["secrets", "new"], &[]).await;
    assert_ne!(secret.into_bytes(), again.stdout);
}

#[tokio::test]
async fn what_cannot_be_rotated_revealed_or_encrypted_is_refused_with_the_remedy() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let run = Run::with(OPEN).webhook("file", &receiver.url("/file"), "events = [\"orders.*\"]");
    let sidecar = Sidecar::start(&database, run).await;
    stored(&database, "partner", &receiver.url("/partner"), SECRET).await;
    for (arguments, parts) in [
        (
            vec!["webhooks", "rotate", "file"],
            vec!["webhook \"file\" is declared in", "walhook.toml", "`walhook secrets new`", "until = "],
        ),
        (
            vec!["webhooks", "reveal", "file"],
            vec!["webhook \"file\" is declared in", "Read it where the file"],
        ),
        (vec!["webhooks", "rotate", "partnr"], vec!["there is no webhook \"partnr\"", "\"partner\""]),
        (vec!["webhooks", "reveal", "partnr"], vec!["there is no webhook \"partnr\"", "\"partner\""]),
        (vec!["secrets", "encrypt"], vec!["security.encryption_key is not set", "openssl rand -base64 32"]),
    ] {
        let (code, out, err) = walhook(&sidecar, &arguments).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{arguments:?}");
        for part in parts {
            assert!(err.contains(part), "{arguments:?}: nothing about `{part}` in\n{err}");
        }
        assert!(!err.contains(SECRET), "{err}");
    }
    let (code, _, err) = walhook(&sidecar, &["webhooks", "rotate", "partner", "--overlap", "soon"]).await;
    assert_eq!(code, Some(2), "{err}");
    assert_eq!(database.number("select count(*) from walhook.audit where actor_kind <> 'sql'").await, 0);
    assert_eq!(database.text("select secret from walhook.webhooks").await, SECRET);

    let file = |rest: &str| format!("[database]\nurl = \"postgres://127.0.0.1:1/app\"\n{rest}");
    let (code, said) = refused(&file("[security]\nencryption_key = \"kanarienvogel\"\n")).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("security.encryption_key: a key is 32 bytes in base64 or hexadecimal"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
}
