//! Answers of every kind become outcomes, in time.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::super::Policy;
use super::rig::{Receiver, Script, send, transport};
use crate::domain::{Outcome, TimeoutStage, UnreachableBy, WebhookSource};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const ENDLESS_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const CHUNK: &[u8] = b"10\r\n0123456789abcdef\r\n";

/// The outcome of one attempt on a receiver with this script, within a second.
async fn outcome_of(script: Script) -> Outcome {
    let receiver = Receiver::start(script).await;
    let started = Instant::now();
    let outcome =
        send(&transport(Policy::default(), Vec::new()), &receiver.url("/h"), WebhookSource::Toml, 1000).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{outcome:?} came late");
    outcome
}

fn responded(status: u16, retry_after: Option<u64>, body: &'static str) -> Outcome {
    Outcome::Responded { status, retry_after: retry_after.map(Duration::from_secs), body: body.into() }
}

async fn check_unreachable(script: Script, expect: UnreachableBy, words: &str) {
    match outcome_of(script).await {
        Outcome::Unreachable { by, reason } => {
            assert_eq!(by, expect, "{reason}");
            assert!(reason.contains(words), "{reason:?} has no {words:?}");
        }
        other => panic!("{script:?}: {other:?}"),
    }
}

#[tokio::test]
async fn statuses_and_the_first_bytes_of_bodies_come_back() {
    assert_eq!(outcome_of(Script::Answer(OK)).await, responded(200, None, "ok"));
    let long =
        b"HTTP/1.1 503 Busy\r\ncontent-length: 26\r\nretry-after: 120\r\n\r\nabcdefghijklmnopqrstuvwxyz";
    assert_eq!(outcome_of(Script::Answer(long)).await, responded(503, Some(120), "abcdefghijklmnop"));
    let dated = b"HTTP/1.1 429 X\r\ncontent-length: 0\r\nretry-after: Sat, 21 Nov 2026 20:10:00 GMT\r\n\r\n";
    let Outcome::Responded { status: 429, retry_after: Some(wait), .. } =
        outcome_of(Script::Answer(dated)).await
    else {
        panic!("no wait was read");
    };
    assert!((590..=600).contains(&wait.as_secs()), "{wait:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let receiver = Receiver::start(Script::Answer(
        b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
    ))
    .await;
    let transport = transport(Policy::default(), Vec::new());
    let outcome = send(&transport, &receiver.url("/"), WebhookSource::Toml, 2000).await;
    assert_eq!(outcome, responded(302, None, ""));
    assert_eq!(receiver.requests(), 1);
}

#[tokio::test]
async fn one_connection_carries_many_deliveries() {
    let receiver = Receiver::start(Script::Answer(OK)).await;
    let transport = transport(Policy::default(), Vec::new());
    for _ in 0..20 {
        let outcome = send(&transport, &receiver.url("/"), WebhookSource::Toml, 2000).await;
        assert!(outcome.is_success());
    }
    assert_eq!((receiver.connections(), receiver.requests()), (1, 20));
}

#[tokio::test]
async fn a_refused_connection_and_an_unknown_host_say_so() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let transport = transport(Policy::default(), Vec::new());
    let url = format!("http://user:word@{free}/path?token=hidden").parse().unwrap();
    let outcome = send(&transport, &url, WebhookSource::Toml, 2000).await;
    let reason = format!("connection refused by {free}");
    assert_eq!(outcome, Outcome::Unreachable { by: UnreachableBy::Connect, reason });
    let url = format!("http://localhost:{}/", free.port()).parse().unwrap();
    let outcome = send(&transport, &url, WebhookSource::Toml, 2000).await;
    assert!(outcome.describe().starts_with("connection refused by localhost:"), "{outcome:?}");
    assert!(outcome.describe().contains("127.0.0.1"), "{outcome:?}");
    let url = "http://no-such-host.invalid/".parse().unwrap();
    let outcome = send(&transport, &url, WebhookSource::Toml, 6000).await;
    let reason = "no such host no-such-host.invalid".to_owned();
    assert_eq!(outcome, Outcome::Unreachable { by: UnreachableBy::Dns, reason });
}

