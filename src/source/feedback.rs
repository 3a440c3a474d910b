//! Standby status updates: what we tell the walsender, and when.
//!
//! One is due at once when the server asks, soon after the confirmed position moved (but not more often than every
//! [`RATE`]), and in any case every `every`. All three positions of the message are the confirmed one: nothing is
//! claimed that is not settled. The message is "Standby status update (F)" of the manual's "Streaming
//! Replication Protocol".

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

use crate::domain::EndLsn;

/// The least time between two updates that nobody asked for.
const RATE: Duration = Duration::from_millis(100);
/// `d`, length, `r`, three positions, clock, flag.
const LENGTH: u32 = 4 + 1 + 3 * 8 + 8 + 1;
/// 2000-01-01 in microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;

/// When the last update went out, and what it said.
#[derive(Debug)]
pub(super) struct Feedback {
    sent: EndLsn,
    at: Instant,
    every: Duration,
    asked: bool,
}

impl Feedback {
    /// `floor` is what the slot has confirmed already: nothing less is ever sent.
    pub(super) fn new(floor: EndLsn, every: Duration, now: Instant) -> Self {
        Self { sent: floor, at: now, every, asked: true }
    }

    /// The server wants an answer.
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }

    /// When the next update is due.
    pub(super) fn due(&self, confirmed: EndLsn) -> Instant {
        match (self.asked, confirmed > self.sent) {
            (true, _) => self.at,
            (false, true) => self.at + RATE.min(self.every),
            (false, false) => self.at + self.every,
        }
    }

    /// Writes an update. `want_answer` makes the server send a keepalive back.
    pub(super) fn write(
        &mut self,
        confirmed: EndLsn,
        want_answer: Answer,
        now: Instant,
        unix_micros: i64,
        out: &mut BytesMut,
    ) {
        self.sent = self.sent.max(confirmed);
        self.at = now;
        self.asked = false;
        out.put_u8(b'd');
        out.put_u32(LENGTH);
        out.put_u8(b'r');
        for _ in 0..3 {
            out.put_u64(self.sent.0.0);
        }
        out.put_i64(unix_micros.saturating_sub(EPOCH));
        out.put_u8(u8::from(want_answer == Answer::Wanted));
    }
}

/// Whether the server is to answer an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Wanted,
    NotWanted,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Lsn;

    fn at(lsn: u64) -> EndLsn {
        EndLsn(Lsn(lsn))
    }

    #[tokio::test(start_paused = true)]
    async fn feedback_is_prompt_when_asked_rated_when_moved_and_regular_otherwise() {
        let now = Instant::now();
        let every = Duration::from_secs(10);
        let mut feedback = Feedback::new(at(5), every, now);
        assert_eq!(feedback.due(at(5)), now);
        feedback.write(at(5), Answer::NotWanted, now, EPOCH, &mut BytesMut::new());
        assert_eq!(feedback.due(at(5)), now + every);
        assert_eq!(feedback.due(at(6)), now + RATE);
        feedback.ask();
        assert_eq!(feedback.due(at(5)), now);
    }

    #[tokio::test(start_paused = true)]
    async fn feedback_never_says_less_than_before() {
        let now = Instant::now();
        let mut feedback = Feedback::new(at(5), RATE, now);
        for (confirmed, expect) in [(3, 5_u64), (8, 8), (7, 8)] {
            let mut out = BytesMut::new();
            feedback.write(at(confirmed), Answer::Wanted, now, EPOCH + 1, &mut out);
            assert_eq!(out.len(), 1 + usize::try_from(LENGTH).unwrap());
            assert_eq!(out[6..14], expect.to_be_bytes());
            assert_eq!(out[14..22], out[22..30]);
            assert_eq!(out[30..38], 1_i64.to_be_bytes());
            assert_eq!(out[38], 1);
        }
    }
}
