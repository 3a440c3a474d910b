//! The whole retry policy, as one pure function.
//!
//! A schedule of `n` waits makes at most `n + 1` attempts. `Retry-After` lengthens a wait, never shortens it, and
//! never beyond the policy's ceiling. A delivery that would be too old at its next attempt has none. Dice are handed
//! in, so that a test can hold them.

use std::time::Duration;

use super::Outcome;

/// When a failed attempt is followed by another.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The wait after the first failed attempt, the second, …
    pub schedule: Vec<Duration>,
    /// What made the schedule, where exponential backoff did.
    pub backoff: Option<Backoff>,
    /// The share by which a wait is lengthened or shortened at most, 0 to 1.
    pub jitter: f64,
    /// Statuses that end the delivery at once.
    pub give_up_on: Vec<u16>,
    /// The longest wait a `Retry-After` may ask for.
    pub retry_after_max: Duration,
    /// The wait after these statuses, in the place of the schedule's.
    pub wait_on: Vec<(u16, Duration)>,
    /// How old a delivery may be at an attempt, from its commit; `None`: any age.
    pub max_age: Option<Duration>,
}

/// Schedules by name: the waits between the attempts, in seconds.
///
/// `standard-webhooks` is the schedule that the Standard Webhooks specification recommends: ten tries, the first at once,
/// over some three days.
pub const SCHEDULES: [(&str, &[u64]); 3] = [
    ("standard-webhooks", &[5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]),
    ("2m-4m-8m", &[120, 240, 480]),
    ("1m-5m-30m-2h", &[60, 300, 1800, 7200]),
];

/// Exponential backoff: `initial`, each further wait `factor` times as long, up to `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The first wait.
    pub initial: Duration,
    /// How many times as long each further one is; at least 1.
    pub factor: f64,
    /// The longest.
    pub max: Duration,
}

impl Backoff {
    /// The waits between so many attempts: one fewer.
    pub fn waits(&self, attempts: u32) -> Vec<Duration> {
        let (first, longest) = (self.initial.as_secs_f64(), self.max.as_secs_f64());
        let wait = |n: i32| Duration::from_secs_f64((first * self.factor.powi(n)).min(longest));
        (0..i32::try_from(attempts.saturating_sub(1)).unwrap_or(0)).map(wait).collect()
    }
}

impl RetryPolicy {
    /// With a schedule of this many attempts: a longer one is cut; a shorter one goes on with its last wait, or as the
    /// backoff does that made it.
    pub fn limit_attempts(&mut self, attempts: u32) {
        if let Some(backoff) = &self.backoff {
            self.schedule = backoff.waits(attempts);
            return;
        }
        let waits = usize::try_from(attempts.saturating_sub(1)).unwrap_or(0);
        let last = self.schedule.last().copied().unwrap_or_default();
        self.schedule.resize(waits, last);
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let seconds = [5, 60, 5 * 60, 30 * 60, 2 * 3600];
        Self {
            schedule: seconds.map(Duration::from_secs).to_vec(),
            backoff: None,
            jitter: 0.1,
            give_up_on: Vec::new(),
            retry_after_max: Duration::from_secs(24 * 3600),
            wait_on: Vec::new(),
            max_age: None,
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
    /// It would be older than `retry.max_age` at the next attempt.
    TooOld,
    /// The body could not be rendered.
    NotRendered(String),
    /// The row or its body is over the limit.
    TooLarge(String),
    /// It was a test, which is tried once and whatever is answered says nothing of the webhook.
    Test,
    /// It was a test, and could not be sent while anybody waited for it.
    TestTooLate,
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
            Self::TooOld => "it is older than retry.max_age allows".to_owned(),
            Self::NotRendered(why) | Self::TooLarge(why) => why.clone(),
            Self::Test => "it was a test, which is tried once".to_owned(),
            Self::TestTooLate => {
                "it was a test, and could not be sent while anybody waited for it".to_owned()
            }
        }
    }
}

