//! How fast one webhook may be sent to, and how it fares: its breaker, its rate, its concurrency, its health. Pure: it is
//! told how attempts ended, and answers what may go and what must be remembered.
//!
//! Test sends ([`Operation::Test`](crate::domain::Operation::Test)) count for nothing here, but they take their place
//! under the rate.

mod adaptive;
mod breaker;
mod bucket;

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use self::adaptive::Adaptive;
pub(super) use self::breaker::News;
use self::breaker::{Breaker, Said, said};
use self::bucket::Bucket;
use super::share::Class;
use crate::clock::since;
use crate::domain::{Attempt, Flow, Outcome, limits};
use crate::ledger::health::Health;

/// How much the latest attempt weighs in the moving average of what attempts take.
const WEIGHT: f64 = 0.3;
/// Failing for this long is remembered in the ledger, open breaker or not.
const NOTE_AFTER: Duration = Duration::from_secs(60);
/// The least failures in a row that disable a webhook, whatever the time between them.
const FAILURES: u64 = 10;

/// What is to be remembered of a webhook's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    Keep(Health),
    Forget,
}

/// What followed from an attempt.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub news: Option<News>,
    pub note: Option<Note>,
    /// It has failed for so long that it is not to be sent to any more.
    pub disable: Option<Duration>,
}

/// A row of failures without a success between.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    since: Timestamp,
    failures: u64,
    noted: bool,
}

/// What is set of a webhook's pace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub flow: Flow,
    /// How many may be in flight.
    pub concurrency: usize,
    /// The longest wait that a `Retry-After` may ask for.
    pub retry_after_max: Duration,
}

/// The pace of one webhook.
#[derive(Debug)]
pub(super) struct Pace {
    flow: Flow,
    concurrency: usize,
    retry_after_max: Duration,
    breaker: Option<Breaker>,
    bucket: Option<Bucket>,
    adaptive: Option<Adaptive>,
    run: Option<Run>,
    /// Since when the breaker is open.
    opened_at: Option<Timestamp>,
    /// What attempts take, in seconds: a moving average.
    took: f64,
}

impl Pace {
    /// That of a webhook of which `known` was remembered.
    pub fn new(terms: Terms, known: Option<&Health>, at: Instant) -> Self {
        let Terms { flow, concurrency, retry_after_max } = terms;
        let open = known.and_then(|known| known.open);
        let breaker = flow.breaker.map(|policy| match open {
            Some((_, wait)) => Breaker::open(policy, wait, at),
            None => Breaker::new(policy, at),
        });
        let run = |known: &Health| Run { since: known.failing_since, failures: known.failures, noted: true };
        let mut pace = Self {
            flow,
            concurrency,
            retry_after_max,
            opened_at: open.map(|(since, _)| since).filter(|_| breaker.is_some()),
            breaker,
            bucket: None,
            adaptive: None,
            run: known.map(run),
            took: 0.0,
        };
        pace.refit(at);
        pace
    }

    /// Other settings from here on; what is known stays, as far as it still means something. Answers whether a breaker that
    /// was open is no more.
    pub fn set(&mut self, terms: Terms, at: Instant) -> bool {
        let flow = terms.flow;
        (self.flow, self.concurrency, self.retry_after_max) =
            (flow, terms.concurrency, terms.retry_after_max);
        self.refit(at);
        match (&mut self.breaker, flow.breaker) {
            (Some(breaker), Some(policy)) => breaker.set_policy(policy),
            (there, policy) => {
                *there = policy.map(|policy| Breaker::new(policy, at));
                return self.opened_at.take().is_some();
            }
        }
        false
    }

    fn refit(&mut self, at: Instant) {
        let cap = u32::try_from(self.concurrency).unwrap_or(u32::MAX);
        if self.bucket.as_ref().map(Bucket::limit) != self.flow.rate_limit {
            self.bucket = self.flow.rate_limit.map(|limit| Bucket::new(limit, at));
        }
        if self.adaptive.is_some() != self.flow.adaptive {
            self.adaptive = self.flow.adaptive.then(|| Adaptive::new(cap));
        }
    }

    /// The webhook is sent to again after a time in which it was not: by and by, and with a clean slate.
    pub fn resume(&mut self, at: Instant) {
        self.breaker = self.flow.breaker.map(|policy| Breaker::ramping(policy, at));
        (self.run, self.opened_at) = (None, None);
    }

    pub fn is_open(&self) -> bool {
        self.opened_at.is_some()
    }

    /// While its breaker is open: when a probe may go; `None` while one is under way.
    pub fn probe_at(&self) -> Option<Instant> {
        self.breaker.as_ref().and_then(Breaker::probe_at)
    }

    /// Somebody has put work into the ledger by hand, or declared the webhook anew: a probe need not wait any longer.
    pub fn hurry(&mut self, at: Instant) {
        if let Some(breaker) = &mut self.breaker {
            breaker.hurry(at);
        }
    }

