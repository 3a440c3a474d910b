//! A row that moves between partitions, told as what it is: one update.
//!
//! Postgres writes such an UPDATE to its log as a delete in one partition and, right after it, an insert in another; it
//! does not say that they belong together. Where `[tables.NAME] fold_moves` names the columns that identify a row
//! wherever it stands, a delete and an insert of equal values in them, one right after the other in a transaction, are
//! one update.
//!
//! The update stands in the insert's place: its event has the id that the insert's would have had. So what is folded
//! is a pure function of the log and the setting (invariant I2), and at most one delete waits at a time (I11), until
//! the next change of its transaction or the end.

use super::{Halt, Running, unless_stopped};
use crate::domain::{Cell, Operation, Transaction};
use crate::source::RawChange;

/// A delete that waits for what comes next.
#[derive(Debug)]
pub(super) struct Held {
    pub transaction: Transaction,
    pub delete: RawChange,
}

impl Held {
    /// The update that the delete and `next` are together, if they are one; `key` has the positions of the columns that
    /// identify the row.
    pub fn fold(&self, transaction: Transaction, next: &RawChange, key: &[usize]) -> Option<RawChange> {
        let delete = &self.delete;
        let adjacent =
            self.transaction == transaction && delete.sequence.checked_add(1) == Some(next.sequence);
        let whole = delete.oversized().is_none() && next.oversized().is_none();
        if !adjacent || !whole || next.operation != Operation::Insert || *delete.relation != *next.relation {
            return None;
        }
        let (before, after) = (delete.decode(), next.decode());
        let (old, new) = (before.old?, after.new?);
        let same = |position: &usize| {
            let old = old.tuple().cell(*position);
            matches!(old, Cell::Text(_)) && old == new.cell(*position)
        };
        (!key.is_empty() && key.iter().all(same)).then(|| next.moved_from(delete))
    }
}

impl Running {
    /// Takes a row's change, folded with the delete before it where the two are one move.
    pub(super) async fn row(&mut self, transaction: Transaction, raw: &RawChange) -> Result<(), Halt> {
        if let Some(held) = &self.held {
            let folding = self.expander.fold_moves(&self.snapshot, raw);
            let key = unless_stopped(&self.stop, folding).await?;
            if let Some(moved) = held.fold(transaction, raw, &key) {
                self.held = None;
                return self.change(transaction, &moved).await;
            }
            self.let_go().await?;
        }
        if raw.operation == Operation::Delete {
            let folding = self.expander.fold_moves(&self.snapshot, raw);
            if !unless_stopped(&self.stop, folding).await?.is_empty() {
                self.held = Some(Held { transaction, delete: raw.clone() });
                return Ok(());
            }
        }
        self.change(transaction, raw).await
    }

    /// What was held is a delete and nothing else.
    pub(super) async fn let_go(&mut self) -> Result<(), Halt> {
        match self.held.take() {
            Some(held) => self.change(held.transaction, &held.delete).await,
            None => Ok(()),
        }
    }
}
