//! The receiver: one handler for every path.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use bytes::Bytes;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::memory::{Known, Memory};
use crate::clock::Clock;
use crate::domain::limits;
use crate::sign;
use crate::transport::encoding::{DecodeError, decode};

/// How old or early a `webhook-timestamp` may be.
const TOLERANCE: Duration = Duration::from_secs(300);
/// How long requests in flight may take once the receiver stops, beside its own delay.
const GRACE: Duration = Duration::from_secs(2);

/// How a receiver behaves.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// What signatures are checked with; one that fits is enough. Empty: nothing is checked.
    pub secrets: Vec<SecretString>,
    /// The status of ordinary answers.
    pub status: u16,
    /// The status of failures on purpose.
    pub fail_status: u16,
    /// The share of requests that fail, 0 to 1.
    pub fail_rate: f64,
    /// How many requests of each `webhook-id` fail at first.
    pub fail_first: u32,
    /// How long each answer waits.
    pub delay: Duration,
    /// Stop after accepting this many.
    pub count: Option<u64>,
    /// Time and dice.
    pub clock: Clock,
}

/// What the check of a signature found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// It fits.
    Verified,
    /// The receiver has no secret to check with.
    Unchecked,
    /// It does not fit, for this reason.
    Wrong(String),
}

/// One request as it was received and is about to be answered.
#[derive(Debug, Clone)]
pub struct Received {
    /// When it came.
    pub at: Timestamp,
    /// `webhook-id`, or empty.
    pub id: String,
    /// `x-webhook-event`, or empty.
    pub event_type: String,
    /// `x-webhook-attempt`, as the sender counts.
    pub attempt: Option<u32>,
    /// What the check found.
    pub signature: Signature,
    /// Whether a request of this id was accepted before: to be ignored by a receiver that acts.
    pub seen_before: bool,
    /// The status it is answered with.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified => f.write_str("verified"),
            Self::Unchecked => f.write_str("unchecked"),
            Self::Wrong(reason) => write!(f, "not verified: {reason}"),
        }
    }
}

struct Receiver {
    options: ListenOptions,
    memory: Mutex<Memory>,
    accepted: AtomicU64,
    stop: CancellationToken,
    sink: Box<dyn Fn(Received) + Send + Sync>,
}

/// Receives on `listener` until `stop`, which it also cancels itself after `options.count`. Every request is told to
/// `sink` before its answer, except `GET` and `HEAD`, which only ask whether somebody is there.
pub async fn serve(
    listener: TcpListener,
    options: ListenOptions,
    stop: CancellationToken,
    sink: impl Fn(Received) + Send + Sync + 'static,
) -> io::Result<()> {
    let grace = options.delay.saturating_add(GRACE);
    let receiver = Arc::new(Receiver {
        options,
        memory: Mutex::new(Memory::default()),
        accepted: AtomicU64::new(0),
        stop: stop.clone(),
        sink: Box::new(sink),
    });
    let router = Router::new().fallback(receive).with_state(receiver);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        ended = served.into_future() => ended,
        () = async { stop.cancelled().await; tokio::time::sleep(grace).await } => Ok(()),
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> (StatusCode, String) {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return (StatusCode::OK, "walhook listen: send a POST\n".to_owned());
    }
    let (head, body) = request.into_parts();
    let most = limits::BODY_BYTES.saturating_mul(2).max(limits::BATCH_BYTES);
    let Ok(body) = to_bytes(body, most).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broke off\n".to_owned());
    };
    let encoding = head.headers.get(header::CONTENT_ENCODING).map_or("", |v| v.to_str().unwrap_or("?"));
    match decode(encoding, body, most) {
        Ok(body) => receiver.take(&head.headers, body).await,
        Err(error @ DecodeError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")),
        Err(error @ DecodeError::Unknown { .. }) => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("{error}\n"))
        }
        Err(error @ DecodeError::Invalid { .. }) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

impl Receiver {
    async fn take(&self, headers: &HeaderMap, body: Bytes) -> (StatusCode, String) {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let at = self.options.clock.now();
        let signature = self.check(headers, &body, at);
        let id = text("webhook-id");
        let (status, known, answer) = if let Signature::Wrong(reason) = &signature {
            (StatusCode::UNAUTHORIZED, Known::default(), reason.clone())
        } else {
            let known = self.memory().came(id);
            let (status, answer) = self.answer(known);
            (status, known, answer.to_owned())
        };
        (self.sink)(Received {
            at,
            id: id.to_owned(),
            event_type: text("x-webhook-event").to_owned(),
            attempt: text("x-webhook-attempt").parse().ok(),
            signature,
            seen_before: known.accepted,
            status: status.as_u16(),
            body,
        });
        tokio::time::sleep(self.options.delay).await;
        if status.is_success() {
            self.accept(id);
        }
        (status, format!("{answer}\n"))
    }

    fn check(&self, headers: &HeaderMap, body: &[u8], at: Timestamp) -> Signature {
        let secrets = &self.options.secrets;
        if secrets.is_empty() {
            return Signature::Unchecked;
        }
        match sign::verify(secrets, headers, body, at.as_second(), TOLERANCE) {
            Ok(()) => Signature::Verified,
            Err(error) => Signature::Wrong(error.to_string()),
        }
    }

    fn answer(&self, known: Known) -> (StatusCode, &'static str) {
        let options = &self.options;
        let fails = known.times <= options.fail_first || options.clock.dice() < options.fail_rate;
        let (status, answer) =
            if fails { (options.fail_status, "failed on purpose") } else { (options.status, "received") };
        (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), answer)
    }

    fn accept(&self, id: &str) {
        self.memory().accepted(id);
        let accepted = self.accepted.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if self.options.count.is_some_and(|count| accepted >= count) {
            self.stop.cancel();
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