    /// How many may be in flight; while the breaker is open, how many probes may begin.
    pub fn allows(&self, at: Instant) -> usize {
        let adaptive = self.adaptive.as_ref().map_or(self.concurrency, Adaptive::limit);
        let breaker = self.breaker.as_ref().map_or(usize::MAX, |breaker| breaker.allows(at));
        self.concurrency.min(adaptive).min(breaker)
    }

    /// When the rate lets the next one go, where that is not now.
    pub fn wait(&self, at: Instant) -> Option<Instant> {
        self.bucket.as_ref().and_then(|bucket| bucket.wait(at))
    }

    /// How many the rate lets go within a time.
    pub fn within(&self, at: Instant, span: Duration) -> Option<usize> {
        self.bucket.as_ref().map(|bucket| bucket.within(at, span))
    }

    /// An attempt begins. Answers whether it is a probe.
    pub fn begin(&mut self, at: Instant) -> bool {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(at);
        }
        self.breaker.as_mut().is_some_and(Breaker::begin)
    }

    /// Where the receiver belongs by what its attempts take.
    pub fn class(&self) -> Class {
        if self.took > limits::SLOW.as_secs_f64() { Class::Slow } else { Class::Quick }
    }

    /// An attempt of a delivery has ended; `in_flight` were, with it.
    pub fn end(
        &mut self,
        attempt: &Attempt,
        (is_probe, is_test): (bool, bool),
        in_flight: usize,
        at: Instant,
        dice: impl FnOnce() -> f64,
    ) -> Heard {
        let mut heard = Heard::default();
        if is_test {
            if is_probe && let Some(breaker) = &mut self.breaker {
                breaker.end(Said::Nothing, true, (1, Duration::ZERO), at, 0.5);
            }
            return heard;
        }
        self.took += (attempt.took.as_secs_f64() - self.took) * WEIGHT;
        let said = said(&attempt.outcome);
        let well = attempt.outcome.is_success();
        if let Some(adaptive) = &mut self.adaptive {
            match said {
                Said::Well => adaptive.answered(attempt.took, in_flight),
                Said::Ill => adaptive.failed(),
                Said::Picky | Said::Nothing => {}
            }
        }
        let (full, asked) = (self.allows_full(), asked(&attempt.outcome).min(self.retry_after_max));
        if let Some(breaker) = &mut self.breaker {
            // Who cannot even be asked gives no answer to a probe.
            let said = if is_probe && said == Said::Nothing { Said::Ill } else { said };
            let dice = if said == Said::Ill { dice() } else { 0.5 };
            heard.news = breaker.end(said, is_probe, (full, asked), at, dice);
        }
        match heard.news {
            Some(News::Opened) => self.opened_at = Some(attempt.started_at),
            Some(News::Closed) => self.opened_at = None,
            Some(News::StaysOpen) | None => {}
        }
        if well {
            self.succeeded(&mut heard);
        } else {
            self.failed(attempt, &mut heard);
        }
        heard
    }

    fn allows_full(&self) -> usize {
        self.adaptive.as_ref().map_or(self.concurrency, Adaptive::limit).min(self.concurrency)
    }

    fn succeeded(&mut self, heard: &mut Heard) {
        if self.run.as_ref().is_some_and(|run| run.noted) && !self.is_open() {
            heard.note = Some(Note::Forget);
        }
        if !self.is_open() {
            self.run = None;
        }
    }

    fn failed(&mut self, attempt: &Attempt, heard: &mut Heard) {
        let started = attempt.started_at;
        let run = self.run.get_or_insert(Run { since: started, failures: 0, noted: false });
        run.failures += 1;
        let lasts = since(started, run.since);
        let turned = matches!(heard.news, Some(News::Opened | News::StaysOpen));
        let closed = heard.news == Some(News::Closed);
        if turned || closed || (!run.noted && lasts >= NOTE_AFTER) {
            run.noted = true;
            let wait = self.breaker.as_ref().map(Breaker::wait);
            heard.note = Some(Note::Keep(Health {
                failing_since: run.since,
                failures: run.failures,
                reason: attempt.outcome.describe(),
                open: self.opened_at.zip(wait),
            }));
        }
        if let Some(after) = self.flow.disable_after
            && lasts >= after
            && run.failures >= FAILURES
        {
            heard.disable = Some(after);
        }
    }
}

