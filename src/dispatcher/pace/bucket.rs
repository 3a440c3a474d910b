//! A rate limit: the generic cell rate algorithm (ITU-T I.371), which is a token bucket without a timer.
//!
//! `due` is when the next would be due if all were evenly spaced; whoever comes by a burst earlier may go. So in any
//! span of time leave at most what the rate gives for it, and one burst.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::RateLimit;

/// The share of a period's deliveries that may leave at once.
const BURST: u32 = 10;

/// The bucket of one webhook.
#[derive(Debug)]
pub(in crate::dispatcher) struct Bucket {
    limit: RateLimit,
    every: Duration,
    /// How much earlier than due one may go.
    early: Duration,
    due: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(limit: RateLimit, at: Instant) -> Self {
        let count = limit.count.max(1);
        // A nanosecond more than exact, so that rounding never lets one more go.
        let every = limit.per / count + Duration::from_nanos(1);
        let burst = (count / BURST).max(1);
        Self { limit, every, early: every.saturating_mul(burst - 1), due: at }
    }

    /// What it was made of.
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// When the next may go, where that is not now.
    pub fn wait(&self, at: Instant) -> Option<Instant> {
        let next = self.due.checked_sub(self.early).unwrap_or(at);
        (next > at).then_some(next)
    }

    /// One goes.
    pub fn take(&mut self, at: Instant) {
        self.due = self.due.max(at) + self.every;
    }

    /// How many may go within a time from now.
    pub fn within(&self, at: Instant, span: Duration) -> usize {
        let until = at + span + self.early;
        let left = until.saturating_duration_since(self.due.max(at));
        let count = left.as_nanos() / self.every.as_nanos().max(1);
        usize::try_from(count).unwrap_or(usize::MAX).saturating_add(usize::from(self.due.max(at) <= until))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn in_no_period_leave_more_than_the_rate_and_a_burst_and_none_is_kept_longer_than_needed(
            count in 1_u32..500, seconds in prop_oneof![Just(1_u64), Just(60), Just(3600)],
            gaps in proptest::collection::vec(0_u64..3_000_000, 1..600),
        ) {
            let limit = RateLimit { count, per: Duration::from_secs(seconds) };
            let mut at = Instant::now();
            let mut bucket = Bucket::new(limit, at);
            let mut went = Vec::new();
            for gap in gaps {
                // Somebody always wants to go: the earliest time counts, at once or when the bucket says.
                at += Duration::from_nanos(gap * seconds);
                let within = bucket.within(at, Duration::ZERO);
                prop_assert_eq!(bucket.wait(at).is_none(), within > 0);
                if let Some(next) = bucket.wait(at) {
                    prop_assert!(next <= at + limit.per, "kept for longer than a period");
                    prop_assert!(bucket.wait(next).is_none());
                    at = next;
                }
                bucket.take(at);
                went.push(at);
            }
            let most = (count + (count / BURST).max(1)) as usize;
            let mut first = 0;
            for last in 0..went.len() {
                while went[last].duration_since(went[first]) >= limit.per { first += 1 }
                prop_assert!(last - first < most, "{} in a period of {count}", last - first + 1);
            }
        }

        #[test]
        fn what_may_go_within_a_time_is_what_goes(count in 1_u32..500, ms in 0_u64..3000, taken in 0_usize..50) {
            let at = Instant::now();
            let mut bucket = Bucket::new(RateLimit { count, per: Duration::from_secs(1) }, at);
            for _ in 0..taken {
                let next = bucket.wait(at).unwrap_or(at);
                bucket.take(next);
            }
            let span = Duration::from_millis(ms);
            let told = bucket.within(at, span);
            let (mut now, mut went) = (at, 0);
            loop {
                now = bucket.wait(now).unwrap_or(now);
                if now > at + span { break }
                bucket.take(now);
                went += 1;
            }
            prop_assert_eq!(told, went);
        }
    }
}
