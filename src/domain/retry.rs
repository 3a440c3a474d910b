//! The whole retry policy, as one pure function.
//!
//! A schedule of `n` waits makes at most `n + 1` attempts. `Retry-After` lengthens a wait, never shortens it, and
//! never beyond the policy's ceiling. Dice are handed in, so that a test can hold them.

use std::time::Duration;

use super::Outcome;

/// When a failed attempt is followed by another.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The wait after the first failed attempt, the second, …
    pub schedule: Vec<Duration>,
    /// The share by which a wait is lengthened or shortened at most, 0 to 1.
    pub jitter: f64,
    /// Statuses that end the delivery at once.
    pub give_up_on: Vec<u16>,
    /// The longest wait a `Retry-After` may ask for.
    pub retry_after_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let seconds = [5, 60, 5 * 60, 30 * 60, 2 * 3600];
        Self {
            schedule: seconds.map(Duration::from_secs).to_vec(),
            jitter: 0.1,
            give_up_on: Vec::new(),
            retry_after_max: Duration::from_secs(24 * 3600),
        }
    }
}

/// Why a delivery was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailReason {
    /// The schedule has no wait left.
    AttemptsExhausted,
    /// The status is one of `retry.give_up_on`.
    GaveUpOn(u16),
    /// The receiver answered 410: it wants no more.
    Gone,
    /// The body could not be rendered.
    NotRendered(String),
    /// The row or its body is over the limit.
    TooLarge(String),
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The delivery has ended well.
    Delivered,
    /// Try again after this wait.
    Retry(Duration),
    /// The delivery has ended badly.
    Failed(FailReason),
}

impl FailReason {
    /// What an operator reads.
    pub fn describe(&self) -> String {
        match self {
            Self::AttemptsExhausted => "every attempt of the retry schedule failed".to_owned(),
            Self::GaveUpOn(status) => format!("HTTP {status} is in retry.give_up_on"),
            Self::Gone => "the receiver answered 410 Gone; the webhook is disabled".to_owned(),
            Self::NotRendered(why) | Self::TooLarge(why) => why.clone(),
        }
    }
}

/// Judges attempt `number` (from 1) by how it ended. `dice` is uniform in `0.0..1.0`.
pub fn judge(outcome: &Outcome, number: u32, policy: &RetryPolicy, dice: f64) -> Verdict {
    let mut asked = Duration::ZERO;
    if let Outcome::Responded { status, retry_after, .. } = outcome {
        match *status {
            200..300 => return Verdict::Delivered,
            410 => return Verdict::Failed(FailReason::Gone),
            status if policy.give_up_on.contains(&status) => {
                return Verdict::Failed(FailReason::GaveUpOn(status));
            }
            _ => asked = retry_after.unwrap_or_default().min(policy.retry_after_max),
        }
    }
    let index = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    match policy.schedule.get(index) {
        None => Verdict::Failed(FailReason::AttemptsExhausted),
        Some(wait) => {
            let factor = 1.0 + policy.jitter * (2.0 * dice.clamp(0.0, 1.0) - 1.0);
            Verdict::Retry(wait.mul_f64(factor.max(0.0)).max(asked))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn responded(status: u16, retry_after: Option<u64>) -> Outcome {
        Outcome::Responded { status, retry_after: retry_after.map(Duration::from_secs), body: Bytes::new() }
    }

    #[test]
    fn the_default_schedule_makes_six_attempts() {
        let policy = RetryPolicy::default();
        let retries = (1..100)
            .take_while(|n| matches!(judge(&responded(500, None), *n, &policy, 0.5), Verdict::Retry(_)));
        assert_eq!(retries.count() + 1, 6);
    }

    #[test]
    fn a_410_ends_the_delivery_and_a_give_up_status_too() {
        let policy = RetryPolicy { give_up_on: vec![400], ..RetryPolicy::default() };
        assert_eq!(judge(&responded(410, None), 1, &policy, 0.5), Verdict::Failed(FailReason::Gone));
        assert_eq!(judge(&responded(400, None), 1, &policy, 0.5), Verdict::Failed(FailReason::GaveUpOn(400)));
        assert!(matches!(judge(&responded(401, None), 1, &policy, 0.5), Verdict::Retry(_)));
        assert!(matches!(judge(&responded(302, None), 1, &policy, 0.5), Verdict::Retry(_)));
    }

    proptest! {
        #[test]
        fn only_2xx_delivers(status in 100_u16..600, number in 1_u32..9, dice in 0.0..1.0) {
            let verdict = judge(&responded(status, None), number, &RetryPolicy::default(), dice);
            prop_assert_eq!(verdict == Verdict::Delivered, (200..300).contains(&status));
        }

        #[test]
        fn waits_stay_within_jitter_and_retry_after_only_lengthens(
            number in 1_u32..6, dice in 0.0..1.0, after in proptest::option::of(0_u64..200_000), jitter in 0.0..1.0,
        ) {
            let policy = RetryPolicy { jitter, ..RetryPolicy::default() };
            let base = policy.schedule[number as usize - 1];
            let Verdict::Retry(wait) = judge(&responded(503, after), number, &policy, dice) else {
                return Err(TestCaseError::fail("a retry was due"));
            };
            let asked = Duration::from_secs(after.unwrap_or(0)).min(policy.retry_after_max);
            prop_assert!(wait >= asked);
            prop_assert!(wait >= base.mul_f64(1.0 - jitter - 1e-9));
            prop_assert!(wait <= base.mul_f64(1.0 + jitter + 1e-9).max(asked));
        }
    }
}
