//! What travels from the source to intake.
//!
//! One item holds what one read of the socket brought: a part of a large transaction, or many small ones whole. So
//! the channel is not crossed once per row or per transaction. Changes stand in one flat list, and pieces say which
//! of them belong to which transaction.

use std::sync::Arc;

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
    changes: Vec<RawChange>,
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
    changes: usize,
}

/// A row change, not taken apart yet.
#[derive(Debug)]
pub struct RawChange {
    /// The table.
    pub relation: Arc<Relation>,
    /// What happened.
    pub operation: Operation,
    /// Its place among all row changes of its transaction, from 1; each table of a `TRUNCATE` is one.
    pub sequence: u32,
    /// The row after the change.
    pub new: Option<RawTuple>,
    /// What was sent of the row before.
    pub old: Option<RawOld>,
    pub(super) oversized: Option<Box<Oversized>>,
}

/// What is left of a change that was too large to keep.
#[derive(Debug)]
pub(super) struct Oversized {
    pub(super) bytes: usize,
    pub(super) new: Option<Tuple>,
    pub(super) old: Option<OldRow>,
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

    /// The change's size in bytes, where it was too large to keep.
    pub fn oversized(&self) -> Option<usize> {
        self.oversized.as_ref().map(|head| head.bytes)
    }
}

impl Chunk {
    /// The pieces and their changes, in order.
    pub fn pieces(&self) -> impl Iterator<Item = (&Piece, &[RawChange])> {
        let mut rest = self.changes.as_slice();
        self.pieces.iter().map(move |piece| {
            let (mine, others) = rest.split_at_checked(piece.changes).unwrap_or((rest, &[]));
            rest = others;
            (piece, mine)
        })
    }

    /// Bytes of the log's messages in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many changes are in it.
    pub fn changes(&self) -> usize {
        self.changes.len()
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
        self.pieces.push(Piece { transaction, begins: true, end: None, changes: 0 });
    }

    pub(super) fn push(&mut self, transaction: Transaction, change: RawChange) {
        self.piece(transaction).changes += 1;
        self.changes.push(change);
    }

    pub(super) fn end(&mut self, transaction: Transaction, end: EndLsn) {
        self.piece(transaction).end = Some(end);
    }

    /// The open piece, or a new one that goes on with a transaction begun in an earlier chunk.
    fn piece(&mut self, transaction: Transaction) -> &mut Piece {
        if self.pieces.last().is_none_or(|last| last.end.is_some()) {
            self.pieces.push(Piece { transaction, begins: false, end: None, changes: 0 });
        }
        self.pieces.last_mut().expect("a piece was pushed where there was none")
    }
}