#[tokio::test]
async fn a_receiver_that_hangs_runs_out_of_time_and_the_stage_is_told() {
    let silent = outcome_of(Script::Hang(b"")).await;
    assert_eq!(silent, Outcome::TimedOut { stage: TimeoutStage::Response });
    let half_a_head = outcome_of(Script::Hang(b"HTTP/1.1 200 OK\r\nx-half")).await;
    assert_eq!(half_a_head, Outcome::TimedOut { stage: TimeoutStage::Response });
    let half_a_body = outcome_of(Script::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")).await;
    assert_eq!(half_a_body, Outcome::TimedOut { stage: TimeoutStage::Body });
    let drip = outcome_of(Script::Repeat(ENDLESS_HEAD, CHUNK, Duration::from_millis(20))).await;
    assert_eq!(drip, Outcome::TimedOut { stage: TimeoutStage::Body });
    let interim = Script::Repeat(b"", b"HTTP/1.1 100 Continue\r\n\r\n", Duration::from_millis(20));
    assert_eq!(outcome_of(interim).await, Outcome::TimedOut { stage: TimeoutStage::Response });
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_counts_as_connecting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let outcome = send(&transport(Policy::default(), Vec::new()), &url, WebhookSource::Toml, 200).await;
    assert_eq!(outcome, Outcome::TimedOut { stage: TimeoutStage::Connect });
}

#[tokio::test]
async fn an_endless_answer_is_left_and_its_status_counts() {
    let endless = outcome_of(Script::Repeat(ENDLESS_HEAD, CHUNK, Duration::ZERO)).await;
    // Whether the limit or the time comes first is the machine's; neither takes longer than the timeout.
    match endless {
        Outcome::Responded { status: 200, body, .. } => assert_eq!(body, "0123456789abcdef"),
        other => assert_eq!(other, Outcome::TimedOut { stage: TimeoutStage::Body }),
    }
}

#[tokio::test]
async fn a_success_that_breaks_off_is_no_success_but_a_failure_keeps_its_status() {
    let half = Script::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf");
    check_unreachable(half, UnreachableBy::Protocol, "HTTP 200, then ").await;
    let half = Script::Close(b"HTTP/1.1 410 Gone\r\ncontent-length: 9\r\n\r\nhalf");
    assert_eq!(outcome_of(half).await, responded(410, None, "half"));
    let half = Script::Hang(b"HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\nhalf");
    assert_eq!(outcome_of(half).await, responded(500, None, "half"));
}

#[tokio::test]
async fn what_is_no_http_is_unreachable_by_protocol() {
    check_unreachable(Script::Close(b""), UnreachableBy::Protocol, "no HTTP answer from 127.0.0.1:").await;
    check_unreachable(Script::Close(b"SSH-2.0-OpenSSH\r\n"), UnreachableBy::Protocol, "no HTTP answer").await;
    check_unreachable(Script::Hang(b"\0\x01\x02\xff\r\n\r\n"), UnreachableBy::Protocol, "no HTTP").await;
    let head = Script::Repeat(b"HTTP/1.1 200 OK\r\nx: ", &[b'a'; 16 * 1024], Duration::ZERO);
    check_unreachable(head, UnreachableBy::Protocol, "no HTTP answer from 127.0.0.1:").await;
}

/// The first bytes of a gzip stream that unpacks to as many zeros as anybody has patience for.
const BOMB: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 18\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\x02\x03\xed\xc1\x01\x01\0\0\0\x80";

#[tokio::test]
async fn a_compressed_answer_is_kept_as_it_came() {
    let outcome = outcome_of(Script::Answer(BOMB)).await;
    let Outcome::Responded { status: 200, body, .. } = outcome else { panic!("{outcome:?}") };
    assert!(body.starts_with(b"\x1f\x8b") && body.len() == 16, "{body:?}");
}

#[tokio::test]
async fn an_answer_that_announces_more_than_it_sends_or_anybody_holds_reserves_nothing() {
    let huge = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000000000\r\n\r\nx";
    assert_eq!(outcome_of(Script::Hang(huge)).await, Outcome::TimedOut { stage: TimeoutStage::Body });
    let too_long = Script::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nx");
    check_unreachable(too_long, UnreachableBy::Protocol, "no HTTP answer from 127.0.0.1:").await;
    let chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx";
    assert_eq!(outcome_of(Script::Hang(chunk)).await, Outcome::TimedOut { stage: TimeoutStage::Body });
}

#[tokio::test]
async fn garbage_where_a_chunk_should_be_is_no_success() {
    let garbage = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    check_unreachable(Script::Hang(garbage), UnreachableBy::Protocol, "HTTP 200, then ").await;
    let two = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok";
    check_unreachable(Script::Hang(two), UnreachableBy::Protocol, "no HTTP answer from").await;
}

#[tokio::test]
async fn a_head_that_drips_or_never_ends_ends_with_the_time_or_a_bound() {
    let drip = Script::Repeat(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", Duration::from_millis(20));
    assert_eq!(outcome_of(drip).await, Outcome::TimedOut { stage: TimeoutStage::Response });
    let many = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(1000)).leak();
    check_unreachable(
        Script::Hang(many.as_bytes()),
        UnreachableBy::Protocol,
        "no HTTP answer from 127.0.0.1:",
    )
    .await;
}

#[tokio::test]
async fn a_receiver_that_stops_sending_but_keeps_its_end_open_ends_at_once() {
    check_unreachable(Script::HalfClose(b""), UnreachableBy::Protocol, "no HTTP answer from 127.0.0.1:")
        .await;
    let half = Script::HalfClose(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf");
    check_unreachable(half, UnreachableBy::Protocol, "HTTP 200, then ").await;
    let until_the_end = Script::HalfClose(b"HTTP/1.1 200 OK\r\n\r\nall");
    assert_eq!(outcome_of(until_the_end).await, responded(200, None, "all"));
}
