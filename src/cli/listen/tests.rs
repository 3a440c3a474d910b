//! The receiver, by real requests over loopback.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{BodyStyle, ListenArgs, ListenOptions, Printer, Received, Signature, serve};
use crate::clock::Clock;
use crate::domain::{Coding, Compression, Outcome, WebhookSource, limits};
use crate::sign::Signer;
use crate::tasks::{Death, Role, Tasks};
use crate::transport::encoding::encode;
use crate::transport::{Lookups, Policy, Request, Transport, TransportOptions};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[derive(clap::Parser)]
struct Typed {
    #[command(flatten)]
    args: ListenArgs,
}

/// Options as from a command line.
fn options(typed: &[&str]) -> ListenOptions {
    Typed::try_parse_from([&["listen"], typed].concat()).unwrap().args.options()
}

/// A receiver, a way to send to it, and what it received.
struct Rig {
    address: SocketAddr,
    transport: Transport,
    received: Arc<Mutex<Vec<Received>>>,
    stop: CancellationToken,
    deaths: tokio::sync::mpsc::UnboundedReceiver<Death>,
}

impl Rig {
    async fn start(options: ListenOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (received, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        let (tasks, deaths) = Tasks::new();
        let (told, token) = (Arc::clone(&received), stop.clone());
        tasks.spawn("receiver", Role::Essential, async move {
            serve(listener, options, token, move |r| told.lock().unwrap().push(r)).await.unwrap();
        });
        let transport = Transport::new(TransportOptions {
            policy: Policy::default(),
            tenants: Policy::default(),
            capture_bytes: 1024,
            clock: Clock::system(),
            extra_roots: Vec::new(),
            lookups: Lookups::of_the_system(),
            connect_within: limits::CONNECT_TIMEOUT,
        });
        Self { address, transport: transport.unwrap(), received, stop, deaths }
    }

    /// Sends a delivery signed with `secret` and answers with the status.
    async fn send(&self, id: &str, secret: &str, body: &'static [u8]) -> u16 {
        self.send_as(id, secret, body, ("", Bytes::from_static(body))).await
    }

    /// The same with other bytes on the wire, in a coding.
    async fn send_as(&self, id: &str, secret: &str, body: &[u8], (coding, sent): (&str, Bytes)) -> u16 {
        let now = Clock::system().unix_seconds();
        let mut headers = HeaderMap::new();
        headers.extend(Signer::new(&[SecretString::from(secret)]).unwrap().headers(id, now, body));
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", &now.to_string()),
            ("x-webhook-event", "orders.created"),
            ("x-webhook-attempt", "1"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        if !coding.is_empty() {
            headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap());
        }
        let url = format!("http://{}/any/path", self.address).parse().unwrap();
        let (source, timeout) = (WebhookSource::Toml, Duration::from_secs(5));
        let outcome = self
            .transport
            .send(Request { url: &url, source, headers, body: sent, timeout, route: None })
            .await;
        match outcome {
            Outcome::Responded { status, .. } => status,
            other => panic!("{other:?}"),
        }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_right_signature_is_verified_and_a_wrong_one_answered_401() {
    let rig = Rig::start(options(&["--secret", "another", "--secret", SECRET])).await;
    assert_eq!(rig.send("dlv_1", SECRET, b"{}").await, 200);
    assert_eq!(rig.send("dlv_1", SECRET, b"{}").await, 200);
    assert_eq!(rig.send("dlv_2", "a wrong one", b"{}").await, 401);
    let received = rig.received();
    assert_eq!(received[0].signature, Signature::Verified);
    assert_eq!((received[0].event_type.as_str(), received[0].attempt), ("orders.created", Some(1)));
    assert_eq!(received.iter().map(|r| r.seen_before).collect::<Vec<_>>(), [false, true, false]);
    assert!(matches!(received[2].signature, Signature::Wrong(_)));
}

#[tokio::test]
async fn failures_on_purpose_come_as_asked() {
    let rig = Rig::start(options(&["--fail-first", "2", "--status", "503"])).await;
    let mut statuses = Vec::new();
    for id in ["a", "a", "b", "a", "b", "b"] {
        statuses.push(rig.send(id, SECRET, b"{}").await);
    }
    assert_eq!(statuses, [503, 503, 503, 200, 503, 200]);
    assert!(rig.received().iter().all(|r| !r.seen_before && r.signature == Signature::Unchecked));
    let rig = Rig::start(options(&["--fail-rate", "1"])).await;
    assert_eq!(rig.send("a", SECRET, b"{}").await, 500);
    let rig = Rig::start(options(&["--status", "410"])).await;
    assert_eq!(rig.send("a", SECRET, b"{}").await, 410);
}

#[tokio::test]
async fn the_receiver_ends_after_its_count_and_waits_its_delay() {
    let mut rig = Rig::start(options(&["--count", "2", "--delay", "50ms"])).await;
    let started = tokio::time::Instant::now();
    assert_eq!(rig.send("a", SECRET, b"{}").await, 200);
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!(rig.send("b", SECRET, b"{}").await, 200);
    let ended = tokio::time::timeout(Duration::from_secs(5), rig.deaths.recv()).await.unwrap();
    assert_eq!(ended, Some(Death { task: "receiver", panicked: false }));
    assert!(rig.stop.is_cancelled());
}

#[test]
fn a_command_line_out_of_range_is_refused() {
    for typed in [["--fail-rate", "1.5"], ["--delay", "-1s"], ["--delay", "soon"], ["--status", "99"]] {
        assert!(Typed::try_parse_from([&["listen"], &typed[..]].concat()).is_err(), "{typed:?}");
    }
}

fn sample(body: &'static [u8]) -> Received {
    Received {
        at: "2026-11-21T20:21:29.123456Z".parse().unwrap(),
        id: "dlv_1".to_owned(),
        event_type: "orders.created".to_owned(),
        attempt: Some(2),
        signature: Signature::Wrong("no signature fits".to_owned()),
        seen_before: true,
        status: 401,
        body: Bytes::from_static(body),
    }
}

fn check_printed(json: bool, style: BodyStyle, body: &'static [u8], expect: &str) {
    let mut out = Vec::new();
    Printer::new(&mut out, json, style).received(&sample(body)).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), expect);
}

#[test]
fn lines_for_people_and_for_programs_say_the_same() {
    let head = "20:21:29.123  orders.created  dlv_1  attempt 2  not verified: no signature fits  seen before  → 401\n";
    let compact = format!("{head}              {{\"total\":1.50}}\n");
    check_printed(false, BodyStyle::None, b"{}", head);
    check_printed(
        false,
        BodyStyle::Compact,
        b"{ \"total\": \"1.50\" }",
        &compact.replace("1.50", "\"1.50\""),
    );
    check_printed(false, BodyStyle::Compact, b"a\x1b[31m", &format!("{head}              a\u{fffd}[31m\n"));
    let line = "{\"time\":\"2026-11-21T20:21:29.123456Z\",\"type\":\"orders.created\",\"id\":\"dlv_1\",\"attempt\":2,\
        \"verified\":false,\"reason\":\"no signature fits\",\"seen_before\":true,\"status\":401,\"body\":BODY}\n";
    check_printed(true, BodyStyle::Compact, b"{\"total\":1.50}", &line.replace("BODY", "{\"total\":1.50}"));
    check_printed(true, BodyStyle::Compact, b"{\n\"a\":1}", &line.replace("BODY", "{\"a\":1}"));
    check_printed(true, BodyStyle::Compact, b"no json", &line.replace("BODY", "\"no json\""));
}

#[test]
fn a_closed_pipe_is_an_error_and_no_panic() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(Printer::new(Closed, false, BodyStyle::Compact).received(&sample(b"{}")).is_err());
    assert!(
        Printer::new(Closed, true, BodyStyle::None).listening(SocketAddr::from(([127, 0, 0, 1], 1))).is_err()
    );
}

