//! The marks of a backfill, and the rows between them (see [`crate::backfill`]).

use std::sync::Arc;

use super::window::Changes;
use super::{Halt, Manner, Running, unless_stopped};
use crate::backfill::{Mark, Outcome, Page};
use crate::domain::{Change, Operation};
use crate::source::{LogicalMessage, Piece};

impl Running {
    /// A mark: the window of a page opens, or closes and the page is taken.
    pub(super) async fn mark(&mut self, piece: &Piece, message: &LogicalMessage) -> Result<(), Halt> {
        let Ok(content) = &message.content else { return Ok(()) };
        match Mark::parse(content) {
            Some(Mark::Low(name)) => {
                if let Some(table) = self.with.pages.table_of(name) {
                    self.window.open(name, table);
                }
            }
            Some(Mark::High(name)) => {
                let closed = self.window.close(name);
                let Some((page, tell)) = self.with.pages.take(name) else { return Ok(()) };
                let outcome = match closed {
                    Some(closed) if closed.before.is_disjoint(&page.running) => {
                        self.page(piece, page, &closed.changes).await?
                    }
                    _ => Outcome::Spoiled,
                };
                // The worker may have ended, and then the page is read again some day.
                let told = tell.send(outcome);
                drop(told);
            }
            None => {}
        }
        Ok(())
    }

    /// Makes the rows of a page into deliveries, less those that changed and those that have theirs already.
    async fn page(&mut self, piece: &Piece, page: Page, window: &Changes) -> Result<Outcome, Halt> {
        let Changes::Keys(touched) = window else { return Ok(Outcome::Spoiled) };
        let snapshot = Arc::clone(&self.snapshot);
        let Some(webhook) = snapshot.index_of(&page.webhook) else { return Ok(Outcome::NoWebhook) };
        // A page is spoiled as a whole: nothing of it may be owed by then.
        let mut rows = Vec::with_capacity(page.rows.len());
        for (at, row) in page.rows.into_iter().enumerate() {
            let sequence = u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1);
            let change = Change {
                relation: Arc::clone(&page.relation),
                operation: Operation::Snapshot,
                new: Some(row.values),
                old: None,
                sequence,
            };
            let looking = self.expander.key_of(&snapshot, &change);
            let Some(key) = unless_stopped(&self.stop, looking).await? else {
                return Ok(Outcome::Spoiled);
            };
            rows.push((key, change, row.oversized));
        }
        let (mut changed, mut deliveries) = (Vec::new(), 0);
        for (at, (key, change, oversized)) in rows.into_iter().enumerate() {
            if touched.contains(&key) {
                changed.push(at);
                continue;
            }
            let expansion = self.expander.expand_row(
                &snapshot,
                piece.transaction,
                &change,
                oversized,
                (page.job, webhook),
            );
            let Some(expansion) = expansion.filter(|expansion| !expansion.is_held(&snapshot, &page.held))
            else {
                continue;
            };
            deliveries += 1;
            self.owe(expansion, Manner::ByLedger).await?;
        }
        Ok(Outcome::Taken { commit: piece.transaction.commit, changed, deliveries })
    }
}
