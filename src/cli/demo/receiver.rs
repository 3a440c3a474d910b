//! The two receivers of the demo, as somebody else would write them: take the raw bytes, verify, answer.
//!
//! The CRM takes everything that verifies. The warehouse answers 500 to the first two attempts of each delivery.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::clock::{Clock, since};
use crate::sign;
use crate::tasks::{Role, Tasks};

/// How far a request's timestamp may be from now: what the Standard Webhooks libraries take.
const TOLERANCE: Duration = Duration::from_secs(300);
/// Attempts of a delivery that the warehouse refuses.
const REFUSED_ATTEMPTS: u32 = 2;

/// A request that came, and what became of it.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    /// `crm` or `warehouse`.
    pub(super) receiver: String,
    /// The event's type.
    pub(super) event: String,
    /// The delivery's id.
    pub(super) id: String,
    /// Which attempt it was, by its header.
    pub(super) attempt: u32,
    /// The status that was answered.
    pub(super) status: u16,
    /// Whether the signature verified.
    pub(super) verified: bool,
    /// How long ago the change had been committed.
    pub(super) age: Duration,
    /// The order or customer, with what changed where that is known.
    pub(super) about: String,
}

impl Receipt {
    /// Whether the receiver took it.
    pub(super) fn is_taken(&self) -> bool {
        self.verified && (200..300).contains(&self.status)
    }
}

struct Desk {
    secrets: [SecretString; 1],
    clock: Clock,
    receipts: mpsc::Sender<Receipt>,
}

/// A fresh Standard Webhooks secret.
pub(super) fn draw_secret() -> SecretString {
    let key: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(24).collect();
    format!("whsec_{}", STANDARD.encode(key)).into()
}

/// Serves both receivers on a listener: `/crm` and `/warehouse`.
pub(super) fn open(
    listener: TcpListener,
    secret: &SecretString,
    clock: Clock,
    receipts: mpsc::Sender<Receipt>,
    tasks: &Tasks,
) {
    let secrets = [SecretString::from(secret.expose_secret().to_owned())];
    let desk = Arc::new(Desk { secrets, clock, receipts });
    let router = Router::new().fallback(take).with_state(desk);
    let stopping = tasks.stopping();
    tasks.spawn("the receivers", Role::Passing, async move {
        let serving = axum::serve(listener, router).with_graceful_shutdown(stopping.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "the receivers ended");
        }
    });
}

async fn take(State(desk): State<Arc<Desk>>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let now = desk.clock.now();
    let verified = sign::verify(&desk.secrets, &headers, &body, now.as_second(), TOLERANCE).is_ok();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let attempt = text("x-webhook-attempt").parse().unwrap_or(0);
    let receiver = uri.path().trim_start_matches('/').to_owned();
    let status = match (verified, &*receiver) {
        (false, _) => StatusCode::UNAUTHORIZED,
        (true, "warehouse") if attempt <= REFUSED_ATTEMPTS => StatusCode::INTERNAL_SERVER_ERROR,
        (true, _) => StatusCode::NO_CONTENT,
    };
    let (age, about) = read(&body, now);
    let (event, id) = (text("x-webhook-event"), text("webhook-id"));
    let receipt = Receipt { receiver, event, id, attempt, status: status.as_u16(), verified, age, about };
    if desk.receipts.send(receipt).await.is_err() {
        tracing::debug!("nobody reads receipts any more");
    }
    status
}

/// What a person wants to know of a body.
fn read(body: &[u8], now: Timestamp) -> (Duration, String) {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else {
        return (Duration::ZERO, String::new());
    };
    let committed = body.get("timestamp").and_then(|text| text.as_str()?.parse().ok());
    let age = committed.map_or(Duration::ZERO, |committed| since(now, committed));
    let data = body.get("data");
    let part = |row: &str, column: &str| data?.get(row)?.get(column);
    let of_row = |column| part("record", column).or_else(|| part("old", column));
    let mut about = of_row("id").map_or_else(String::new, |id| format!("id {id}"));
    if let Some(status) = part("record", "status").and_then(|status| status.as_str()) {
        about = format!("{about}, {status}");
    }
    (age, about)
}
