//! What an operator reads: how much waits, and what went wrong last; one delivery's fate.

use std::sync::Arc;

use jiff::Timestamp;
use tokio_postgres::{Client, GenericClient};

use super::row::time_of;
use super::{LedgerError, doing};

/// What the ledger holds of one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The webhook.
    pub webhook: Arc<str>,
    /// Deliveries that wait for their first attempt or their lane.
    pub pending: i64,
    /// Deliveries that wait for another attempt.
    pub retrying: i64,
    /// Deliveries held while the webhook is paused or disabled.
    pub held: i64,
    /// Whether there are more than were counted.
    pub more: bool,
    /// The failed ones that are still kept, without tests.
    pub failed: i64,
    /// The last error of an open or failed delivery.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<Timestamp>,
}

/// How one delivery stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `pending`, `retrying`, …
    pub status: String,
    /// Attempts made.
    pub attempts: i32,
    /// The last attempt's HTTP status.
    pub http_status: Option<i32>,
    /// The last attempt's error, or the reason it failed.
    pub error: Option<String>,
}

/// Counts stop at this many rows of a webhook.
pub const COUNTED: i64 = 100_000;

const BACKLOG: &str = "
select
    w.webhook,
    coalesce(o.pending, 0), coalesce(o.retrying, 0), coalesce(o.held, 0),
    (select count(*) from (
        select 1 from deliveries_failed f where f.webhook = w.webhook and f.status = 'failed' and f.operation <> 'test' limit $2) x),
    e.last_error, e.last_attempt_at
from unnest($1::text[]) as w(webhook)
left join lateral (
    select count(*) filter (where status = 'pending') as pending,
        count(*) filter (where status = 'retrying') as retrying,
        count(*) filter (where status = 'held') as held
    from (select status from deliveries_open d where d.webhook = w.webhook limit $2) counted) o on true
left join lateral (
    select last_error, last_attempt_at from (
        (select d.last_error, d.last_attempt_at from deliveries_open d
         where d.webhook = w.webhook and d.last_error is not null and d.operation <> 'test' order by d.lane, d.id limit 100)
        union all
        (select coalesce(f.last_error, f.fail_reason), coalesce(f.last_attempt_at, f.finished_at)
         from deliveries_failed f where f.webhook = w.webhook and f.operation <> 'test' order by f.finished_at desc limit 1)) errors
    order by last_attempt_at desc nulls last limit 1) e on true
order by w.webhook";

const STANDING: &str = "
select status, attempts, last_http_status, coalesce(last_error, fail_reason) from deliveries where id = $1";

/// What the ledger holds of these webhooks, in the order of their names.
pub async fn backlog(client: &Client, webhooks: &[&str]) -> Result<Vec<Backlog>, LedgerError> {
    let rows = client.query(BACKLOG, &[&webhooks, &COUNTED]).await.map_err(doing("counting the backlog"))?;
    let backlog = |row: &tokio_postgres::Row| {
        let (pending, retrying, held): (i64, i64, i64) = (row.get(1), row.get(2), row.get(3));
        Backlog {
            webhook: row.get::<_, &str>(0).into(),
            pending,
            retrying,
            held,
            more: pending + retrying + held >= COUNTED,
            failed: row.get(4),
            last_error: row.get(5),
            last_error_at: row.get::<_, Option<_>>(6).map(time_of),
        }
    };
    Ok(rows.iter().map(backlog).collect())
}

/// How one delivery stands; `None` where the ledger does not know it.
pub async fn standing(client: &impl GenericClient, id: &str) -> Result<Option<Standing>, LedgerError> {
    let row = client.query_opt(STANDING, &[&id]).await.map_err(doing("looking up a delivery"))?;
    Ok(row.map(|row| Standing {
        status: row.get(0),
        attempts: row.get(1),
        http_status: row.get(2),
        error: row.get(3),
    }))
}
