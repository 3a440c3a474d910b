//! The circuit breaker of one webhook, as a pure state machine.
//!
//! ```text
//!            too many fail                     a probe is taken
//!   closed ────────────────▶ open ◀─── wait ──▶ probing ─────────▶ ramp ──▶ closed
//!                             ▲ ▲                  │ fails          │ too many fail
//!                             │ └── longer wait ───┘                │
//!                             └────────────── longer wait ──────────┘
//! ```
//!
//! *Open*: nothing leaves but one probe at a time, each after twice the wait of the one before. *Ramp*: a probe was
//! taken; so many may be in flight as were taken since, and one, so that a backlog does not fall on a receiver that has
//! just stood up. A breaker that opens again soon after it has closed goes on with the longer wait.
//!
//! What an attempt says of the receiver is [`said`]; one that speaks of the request alone says nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{BreakerPolicy, Outcome, RefusedBy};

/// Statuses by which a receiver that is well refuses a single request.
const OF_THE_REQUEST: [u16; 8] = [400, 406, 409, 413, 414, 415, 422, 431];
/// By which share a wait is lengthened or shortened at most.
const JITTER: f64 = 0.1;

/// What an attempt says of the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dispatcher) enum Said {
    /// It takes deliveries.
    Well,
    /// It does not.
    Ill,
    /// It answers, and does not want this one.
    Picky,
    /// Nothing.
    Nothing,
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dispatcher) enum News {
    /// From here on nothing leaves but probes.
    Opened,
    /// A probe has failed; the wait is longer.
    StaysOpen,
    /// Deliveries leave again.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Closed { since: Option<Instant> },
    Open { until: Instant, probing: bool },
    Ramp { taken: u32, failed: u32 },
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Tally {
    all: u32,
    failed: u32,
}

/// The breaker of a webhook.
#[derive(Debug)]
pub(in crate::dispatcher) struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// When the next probe was to go, where somebody asked for it sooner.
    hurried: Option<Instant>,
    /// Whether somebody has asked for one while another was under way.
    asked_again: bool,
    /// The wait of the last probe, before jitter; zero where there was none.
    wait: Duration,
    /// The attempts of this half of the window, since when, and those of the half before.
    now: Tally,
    before: Tally,
    turned: Instant,
}

/// What an outcome says of the receiver.
pub(in crate::dispatcher) fn said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::Responded { status: 200..300, .. } => Said::Well,
        Outcome::Responded { status, .. } if OF_THE_REQUEST.contains(status) => Said::Picky,
        Outcome::Refused { by: RefusedBy::Request, .. } => Said::Nothing,
        _ => Said::Ill,
    }
}

impl Breaker {
    /// A closed one.
    pub fn new(policy: BreakerPolicy, at: Instant) -> Self {
        let (now, before) = (Tally::default(), Tally::default());
        let (state, hurried) = (State::Closed { since: None }, None);
        let asked_again = false;
        Self { policy, state, hurried, asked_again, wait: Duration::ZERO, now, before, turned: at }
    }

    /// An open one, as an earlier process left it: a probe may go at once.
    pub fn open(policy: BreakerPolicy, wait: Duration, at: Instant) -> Self {
        let state = State::Open { until: at, probing: false };
        Self { state, wait: wait.min(policy.probe_max), ..Self::new(policy, at) }
    }

    /// One that has just closed: what waits leaves by and by.
    pub fn ramping(policy: BreakerPolicy, at: Instant) -> Self {
        Self { state: State::Ramp { taken: 1, failed: 0 }, ..Self::new(policy, at) }
    }

    /// With other settings from here on.
    pub fn set_policy(&mut self, policy: BreakerPolicy) {
        self.policy = policy;
    }

