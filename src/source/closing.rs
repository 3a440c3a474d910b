//! A server that shuts down in order.
//!
//! It has ended all sessions, the ledger's too, and waits for its walsenders: each asks and asks again whether everything is
//! confirmed that it has sent, and ends when it is. What is on its way can get no row any more where the ledger is in the
//! same server; so it never is, and a link that goes on answering would keep the server from its end. The protocol does
//! not say that this is so: but a server that asks again as soon as it has its answer, with nothing else to say, and does
//! so for [`PATIENCE`], is waiting for us to go. What was not confirmed comes again when it is back.

use std::time::Duration;

use tokio::time::Instant;

/// How long it is waited for the ledger, which may be elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);
/// A server that only wants to know whether we are there asks less often than this.
const APART: Duration = Duration::from_millis(500);
/// It has asked so often at least.
const ASKED: u32 = 20;

/// How often, and since when, the server has asked in a row.
#[derive(Debug, Default)]
pub(super) struct Closing {
    row: Option<(Instant, Instant, u32)>,
}

impl Closing {
    /// The server wants an answer. Returns whether it waits for us to go.
    pub(super) fn is_asked(&mut self, now: Instant) -> bool {
        let in_a_row = self.row.filter(|(_, last, _)| now.duration_since(*last) < APART);
        let (first, asked) = in_a_row.map_or((now, 0), |(first, _, asked)| (first, asked));
        let asked = asked.saturating_add(1);
        self.row = Some((first, now, asked));
        asked >= ASKED && now.duration_since(first) >= PATIENCE
    }

    /// It has something else to say.
    pub(super) fn is_told(&mut self) {
        self.row = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a server waits for us that has asked so often, so far apart.
    fn waits(times: u32, apart: Duration) -> bool {
        let (mut closing, mut now) = (Closing::default(), Instant::now());
        (0..times).fold(false, |waits, _| {
            now += apart;
            waits || closing.is_asked(now)
        })
    }

    #[test]
    fn a_server_that_asks_without_end_waits_for_us_and_one_that_asks_now_and_then_does_not() {
        let millis = Duration::from_millis;
        assert!(waits(3000, millis(1)));
        assert!(waits(40, millis(100)));
        assert!(!waits(1000, millis(1)));
        assert!(!waits(1000, millis(500)));
    }

    #[test]
    fn a_server_that_sends_something_goes_on() {
        let (mut closing, mut now) = (Closing::default(), Instant::now());
        for _ in 0..20 {
            for _ in 0..100 {
                now += Duration::from_millis(10);
                assert!(!closing.is_asked(now));
            }
            closing.is_told();
        }
    }
}
