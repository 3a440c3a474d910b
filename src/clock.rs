//! Time and dice, handed in.
//!
//! Everything that asks what time it is, or draws lots, asks a [`Clock`]: in the sidecar the system's, in tests one
//! that the test turns. Waiting goes by `tokio::time`, which a test can pause; this clock follows it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The source of wall time and of jitter. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    System,
    /// Wall time is `origin` plus what tokio's (pausable) time has moved since; dice come from a seed.
    Turned {
        origin: Timestamp,
        start: Instant,
        dice: Arc<Mutex<fastrand::Rng>>,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { kind: Kind::System }
    }

    /// A clock that stands at `origin` now and moves with tokio's time; its dice are a function of `seed`.
    pub fn turned(origin: Timestamp, seed: u64) -> Self {
        let dice = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        Self { kind: Kind::Turned { origin, start: Instant::now(), dice } }
    }

    /// The wall time.
    #[expect(clippy::disallowed_methods, reason = "the one home of the wall clock")]
    pub fn now(&self) -> Timestamp {
        match &self.kind {
            Kind::System => Timestamp::now(),
            Kind::Turned { origin, start, .. } => {
                origin.checked_add(start.elapsed()).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Seconds since 1970, as `webhook-timestamp` wants them.
    pub fn unix_seconds(&self) -> i64 {
        self.now().as_second()
    }

    /// A draw from `0.0..1.0`.
    pub fn dice(&self) -> f64 {
        match &self.kind {
            Kind::System => fastrand::f64(),
            Kind::Turned { dice, .. } => dice.lock().unwrap_or_else(PoisonError::into_inner).f64(),
        }
    }
}

/// How long ago `earlier` was at `now`; zero where it lies ahead.
pub fn since(now: Timestamp, earlier: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(earlier)).unwrap_or(Duration::ZERO)
}
