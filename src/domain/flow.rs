//! How much of what a webhook is owed may leave, and when it is left alone: what operators declare.

use std::time::Duration;

/// So many deliveries in each period, evenly (`rate_limit = "100/s"`). A tenth of them may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How many; at least one.
    pub count: u32,
    /// In how long: a second, a minute, an hour.
    pub per: Duration,
}

/// When a webhook counts as failing, and how it is tried meanwhile (`breaker = { … }`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerPolicy {
    /// The share of attempts in the window that must fail, above 0 to 1.
    pub failure_rate: f64,
    /// The least attempts in the window that say anything.
    pub min_attempts: u32,
    /// How far back attempts count.
    pub window: Duration,
    /// The wait before the first probe; each further one waits twice as long.
    pub probe_after: Duration,
    /// The longest wait between two probes.
    pub probe_max: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failure_rate: 0.9,
            min_attempts: 20,
            window: Duration::from_secs(60),
            probe_after: Duration::from_secs(5),
            probe_max: Duration::from_secs(300),
        }
    }
}

/// The flow to one webhook.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flow {
    /// Whether concurrency follows the receiver's latency, up to the number that is set.
    pub adaptive: bool,
    /// How many deliveries may leave in a time.
    pub rate_limit: Option<RateLimit>,
    /// When it counts as failing; `None`: never.
    pub breaker: Option<BreakerPolicy>,
    /// After how long of nothing but failures it is disabled; `None`: never.
    pub disable_after: Option<Duration>,
    /// How old a held delivery gets before it fails.
    pub held_for: Duration,
}

impl Default for Flow {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            adaptive: false,
            rate_limit: None,
            breaker: Some(BreakerPolicy::default()),
            disable_after: Some(DAY.saturating_mul(5)),
            held_for: DAY.saturating_mul(30),
        }
    }
}
