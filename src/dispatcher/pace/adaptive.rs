//! `concurrency = "auto"`: additive increase, multiplicative decrease, led by the receiver's latency.
//!
//! Answers are looked at in windows of fifty, or of as many as may be in flight where that is more: what a single one takes
//! says little of a receiver whose answers take five milliseconds or fifty. A window's latency is the geometric mean of its
//! answers', which a straggler among them hardly bends. A window that takes no longer than twice this receiver's best one
//! lets the limit grow, by one for as many answers as may be in flight, and by as much again as long as no window has been
//! slow yet; a longer one lets it shrink, by how much longer it took. An attempt that fails halves it. What was under way
//! when it shrank says nothing of the new limit, so one stumble counts once. What the receiver refuses because of the
//! request, and what never was a request, counts for nothing.
//!
//! Receivers change: now and then a window at a quarter of the limit finds out anew what the best is, and then the limit is
//! what it was. And who is slow with one request at a time is slow by nature, so that is its best.

use std::time::Duration;

/// Where it begins.
const FIRST: f64 = 4.0;
/// The least answers of a window.
const WINDOW: f64 = 50.0;
/// How many times the best latency is still good.
const TOLERANCE: f64 = 2.0;
/// Latencies below this are all good: there is nothing to gain.
const FLOOR: f64 = 0.005;
/// What is left of the limit after a slow window, at least and at most; and after a failed attempt.
const SLOW: (f64, f64) = (0.5, 0.9);
const FAILED: f64 = 0.5;
/// After so many answers the best latency is measured anew, with so much of the limit. Less
/// than one in [`TOLERANCE`], so that what too many have slowed down is not taken for the best.
const MEASURE_EVERY: u32 = 2000;
const MEASURE: f64 = 0.25;

/// The limit of one webhook.
#[derive(Debug)]
pub(in crate::dispatcher) struct Adaptive {
    limit: f64,
    cap: f64,
    window: Window,
    /// The best window's latency, in seconds.
    best: Option<f64>,
    /// Answers since that was measured anew.
    measured: u32,
    /// While it is measured: the limit from before.
    before: Option<f64>,
    /// Attempts of before the limit shrank, which have yet to end.
    settling: f64,
    /// Whether something was ever slow or failed.
    met_a_bound: bool,
}

/// Answers that are looked at together.
#[derive(Debug, Default)]
struct Window {
    count: f64,
    /// Those that came when at least half of the limit was in use: unused room says nothing of what more would do.
    used: f64,
    /// The sum of the latencies' logarithms.
    logarithms: f64,
}

impl Adaptive {
    /// One that never goes above `cap`.
    pub fn new(cap: u32) -> Self {
        let cap = f64::from(cap.max(1));
        Self {
            limit: FIRST.min(cap),
            cap,
            window: Window::default(),
            best: None,
            measured: 0,
            before: None,
            settling: 0.0,
            met_a_bound: false,
        }
    }

