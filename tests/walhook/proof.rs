//! How walhook proves itself to a receiver and reaches it, by the real binary: from the file and from rows, with what is
//! wrong told at load.

use std::collections::HashSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Request, Run, SECRET, Sidecar, beside_others, eventually, refused,
    run_once,
};

const EVENTS: &str = "events = [\"orders.*\"]\nretry = { schedule = [\"100ms\"], jitter = 0 }\n";
const KEY: &str = "a shared secret of at least 32 bytes";

/// A file for commands that run beside the sidecar; gone with the folder.
fn file_of(database: &Database, toml: &str) -> (tempfile::TempDir, String) {
    let home = tempfile::Builder::new().prefix("walhook-test-").tempdir().expect("a directory");
    let path = home.path().join("walhook.toml");
    let text = format!("[database]\nurl = \"{}\"\nslot = \"{}\"\n\n{toml}", database.url, database.name);
    std::fs::write(&path, text).expect("a file");
    let path = path.to_str().expect("a plain path").to_owned();
    (home, path)
}

fn claims(request: &Request) -> Value {
    let token = request.header("authorization").strip_prefix("Bearer ").expect("a bearer token");
    let claims = token.split('.').nth(1).expect("three parts");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test]
async fn each_kind_of_proof_arrives() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.answers("/jwt", &[Answer::Status(500)]);
    let mut run = Run::default();
    for (name, keys) in [
        ("bearer", "auth = { kind = \"bearer\", token = \"abc\" }".to_owned()),
        ("basic", "auth = { kind = \"basic\", username = \"me\", password = \"pass:word\" }".to_owned()),
        (
            "key",
            "auth = { kind = \"header\", name = \"X-Api-Key\", value = { env = \"API_KEY\" } }".to_owned(),
        ),
        (
            "jwt",
            format!(
                "auth = {{ kind = \"jwt\", algorithm = \"HS256\", key = \"{KEY}\", issuer = \"shop\", \
             audience = [\"a\", \"b\"], body_claim = \"body_sha256\" }}"
            ),
        ),
        ("github", "signature = \"github\"".to_owned()),
        (
            "own",
            "signature = { header = \"x-own\", content = \"{timestamp}:{body}\", prefix = \"v0=\" }"
                .to_owned(),
        ),
    ] {
        run = run.webhook(name, &receiver.url(&format!("/{name}")), &format!("{EVENTS}{keys}"));
    }
    run.environment.push(("API_KEY".to_owned(), "k-1".to_owned()));
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders values (1, 'paid', 1, null)").await;

    let one = async |path: &str| receiver.expect(path, 1).await.remove(0);
    assert_eq!(one("/bearer").await.header("authorization"), "Bearer abc");
    assert_eq!(one("/basic").await.header("authorization"), "Basic bWU6cGFzczp3b3Jk");
    assert_eq!(one("/key").await.header("x-api-key"), "k-1");
    let github = one("/github").await;
    assert!(github.header("x-hub-signature-256").starts_with("sha256="));
    assert_eq!(
        (github.header("x-github-event"), github.header("x-github-delivery")),
        ("orders.created", github.id())
    );
    assert!(github.header("webhook-signature").starts_with("v1,"));
    let own = one("/own").await;
    assert!(own.header("x-own").starts_with("v0=") && own.header("x-own").len() == 3 + 64);

    // A token of its own for every attempt, and it says what the body was.
    let tried = receiver.expect("/jwt", 2).await;
    for request in &tried {
        let claims = claims(request);
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!("shop"), &json!(["a", "b"])));
        let seconds: i64 = request.header("webhook-timestamp").parse().expect("seconds");
        assert_eq!((claims["iat"].as_i64(), claims["exp"].as_i64()), (Some(seconds), Some(seconds + 60)));
        let hash = ring::digest::digest(&ring::digest::SHA256, &request.body);
        assert_eq!(claims["body_sha256"], json!(hex::encode(hash)));
        assert_eq!(claims["jti"], json!(format!("{}.{seconds}", request.id())));
    }
}

