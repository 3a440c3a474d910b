//! What an operator reads of the numbers: sums over time, and since when what waits has waited.
//!
//! Sums come from `rollups` alone, what waits from the table of open deliveries, each by an index: reading costs as little
//! when millions of deliveries are kept as when there are none.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::query::COUNTED;
use super::rollups::{SUMS, tally_of};
use super::row::{pg_time, time_of};
use super::{LedgerError, doing};
use crate::domain::Tally;

/// The sums of a minute or an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// Whose.
    pub webhook: Arc<str>,
    /// From when.
    pub begins: Timestamp,
    /// Until when; not included.
    pub ends: Timestamp,
    /// The sums.
    pub tally: Tally,
}

/// The delivery of a webhook that has waited for the longest in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oldest {
    /// The webhook.
    pub webhook: Arc<str>,
    /// `pending`, `retrying`, `held`.
    pub status: &'static str,
    /// Why it waits, one of [`REASONS`].
    pub reason: &'static str,
    /// When its change committed.
    pub committed_at: Timestamp,
    /// Since when it waits: the commit, or when it was last sent again by hand.
    pub since: Timestamp,
}

/// Why something waits: its webhook is `paused`, `disabled` or `failing`; it is `held` no longer than until the next look;
/// an attempt is `in_flight`; it stands `behind` another of its lane; its `retry` is not due yet; or it is `due`, and waits
/// for its rate, its webhook's concurrency or an instance.
pub const REASONS: [&str; 8] =
    ["paused", "disabled", "failing", "held", "in_flight", "behind", "retry", "due"];

/// The states of what waits.
pub const STATES: [&str; 3] = ["pending", "retrying", "held"];

/// Ids sort in the order of commits, so the first in the index that nobody has sent again is the oldest of those; those that
/// somebody has have an index of their own. (To order what is in order already would have the planner read all of it.) Of a backlog that was sent again at most so many are passed on the way: beyond
/// that, its own age stands for all. A range of one value, because with an equality the planner may walk the index of all ids,
/// and pass every row of every other webhook.
const OLDEST: &str = "
select w.webhook, s.status, o.committed_at, coalesce(o.sent_again_at, o.committed_at),
    case
        when ws.status is not null then ws.status
        when h.opened_at is not null then 'failing'
        when s.status = 'held' then 'held'
        when o.lease is not null and o.due_at > now() then 'in_flight'
        when o.due_at is null then 'behind'
        when o.due_at > now() then 'retry'
        else 'due'
    end
from unnest($1::text[]) as w(webhook) cross join unnest($2::text[]) as s(status)
left join webhook_states ws on ws.webhook = w.webhook
left join webhook_health h on h.webhook = w.webhook
cross join lateral (
    (select * from (
        select d.webhook, d.status, d.id, d.committed_at, d.sent_again_at, d.due_at, d.lease from deliveries_open d
        where d.webhook = w.webhook and d.status >= s.status and d.status <= s.status and d.operation <> 'test'
        order by d.webhook, d.status, d.id limit $3) first
    where first.sent_again_at is null limit 1)
    union all
    (select d.webhook, d.status, d.id, d.committed_at, d.sent_again_at, d.due_at, d.lease from deliveries_open d
    where d.webhook = w.webhook and d.status >= s.status and d.status <= s.status and d.sent_again_at is not null
    order by d.webhook, d.status, d.sent_again_at limit 1)) o
order by w.webhook, s.status, 4";

/// How many that were sent again are passed in the search for the oldest that was not.
const PASSED: i64 = 10_000;

const LATE: &str = "
select count(*) from (
    select 1 from deliveries_open d
    where d.webhook = $1 and d.status = any($2) and d.committed_at >= $3 and d.committed_at < $4
        and d.operation not in ('test', 'snapshot') and d.sent_again_at is null
    limit $5) late";

fn sums_sql(of: &str) -> String {
    format!(
        "select webhook, begins, begins + span, {SUMS} from rollups
where span = any(array['1 minute', '1 hour']::interval[]) and begins >= date_trunc('hour', $1::timestamptz, 'UTC'){of}"
    )
}

/// Hands over the sums of every minute and hour that has not ended at `since`: of one webhook, or of all.
pub async fn sums_since(
    client: &Client,
    since: Timestamp,
    webhook: Option<&str>,
    mut each: impl FnMut(Sums),
) -> Result<(), LedgerError> {
    let at = pg_time(since);
    let sql = sums_sql(if webhook.is_some() { " and webhook = $2" } else { "" });
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&at];
    parameters.extend(webhook.as_ref().map(|webhook| webhook as &(dyn ToSql + Sync)));
    let rows = client.query_raw(&sql, parameters).await.map_err(doing("reading the numbers"))?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(doing("reading the numbers"))? {
        let (begins, ends) = (time_of(row.get(1)), time_of(row.get(2)));
        if ends > since {
            each(Sums { webhook: row.get::<_, &str>(0).into(), begins, ends, tally: tally_of(&row, 3) });
        }
    }
    Ok(())
}

/// The oldest that waits of each of these webhooks, by state; nothing where nothing waits. Test events do not count.
pub async fn oldest(client: &Client, webhooks: &[&str]) -> Result<Vec<Oldest>, LedgerError> {
    let rows = client.query(OLDEST, &[&webhooks, &&STATES[..], &PASSED]).await;
    let rows = rows.map_err(doing("looking for the oldest that waits"))?;
    let word = |all: &[&'static str], word: &str| all.iter().copied().find(|one| *one == word);
    let oldest = |row: &tokio_postgres::Row| {
        Some(Oldest {
            webhook: row.get::<_, &str>(0).into(),
            status: word(&STATES, row.get(1))?,
            reason: word(&REASONS, row.get(4))?,
            committed_at: time_of(row.get(2)),
            since: time_of(row.get(3)),
        })
    };
    let mut all: Vec<Oldest> = rows.iter().filter_map(oldest).collect();
    // One that was sent again and one that was not: the first is the one that has waited for longer.
    all.dedup_by(|second, first| (&second.webhook, second.status) == (&first.webhook, first.status));
    Ok(all)
}

/// How many of the changes committed since a moment wait for longer than `within`: at most [`COUNTED`].
pub async fn late(
    client: &Client,
    webhook: &str,
    within: Duration,
    (since, now): (Timestamp, Timestamp),
) -> Result<u64, LedgerError> {
    let before = now.checked_sub(within).unwrap_or(now);
    let parameters: [&(dyn ToSql + Sync); 5] =
        [&webhook, &&STATES[..], &pg_time(since), &pg_time(before), &COUNTED];
    let row = client.query_one(LATE, &parameters).await.map_err(doing("counting what is late"))?;
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}
