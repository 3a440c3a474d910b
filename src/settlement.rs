//! What may be confirmed to Postgres (invariant I1).
//!
//! The slot is the queue for everything young: its position may pass the end of a transaction only when every
//! delivery of that transaction, and of all before it, has a committed row in the ledger. Intake *owes* deliveries in
//! the transaction that is arriving and *ends* it; the ledger's writer *settles* what it has committed. The
//! position that follows is published on a watch, which the source reads for its feedback.
//!
//! Transactions that owe nothing cost next to nothing: they only move the end of the last entry. An idle position
//! (the server's own, while no transaction is open) is an empty transaction.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::{EndLsn, Lsn};

/// The tracker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Settlement {
    queue: Arc<Mutex<Queue>>,
    confirmed: Arc<watch::Sender<EndLsn>>,
}

/// The transaction a delivery belongs to; names a debt of one. Settling consumes it, losing it leaves the
/// transaction unconfirmed, which at worst has it read again.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "an unsettled debt keeps the slot from moving"]
pub struct Owed {
    ticket: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// Ticket of the first entry.
    first: u64,
    /// How many debts were settled.
    settled: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// `None` while the transaction is still arriving.
    end: Option<EndLsn>,
    owed: u64,
}

impl Default for Settlement {
    fn default() -> Self {
        Self::new()
    }
}

impl Settlement {
    /// A tracker that has nothing to confirm yet.
    pub fn new() -> Self {
        let (confirmed, _) = watch::channel(EndLsn(Lsn(0)));
        Self { queue: Arc::default(), confirmed: Arc::new(confirmed) }
    }

    /// Where the position to confirm is published; it never goes back.
    pub fn confirmed(&self) -> watch::Receiver<EndLsn> {
        self.confirmed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The transaction that is arriving owes one delivery more.
    pub fn owe(&self) -> Owed {
        let mut queue = self.lock();
        if queue.entries.back().is_none_or(|e| e.end.is_some()) {
            queue.entries.push_back(Entry { end: None, owed: 0 });
        }
        let ticket = queue.first + u64::try_from(queue.entries.len().saturating_sub(1)).unwrap_or(0);
        if let Some(entry) = queue.entries.back_mut() {
            entry.owed += 1;
        }
        Owed { ticket }
    }

    /// The transaction that is arriving ends here; where it owed nothing, the position just counts as reached.
    pub fn end(&self, end: EndLsn) {
        let mut queue = self.lock();
        match queue.entries.back_mut() {
            Some(entry) if entry.end.is_none() => entry.end = Some(end),
            // It owes nothing itself and may be confirmed as soon as the one before it may.
            Some(entry) => entry.end = entry.end.max(Some(end)),
            None => queue.entries.push_back(Entry { end: Some(end), owed: 0 }),
        }
        self.publish(queue);
    }

    /// These deliveries have committed rows.
    pub fn settle(&self, settled: impl IntoIterator<Item = Owed>) {
        let mut queue = self.lock();
        for Owed { ticket } in settled {
            queue.settled = queue.settled.wrapping_add(1);
            let index = usize::try_from(ticket.saturating_sub(queue.first)).unwrap_or(usize::MAX);
            if let Some(entry) = queue.entries.get_mut(index) {
                entry.owed = entry.owed.saturating_sub(1);
            }
        }
        self.publish(queue);
    }

    /// Whether everything begun has been settled.
    pub fn is_settled(&self) -> bool {
        self.lock().entries.iter().all(|e| e.owed == 0)
    }

    /// How many deliveries have been settled: another number than before tells that there was something to do.
    pub fn settled(&self) -> u64 {
        self.lock().settled
    }

    fn publish(&self, mut queue: MutexGuard<'_, Queue>) {
        let mut reached = None;
        while let Some(&Entry { end: Some(end), owed: 0 }) = queue.entries.front() {
            queue.entries.pop_front();
            queue.first += 1;
            reached = reached.max(Some(end));
        }
        drop(queue);
        let Some(end) = reached else { return };
        fail::fail_point!("before_confirm", |_| std::process::abort());
        self.confirmed.send_if_modified(|now| {
            let moved = end > *now;
            *now = end.max(*now);
            moved
        });
        fail::fail_point!("after_confirm", |_| std::process::abort());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(lsn: u64) -> EndLsn {
        EndLsn(Lsn(lsn))
    }

    #[test]
    fn i1_nothing_is_confirmed_past_an_unsettled_delivery() {
        let settlement = Settlement::new();
        let confirmed = settlement.confirmed();
        let first = settlement.owe();
        settlement.end(at(10));
        let second = settlement.owe();
        settlement.end(at(20));
        settlement.end(at(25));
        assert_eq!(*confirmed.borrow(), at(0));
        settlement.settle([second]);
        assert_eq!(*confirmed.borrow(), at(0));
        settlement.settle([first]);
        assert_eq!(*confirmed.borrow(), at(25));
    }

    #[test]
    fn i1_an_open_transaction_is_not_confirmed_though_all_it_owes_so_far_is_settled() {
        let settlement = Settlement::new();
        let confirmed = settlement.confirmed();
        settlement.end(at(5));
        let owed = settlement.owe();
        settlement.settle([owed]);
        assert_eq!(*confirmed.borrow(), at(5));
        settlement.end(at(9));
        assert_eq!(*confirmed.borrow(), at(9));
    }

    proptest! {
        #[test]
        fn i1_in_any_order_of_settling_the_position_is_the_end_before_the_first_debt(
            sizes in proptest::collection::vec(0_usize..4, 1..20), seed in any::<u64>(),
        ) {
            let settlement = Settlement::new();
            let confirmed = settlement.confirmed();
            let mut debts = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                    debts.extend((0..*size).map(|_| (index, settlement.owe())));
                settlement.end(at(index as u64 + 1));
            }
            fastrand::Rng::with_seed(seed).shuffle(&mut debts);
            while let Some((_, owed)) = debts.pop() {
                settlement.settle([owed]);
                let first_open = debts.iter().map(|(i, _)| *i).min().unwrap_or(sizes.len());
                prop_assert_eq!(*confirmed.borrow(), at(first_open as u64));
            }
            prop_assert_eq!(*confirmed.borrow(), at(sizes.len() as u64));
        }
    }
}