#[tokio::test]
async fn an_access_token_is_asked_for_once_and_a_failure_names_the_setting() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    receiver.script("/token", |_| {
        Answer::Body(
            200,
            "{\"access_token\":\"t-1\",\"token_type\":\"Bearer\",\"expires_in\":3600}".to_owned(),
        )
    });
    receiver.script("/closed", |_| Answer::Body(401, "{\"error\":\"invalid_client\"}".to_owned()));
    let auth = |path: &str| {
        let url = receiver.url(path);
        format!(
            "{EVENTS}auth = {{ kind = \"oauth2\", token_url = \"{url}\", client_id = \"me\", client_secret = \"hunter2\" }}"
        )
    };
    let run = Run::default()
        .webhook("open", &receiver.url("/open"), &auth("/token"))
        .webhook("shut", &receiver.url("/shut"), &format!("{}\nbreaker = false", auth("/closed")))
        .expecting("shut");
    let _sidecar = Sidecar::start(&database, run).await;
    database.execute("insert into orders select g, 'paid', 1, null from generate_series(1, 50) g").await;

    let came = receiver.expect("/open", 50).await;
    assert!(came.iter().all(|request| request.header("authorization") == "Bearer t-1"));
    assert_eq!(receiver.requests("/token").len(), 1);
    let failed = "select count(*) from walhook.deliveries where status = 'failed' and webhook = 'shut'";
    eventually("dead letters", PATIENCE, async || database.number(failed).await == 50).await;
    let reason =
        database.text("select distinct last_error from walhook.deliveries where webhook = 'shut'").await;
    assert!(reason.starts_with("no access token from 127.0.0.1:"), "{reason}");
    assert!(reason.ends_with("(setting: auth.token_url): HTTP 401, invalid_client"), "{reason}");
    assert!(receiver.requests("/shut").is_empty(), "something was sent without a token");
}

#[tokio::test]
async fn rows_prove_themselves_too_and_those_that_reach_too_far_are_set_aside_with_the_setting() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let open = "[security]\nallow_http = true\nallow_networks = [\"127.0.0.0/8\"]\n";
    let sidecar = Sidecar::start(&database, Run::with(open).expecting("cannot be used")).await;
    let hooks = receiver.url("/stored");
    database
        .execute(&format!(
            "insert into walhook.webhooks (name, url, secret, events, auth, signature) values
             ('stored', '{hooks}', '{SECRET}', '{{orders.*}}', '{{\"kind\": \"bearer\", \"token\": \"row\"}}',
              '{{\"header\": \"x-row\", \"encoding\": \"base64\"}}')"
        ))
        .await;
    let mut bad = HashSet::new();
    for (name, url, columns, values, words) in [
        ("metadata", "https://169.254.169.254/", "", "", "security.allow_networks"),
        ("octal", "https://012.0.0.1/", "", "", "10.0.0.1 is a special address (private)"),
        (
            "blind",
            hooks.as_str(),
            ", tls",
            ", '{\"insecure_skip_verify\": true}'",
            "a webhook of the database cannot switch verification off",
        ),
        (
            "inward",
            hooks.as_str(),
            ", auth",
            ", '{\"kind\": \"oauth2\", \"token_url\": \"https://10.0.0.1/t\", \"client_id\": \"a\", \"client_secret\": \"b\"}'",
            "auth.token_url: 10.0.0.1 is a special address (private)",
        ),
        (
            "pointing",
            hooks.as_str(),
            ", auth",
            ", '{\"kind\": \"bearer\", \"token\": {\"env\": \"HOME\"}}'",
            "Only the operator's file may point to environment variables and files.",
        ),
        ("pair", hooks.as_str(), ", secret", ", 'whsk_AAAAAAAA'", "secret 0 starts with whsk_"),
        ("short", hooks.as_str(), ", secret", ", 'whsec_AAAAAAAA'", "secret 0 makes a key of 6 bytes"),
        ("kind", hooks.as_str(), ", auth", ", '{\"kind\": \"baerer\"}'", "Perhaps you meant \\\"bearer\\\"."),
    ] {
        database
            .execute(&format!(
                "insert into walhook.webhooks (name, url, events{columns}) values ('{name}', '{url}', '{{orders.*}}'{values})"
            ))
            .await;
        let line = sidecar.logged(words).await;
        assert_eq!(line["fields"]["webhook"], json!(name), "{line}");
        bad.insert(name);
    }
    sidecar.logged("\"webhooks\":1").await;
    let path = file_of(&database, open);
    let arguments = ["trigger", "metadata", "orders.created", "--config", path.1.as_str()];
    let output = run_once(&arguments, &[]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("webhook \"metadata\" cannot be used") && said.contains("security.allow_networks"),
        "{said}"
    );
    database.execute("insert into orders values (1, 'paid', 1, null)").await;
    let request = receiver.expect("/stored", 1).await.remove(0);
    assert_eq!(request.header("authorization"), "Bearer row");
    assert_eq!(request.header("x-row").len(), 44);
    assert_eq!(receiver.count(), 1, "a webhook that was set aside was sent to: {bad:?}");
}

