//! What the dispatcher gives its queues in one turn.

use jiff::Timestamp;
use tokio::time::Instant;

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
    /// The sum of their bodies.
    pub bytes: usize,
}

impl Load {
    pub fn add(&mut self, claimed: &Claimed) {
        self.count += 1;
        self.bytes += claimed.delivery.body.len();
    }

    pub fn remove(&mut self, claimed: &Claimed) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(claimed.delivery.body.len());
    }
}
