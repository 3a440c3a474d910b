//! What is counted of a webhook's deliveries, over any span of time.
//!
//! Every attempt counts when it has ended, every delivery when it was delivered or given up. Test events count nowhere. What
//! has no commit to be measured from (rows of a backfill, deliveries sent again by hand) counts, but tells nothing about the
//! time from commit to receipt, nor about the promise that [`Tally::sla_met`] keeps.

use std::time::Duration;

use jiff::Timestamp;

use super::{Attempt, Histogram, Outcome};

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The receiver took it.
    Delivered,
    /// It was given up.
    Failed,
}

/// The commit that a delivery's time is measured from, and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// When the change committed.
    pub committed_at: Timestamp,
    /// Within which time after that it should be delivered.
    pub within: Duration,
}

/// Sums of attempts and deliveries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Attempts that ended.
    pub attempts: u64,
    /// Deliveries that a receiver took.
    pub delivered: u64,
    /// Those of them that it took at the first attempt.
    pub first_try: u64,
    /// Deliveries given up.
    pub failed: u64,
    /// Delivered within the promised time after the commit.
    pub sla_met: u64,
    /// Delivered later, or given up.
    pub sla_missed: u64,
    /// Why attempts failed.
    pub causes: Causes,
    /// From commit to receipt, of what was delivered.
    pub receipt: Histogram,
    /// How long requests took that were answered, whatever the answer.
    pub request: Histogram,
}

/// Failed attempts by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, utoipa::ToSchema)]
pub struct Causes {
    /// Answered 400 to 499.
    pub http_4xx: u64,
    /// Answered 500 to 599.
    pub http_5xx: u64,
    /// Answered otherwise, but not 2xx: redirects mostly.
    pub http_other: u64,
    /// Not answered in time.
    pub timed_out: u64,
    /// No answer could be had.
    pub unreachable: u64,
    /// Forbidden by a rule of walhook's own.
    pub refused: u64,
}

impl Causes {
    fn count(&mut self, outcome: &Outcome) {
        let cause = match outcome {
            Outcome::Responded { status: 200..300, .. } => return,
            Outcome::Responded { status: 400..500, .. } => &mut self.http_4xx,
            Outcome::Responded { status: 500..600, .. } => &mut self.http_5xx,
            Outcome::Responded { .. } => &mut self.http_other,
            Outcome::TimedOut { .. } => &mut self.timed_out,
            Outcome::Unreachable { .. } => &mut self.unreachable,
            Outcome::Refused { .. } => &mut self.refused,
        };
        *cause += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.http_4xx += other.http_4xx;
        self.http_5xx += other.http_5xx;
        self.http_other += other.http_other;
        self.timed_out += other.timed_out;
        self.unreachable += other.unreachable;
        self.refused += other.refused;
    }

    /// How many attempts failed.
    pub fn total(&self) -> u64 {
        let Self { http_4xx, http_5xx, http_other, timed_out, unreachable, refused } = self;
        http_4xx + http_5xx + http_other + timed_out + unreachable + refused
    }
}

impl Tally {
    /// Counts an attempt, and what it led to; or the end of a delivery without one.
    pub fn count(&mut self, attempt: Option<&Attempt>, ending: Option<Ending>, promise: Option<Promise>) {
        if let Some(attempt) = attempt {
            self.attempts += 1;
            self.causes.count(&attempt.outcome);
            if attempt.outcome.status().is_some() {
                self.request.record(attempt.took);
            }
        }
        match ending {
            None => {}
            Some(Ending::Delivered) => {
                self.delivered += 1;
                self.first_try += u64::from(attempt.is_some_and(|attempt| attempt.number == 1));
                if let (Some(promise), Some(attempt)) = (promise, attempt) {
                    let age = attempt.ended_after(promise.committed_at);
                    self.receipt.record(age);
                    let kept = age <= promise.within;
                    self.sla_met += u64::from(kept);
                    self.sla_missed += u64::from(!kept);
                }
            }
            Some(Ending::Failed) => {
                self.failed += 1;
                self.sla_missed += u64::from(promise.is_some());
            }
        }
    }

    /// Adds another one's sums.
    pub fn merge(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.delivered += other.delivered;
        self.first_try += other.first_try;
        self.failed += other.failed;
        self.sla_met += other.sla_met;
        self.sla_missed += other.sla_missed;
        self.causes.merge(&other.causes);
        self.receipt.merge(&other.receipt);
        self.request.merge(&other.request);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn attempt(number: u32, status: u16, millis: u64) -> Attempt {
        let outcome = Outcome::Responded { status, retry_after: None, body: Bytes::new() };
        let started_at = Timestamp::from_second(1000).unwrap();
        Attempt { number, started_at, took: Duration::from_millis(millis), outcome }
    }

    #[test]
    fn every_attempt_and_every_end_count_once() {
        let committed_at = Timestamp::from_second(999).unwrap();
        let promise = Some(Promise { committed_at, within: Duration::from_millis(1500) });
        let mut tally = Tally::default();
        tally.count(Some(&attempt(1, 200, 500)), Some(Ending::Delivered), promise);
        tally.count(Some(&attempt(1, 200, 501)), Some(Ending::Delivered), promise);
        tally.count(Some(&attempt(1, 503, 5)), None, promise);
        tally.count(Some(&attempt(2, 404, 5)), Some(Ending::Failed), promise);
        tally.count(Some(&attempt(3, 204, 5)), Some(Ending::Delivered), None);
        tally.count(None, Some(Ending::Failed), None);
        assert_eq!((tally.attempts, tally.delivered, tally.first_try, tally.failed), (5, 3, 2, 2));
        assert_eq!((tally.sla_met, tally.sla_missed), (1, 2));
        assert_eq!((tally.receipt.count(), tally.request.count()), (2, 5));
        assert_eq!(tally.causes, Causes { http_4xx: 1, http_5xx: 1, ..Causes::default() });
        let mut twice = tally.clone();
        twice.merge(&tally);
        assert_eq!((twice.attempts, twice.sla_missed, twice.causes.total()), (10, 4, 4));
        assert_eq!(twice.request.count(), 10);
    }

    #[test]
    fn a_receipt_before_its_commit_is_two_clocks_and_no_time_at_all() {
        let ahead = Timestamp::from_second(2000).unwrap();
        assert_eq!(attempt(1, 200, 5).ended_after(ahead), Duration::ZERO);
    }
}