/// Judges the one attempt of a test.
pub fn judge_test(outcome: &Outcome) -> Verdict {
    if outcome.is_success() { Verdict::Delivered } else { Verdict::Failed(FailReason::Test) }
}

/// Judges attempt `number` (from 1) by how it ended, when the delivery was of this `age`. `dice` is uniform in `0.0..1.0`.
pub fn judge(outcome: &Outcome, number: u32, policy: &RetryPolicy, age: Duration, dice: f64) -> Verdict {
    let (mut asked, mut own) = (Duration::ZERO, None);
    if let Outcome::Responded { status, retry_after, .. } = outcome {
        match *status {
            200..300 => return Verdict::Delivered,
            410 => return Verdict::Failed(FailReason::Gone),
            status if policy.give_up_on.contains(&status) => {
                return Verdict::Failed(FailReason::GaveUpOn(status));
            }
            status => {
                asked = retry_after.unwrap_or_default().min(policy.retry_after_max);
                own = policy.wait_on.iter().find(|(on, _)| *on == status).map(|(_, wait)| *wait);
            }
        }
    }
    let index = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(wait) = policy.schedule.get(index) else {
        return Verdict::Failed(FailReason::AttemptsExhausted);
    };
    let factor = 1.0 + policy.jitter * (2.0 * dice.clamp(0.0, 1.0) - 1.0);
    let wait = own.unwrap_or(*wait).mul_f64(factor.max(0.0)).max(asked);
    match policy.max_age {
        Some(most) if age.saturating_add(wait) > most => Verdict::Failed(FailReason::TooOld),
        _ => Verdict::Retry(wait),
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
        let retries = (1..100).take_while(|n| {
            matches!(judge(&responded(500, None), *n, &policy, Duration::ZERO, 0.5), Verdict::Retry(_))
        });
        assert_eq!(retries.count() + 1, 6);
    }

    #[test]
    fn a_410_ends_the_delivery_and_a_give_up_status_too() {
        let policy = RetryPolicy { give_up_on: vec![400], ..RetryPolicy::default() };
        assert_eq!(
            judge(&responded(410, None), 1, &policy, Duration::ZERO, 0.5),
            Verdict::Failed(FailReason::Gone)
        );
        assert_eq!(
            judge(&responded(400, None), 1, &policy, Duration::ZERO, 0.5),
            Verdict::Failed(FailReason::GaveUpOn(400))
        );
        assert!(matches!(judge(&responded(401, None), 1, &policy, Duration::ZERO, 0.5), Verdict::Retry(_)));
        assert!(matches!(judge(&responded(302, None), 1, &policy, Duration::ZERO, 0.5), Verdict::Retry(_)));
    }

    #[test]
    fn a_schedule_by_its_name_has_the_tries_that_it_is_known_for() {
        let named =
            |name| SCHEDULES.iter().find(|(known, _)| *known == name).map(|(_, waits)| *waits).unwrap();
        assert_eq!(named("standard-webhooks").len() + 1, 10);
        assert_eq!(named("standard-webhooks").iter().sum::<u64>() / 3600, 75);
        assert_eq!(named("2m-4m-8m"), [120, 240, 480]);
        assert_eq!(named("1m-5m-30m-2h"), [60, 300, 1800, 7200]);
    }

    #[test]
    fn backoff_grows_up_to_its_longest_wait() {
        let seconds = Duration::from_secs;
        let backoff = Backoff { initial: seconds(1), factor: 3.0, max: seconds(20) };
        assert_eq!(backoff.waits(6), [1, 3, 9, 20, 20].map(seconds));
        assert!(backoff.waits(1).is_empty());
        let mut policy = RetryPolicy { schedule: vec![seconds(1), seconds(2)], ..RetryPolicy::default() };
        policy.limit_attempts(5);
        assert_eq!(policy.schedule, [1, 2, 2, 2].map(seconds));
        policy.limit_attempts(1);
        assert!(policy.schedule.is_empty());
        policy.backoff = Some(backoff);
        policy.limit_attempts(5);
        assert_eq!(policy.schedule, [1, 3, 9, 20].map(seconds), "it grows beyond what was there");
    }

    #[test]
    fn a_status_may_have_its_own_wait_and_a_delivery_an_age() {
        let policy = RetryPolicy {
            wait_on: vec![(429, Duration::from_secs(40))],
            max_age: Some(Duration::from_secs(100)),
            ..RetryPolicy::default()
        };
        let at = |status, age| judge(&responded(status, None), 1, &policy, Duration::from_secs(age), 0.5);
        assert_eq!(at(429, 0), Verdict::Retry(Duration::from_secs(40)));
        assert_eq!(at(503, 0), Verdict::Retry(Duration::from_secs(5)));
        assert_eq!(at(503, 95), Verdict::Retry(Duration::from_secs(5)));
        assert_eq!(at(503, 96), Verdict::Failed(FailReason::TooOld));
        assert_eq!(at(200, 1000), Verdict::Delivered);
    }

    proptest! {
        #[test]
        fn only_2xx_delivers(status in 100_u16..600, number in 1_u32..9, dice in 0.0..1.0) {
            let verdict = judge(&responded(status, None), number, &RetryPolicy::default(), Duration::ZERO, dice);
            prop_assert_eq!(verdict == Verdict::Delivered, (200..300).contains(&status));
        }

        #[test]
        fn waits_stay_within_jitter_and_retry_after_only_lengthens(
            number in 1_u32..6, dice in 0.0..1.0, after in proptest::option::of(any::<u64>()), jitter in 0.0..1.0,
        ) {
            let policy = RetryPolicy { jitter, ..RetryPolicy::default() };
            let base = policy.schedule[number as usize - 1];
            let Verdict::Retry(wait) = judge(&responded(503, after), number, &policy, Duration::ZERO, dice) else {
                return Err(TestCaseError::fail("a retry was due"));
            };
            let asked = Duration::from_secs(after.unwrap_or(0)).min(policy.retry_after_max);
            prop_assert!(wait >= asked);
            prop_assert!(wait >= base.mul_f64(1.0 - jitter - 1e-9));
            prop_assert!(wait <= base.mul_f64(1.0 + jitter + 1e-9).max(asked));
        }

        #[test]
        fn whatever_is_set_a_status_ends_waits_or_is_too_late_as_the_policy_says(
            status in 300_u16..600, number in 1_u32..9, dice in 0.0..1.0, after in proptest::option::of(any::<u64>()),
            age in 0_u64..10_000, give_up_on in proptest::collection::vec(300_u16..600, 0..40),
            wait_on in proptest::collection::vec((300_u16..600, 0_u64..5000), 0..40),
            max_age in proptest::option::of(1_u64..10_000),
        ) {
            let seconds = Duration::from_secs;
            let wait_on: Vec<_> = wait_on.into_iter().map(|(status, wait)| (status, seconds(wait))).collect();
            let policy =
                RetryPolicy { give_up_on, wait_on, max_age: max_age.map(seconds), jitter: 0.0, ..RetryPolicy::default() };
            let verdict = judge(&responded(status, after), number, &policy, seconds(age), dice);
            let asked = seconds(after.unwrap_or(0)).min(policy.retry_after_max);
            let own = policy.wait_on.iter().find(|(on, _)| *on == status).map(|(_, wait)| *wait);
            let expected = match policy.schedule.get(number as usize - 1) {
                _ if status == 410 => Verdict::Failed(FailReason::Gone),
                _ if policy.give_up_on.contains(&status) => Verdict::Failed(FailReason::GaveUpOn(status)),
                None => Verdict::Failed(FailReason::AttemptsExhausted),
                Some(wait) => {
                    let wait = own.unwrap_or(*wait).max(asked);
                    let too_old = policy.max_age.is_some_and(|most| seconds(age) + wait > most);
                    if too_old { Verdict::Failed(FailReason::TooOld) } else { Verdict::Retry(wait) }
                }
            };
            prop_assert_eq!(verdict, expected);
        }
    }
}
