//! Receivers that speak HTTP/2 badly: frames made by hand, behind real TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::{Policy, Transport};
use super::bounds::SOCKET_BUFFERS;
use super::rig::{send, transport, write_counted};
use super::tls::{acceptor, at};
use crate::domain::{Outcome, TimeoutStage, UnreachableBy, WebhookSource, limits};
use crate::tasks::{Role, Tasks};

// RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` in the static table of HPACK (RFC 7541).
const STATUS_200: &[u8] = b"\x88";
/// `x: y` as a literal that is not indexed.
const X_Y: &[u8] = b"\x00\x01x\x01y";

/// A frame on a stream; its parts are type, flags and payload.
fn frame(stream: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What the receiver sends once it has a request: first and once, then again and again; each made for the stream.
type Frames = fn(u32) -> Vec<u8>;

#[derive(Clone, Copy)]
struct Script {
    settings: &'static [u8],
    first: Frames,
    again: Option<Frames>,
}

const USUAL: Script = Script { settings: b"", first: |_| Vec::new(), again: None };

/// Reads frames up to a request's head, and tells its stream.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<u32> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, _, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        if kind == HEADERS {
            return Ok(u32::from_be_bytes(id));
        }
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Script,
    written: &AtomicUsize,
) -> std::io::Result<()> {
    stream.write_all(&frame(0, SETTINGS, 0, script.settings)).await?;
    let id = read_request(&mut stream).await?;
    stream.write_all(&(script.first)(id)).await?;
    while let Some(again) = script.again {
        write_counted(&mut stream, &again(id), written).await?;
    }
    stream.flush().await?;
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// The outcome of one attempt at a receiver with this script, within a second.
async fn outcome_of(script: Script) -> Outcome {
    let (transport, receiver) = receiver_of(script).await;
    let started = Instant::now();
    let outcome = send(&transport, &at(receiver.port), WebhookSource::Toml, 1000).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{outcome:?} came late");
    outcome
}

/// The outcome of one attempt at a receiver that repeats something for ever, and how many bytes of that it could write until
/// its connection broke.
async fn taken_of(script: Script) -> (Outcome, usize) {
    let (transport, receiver) = receiver_of(script).await;
    let outcome = send(&transport, &at(receiver.port), WebhookSource::Toml, 60_000).await;
    drop(transport);
    receiver.ended.notified().await;
    (outcome, receiver.written.load(Ordering::SeqCst))
}

struct Receiver {
    port: u16,
    written: Arc<AtomicUsize>,
    ended: Arc<Notify>,
}

async fn receiver_of(script: Script) -> (Transport, Receiver) {
    let (acceptor, certificate) = acceptor("localhost", &["h2"], rustls::ALL_VERSIONS, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tasks, _) = Tasks::new();
    let connected = tasks.clone();
    let (written, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (writing, ending) = (Arc::clone(&written), Arc::clone(&ended));
    tasks.spawn("receiver", Role::Passing, async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                let (written, ending) = (Arc::clone(&writing), Arc::clone(&ending));
                connected.spawn("connection", Role::Passing, async move {
                    let ended = converse(stream, script, &written).await;
                    ending.notify_one();
                    drop(ended);
                });
            }
        }
    });
    (transport(Policy::default(), vec![certificate]), Receiver { port, written, ended })
}

fn check_no_answer(outcome: &Outcome) {
    let Outcome::Unreachable { by: UnreachableBy::Protocol, reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("no HTTP answer from localhost:"), "{reason}");
}

#[tokio::test]
async fn http2_frames_by_hand_are_understood() {
    let first = |id| {
        let mut all = frame(id, HEADERS, END_HEADERS, STATUS_200);
        all.extend(frame(id, DATA, END_STREAM, b"ok"));
        all
    };
    let outcome = outcome_of(Script { first, ..USUAL }).await;
    assert_eq!(outcome, Outcome::Responded { status: 200, retry_after: None, body: "ok".into() });
}

#[tokio::test]
async fn http2_that_is_reset_refused_or_garbage_is_no_answer() {
    let reset = |id| frame(id, RST_STREAM, 0, &2_u32.to_be_bytes());
    check_no_answer(&outcome_of(Script { first: reset, ..USUAL }).await);
    let away = |_| frame(0, GOAWAY, 0, &[0, 0, 0, 0, 0, 0, 0, 2]);
    check_no_answer(&outcome_of(Script { first: away, ..USUAL }).await);
    check_no_answer(&outcome_of(Script { first: |_| b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), ..USUAL }).await);
    check_no_answer(
        &outcome_of(Script { first: |id| frame(id, HEADERS, END_HEADERS, b"\xff"), ..USUAL }).await,
    );
}

#[tokio::test]
async fn http2_that_never_answers_runs_out_of_time() {
    let response = Outcome::TimedOut { stage: TimeoutStage::Response };
    assert_eq!(outcome_of(USUAL).await, response);
    // A window of nothing: the body can never be sent.
    assert_eq!(outcome_of(Script { settings: &[0, 4, 0, 0, 0, 0], ..USUAL }).await, response);
    let open = |id| frame(id, HEADERS, END_HEADERS, STATUS_200);
    assert_eq!(
        outcome_of(Script { first: open, ..USUAL }).await,
        Outcome::TimedOut { stage: TimeoutStage::Body }
    );
}

#[tokio::test]
async fn http2_that_never_ends_is_left_at_a_bound_or_in_time() {
    let open = |id| frame(id, HEADERS, END_HEADERS, STATUS_200);
    let data = |id| frame(id, DATA, 0, &[b'x'; 1024]);
    match outcome_of(Script { first: open, again: Some(data), ..USUAL }).await {
        Outcome::Responded { status: 200, body, .. } => assert_eq!(body, "xxxxxxxxxxxxxxxx"),
        // More than was asked for, or no end in time.
        Outcome::TimedOut { stage: TimeoutStage::Body } => {}
        Outcome::Unreachable { by: UnreachableBy::Protocol, reason } => {
            assert!(reason.contains("HTTP 200, then "), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    // A head that goes on for ever, and frames that ask for answers for ever.
    let head = |id| frame(id, HEADERS, 0, STATUS_200);
    let more = |id| frame(id, CONTINUATION, 0, &X_Y.repeat(1000));
    let pings = |_| frame(0, PING, 0, &[7; 8]);
    let settings = |_| frame(0, SETTINGS, 0, &[]);
    for script in [
        Script { first: head, again: Some(more), ..USUAL },
        Script { again: Some(pings), ..USUAL },
        Script { again: Some(settings), ..USUAL },
    ] {
        match outcome_of(script).await {
            Outcome::TimedOut { stage: TimeoutStage::Response } => {}
            outcome => check_no_answer(&outcome),
        }
    }
}

#[tokio::test]
async fn http2_that_never_ends_is_held_to_what_is_read_of_it() {
    let open = |id| frame(id, HEADERS, END_HEADERS, STATUS_200);
    let data = |id| frame(id, DATA, 0, &[b'x'; 16 * 1024]);
    let head = |id| frame(id, HEADERS, 0, STATUS_200);
    let more = |id| frame(id, CONTINUATION, 0, &X_Y.repeat(3000));
    for script in [
        Script { first: open, again: Some(data), ..USUAL },
        Script { first: head, again: Some(more), ..USUAL },
    ] {
        let (outcome, written) = taken_of(script).await;
        assert!(!matches!(outcome, Outcome::TimedOut { .. }), "{outcome:?}");
        assert!(written < limits::RESPONSE_BYTES + SOCKET_BUFFERS, "{written} bytes were taken");
    }
}
