//! `[ledger]`: what is kept of deliveries, where and for how long.

use std::time::Duration;

use secrecy::SecretString;

use super::database::connection;
use super::node::Table;
use crate::domain::{StoreBodies, limits};

const DAY: Duration = Duration::from_secs(24 * 3600);
const RETENTION_MIN: Duration = Duration::from_secs(60);
const RETENTION_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);

/// The memory of deliveries.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Its database's connection string; `None`: the database that is tailed.
    pub url: Option<SecretString>,
    /// How long a delivered one is remembered.
    pub retention: Duration,
    /// How long a failed or cancelled one is.
    pub failed_retention: Duration,
    /// How long it is remembered who did what.
    pub audit_retention: Duration,
    /// Whose bodies are kept after the end.
    pub store_bodies: StoreBodies,
    /// How many bytes of a response are kept.
    pub capture_response: usize,
}

pub(super) fn read(mut table: Table<'_>) -> Ledger {
    let retentions = RETENTION_MIN..=RETENTION_MAX;
    let bodies = [("all", StoreBodies::All), ("failed", StoreBodies::Failed), ("none", StoreBodies::None)];
    let ledger = Ledger {
        url: table.get("url", connection),
        retention: table.get("retention", |node| node.duration(retentions.clone())).unwrap_or(7 * DAY),
        failed_retention: table
            .get("failed_retention", |node| node.duration(retentions.clone()))
            .unwrap_or(30 * DAY),
        audit_retention: table.get("audit_retention", |node| node.duration(retentions)).unwrap_or(365 * DAY),
        store_bodies: table.get("store_bodies", |node| node.word(&bodies)).unwrap_or_default(),
        capture_response: table
            .get("capture_response", |node| node.size(0..=limits::CAPTURE_BYTES))
            .unwrap_or(4 * 1024),
    };
    table.finish();
    ledger
}
