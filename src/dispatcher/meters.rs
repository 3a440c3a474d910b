//! The dispatcher's metrics that every attempt touches, looked up by name once.

use std::fmt;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use crate::domain::{Outcome, Verdict};

/// Handles of metrics. Made after the recorder, which the process installs first of all.
pub(super) struct Meters {
    duration: Histogram,
    outcomes: [(&'static str, Counter); 4],
    delivered: Counter,
    failed: Counter,
    age: Histogram,
    in_flight: Gauge,
}

impl Default for Meters {
    fn default() -> Self {
        let of = |kind: &'static str| (kind, metrics::counter!("walhook_attempts_total", "outcome" => kind));
        Self {
            duration: metrics::histogram!("walhook_attempt_duration_seconds"),
            outcomes: Outcome::KINDS.map(of),
            delivered: metrics::counter!("walhook_deliveries_delivered_total"),
            failed: metrics::counter!("walhook_deliveries_failed_total"),
            age: metrics::histogram!("walhook_delivery_age_seconds"),
            in_flight: metrics::gauge!("walhook_deliveries_in_flight"),
        }
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Meters {
    /// An attempt has ended.
    pub fn attempt(&self, outcome: &Outcome, took: Duration) {
        self.duration.record(took.as_secs_f64());
        if let Some((_, counter)) = self.outcomes.iter().find(|(kind, _)| *kind == outcome.kind()) {
            counter.increment(1);
        }
    }

    /// What it led to; `age` counts from the commit.
    pub fn verdict(&self, verdict: &Verdict, age: Duration) {
        match verdict {
            Verdict::Delivered => {
                self.delivered.increment(1);
                self.age.record(age.as_secs_f64());
            }
            Verdict::Retry(_) => {}
            Verdict::Failed(_) => self.failed.increment(1),
        }
    }

    /// How many attempts are under way.
    pub fn in_flight(&self, count: usize) {
        self.in_flight.set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }
}
