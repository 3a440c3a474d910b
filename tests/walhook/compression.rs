//! Bodies that go compressed: what receivers decode is what was signed, and what the ledger keeps.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::support::{
    Answer, Database, PATIENCE, Receiver, Request, Run, SECRET, Sidecar, beside_others, eventually,
};

const EVENTS: &str = "events = [\"orders.*\"]\nretry = { schedule = [\"100ms\", \"100ms\"], jitter = 0 }";

fn decoded(request: &Request) -> Vec<u8> {
    let mut body = Vec::new();
    match request.header("content-encoding") {
        "gzip" => {
            flate2::read::GzDecoder::new(&*request.body).read_to_end(&mut body).expect("gzip");
        }
        "zstd" => body = zstd::decode_all(&*request.body).expect("zstd"),
        _ => body.extend_from_slice(&request.body),
    }
    body
}

#[tokio::test]
async fn compressed_bodies_decode_to_what_was_signed_and_what_the_ledger_keeps() {
    let _turn = beside_others().await;
    let (database, receiver) = (Database::with_orders().await, Receiver::start().await);
    let mut run = Run::default();
    for coding in ["gzip", "zstd", "none"] {
        let path = format!("/{coding}");
        receiver.answers(&path, &[Answer::Status(500), Answer::Status(500)]);
        run = run.webhook(coding, &receiver.url(&path), &format!("{EVENTS}\ncompression = \"{coding}\""));
    }
    let _sidecar = Sidecar::start(&database, run).await;
    // One beneath the threshold, one above it, one that is compressed on another thread.
    database
        .execute(
            "insert into orders select n, 'paid', 1, repeat('größer ', (10 ^ n)::int) from generate_series(1, 5, 2) n",
        )
        .await;
    for coding in ["gzip", "zstd", "none"] {
        let came = receiver.expect(&format!("/{coding}"), 9).await;
        for request in &came {
            let body = decoded(request);
            let expect = if body.len() < 1024 || coding == "none" { "" } else { coding };
            assert_eq!(request.header("content-encoding"), expect);
            assert_eq!(request.header("content-type"), "application/json");
            if !expect.is_empty() {
                assert!(request.body.len() < body.len() / 4, "{} of {}", request.body.len(), body.len());
            }
            let standard = standardwebhooks::Webhook::new(SECRET).expect("a secret");
            standard.verify(&body, &request.headers).expect("a signature over the body before compression");
            let same = came.iter().filter(|other| other.id() == request.id());
            assert!(same.into_iter().all(|other| decoded(other) == body));
        }
    }
    let delivered = "select count(*) from walhook.deliveries where status = 'delivered' and attempts = 3";
    eventually("all delivered", PATIENCE, async || database.number(delivered).await == 9).await;
    for row in database.rows("select id, webhook, body from walhook.deliveries", &[]).await {
        let (id, webhook, body): (String, String, Vec<u8>) = (row.get(0), row.get(1), row.get(2));
        let came = receiver.requests(&format!("/{webhook}"));
        let request = came.iter().find(|request| request.id() == id).expect("it came");
        assert_eq!(decoded(request), body);
    }
}

#[tokio::test]
async fn a_webhook_of_the_database_may_be_compressed_and_a_receiver_in_python_reads_it() {
    let _turn = beside_others().await;
    let database = Database::with_orders().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/receivers/python/receive_hex.py");
    let mut python = Command::new("python3")
        .arg(script)
        .envs([("WALHOOK_SECRET", SECRET), ("PORT", "0")])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python3");
    let mut lines = BufReader::new(python.stdout.take().expect("a pipe")).lines();
    let mut line = async || {
        let next = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("a line in time");
        next.expect("a pipe").expect("a line")
    };
    let listening = line().await;
    let port = listening.rsplit(':').next().expect("a port").to_owned();

    let run = Run::with("[security]\nallow_http = true\nallow_networks = [\"127.0.0.0/8\"]\n");
    let sidecar = Sidecar::start(&database, run).await;
    sidecar.published_after(0).await;
    let before = sidecar.catalogs();
    database
        .execute(&format!(
            "insert into walhook.webhooks (name, url, secret, events, format, format_version, compression, compression_threshold)
             values ('python', 'http://127.0.0.1:{port}/', '{SECRET}', '{{orders.*}}', 'raw', 1, 'gzip', '100B')"
        ))
        .await;
    sidecar.published_after(before).await;
    database.execute("insert into orders values (7, 'paid', 1, repeat('größer ', 300))").await;
    let received = line().await;
    assert!(
        received.starts_with("received: orders.created") && received.contains("größer größer"),
        "{received}"
    );
    let delivered =
        "select count(*) from walhook.deliveries where status = 'delivered' and last_http_status = 204";
    eventually("it is delivered", PATIENCE, async || database.number(delivered).await == 1).await;
}