#[tokio::test]
async fn verification_that_is_off_is_said_at_the_start_and_by_check() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let keys = format!("{EVENTS}tls = {{ insecure_skip_verify = true }}");
    let run =
        Run::default().webhook("blind", &receiver.url("/blind"), &keys).expecting("insecure_skip_verify");
    let toml = run.toml.clone();
    let sidecar = Sidecar::start(&database, run).await;
    let line = sidecar.logged("the receiver's certificate is not checked").await;
    assert_eq!((&line["level"], &line["fields"]["webhook"]), (&json!("WARN"), &json!("blind")));

    // And when the file is read again: of what is new in it.
    let path = sidecar.file();
    let text = std::fs::read_to_string(&path).expect("the file");
    let url = receiver.url("/later");
    let later = format!("\n[[webhooks]]\nname = \"later\"\nurl = \"{url}\"\n{keys}\n");
    std::fs::write(&path, text + &later).expect("the file is written");
    sidecar.signal("HUP").await;
    let line = sidecar.logged("\"webhook\":\"later\"").await;
    let told = line["fields"]["message"].as_str().unwrap_or_default();
    assert!(line["level"] == "WARN" && told.starts_with("tls.insecure_skip_verify is set"), "{line}");

    let file = file_of(&database, &toml);
    let output = run_once(&["check", "--config", &file.1], &[]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("blind: tls.insecure_skip_verify is set"), "{said}");
    let output = run_once(&["status", "--config", &file.1], &[]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("blind: tls.insecure_skip_verify is set"), "{said}");
}

#[tokio::test]
async fn a_client_certificate_that_has_expired_or_is_not_valid_yet_is_refused_at_the_start() {
    let home = tempfile::tempdir().expect("a directory");
    let key = rcgen::KeyPair::generate().expect("a key");
    let armoured = |label: &str, der: &[u8]| {
        let text = base64::prelude::BASE64_STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let mut file = "[database]\nurl = \"postgres://127.0.0.1:1/none\"\n".to_owned();
    for (name, from, to) in [("old", 2001, 2002), ("early", 2089, 2090)] {
        let mut params = rcgen::CertificateParams::new(["walhook".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        let path = |what: &str| home.path().join(format!("{name}-{what}.pem")).display().to_string();
        std::fs::write(path("c"), armoured("CERTIFICATE", certificate.der())).expect("a file");
        std::fs::write(path("k"), armoured("PRIVATE KEY", &key.serialize_der())).expect("a file");
        let (c, k) = (path("c"), path("k"));
        write!(
            file,
            "[[webhooks]]\nname = \"{name}\"\nurl = \"https://a.example\"\nevents = [\"*\"]\n\
             tls = {{ certificate = {{ file = \"{c}\" }}, key = {{ file = \"{k}\" }} }}\n\
             [[webhooks]]\nname = \"{name}-ca\"\nurl = \"https://a.example\"\nevents = [\"*\"]\n\
             tls = {{ ca = {{ file = \"{c}\" }} }}\n"
        )
        .expect("a text takes it");
    }
    let (code, said) = refused(&file).await;
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "webhooks[0].tls",
        "the client certificate has expired at 2002-01-01T00:00:00Z",
        "webhooks[1].tls.ca: the certificates have expired; the last at 2002-01-01T00:00:00Z",
        "webhooks[2].tls",
        "the client certificate is not valid before 2089-01-01T00:00:00Z",
        "webhooks[3].tls.ca: none of the certificates is valid before 2089-01-01T00:00:00Z",
    ] {
        assert!(said.contains(words), "nothing about `{words}` in:\n{said}");
    }
}

#[tokio::test]
async fn check_tells_of_a_client_certificate_that_ends_soon() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let soon = walhook::clock::Clock::system().now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let soon = soon.checked_add(jiff::Span::new().days(10)).expect("a date");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(["walhook".to_owned()]).expect("a name");
    let (month, day) = (soon.month().unsigned_abs(), soon.day().unsigned_abs());
    params.not_after = rcgen::date_time_ymd(soon.year().into(), month, day);
    let certificate = params.self_signed(&key).expect("a certificate");
    let keys =
        format!("{EVENTS}tls = {{ certificate = {{ file = \"c.pem\" }}, key = {{ file = \"k.pem\" }} }}");
    let toml = Run::default().webhook("mutual", &receiver.url("/mutual"), &keys).toml;
    let (home, path) = file_of(&database, &toml);
    for (name, label, der) in
        [("c.pem", "CERTIFICATE", certificate.der().to_vec()), ("k.pem", "PRIVATE KEY", key.serialize_der())]
    {
        let text = base64::prelude::BASE64_STANDARD.encode(der);
        let text = format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
        std::fs::write(home.path().join(name), text).expect("a file");
    }
    let output = run_once(&["check", "--config", &path], &[]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("mutual: its client certificate expires at {soon}T00:00:00Z")), "{said}");
}

