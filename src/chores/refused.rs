//! Tells in the audit that a receiver's address was not dialled because the rules forbid it.
//!
//! The dispatcher drops what it knows into a queue that is bounded, and goes on; whether it is new, and writing it, is done
//! here. So neither a webhook that is refused a thousand times a second nor a slow ledger costs a delivery anything.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::limits;
use crate::ledger::audit::Actor;
use crate::ledger::refusals::{self, LeftOut, Refusal, Refusals};
use crate::ledger::{Ledger, LedgerError, within};
use crate::telemetry::chain;

/// A webhook, and the address that it would have had dialled.
pub type Refused = (Arc<str>, IpAddr);

/// A queue for them, of the right size.
pub fn queue() -> (mpsc::Sender<Refused>, mpsc::Receiver<Refused>) {
    mpsc::channel(limits::REFUSALS_WAITING)
}

/// Writes what is new until asked to stop.
pub async fn keep_telling(ledger: Ledger, mut refused: mpsc::Receiver<Refused>, stop: CancellationToken) {
    let known = Refusals::default();
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = refused.recv() => next,
        };
        let Some((webhook, address)) = next else {
            // Nobody sends any more; the end is somebody else's to say.
            return stop.cancelled().await;
        };
        let refusal = refusal(&webhook, address);
        let Some(left_out) = known.admit(&refusal) else { continue };
        if let Err(error) = within(limits::ANSWER_WITHIN, write(&ledger, refusal, left_out)).await {
            let reason = chain(&error);
            tracing::warn!(
                webhook = &*webhook,
                reason,
                "a refused address could not be written into the audit"
            );
        }
    }
}

fn refusal(webhook: &str, address: IpAddr) -> Refusal {
    Refusal {
        actor: Actor::Walhook,
        action: "address.refused",
        object: Some(webhook.to_owned()),
        same: format!("{webhook} {address}"),
        detail: json!({ "address": address, "when": "at an attempt" }),
    }
}

async fn write(ledger: &Ledger, refusal: Refusal, left_out: LeftOut) -> Result<(), LedgerError> {
    let session = ledger.session("walhook audit").await?;
    refusals::write(&session.client, refusal, left_out).await
}
