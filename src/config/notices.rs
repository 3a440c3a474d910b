//! `[notices]`: what webhooks that ask for it are told about walhook itself.

use std::time::Duration;

use super::node::Table;

const EVERY_MAX: Duration = Duration::from_secs(24 * 3600);
const SECOND: Duration = Duration::from_secs(1);
const LAG_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
const LAG_BYTES_MAX: usize = 1 << 40;

/// How often, and from when on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notices {
    /// The least time between two notices about one thing.
    pub every: Duration,
    /// The log lags when so old a part of it has not been delivered or put into the ledger.
    pub lag: Duration,
    /// Or so many bytes.
    pub lag_bytes: usize,
}

impl Default for Notices {
    fn default() -> Self {
        Self { every: Duration::from_secs(60), lag: Duration::from_secs(60), lag_bytes: 1 << 30 }
    }
}

pub(super) fn read(mut table: Table<'_>) -> Notices {
    let base = Notices::default();
    let every = table.get("every", |node| node.duration(SECOND..=EVERY_MAX));
    let lag = table.get("lag", |node| node.duration(SECOND..=LAG_MAX));
    let lag_bytes = table.get("lag_bytes", |node| node.size(1024 * 1024..=LAG_BYTES_MAX));
    table.finish();
    Notices {
        every: every.unwrap_or(base.every),
        lag: lag.unwrap_or(base.lag),
        lag_bytes: lag_bytes.unwrap_or(base.lag_bytes),
    }
}