    #[cfg(test)]
    fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// The wait before the next probe, or of the one under way; before jitter.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// While open: when a probe may go; `None` while one is under way.
    pub fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, probing: false } => Some(until),
            _ => None,
        }
    }

    /// Somebody asks for it: the next probe may go at once.
    pub fn hurry(&mut self, at: Instant) {
        if let State::Open { until, probing: false } = &mut self.state
            && at < *until
        {
            self.hurried.get_or_insert(*until);
            *until = at;
        }
        // The one under way began before what is asked for now.
        self.asked_again |= matches!(self.state, State::Open { probing: true, .. });
    }

    /// How many may be in flight; while open, how many probes may begin.
    pub fn allows(&self, at: Instant) -> usize {
        match self.state {
            State::Closed { .. } => usize::MAX,
            State::Ramp { taken, .. } => usize::try_from(taken).unwrap_or(usize::MAX).saturating_add(1),
            State::Open { until, probing } => usize::from(!probing && at >= until),
        }
    }

    /// An attempt begins. Answers whether it is a probe.
    pub fn begin(&mut self) -> bool {
        match &mut self.state {
            State::Open { probing, .. } => {
                *probing = true;
                true
            }
            _ => false,
        }
    }

    /// A probe's attempt says nothing: another may go when it was to go anyhow.
    fn forget_probe(&mut self, at: Instant) {
        if let State::Open { until, probing: true } = self.state {
            let until = self.hurried.take().unwrap_or(until);
            self.state = State::Open { until, probing: false };
            if std::mem::take(&mut self.asked_again) {
                self.hurry(at);
            }
        }
    }

    /// An attempt has ended. `full` is the concurrency that ends a ramp, `asked` the receiver's `Retry-After`, `dice`
    /// uniform in `0.0..1.0`.
    pub fn end(
        &mut self,
        said: Said,
        was_probe: bool,
        (full, asked): (usize, Duration),
        at: Instant,
        dice: f64,
    ) -> Option<News> {
        match self.state {
            State::Open { .. } if !was_probe => None,
            State::Open { .. } => match said {
                Said::Well | Said::Picky => {
                    self.asked_again = false;
                    self.state = State::Ramp { taken: 1, failed: 0 };
                    Some(News::Closed)
                }
                Said::Ill => {
                    self.open_again(asked, at, dice);
                    Some(News::StaysOpen)
                }
                Said::Nothing => {
                    self.forget_probe(at);
                    None
                }
            },
            State::Ramp { taken, failed } => match said {
                Said::Well => {
                    let taken = taken.saturating_add(1);
                    self.state = if usize::try_from(taken).unwrap_or(usize::MAX) >= full {
                        (self.now, self.before, self.turned) = (Tally::default(), Tally::default(), at);
                        State::Closed { since: Some(at) }
                    } else {
                        State::Ramp { taken, failed }
                    };
                    None
                }
                Said::Ill => {
                    let failed = failed.saturating_add(1);
                    self.state = State::Ramp { taken, failed };
                    let rate = f64::from(failed) / f64::from(taken.saturating_add(failed));
                    (rate >= self.policy.failure_rate).then(|| {
                        self.open_again(asked, at, dice);
                        News::Opened
                    })
                }
                Said::Picky | Said::Nothing => None,
            },
            State::Closed { since } => {
                let tally = self.count(said, at)?;
                let rate = f64::from(tally.failed) / f64::from(tally.all);
                if tally.all < self.policy.min_attempts || rate < self.policy.failure_rate {
                    return None;
                }
                if since.is_none_or(|since| at.saturating_duration_since(since) >= self.policy.window) {
                    self.wait = Duration::ZERO;
                }
                self.open_again(asked, at, dice);
                Some(News::Opened)
            }
        }
    }

    /// Counts an attempt; answers the window's tally where it failed.
    fn count(&mut self, said: Said, at: Instant) -> Option<Tally> {
        if matches!(said, Said::Picky | Said::Nothing) {
            return None;
        }
        let (passed, half) = (at.saturating_duration_since(self.turned), self.policy.window / 2);
        if passed >= half {
            self.before = if passed < half * 2 { self.now } else { Tally::default() };
            (self.now, self.turned) = (Tally::default(), at);
        }
        self.now.all += 1;
        self.now.failed += u32::from(said == Said::Ill);
        let Tally { all, failed } = self.before;
        (said == Said::Ill).then(|| Tally { all: all + self.now.all, failed: failed + self.now.failed })
    }

    fn open_again(&mut self, asked: Duration, at: Instant, dice: f64) {
        self.wait = (self.wait * 2).clamp(self.policy.probe_after, self.policy.probe_max);
        let factor = 1.0 + JITTER * (2.0 * dice.clamp(0.0, 1.0) - 1.0);
        let wait = self.wait.mul_f64(factor);
        let until = at.checked_add(wait.max(asked)).unwrap_or(at + wait);
        (self.state, self.hurried) = (State::Open { until, probing: false }, None);
        if std::mem::take(&mut self.asked_again) {
            self.hurry(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: usize = 8;

    fn policy() -> BreakerPolicy {
        BreakerPolicy { failure_rate: 0.5, min_attempts: 10, ..BreakerPolicy::default() }
    }

    fn end(breaker: &mut Breaker, said: Said, was_probe: bool, at: Instant) -> Option<News> {
        breaker.end(said, was_probe, (FULL, Duration::ZERO), at, 0.5)
    }

    #[test]
    fn it_opens_on_failures_probes_ever_more_rarely_and_closes_step_by_step() {
        let start = Instant::now();
        let mut breaker = Breaker::new(policy(), start);
        for _ in 0..9 {
            assert_eq!(end(&mut breaker, Said::Ill, false, start), None);
        }
        assert_eq!(end(&mut breaker, Said::Ill, false, start), Some(News::Opened));
        let mut at = start;
        for wait in [5, 10, 20, 40, 80, 160, 300, 300] {
            assert_eq!((breaker.allows(at), breaker.wait()), (0, Duration::from_secs(wait)));
            at += Duration::from_secs(wait);
            assert_eq!(breaker.allows(at), 1);
            assert!(breaker.begin());
            assert_eq!(breaker.allows(at + Duration::from_secs(3600)), 0, "two probes at once");
            assert_eq!(end(&mut breaker, Said::Ill, true, at), Some(News::StaysOpen));
        }
        at += Duration::from_secs(300);
        assert!(breaker.begin());
        assert_eq!(end(&mut breaker, Said::Well, true, at), Some(News::Closed));
        for allowed in 2..=FULL {
            assert_eq!(breaker.allows(at), allowed);
            assert_eq!(end(&mut breaker, Said::Well, false, at), None);
        }
        assert_eq!(breaker.allows(at), usize::MAX);
        for _ in 0..10 {
            end(&mut breaker, Said::Ill, false, at);
        }
        assert_eq!(breaker.wait(), Duration::from_secs(300), "so soon after, it waits as long as before");
    }

    #[test]
    fn statuses_that_ask_for_less_speak_of_the_receiver_and_a_refused_request_of_itself() {
        let of = |status| said(&Outcome::Responded { status, retry_after: None, body: bytes::Bytes::new() });
        for status in [429, 502, 503, 504, 500, 401, 404, 301] {
            assert_eq!(of(status), Said::Ill, "{status}");
        }
        for status in OF_THE_REQUEST {
            assert_eq!(of(status), Said::Picky, "{status}");
        }
        assert_eq!((of(200), of(299)), (Said::Well, Said::Well));
    }

    #[test]
    fn what_speaks_of_the_request_alone_opens_nothing_and_a_probe_that_is_answered_closes() {
        let at = Instant::now();
        let mut breaker = Breaker::new(policy(), at);
        for _ in 0..1000 {
            assert_eq!(end(&mut breaker, Said::Picky, false, at), None);
        }
        assert_eq!(breaker.allows(at), usize::MAX);
        let mut breaker = Breaker::open(policy(), Duration::from_secs(5), at);
        assert!(breaker.begin());
        assert_eq!(end(&mut breaker, Said::Nothing, true, at), None);
        assert_eq!(breaker.allows(at), 1, "a test says nothing: the next probe may go");
        assert!(breaker.begin());
        assert_eq!(end(&mut breaker, Said::Picky, true, at), Some(News::Closed));
    }

    #[test]
    fn who_asks_while_a_probe_is_under_way_has_another_when_that_has_failed() {
        let at = Instant::now();
        let mut breaker = Breaker::open(policy(), Duration::from_secs(5), at);
        assert!(breaker.begin());
        breaker.hurry(at);
        assert_eq!(breaker.allows(at), 0, "two probes at once");
        assert_eq!(end(&mut breaker, Said::Ill, true, at), Some(News::StaysOpen));
        assert_eq!(breaker.allows(at), 1);
        assert!(breaker.begin());
        assert_eq!(end(&mut breaker, Said::Ill, true, at), Some(News::StaysOpen));
        assert_eq!(breaker.allows(at), 0, "it was asked for once");
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Begin,
        End(usize, Said),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let said = prop_oneof![3 => Just(Said::Well), 6 => Just(Said::Ill), 1 => Just(Said::Picky), 1 => Just(Said::Nothing)];
        prop_oneof![
            5 => Just(Step::Begin),
            5 => (0_usize..8, said).prop_map(|(index, said)| Step::End(index, said)),
            2 => (1_u64..400_000).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn while_open_one_probe_goes_at_a_time_and_after_it_no_more_than_were_taken(
            steps in proptest::collection::vec(step(), 1..400), dice in 0.0..1.0,
            asked in prop_oneof![4 => Just(Duration::ZERO), 1 => (0..400_000_u64).prop_map(Duration::from_millis), 1 => Just(Duration::MAX)],
        ) {
            let policy = BreakerPolicy { min_attempts: 4, ..policy() };
            let (mut at, mut breaker) = (Instant::now(), Breaker::new(policy, Instant::now()));
            let (mut flights, mut taken, mut opened_at) = (Vec::<bool>::new(), None::<usize>, at);
            for step in steps {
                match step {
                    Step::Pass(ms) => at += Duration::from_millis(ms),
                    Step::Begin => {
                        let own = if breaker.is_open() { 0 } else { flights.len() };
                        if own >= breaker.allows(at).min(FULL) { continue }
                        if breaker.is_open() {
                            prop_assert!(at >= opened_at + policy.probe_after.mul_f64(0.9), "too soon");
                        } else if let Some(taken) = taken {
                            prop_assert!(own < taken + 1, "a stampede");
                        }
                        let probe = breaker.begin();
                        flights.push(probe);
                        prop_assert!(flights.iter().filter(|probe| **probe).count() <= 1, "two probes");
                    }
                    Step::End(index, said) => {
                        if flights.is_empty() { continue }
                        let probe = flights.swap_remove(index % flights.len());
                        if said == Said::Well && let Some(taken) = &mut taken { *taken += 1 }
                        match breaker.end(said, probe, (FULL, asked), at, dice) {
                            Some(News::Closed) => taken = Some(1),
                            Some(News::Opened | News::StaysOpen) => (opened_at, taken) = (at, None),
                            None => {}
                        }
                        if breaker.is_open() {
                            prop_assert!((policy.probe_after..=policy.probe_max).contains(&breaker.wait()));
                        }
                    }
                }
            }
            // Whatever came before: a receiver that is well again gets everything, and soon.
            for _ in 0..2 * FULL {
                at += policy.probe_max * 4;
                if let Some(probe) = flights.pop() {
                    breaker.end(Said::Well, probe, (FULL, Duration::ZERO), at, dice);
                }
                prop_assert!(breaker.allows(at) > 0 || flights.iter().any(|probe| *probe));
                if breaker.allows(at) > flights.len() {
                    let probe = breaker.begin();
                    breaker.end(Said::Well, probe, (FULL, Duration::ZERO), at, dice);
                }
            }
            prop_assert_eq!(breaker.allows(at), usize::MAX);
        }

        #[test]
        fn fewer_failures_than_the_rate_never_open_it(
            goods in proptest::collection::vec(2_u32..6, 1..200), ms in 0_u64..2000,
        ) {
            let (mut at, mut breaker) = (Instant::now(), Breaker::new(policy(), Instant::now()));
            for good in goods {
                for said in std::iter::repeat_n(Said::Well, good as usize).chain([Said::Ill]) {
                    at += Duration::from_millis(ms);
                    prop_assert_eq!(end(&mut breaker, said, false, at), None);
                }
            }
        }
    }
}
