//! What happened, as a receiver is told.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::{EventId, Place};

/// How the prefix of a logical message begins that is an event; the event's type follows.
pub const MESSAGE_PREFIX: &str = "walhook:";
/// The prefix of the marks that walhook itself writes into the log.
pub const MARK_PREFIX: &str = "walhook.mark";

/// What was done to a row (`data.operation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A new row.
    Insert,
    /// A changed row.
    Update,
    /// A removed row.
    Delete,
    /// All rows removed at once.
    Truncate,
    /// An existing row, sent by a backfill.
    Snapshot,
    /// A logical message.
    Message,
    /// A sample sent by hand.
    Test,
    /// The table has another shape than before.
    Schema,
    /// Something about the machinery itself.
    Notice,
}

impl Operation {
    /// The word in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Snapshot => "snapshot",
            Self::Message => "message",
            Self::Test => "test",
            Self::Schema => "schema",
            Self::Notice => "notice",
        }
    }

    /// The operation of a word as [`Operation::as_str`] writes it; anything else reads as `test`.
    pub fn from_word(word: &str) -> Self {
        let rows = [Self::Insert, Self::Update, Self::Delete, Self::Truncate, Self::Snapshot];
        let mut all = rows.into_iter().chain([Self::Message, Self::Schema, Self::Notice]);
        all.find(|o| o.as_str() == word).unwrap_or(Self::Test)
    }

    /// The last part of the event type that a change of this kind makes by itself.
    pub fn type_suffix(self) -> &'static str {
        match self {
            Self::Insert | Self::Snapshot | Self::Test => "created",
            Self::Update => "updated",
            Self::Delete => "deleted",
            Self::Truncate => "truncated",
            Self::Message => "message",
            Self::Schema => "schema_changed",
            Self::Notice => "notice",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What all changes of a transaction share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// Where its commit record starts.
    pub commit: super::CommitLsn,
    /// When it committed, by the database's clock; microseconds.
    pub committed_at: Timestamp,
    /// Its 32-bit transaction id.
    pub xid: u32,
}

/// An event: a change under one event type.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its name.
    pub id: EventId,
    /// Its type, such as `orders.updated`.
    pub event_type: Arc<str>,
    /// Where its change stands.
    pub place: Place,
    /// The transaction it belongs to.
    pub transaction: Transaction,
    /// The database's name (`metadata.database`).
    pub database: Arc<str>,
}