    /// How many may be in flight; at least one.
    pub fn limit(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and a cap of 1000"
        )]
        let limit = self.limit as usize;
        limit.max(1)
    }

    /// The receiver has taken a delivery within this time; `in_flight` were, with it.
    pub fn answered(&mut self, took: Duration, in_flight: usize) {
        self.measured = self.measured.saturating_add(1);
        if self.settling >= 1.0 {
            self.settling -= 1.0;
            return;
        }
        self.window.count += 1.0;
        self.window.used += f64::from(u8::from(in_flight.saturating_mul(2) >= self.limit()));
        self.window.logarithms += took.as_secs_f64().max(FLOOR).ln();
        if self.window.count >= self.limit.max(WINDOW) {
            let Window { count, used, logarithms } = std::mem::take(&mut self.window);
            self.judge((logarithms / count).exp(), used, used * 2.0 >= count);
        }
    }

    /// It has not taken one.
    pub fn failed(&mut self) {
        (self.before, self.met_a_bound) = (None, true);
        if self.settling >= 1.0 {
            self.settling -= 1.0;
        } else {
            self.shrink(FAILED);
        }
    }

    fn judge(&mut self, latency: f64, used: f64, is_used: bool) {
        if let Some(before) = self.before.take() {
            (self.best, self.limit) = (Some(latency), before);
            return;
        }
        let known = if self.limit < 2.0 { latency } else { self.best.unwrap_or(latency) };
        let best = known.min(latency);
        self.best = Some(best);
        if latency > best * TOLERANCE {
            let (least, most) = SLOW;
            self.met_a_bound = true;
            self.shrink((best * TOLERANCE / latency).clamp(least, most));
        } else if self.met_a_bound {
            self.limit = (self.limit * self.limit + 2.0 * used).sqrt().min(self.cap);
        } else if is_used {
            self.limit = (self.limit * 2.0).min(self.cap);
        }
        if self.measured >= MEASURE_EVERY {
            (self.measured, self.before) = (0, Some(self.limit));
            self.shrink(MEASURE);
        }
    }

    fn shrink(&mut self, to: f64) {
        self.settling = self.limit;
        self.limit = (self.limit * to).max(1.0);
        self.window = Window::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A receiver that works on `workers` at once for `ms` each: with more, everybody waits.
    fn latency(workers: usize, in_flight: usize, ms: u64) -> Duration {
        Duration::from_micros(ms * 1000 * in_flight.max(workers) as u64 / workers as u64)
    }

    fn settle(limit: &mut Adaptive, workers: usize, ms: u64, attempts: usize) -> usize {
        for _ in 0..attempts {
            let in_flight = limit.limit();
            limit.answered(latency(workers, in_flight, ms), in_flight);
        }
        limit.limit()
    }

    #[test]
    fn it_finds_what_the_receiver_can_do_and_follows_it_down_and_up() {
        let mut limit = Adaptive::new(128);
        let wide = settle(&mut limit, 30, 50, 5000);
        assert!((25..=75).contains(&wide), "30 at once, found {wide}");
        let narrow = settle(&mut limit, 5, 50, 2000);
        assert!((3..=20).contains(&narrow), "5 at once, found {narrow}");
        let again = settle(&mut limit, 30, 50, 5000);
        assert!(again >= 25, "30 at once anew, found {again}");
        // It has moved to the other end of the world.
        let far = settle(&mut limit, 30, 400, 5000);
        assert!(far >= 25, "30 at once, eight times as long each, found {far}");
    }

    /// However its latencies are spread, a receiver that minds no load is given all there is.
    #[test]
    fn a_receiver_whose_answers_take_now_long_now_short_keeps_its_width() {
        type Spread = fn(&mut fastrand::Rng) -> u64;
        let spreads: [(&str, Spread); 4] = [
            ("five to fifty", |dice| dice.u64(5..50)),
            ("one of two", |dice| if dice.bool() { 5 } else { 50 }),
            ("stragglers", |dice| if dice.u32(0..50) == 0 { 5000 } else { dice.u64(15..25) }),
            ("long tails", |dice| 5 + 1000 / dice.u64(1..1000)),
        ];
        for (what, spread) in spreads {
            let (mut dice, mut limit) = (fastrand::Rng::with_seed(11), Adaptive::new(128));
            let mut widths = Vec::new();
            for attempt in 0..40_000 {
                let in_flight = limit.limit();
                limit.answered(Duration::from_millis(spread(&mut dice)), in_flight);
                if attempt > 5000 {
                    widths.push(in_flight);
                }
            }
            let mean = widths.iter().sum::<usize>() / widths.len();
            assert!(mean >= 90, "{what}: {mean} of 128 at once on average");
        }
    }

    proptest! {
        #[test]
        fn it_never_leaves_one_to_cap_and_a_receiver_that_fails_gets_one(
            ends in proptest::collection::vec((0_u64..5000, any::<bool>()), 0..500), cap in 1_u32..200,
        ) {
            let mut limit = Adaptive::new(cap);
            for (ms, well) in ends {
                let in_flight = limit.limit();
                if well { limit.answered(Duration::from_millis(ms), in_flight) } else { limit.failed() }
                prop_assert!((1..=cap as usize).contains(&limit.limit()));
            }
            (0..2000).for_each(|_| limit.failed());
            prop_assert_eq!(limit.limit(), 1);
        }
    }
}
