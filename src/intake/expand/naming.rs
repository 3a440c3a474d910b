//! What makes the ids of one change's events differ (invariant I2).

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::domain::{Event, EventId, OF_SHAPE, Place, Transaction};
use crate::matcher::{Cut, Owed};

/// What stands in the place of a named event's type in the ids of an expansion.
pub(super) enum Naming {
    /// The type of a named event, nothing for the change's own.
    Own,
    /// The event of a table's new shape.
    Shape,
    /// A row of a backfill: tells it from all other rows and backfills.
    Backfill(String),
    /// What became of a row to the owner it left, or came to: an event of its own beside the update. No type has a space.
    Cut(&'static str),
}

impl Naming {
    /// Of a row that a backfill sends, by the backfill's number and the row's key.
    pub(super) fn of_row(job: i64, key: &[Bytes]) -> Self {
        let mut hash = Sha256::new();
        for part in key {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        Self::Backfill(format!("backfill {job} {}", hex::encode(hash.finalize())))
    }

    /// Of what a tenant sees of a change.
    pub(super) fn of_cut(cut: Cut) -> Self {
        match cut {
            Cut::Whole | Cut::WithoutOld => Self::Own,
            Cut::Former => Self::Cut("former owner"),
            Cut::New => Self::Cut("new owner"),
        }
    }

    pub(super) fn of<'o>(&'o self, owed: &'o Owed) -> Cow<'o, str> {
        let named = if owed.named { &*owed.event_type } else { "" };
        match self {
            Self::Own => named.into(),
            Self::Shape => OF_SHAPE.into(),
            Self::Backfill(salt) => salt.into(),
            Self::Cut(whose) => format!("{whose} {named}").into(),
        }
    }
}

/// The event of an owed type; several webhooks share one.
pub(super) fn event_of<'e>(
    known: &'e mut Option<Event>,
    owed: &Owed,
    naming: &str,
    place: Place,
    transaction: Transaction,
    database: &Arc<str>,
) -> &'e Event {
    if known.as_ref().is_none_or(|event| event.event_type != owed.event_type) {
        *known = None;
    }
    known.get_or_insert_with(|| Event {
        id: EventId::of(&place, naming),
        event_type: Arc::clone(&owed.event_type),
        place,
        transaction,
        database: Arc::clone(database),
    })
}
