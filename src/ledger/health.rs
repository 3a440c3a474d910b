//! What is remembered of webhooks that fail: since when, and whether their breakers are open. Written by the running
//! instance when that changes, so that the next one goes on from there instead of finding out anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Client;

use super::row::{pg_time, time_of};
use super::{LedgerError, doing};

/// A webhook that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The first failure without a success behind it.
    pub failing_since: Timestamp,
    /// How many there were when it was written.
    pub failures: u64,
    /// The last one, in words.
    pub reason: String,
    /// Since when its breaker is open, and the wait between probes; `None`: it is closed.
    pub open: Option<(Timestamp, Duration)>,
}

const LOAD: &str = "
select webhook, failing_since, failures, reason, opened_at, probe_wait_ms from webhook_health";

const KEEP: &str = "
insert into webhook_health (webhook, failing_since, failures, reason, opened_at, probe_wait_ms)
values ($1, $2, $3, $4, $5, $6)
on conflict (webhook) do update set
    failing_since = excluded.failing_since, failures = excluded.failures, reason = excluded.reason,
    opened_at = excluded.opened_at, probe_wait_ms = excluded.probe_wait_ms, noted_at = now()";

const FORGET: &str = "delete from webhook_health where webhook = $1";

/// Every webhook that fails.
pub async fn load(client: &Client) -> Result<HashMap<Arc<str>, Health>, LedgerError> {
    let rows = client.query(LOAD, &[]).await.map_err(doing("reading the webhooks' health"))?;
    let health = |row: &tokio_postgres::Row| {
        let wait = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(1));
        let opened_at = row.get::<_, Option<_>>(4).map(time_of);
        Health {
            failing_since: time_of(row.get(1)),
            failures: u64::try_from(row.get::<_, i64>(2)).unwrap_or(1),
            reason: row.get(3),
            open: opened_at.zip(row.get::<_, Option<i64>>(5).map(wait)),
        }
    };
    Ok(rows.iter().map(|row| (row.get::<_, &str>(0).into(), health(row))).collect())
}

/// Writes what is known of a webhook, or that it works (`None`).
pub(super) async fn note(
    client: &Client,
    webhook: &str,
    health: Option<&Health>,
) -> Result<(), tokio_postgres::Error> {
    let Some(health) = health else { return client.execute(FORGET, &[&webhook]).await.map(drop) };
    let failures = i64::try_from(health.failures).unwrap_or(i64::MAX);
    let opened_at = health.open.map(|(at, _)| pg_time(at));
    let wait = health.open.map(|(_, wait)| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).max(1));
    let since = pg_time(health.failing_since);
    client.execute(KEEP, &[&webhook, &since, &failures, &health.reason, &opened_at, &wait]).await.map(drop)
}
