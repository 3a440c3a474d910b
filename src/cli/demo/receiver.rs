//! The two receivers of the demo: `walhook listen`, twice.
//!
//! The CRM takes everything that verifies. The warehouse fails the first two requests of each delivery on purpose.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::DemoError;
use crate::cli::listen::{ListenOptions, Received, Signature, serve};
use crate::clock::{Clock, since};
use crate::tasks::{Role, Tasks};

/// Requests of a delivery that the warehouse refuses.
const REFUSED: u32 = 2;

/// A request that came, and what became of it.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    /// `crm` or `warehouse`.
    pub(super) receiver: &'static str,
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
    /// The order or customer, with what became of it where that is known.
    pub(super) about: String,
}

/// Where the receivers are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Receivers {
    /// Takes everything.
    pub(super) crm: SocketAddr,
    /// Fails at first.
    pub(super) warehouse: SocketAddr,
}

impl Receipt {
    /// Whether the receiver took it.
    pub(super) fn is_taken(&self) -> bool {
        self.verified && (200..300).contains(&self.status)
    }

    fn of(receiver: &'static str, request: Received) -> Self {
        let (age, about) = read(&request);
        Self {
            receiver,
            event: request.event_type,
            id: request.id,
            attempt: request.attempt.unwrap_or(0),
            status: request.status,
            verified: request.signature == Signature::Verified,
            age,
            about,
        }
    }
}

/// A fresh Standard Webhooks secret.
pub(super) fn draw_secret() -> SecretString {
    let key: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(24).collect();
    format!("whsec_{}", STANDARD.encode(key)).into()
}

/// Opens both, each on a port of its own.
pub(super) async fn open(
    secret: &SecretString,
    receipts: &mpsc::Sender<Receipt>,
    tasks: &Tasks,
) -> Result<Receivers, DemoError> {
    let crm = open_one("crm", 0, secret, receipts, tasks).await?;
    let warehouse = open_one("warehouse", REFUSED, secret, receipts, tasks).await?;
    Ok(Receivers { crm, warehouse })
}

async fn open_one(
    name: &'static str,
    fail_first: u32,
    secret: &SecretString,
    receipts: &mpsc::Sender<Receipt>,
    tasks: &Tasks,
) -> Result<SocketAddr, DemoError> {
    let io = |source| DemoError::Io { action: "open a port for a receiver", source };
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
    let address = listener.local_addr().map_err(io)?;
    let options = ListenOptions {
        secrets: vec![secret.clone()],
        status: 200,
        fail_status: 500,
        fail_rate: 0.0,
        fail_first,
        delay: Duration::ZERO,
        count: None,
        clock: Clock::system(),
    };
    let receipts = receipts.clone();
    let sink = move |received| {
        if receipts.try_send(Receipt::of(name, received)).is_err() {
            tracing::warn!(receiver = name, "a request is not shown: too many at once");
        }
    };
    let stopping = tasks.stopping();
    tasks.spawn("a receiver", Role::Passing, async move {
        if let Err(error) = serve(listener, options, stopping, sink).await {
            tracing::error!(%error, receiver = name, "a receiver ended");
        }
    });
    Ok(address)
}

/// What a person wants to know of a body: how old the change is, and what it is about.
fn read(received: &Received) -> (Duration, String) {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(&received.body) else {
        return (Duration::ZERO, String::new());
    };
    let committed = body.get("timestamp").and_then(|text| text.as_str()?.parse().ok());
    let age = committed.map_or(Duration::ZERO, |committed| since(received.at, committed));
    let part = |row: &str, column: &str| body.get("data")?.get(row)?.get(column);
    let id = part("record", "id").or_else(|| part("old", "id"));
    let mut about = id.map_or_else(String::new, |id| format!("id {id}"));
    if let Some(status) = part("record", "status").and_then(|status| status.as_str()) {
        about = format!("{about}, {status}");
    }
    (age, about)
}
