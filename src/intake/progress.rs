//! How far the stream has been taken, so that what comes again after a lost connection is skipped.
//!
//! Transactions arrive in commit order, so two numbers do: the last one taken whole, and how far the one under way
//! has come.

use crate::domain::CommitLsn;

/// How far intake has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The last transaction taken whole.
    whole: CommitLsn,
    /// The one under way and its last change taken.
    partial: Option<(CommitLsn, u32)>,
}

impl Progress {
    /// A new connection: the transaction under way, if any, comes again from its begin.
    pub fn restart(&mut self) {
        if let Some((commit, sequence)) = self.partial {
            tracing::debug!(%commit, sequence, "a transaction comes again from its begin");
        }
    }

    /// Whether a transaction was taken whole before.
    pub fn is_taken(&self, commit: CommitLsn) -> bool {
        commit <= self.whole
    }

    /// Takes a change; `false` where it was taken before.
    pub fn take(&mut self, commit: CommitLsn, sequence: u32) -> bool {
        match self.partial {
            Some((under_way, last)) if under_way == commit && sequence <= last => false,
            _ => {
                self.partial = Some((commit, sequence));
                true
            }
        }
    }

    /// A transaction has been taken whole.
    pub fn end(&mut self, commit: CommitLsn) {
        self.whole = self.whole.max(commit);
        self.partial = None;
    }

    /// Whether no transaction is half taken.
    pub fn is_between_transactions(&self) -> bool {
        self.partial.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Lsn;

    #[test]
    fn after_a_lost_connection_nothing_is_taken_twice_and_nothing_skipped() {
        let at = |lsn| CommitLsn(Lsn(lsn));
        let mut progress = Progress::default();
        assert!(progress.take(at(10), 1));
        progress.end(at(10));
        assert!(progress.take(at(20), 1) && progress.take(at(20), 2));
        progress.restart();
        assert!(!progress.is_between_transactions());
        assert!(progress.is_taken(at(10)) && !progress.is_taken(at(20)));
        let again: Vec<bool> = (1..=3).map(|sequence| progress.take(at(20), sequence)).collect();
        assert_eq!(again, [false, false, true]);
        progress.end(at(20));
        assert!(progress.is_taken(at(20)) && progress.is_between_transactions());
        assert!(!progress.is_taken(at(21)) && progress.take(at(21), 1));
    }
}
