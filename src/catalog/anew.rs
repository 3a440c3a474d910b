//! What could not be rendered, rendered anew.
//!
//! A template fails on a row, or a body is over the limit: the delivery has no body and is dead. What is kept is its event,
//! as the standard body tells it (what is excluded is not in it, what is masked is masked), so that with a mended template
//! or a higher limit it can be sent after all. It is the first body that the delivery gets: what has been attempted keeps
//! the bytes that it has (invariant I4).

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Compiled;
use crate::domain::{
    BodyShape, CommitLsn, Event, EventId, FailReason, Format, Lsn, Origin, Place, Transaction, limits,
};
use crate::ledger::unrendered::{Anew, Unrendered};
use crate::render::{RenderError, Templates};

/// The parts of a standard body that make an event again.
#[derive(Deserialize)]
struct Kept<'a> {
    timestamp: Timestamp,
    #[serde(borrow)]
    data: &'a RawValue,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    database: String,
    lsn: String,
    xid: u32,
    sequence: u32,
}

/// What is kept of an event that could not be rendered: its standard body, or nothing where that is too large.
pub fn keep(event: &Event, data: &[u8], webhook: &str) -> Bytes {
    let standard = Templates::default().renderer(&BodyShape::Format(Format::Standard));
    let kept = standard.map(|standard| standard.render(event, data, webhook, limits::UNRENDERED_BYTES));
    kept.and_then(Result::ok).map(|rendered| rendered.body).unwrap_or_default()
}

/// Why a body could not be made, as an operator reads it.
pub fn reason(error: &RenderError) -> FailReason {
    match error {
        RenderError::TooLarge { .. } => FailReason::TooLarge(format!("{error} (delivery.max_body)")),
        other => FailReason::NotRendered(other.to_string()),
    }
}

/// The body that a webhook as it is now makes of what was kept; or why it makes none.
pub fn render(kept: &Unrendered, compiled: Option<&Compiled>, max_body: usize) -> Result<Anew, FailReason> {
    let compiled = compiled.ok_or_else(|| {
        FailReason::NotRendered(
            "its webhook is declared nowhere, so nothing says how to render it".to_owned(),
        )
    })?;
    let unreadable = || FailReason::NotRendered("what was kept of its event cannot be read".to_owned());
    let read: Kept<'_> = serde_json::from_slice(&kept.event).map_err(|_| unreadable())?;
    let commit = CommitLsn(read.metadata.lsn.parse::<Lsn>().map_err(|_| unreadable())?);
    let event = Event {
        id: EventId::from_ledger(&kept.event_id),
        event_type: kept.event_type.as_str().into(),
        // Whose log it was stands in the id alone.
        place: Place {
            origin: Origin { system: 0, generation: 0 },
            commit,
            sequence: read.metadata.sequence,
        },
        transaction: Transaction { commit, committed_at: read.timestamp, xid: read.metadata.xid },
        database: read.metadata.database.into(),
    };
    let data = read.data.get().as_bytes();
    let rendered = compiled.renderer.render(&event, data, &compiled.webhook.name, max_body);
    let rendered = rendered.map_err(|error| reason(&error))?;
    let content_type: Arc<str> = compiled.renderer.content_type().into();
    Ok(Anew { body: rendered.body, headers: rendered.headers, content_type })
}