/// The wait that the receiver asked for.
fn asked(outcome: &Outcome) -> Duration {
    match outcome {
        Outcome::Responded { retry_after, .. } => retry_after.unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn attempt(status: u16, seconds: i64) -> Attempt {
        let outcome = Outcome::Responded { status, retry_after: None, body: Bytes::new() };
        let started_at = Timestamp::from_second(seconds).expect("a time");
        Attempt { number: 1, started_at, took: Duration::from_millis(5), outcome }
    }

    fn terms(flow: Flow) -> Terms {
        Terms { flow, concurrency: 16, retry_after_max: Duration::from_secs(3600) }
    }

    fn pace(flow: Flow) -> (Pace, Instant) {
        let at = Instant::now();
        (Pace::new(terms(flow), None, at), at)
    }

    /// Whatever a receiver asks for, a probe goes within the time that is set.
    #[test]
    fn a_breaker_waits_as_long_as_the_receiver_asks_for_up_to_what_is_set() {
        for (asks, waits) in [(0, 5), (600, 600), (u64::from(u32::MAX), 3600), (u64::MAX, 3600)] {
            let (mut pace, at) = pace(Flow::default());
            let retry_after = Some(Duration::from_secs(asks));
            let outcome = Outcome::Responded { status: 503, retry_after, body: Bytes::new() };
            for second in 0..20 {
                pace.end(
                    &Attempt { outcome: outcome.clone(), ..attempt(503, second) },
                    (false, false),
                    1,
                    at,
                    || 0.5,
                );
            }
            assert_eq!(pace.probe_at(), Some(at + Duration::from_secs(waits)), "{asks} s were asked for");
        }
    }

    #[test]
    fn nothing_but_failures_for_long_enough_disables_and_one_success_begins_anew() {
        let flow = Flow { disable_after: Some(Duration::from_secs(100)), breaker: None, ..Flow::default() };
        let (mut pace, at) = pace(flow);
        let mut end = |status, seconds| pace.end(&attempt(status, seconds), (false, false), 1, at, || 0.5);
        for second in 0..9 {
            assert_eq!(end(500, second * 20).disable, None, "so few say nothing");
        }
        assert_eq!(end(200, 180).note, Some(Note::Forget));
        for second in 200..300 {
            assert_eq!(end(500, second).disable, None);
        }
        assert!(end(500, 300).disable.is_some());
    }

    #[test]
    fn test_sends_count_for_nothing() {
        let flow = Flow { disable_after: Some(Duration::from_secs(1)), ..Flow::default() };
        let (mut pace, at) = pace(flow);
        for second in 0..100 {
            let heard = pace.end(&attempt(500, second), (false, true), 1, at, || 0.5);
            assert!(heard.news.is_none() && heard.note.is_none() && heard.disable.is_none());
        }
        for second in 0..30 {
            pace.end(&attempt(500, second), (false, false), 1, at, || 0.5);
        }
        assert!(pace.is_open());
        let at = at + Duration::from_secs(600);
        assert!(pace.begin(at));
        assert!(pace.end(&attempt(200, 600), (true, true), 1, at, || 0.5).news.is_none());
        assert!(pace.is_open(), "a test that is taken closes nothing");
        assert_eq!(pace.allows(at), 1, "the probe may still go");
    }

    #[test]
    fn a_test_behind_an_open_breaker_does_not_make_the_next_probe_go_sooner() {
        let at = Instant::now();
        let (mut pace, _) = pace(Flow::default());
        for second in 0..30 {
            pace.end(&attempt(500, second), (false, false), 1, at, || 0.5);
        }
        let until = pace.probe_at().expect("an open breaker");
        assert!(until > at);
        for _ in 0..3 {
            pace.hurry(at);
            assert_eq!(pace.probe_at(), Some(at), "the test may go");
            assert!(pace.begin(at));
            pace.end(&attempt(500, 31), (true, true), 1, at, || 0.5);
            assert_eq!((pace.probe_at(), pace.allows(at)), (Some(until), 0));
        }
        assert_eq!(pace.allows(until), 1);
    }

    #[test]
    fn what_was_remembered_is_gone_on_from() {
        let since = Timestamp::from_second(1000).expect("a time");
        let known = Health {
            failing_since: since,
            failures: 70,
            reason: "HTTP 500".to_owned(),
            open: Some((since, Duration::from_secs(40))),
        };
        let at = Instant::now();
        let mut pace = Pace::new(terms(Flow::default()), Some(&known), at);
        assert!(pace.is_open());
        assert_eq!(pace.probe_at(), Some(at));
        assert!(pace.begin(at));
        let heard = pace.end(&attempt(500, 5000), (true, false), 1, at, || 0.5);
        let open = Some((since, Duration::from_secs(80)));
        let kept = Health { failures: 71, open, ..known };
        assert_eq!((heard.news, heard.note), (Some(News::StaysOpen), Some(Note::Keep(kept))));
        let at = at + Duration::from_secs(90);
        assert!(pace.begin(at));
        let heard = pace.end(&attempt(200, 5100), (true, false), 1, at, || 0.5);
        assert_eq!((heard.news, heard.note), (Some(News::Closed), Some(Note::Forget)));
    }
}
