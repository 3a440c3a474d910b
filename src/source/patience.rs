//! How long a server may be silent before its connection counts as dead.
//!
//! A walsender that reads through a large rewrite of tables nobody wants may say nothing at all for minutes, before
//! Postgres 16 not even when asked to. Giving up too early would have it begin anew at the same place, for ever. So a
//! server is given what it gives us, `wal_sender_timeout`, at least; and after a silence that was given up, twice as
//! long at the same place, up to [`limits::SILENCE_MAX`].

use std::time::Duration;

use crate::domain::{EndLsn, limits};

/// So many feedback intervals without a byte are the least that is waited.
const INTERVALS: u32 = 4;

/// The patience with a server, from one connection to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience {
    usual: Duration,
    /// Where the last connection began.
    place: EndLsn,
    /// Silences that were given up there.
    given_up: u32,
}

impl Patience {
    /// A connection begins at a place, with a status message `every` so often; `of_server` is the server's own patience, or
    /// zero where that is endless.
    pub(super) fn begin(&mut self, place: EndLsn, every: Duration, of_server: Duration) {
        self.usual = (every * INTERVALS).max(of_server);
        if std::mem::replace(&mut self.place, place) != place {
            self.given_up = 0;
        }
    }

    /// How long the connection that began last may be silent.
    pub(super) fn of_now(&self) -> Duration {
        let times = 2_u32.saturating_pow(self.given_up);
        self.usual.saturating_mul(times).min(limits::SILENCE_MAX.max(self.usual))
    }

    /// It was silent for longer.
    pub(super) fn was_in_vain(&mut self) {
        self.given_up = self.given_up.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Lsn;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_server_may_be_silent_for_as_long_as_we_may_and_longer_where_that_was_in_vain() {
        let mut patience = Patience::default();
        let mut begin = |place: u64, in_vain: u32| {
            patience.begin(EndLsn(Lsn(place)), 10 * SECOND, 60 * SECOND);
            (0..in_vain).for_each(|_| patience.was_in_vain());
            patience.of_now().as_secs()
        };
        assert_eq!([begin(1, 0), begin(1, 1), begin(1, 1), begin(1, 20)], [60, 120, 240, 3600]);
        assert_eq!([begin(2, 0), begin(2, 1), begin(3, 0)], [60, 120, 60]);
    }

    #[test]
    fn a_server_of_endless_or_little_patience_is_given_four_of_our_messages() {
        let mut patience = Patience::default();
        patience.begin(EndLsn::default(), 10 * SECOND, Duration::ZERO);
        assert_eq!(patience.of_now(), 40 * SECOND);
        patience.begin(EndLsn::default(), SECOND, 3 * SECOND);
        assert_eq!(patience.of_now(), 4 * SECOND);
    }
}
