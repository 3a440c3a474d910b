//! `concurrency = "auto"`: additive increase, multiplicative decrease, led by the receiver's latency.
//!
//! An attempt that takes no longer than twice what this receiver takes at its best lets the limit grow, by one for as
//! many as are in flight; a longer one, or one that fails, lets it shrink, at most once for as many as were in flight, so
//! that one stumble counts once. Receivers change: now and then a quarter of the limit finds out anew what the best is.

use std::time::Duration;

/// Where it begins.
const FIRST: f64 = 4.0;
/// How many times the best latency is still good.
const TOLERANCE: f64 = 2.0;
/// Latencies below this are all good: there is nothing to gain.
const FLOOR: f64 = 0.005;
/// What is left of the limit after a slow attempt, and after a failed one.
const SLOW: f64 = 0.9;
const FAILED: f64 = 0.5;
/// After so many attempts the best latency is measured anew, with so much of the limit. Less
/// than one in [`TOLERANCE`], so that what too many have slowed down is not taken for the best.
const MEASURE_EVERY: u32 = 1000;
const MEASURE: f64 = 0.25;

/// The limit of one webhook.
#[derive(Debug)]
pub(in crate::dispatcher) struct Adaptive {
    limit: f64,
    cap: f64,
    /// The best latency, in seconds.
    best: Option<f64>,
    /// Attempts since it was measured anew.
    measured: u32,
    /// Attempts that end before the limit may shrink again.
    patience: f64,
}

impl Adaptive {
    /// One that never goes above `cap`.
    pub fn new(cap: u32) -> Self {
        let cap = f64::from(cap.max(1));
        Self { limit: FIRST.min(cap), cap, best: None, measured: 0, patience: 0.0 }
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

    /// An attempt has ended; `in_flight` were, with it.
    pub fn end(&mut self, took: Duration, well: bool, in_flight: usize) {
        self.patience = (self.patience - 1.0).max(0.0);
        if !well {
            self.shrink(FAILED);
            return;
        }
        let took = took.as_secs_f64().max(FLOOR);
        self.measured += 1;
        if self.measured >= MEASURE_EVERY {
            (self.measured, self.best, self.patience) = (0, None, 0.0);
            self.shrink(MEASURE);
            return;
        }
        let best = self.best.map_or(took, |best| best.min(took));
        self.best = Some(best);
        if took > best * TOLERANCE {
            self.shrink(SLOW);
        } else if in_flight.saturating_mul(2) >= self.limit() {
            // Unused room says nothing of what more would do.
            self.limit = (self.limit + 1.0 / self.limit).min(self.cap);
        }
    }

    fn shrink(&mut self, to: f64) {
        if self.patience < 1.0 {
            self.patience = self.limit;
            self.limit = (self.limit * to).max(1.0);
        }
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
            limit.end(latency(workers, in_flight, ms), true, in_flight);
        }
        limit.limit()
    }

    #[test]
    fn it_finds_what_the_receiver_can_do_and_follows_it_down_and_up() {
        let mut limit = Adaptive::new(128);
        let wide = settle(&mut limit, 30, 50, 5000);
        assert!((10..=75).contains(&wide), "30 at once, found {wide}");
        let narrow = settle(&mut limit, 5, 50, 2000);
        assert!((1..=20).contains(&narrow), "5 at once, found {narrow}");
        let again = settle(&mut limit, 30, 50, 5000);
        assert!(again >= 10, "30 at once anew, found {again}");
    }

    proptest! {
        #[test]
        fn it_never_leaves_one_to_cap_and_a_receiver_that_fails_gets_one(
            ends in proptest::collection::vec((0_u64..5000, any::<bool>()), 0..500), cap in 1_u32..200,
        ) {
            let mut limit = Adaptive::new(cap);
            for (ms, well) in ends {
                let in_flight = limit.limit();
                limit.end(Duration::from_millis(ms), well, in_flight);
                prop_assert!((1..=cap as usize).contains(&limit.limit()));
            }
            for _ in 0..2000 {
                let in_flight = limit.limit();
                limit.end(Duration::from_millis(10), false, in_flight);
            }
            prop_assert_eq!(limit.limit(), 1);
        }
    }
}
