//! What the dispatcher gives its queues in one turn.

use jiff::Timestamp;
use tokio::time::Instant;

use super::share::Class;
use crate::domain::limits;
use crate::ledger::claim::Claimed;
use crate::ledger::writer::Command;

/// One turn of the dispatcher: what time it is, and where what follows is put.
#[derive(Debug)]
pub(super) struct Turn<'t> {
    pub at: Instant,
    pub now: Timestamp,
    pub tokens: &'t mut Tokens,
    pub load: &'t mut Load,
    pub commands: &'t mut Vec<Command>,
}

/// Tokens of leases, each used once.
#[derive(Debug)]
pub(super) struct Tokens {
    next: i64,
}

impl Tokens {
    /// Those of an epoch: no other process has the same.
    pub fn of_epoch(epoch: i64) -> Self {
        Self { next: epoch.saturating_mul(1 << 32) }
    }

    pub fn take(&mut self) -> i64 {
        self.next += 1;
        self.next
    }
}

/// The claimed deliveries that are in memory, waiting or in flight, over all webhooks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// How many.
    pub count: usize,
    /// How many of them are for slow receivers.
    pub slow: usize,
    /// The sum of their bodies.
    pub bytes: usize,
}

impl Load {
    pub fn add(&mut self, claimed: &Claimed, class: Class) {
        self.count += 1;
        self.slow += usize::from(class == Class::Slow);
        self.bytes += claimed.delivery.body.len();
    }

    pub fn remove(&mut self, claimed: &Claimed, class: Class) {
        self.count = self.count.saturating_sub(1);
        self.slow = self.slow.saturating_sub(usize::from(class == Class::Slow));
        self.bytes = self.bytes.saturating_sub(claimed.delivery.body.len());
    }

    /// A webhook with so many of them has changed its class.
    pub fn reclass(&mut self, own: usize, to: Class) {
        self.slow = match to {
            Class::Slow => self.slow + own,
            Class::Quick => self.slow.saturating_sub(own),
        };
    }

    /// Of `wanted`, how many a webhook that has `own` of them may claim; `left` are left for this claim. Fair in the
    /// same way as requests in flight are.
    pub fn fair(&self, wanted: usize, own: usize, class: Class, left: usize) -> usize {
        let (used, most) = match class {
            Class::Quick => (self.count, limits::IN_FLIGHT),
            Class::Slow => (self.slow, limits::IN_FLIGHT_SLOW),
        };
        let free = most.saturating_sub(used).min(left);
        if used.saturating_add(wanted) <= most / 2 {
            return wanted.min(free);
        }
        let share = (free / 4).saturating_sub(own).max(usize::from(own == 0));
        wanted.min(share).min(free)
    }
}
