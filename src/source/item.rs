//! What travels from the source to intake.
//!
//! One item holds what one read of the socket brought: a part of a large transaction, or many small ones whole. So
//! the channel is not crossed once per row or per transaction. Changes and messages stand in one flat list, and
//! pieces say which of them belong to which transaction.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{Change, EndLsn, OldRow, Operation, Relation, Transaction, Tuple};
use crate::pgoutput::{RawOld, RawTuple};

/// News from the log, in order.
#[derive(Debug)]
pub enum Item {
    /// A new connection began: transactions that were not confirmed come again, and of the one that was under way
    /// nothing more comes from before.
    Restarted,
    /// Changes.
    Chunk(Chunk),
    /// No transaction is open and the server has sent everything up to here: may be confirmed once everything
    /// before is settled.
    Idle(EndLsn),
}

/// Pieces of transactions, in commit order.
#[derive(Debug, Default)]
pub struct Chunk {
    pieces: Vec<Piece>,
    entries: Vec<Entry>,
    bytes: usize,
}

/// A transaction's share of a [`Chunk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The transaction.
    pub transaction: Transaction,
    /// Whether it begins here.
    pub begins: bool,
    /// Where it ends, if here. A transaction whose rows all were of our own schema has pieces without changes.
    pub end: Option<EndLsn>,
    entries: usize,
}

/// One thing that a transaction brings.
#[derive(Debug)]
pub enum Entry {
    /// A changed row.
    Row(RawChange),
    /// A logical message of ours to look at.
    Message(LogicalMessage),
}

/// What `pg_logical_emit_message` wrote into a transaction, with a prefix that is meant for us.
#[derive(Debug)]
pub struct LogicalMessage {
    /// Its place in its transaction; see [`RawChange::sequence`].
    pub sequence: u32,
    /// Its prefix.
    pub prefix: Box<str>,
    /// Its content, or how many bytes the message had that was too large to keep.
    pub content: Result<Bytes, usize>,
}

/// A row change, not taken apart yet.
#[derive(Debug, Clone)]
pub struct RawChange {
    /// The table.
    pub relation: Arc<Relation>,
    /// What happened.
    pub operation: Operation,
    /// Its place in its transaction, from 1, among all its row changes (each table of a `TRUNCATE` is one) and all its
    /// logical messages, whoever wrote them and whether anybody wants them.
    pub sequence: u32,
    /// The row after the change.
    pub new: Option<RawTuple>,
    /// What was sent of the row before.
    pub old: Option<RawOld>,
    pub(super) oversized: Option<Box<Oversized>>,
}

/// What is left of a change that was too large to keep.
#[derive(Debug, Clone)]
pub(super) struct Oversized {
    pub(super) bytes: usize,
    pub(super) new: Option<Tuple>,
    pub(super) old: Option<OldRow>,
}

impl Entry {
    /// Its place in its transaction.
    pub fn sequence(&self) -> u32 {
        match self {
            Self::Row(change) => change.sequence,
            Self::Message(message) => message.sequence,
        }
    }

    /// The changed row, if it is one.
    pub fn row(&self) -> Option<&RawChange> {
        match self {
            Self::Row(change) => Some(change),
            Self::Message(_) => None,
        }
    }
}

impl RawChange {
    /// Takes the rows apart. Of an oversized change only the leading values are there.
    pub fn decode(&self) -> Change {
        let (new, old) = match &self.oversized {
            Some(head) => (head.new.clone(), head.old.clone()),
            None => (self.new.as_ref().map(RawTuple::decode), self.old.as_ref().map(RawOld::decode)),
        };
        let relation = Arc::clone(&self.relation);
        Change { relation, operation: self.operation, new, old, sequence: self.sequence }
    }

    /// This insert and that delete as one update, in the insert's place.
    #[must_use]
    pub fn moved_from(&self, delete: &Self) -> Self {
        Self { operation: Operation::Update, old: delete.old.clone(), ..self.clone() }
    }

    /// The change's size in bytes, where it was too large to keep.
    pub fn oversized(&self) -> Option<usize> {
        self.oversized.as_ref().map(|head| head.bytes)
    }
}

impl Chunk {
    /// The pieces and what they bring, in order.
    pub fn pieces(&self) -> impl Iterator<Item = (&Piece, &[Entry])> {
        let mut rest = self.entries.as_slice();
        self.pieces.iter().map(move |piece| {
            let (mine, others) = rest.split_at_checked(piece.entries).unwrap_or((rest, &[]));
            rest = others;
            (piece, mine)
        })
    }

    /// Bytes of the log's messages in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many changes and messages are in it.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many pieces are in it.
    pub(super) fn piece_count(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn count_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn begin(&mut self, transaction: Transaction) {
        self.pieces.push(Piece { transaction, begins: true, end: None, entries: 0 });
    }

    pub(super) fn push(&mut self, transaction: Transaction, entry: Entry) {
        self.piece(transaction).entries += 1;
        self.entries.push(entry);
    }

    pub(super) fn end(&mut self, transaction: Transaction, end: EndLsn) {
        self.piece(transaction).end = Some(end);
    }

    /// The open piece, or a new one that goes on with a transaction begun in an earlier chunk.
    fn piece(&mut self, transaction: Transaction) -> &mut Piece {
        if self.pieces.last().is_none_or(|last| last.end.is_some()) {
            self.pieces.push(Piece { transaction, begins: false, end: None, entries: 0 });
        }
        self.pieces.last_mut().expect("a piece was pushed where there was none")
    }
}