#[tokio::test]
async fn what_cannot_prove_anything_is_refused_at_the_start_all_at_once() {
    let webhook = |name: &str, rest: &str| {
        format!("[[webhooks]]\nname = \"{name}\"\nurl = \"https://a.example\"\nevents = [\"*\"]\n{rest}\n")
    };
    let file = [
        "[database]\nurl = \"postgres://127.0.0.1:1/none\"\n".to_owned(),
        webhook("a", "auth = { kind = \"oauth\" }"),
        webhook("b", "auth = { token = \"hunter2\" }"),
        webhook("c", "auth = { kind = \"bearer\", token = \"hunter2\\nx: y\" }"),
        webhook("d", "auth = { kind = \"jwt\", algorithm = \"RS256\", key = \"hunter2\" }"),
        webhook("e", "auth = { kind = \"basic\", username = \"a:b\", password = \"hunter2\" }"),
        webhook("f", "secret = \"hunter2\""),
        webhook("g", "secret = \"whsec_aHVudGVyMg==\""),
        webhook("h", "signature = \"strip\""),
        webhook("i", "signature = \"stripe\""),
        webhook("j", "tls = { ca = \"hunter2\" }"),
        webhook("k", "tls = { certificate = \"hunter2\" }"),
        webhook("l", "tls = { min_version = \"1.1\" }"),
        webhook("m", "proxy = \"ftp://me:hunter2@proxy\""),
        webhook(
            "n",
            "headers = { Authorization = \"hunter2\" }\nauth = { kind = \"bearer\", token = \"hunter2\" }",
        ),
        webhook("o", "auth = { kind = \"bearer\", token = \"hunter2\", tokn = 1 }"),
    ]
    .concat();
    let (code, said) = refused(&file).await;
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "webhooks[0].auth.kind: expected one of \"bearer\", \"basic\", \"header\", \"jwt\", \"oauth2\", found \"oauth\"",
        "Perhaps you meant \"oauth2\".",
        "webhooks[1].auth.kind: a required key is missing",
        "webhooks[2].auth.token: a bearer token has no spaces and no line ends",
        "webhooks[3].auth.key: the key is no private key in PEM",
        "webhooks[4].auth.username: a user name of basic authentication has no colon",
        "webhooks[5].secret: secret 0 makes a key of 7 bytes; a key has 24 to 64",
        "webhooks[6].secret: secret 0 makes a key of 7 bytes; a key has 24 to 64",
        "webhooks[7].signature: expected one of \"standard\", \"github\", \"stripe\", \"shopify\", \"svix\", or a table",
        "Perhaps you meant \"stripe\".",
        "webhooks[8].signature: a signature needs a secret",
        "webhooks[9].tls.ca: there is no certificate in PEM",
        "webhooks[10].tls: certificate is set without key",
        "webhooks[11].tls.min_version: expected one of \"1.2\", \"1.3\", found \"1.1\"",
        "webhooks[12].proxy: expected a URL of http or socks5",
        "webhooks[13].auth: headers sets authorization too",
        "webhooks[14].auth.tokn: unknown key",
    ] {
        assert!(said.contains(words), "nothing about `{words}` in:\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}
