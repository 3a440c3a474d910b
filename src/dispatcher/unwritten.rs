//! How much of what was claimed has been tried and is not yet written.
//!
//! A ledger that answers claims and does not commit (its disk stands still, its standby does not confirm) would else be
//! drained into memory, one outcome after another, and as soon as the first leases have run out it would give out
//! again what has long arrived. So nothing more is claimed while too much is unwritten, or the oldest of it too old.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::domain::limits;

/// The outcomes that the ledger's writer has been told and has not acknowledged, in the order of telling.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    told: VecDeque<(Instant, usize)>,
    count: usize,
}

impl Unwritten {
    /// So many more have been told.
    pub fn told(&mut self, count: usize, at: Instant) {
        if count > 0 {
            self.count += count;
            self.told.push_back((at, count));
        }
    }

    /// So many, the oldest, are written.
    pub fn written(&mut self, mut count: usize) {
        while let Some((_, oldest)) = self.told.front_mut().filter(|_| count > 0) {
            let done = count.min(*oldest);
            (*oldest, count, self.count) = (*oldest - done, count - done, self.count - done);
            if *oldest == 0 {
                self.told.pop_front();
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether the ledger is too far behind to be asked for more.
    pub fn is_behind(&self, at: Instant) -> bool {
        let is_old =
            |(since, _): &(Instant, usize)| at.saturating_duration_since(*since) >= limits::UNWRITTEN_FOR;
        self.count >= limits::UNWRITTEN || self.told.front().is_some_and(is_old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_or_too_old_is_behind_and_what_is_written_is_not() {
        let start = Instant::now();
        let mut unwritten = Unwritten::default();
        unwritten.told(2, start);
        unwritten.told(0, start);
        unwritten.told(limits::UNWRITTEN - 3, start + limits::UNWRITTEN_FOR);
        assert!(!unwritten.is_behind(start + limits::UNWRITTEN_FOR / 2));
        assert!(unwritten.is_behind(start + limits::UNWRITTEN_FOR), "the first two are old");
        unwritten.written(2);
        assert!(!unwritten.is_behind(start + limits::UNWRITTEN_FOR), "they are written");
        unwritten.told(3, start + limits::UNWRITTEN_FOR);
        assert!(unwritten.is_behind(start + limits::UNWRITTEN_FOR), "these are many");
        unwritten.written(limits::UNWRITTEN);
        assert!(!unwritten.is_behind(start + limits::UNWRITTEN_FOR * 9));
        unwritten.written(1);
        unwritten.told(1, start);
        assert!(unwritten.is_behind(start + limits::UNWRITTEN_FOR));
    }
}
