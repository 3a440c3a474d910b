//! Which generation a position of the log belongs to.
//!
//! When a standby is promoted, or a backup restored, the log forks: up to the fork it is the old one, from there on the
//! same positions are used for other transactions. So a generation begins at each fork, and an id, which holds the
//! generation, names one change for ever (invariant I2): what comes again from before the fork keeps its ids, what is
//! new beyond it shares none with what the lost branch had there.
//!
//! ```text
//!   generation 3 ──────────────┬─ ─ ─ ─ ─ ─   what the old primary wrote beyond the fork
//!                    fork LSN  └────────────▶  generation 4
//! ```

use super::{CommitLsn, Lsn, Origin};

/// The generations of a slot's log, by position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    system: u64,
    first: u32,
    /// Where each further generation begins, in their order.
    forks: Vec<(Lsn, u32)>,
}

impl Lineage {
    /// A log of `system` that began in generation `first`; `forks` are where others begin, in order of generation.
    pub fn new(system: u64, first: u32, forks: Vec<(Lsn, u32)>) -> Self {
        Self { system, first, forks }
    }

    /// The origin of a transaction: that of the last fork at or before its commit record.
    pub fn of(&self, commit: CommitLsn) -> Origin {
        let reached = self.forks.iter().rev().find(|(from, _)| *from <= commit.0);
        Origin { system: self.system, generation: reached.map_or(self.first, |(_, generation)| *generation) }
    }

    /// The origin of the oldest position: every id of this lineage sorts at or behind its ids.
    pub fn oldest(&self) -> Origin {
        Origin { system: self.system, generation: self.first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i2_what_is_before_a_fork_keeps_its_generation_and_what_is_behind_it_has_another() {
        let lineage = Lineage::new(7, 3, vec![(Lsn(100), 4), (Lsn(200), 5)]);
        let generation = |lsn| lineage.of(CommitLsn(Lsn(lsn))).generation;
        assert_eq!([1, 99, 100, 199, 200, u64::MAX].map(generation), [3, 3, 4, 4, 5, 5]);
        assert_eq!(lineage.oldest(), Origin { system: 7, generation: 3 });
    }

    #[test]
    fn i2_a_fork_before_an_earlier_one_hides_it() {
        // The standby of an older branch was promoted: what the newer branch had is no part of this log.
        let lineage = Lineage::new(7, 1, vec![(Lsn(200), 2), (Lsn(150), 3)]);
        let generation = |lsn| lineage.of(CommitLsn(Lsn(lsn))).generation;
        assert_eq!([149, 150, 199, 200, 300].map(generation), [1, 3, 3, 3, 3]);
    }
}