#[tokio::test]
async fn a_compressed_body_is_decoded_before_its_signature_is_checked() {
    let rig = Rig::start(options(&["--secret", SECRET])).await;
    let body = Bytes::from(br#"{"id":7}"#.repeat(500));
    for (id, coding) in [("zip", Coding::Gzip), ("std", Coding::Zstd)] {
        let compression = Compression { coding: Some(coding), threshold: 0 };
        let (sent, told) = encode(&body, compression).await;
        assert_eq!(told, Some(coding));
        assert_eq!(rig.send_as(id, SECRET, &body, (coding.as_str(), sent.clone())).await, 200);
        // The signature is over the body before compression, not over what was sent.
        assert_eq!(rig.send_as(id, SECRET, &sent, (coding.as_str(), sent.clone())).await, 401);
        assert_eq!(rig.send_as(id, SECRET, &body, (coding.as_str(), body.clone())).await, 400);
    }
    assert_eq!(rig.send_as("br", SECRET, &body, ("br", body.clone())).await, 415);
    let zeros = Bytes::from(vec![0; 2 * limits::BATCH_BYTES]);
    let (bomb, _) = encode(&zeros, Compression { coding: Some(Coding::Zstd), threshold: 0 }).await;
    assert_eq!(rig.send_as("bomb", SECRET, &zeros, ("zstd", bomb)).await, 413);
    let received = rig.received.lock().unwrap();
    assert!(received.iter().filter(|r| r.status == 200).all(|r| r.body == body));
}
