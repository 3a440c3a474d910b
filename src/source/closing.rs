//! A server that shuts down in order.
//!
//! It has ended all sessions, the ledger's too, and waits for its walsenders: each asks and asks again whether everything is
//! confirmed that it has sent, and ends when it is. What is on its way can get no row any more where the ledger is in the
//! same server; so it never is, and a link that goes on answering would keep the server from its end. The protocol does
//! not say that this is so: but a server that asks again as soon as it has its answer, with nothing else to say, and does
//! so for [`PATIENCE`], is waiting for us to go. What was not confirmed comes again when it is back.
//!
//! It gets as far as asking only where everything that it has to send is read. While we do not read, because nothing of it
//! can be recorded, its walsender stands in the middle of a write and hears of nothing; and our status messages keep it from
//! giving us up. So a link that is not read looks now and then whether the server still lets anybody in ([`Unread`]).

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout};

use super::link::Link;
use crate::postgres::Server;

/// How long it is waited for the ledger, which may be elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);
/// A server that only wants to know whether we are there asks less often than this.
const APART: Duration = Duration::from_millis(500);
/// It has asked so often at least.
const ASKED: u32 = 20;

/// A link is not read for so long before it is looked.
const UNREAD: Duration = Duration::from_secs(3);
/// How long after a look it is looked again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(10);

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

/// A link that is not read at the moment, or is.
pub(super) struct Unread {
    server: Server,
    next: Option<Instant>,
    look: Option<BoxFuture<'static, bool>>,
}

impl Unread {
    /// Of a link to this host.
    pub(super) fn new(server: Server) -> Self {
        Self { server, next: None, look: None }
    }

    /// It is read.
    pub(super) fn is_read(&mut self) {
        (self.next, self.look) = (None, None);
    }

    /// Waits, while it is not read, until the server shuts down. May be dropped at any point and called again.
    pub(super) async fn server_closes(&mut self) {
        loop {
            let next = *self.next.get_or_insert_with(|| Instant::now() + UNREAD);
            sleep_until(next).await;
            let look = self.look.get_or_insert_with(|| turns_away(self.server.clone()).boxed());
            let closes = look.await;
            (self.next, self.look) = (Some(Instant::now() + LOOK_AGAIN), None);
            if closes {
                return;
            }
        }
    }
}

/// Whether a server lets nobody in any more (`cannot_connect_now`).
async fn turns_away(server: Server) -> bool {
    match timeout(LOOK, Link::knock(&server)).await {
        Ok(Ok(refusal)) => refusal.is_some_and(|fault| fault.code == "57P03"),
        Ok(Err(error)) => {
            tracing::debug!(%error, "whether the server shuts down is not known");
            false
        }
        Err(_) => false,
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
