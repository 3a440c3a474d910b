//! Receives webhooks and verifies them with the Standard Webhooks library.
//!
//! ```sh
//! WALHOOK_SECRET=whsec_… cargo run --example receive
//! ```
//!
//! In a project of its own it needs `axum`, `bytes`, `standardwebhooks` and `tokio` (features `macros`, `net`,
//! `rt-multi-thread`).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use standardwebhooks::Webhook;

struct Receiver {
    webhook: Webhook,
    /// In production: a table with a unique key.
    seen: Mutex<HashSet<String>>,
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    // `body` is the raw bytes: they are what was signed.
    if let Err(error) = receiver.webhook.verify(&body, &headers) {
        println!("refused: {error}");
        return StatusCode::UNAUTHORIZED;
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let new =
        receiver.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(text("webhook-id").to_owned());
    if new {
        println!("received: {} {}", text("x-webhook-event"), String::from_utf8_lossy(&body));
    }
    StatusCode::NO_CONTENT
}

#[expect(clippy::disallowed_methods, reason = "a receiver of its own, not a part of walhook")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = std::env::var("WALHOOK_SECRET")?;
    let webhook = if secret.starts_with("whsec_") {
        Webhook::new(&secret)?
    } else {
        Webhook::from_bytes(secret.into_bytes())?
    };
    let receiver = Arc::new(Receiver { webhook, seen: Mutex::default() });
    let port: u16 = std::env::var("PORT").map_or(Ok(9000), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://localhost:{port}");
    axum::serve(listener, Router::new().fallback(post(receive)).with_state(receiver)).await?;
    Ok(())
}
