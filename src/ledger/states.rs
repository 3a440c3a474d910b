//! What is known of webhooks beyond their declaration: paused, disabled, since when and why.
//!
//! Holding and releasing a webhook's open deliveries goes in small steps, so that a backlog of a million neither
//! locks the table nor bloats it at once. The dispatcher claims nothing for a webhook that is not active, so the
//! steps may take their time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, GenericClient, Transaction};

use super::ask::Ask;
use super::row::time_of;
use super::{LedgerError, doing, notices, rollups};
use crate::domain::{DeliveryId, StoreBodies};

/// Rows moved in one statement.
const STEP: i64 = 2000;

/// Whether a webhook is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspension {
    /// Paused by hand.
    Paused,
    /// Disabled by hand or by the receiver's 410.
    Disabled,
}

/// Why a webhook is not sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookState {
    /// Which kind.
    pub suspension: Suspension,
    /// The reason, for people.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// How a webhook stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookStanding {
    /// `active`, `failing`, `paused`, `disabled`.
    pub status: String,
    /// Why it is not active.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

const STANDINGS: &str =
    "select webhook, status, reason, since from webhook_standings where webhook = any($1)";

const LOAD: &str = "select webhook, status, reason, since from webhook_states";

const HOLD: &str = "
update deliveries_open set status = 'held', due_at = null
where id in (
    select id from deliveries_open
    where webhook = $1 and status in ('pending', 'retrying') and lease is null
    order by id limit $2 for update skip locked)";

/// Nothing of a webhook that has been suspended since whoever releases has looked.
const RELEASE: &str = "
with moved as (
    update deliveries_open set status = case when attempts > 0 then 'retrying' else 'pending' end
    where id in (
        select id from deliveries_open
        where webhook = $1 and status = 'held' and not exists (select from webhook_states where webhook = $1)
        order by id limit $2 for update)
    returning lane)
select distinct lane from moved";

/// Waits for the writer's transaction and keeps the next one out: a lane is moved on by whoever ends or releases a
/// delivery, and two at once would each see the other's as it was and leave the lane to the other.
pub(super) const KEEP_WRITER_OUT: &str = "select 1 from sources for update";

const SET: &str = "
insert into webhook_states (webhook, status, reason) values ($1, $2, $3)
on conflict (webhook) do update set status = excluded.status, reason = excluded.reason, since = now()";

const CLEAR: &str = "delete from webhook_states where webhook = $1";

/// A page of those of a status, in the order of their ids, which is that of their commits: whether each is past its time, and
/// whether its commit is. `$6`: counted from the webhook's suspension at the earliest.
const LOOK: &str = "
select id, committed_at <= past.time, greatest(committed_at, sent_again_at, past.since) <= past.time
from deliveries_open, (select now() - make_interval(secs => $5),
    case when $6 then (select since from webhook_states where webhook = $1) end) past(time, since)
where webhook = $1 and status = $2 and id > $3
order by id limit $4";

/// Those that are held.
const HELD: &str = "select id from deliveries_open where webhook = $1 and status = 'held' and lease is null order by id limit $2";

/// Ends open deliveries that nobody has under way and that are still what they were chosen for.
const END: &str = "
with ended as (
    update deliveries d set status = $4, due_at = null, finished_at = now(), fail_reason = $5,
        body = case when $6 then d.body end
    where d.status in ('pending', 'retrying', 'held') and d.id = any($2) and d.lease is null
        and d.webhook = $1 and d.status = any($3)
        and ($8::float8 is null or greatest(d.committed_at, d.sent_again_at, case when $9 then
            (select since from webhook_states where webhook = $1) end) <= now() - make_interval(secs => $8))
    returning d.lane, d.id, d.operation <> 'test' as counts,
        d.operation not in ('test', 'snapshot') and d.sent_again_at is null as promised)
select lane, count(*), count(*) filter (where id >= $7), max(id), count(*) filter (where counts),
    count(*) filter (where promised)
from ended group by lane";

/// Of each lane, the earliest open delivery becomes due where it is not.
pub(super) const WAKE_LANES: &str = "
update deliveries_open o set due_at = now()
from unnest($2::bigint[]) as l(lane), lateral (
    select n.id, n.due_at, n.status from deliveries_open n
    where n.webhook = $1 and n.lane = l.lane order by n.webhook, n.lane, n.id limit 1) head
where o.id = head.id and head.due_at is null and head.status <> 'held' and o.due_at is null and o.status <> 'held'";

impl Suspension {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

/// The webhooks that are not active.
pub async fn load(client: &Client) -> Result<HashMap<Arc<str>, WebhookState>, LedgerError> {
    let rows = client.query(LOAD, &[]).await.map_err(doing("reading the webhooks' states"))?;
    let state = |row: &tokio_postgres::Row| {
        let paused = row.get::<_, &str>(1) == "paused";
        WebhookState {
            suspension: if paused { Suspension::Paused } else { Suspension::Disabled },
            reason: row.get(2),
            since: time_of(row.get(3)),
        }
    };
    Ok(rows.iter().map(|row| (row.get::<_, &str>(0).into(), state(row))).collect())
}

/// How these webhooks stand; one that nothing is known of is active.
pub async fn standings(
    client: &impl Ask,
    webhooks: &[&str],
) -> Result<HashMap<String, WebhookStanding>, LedgerError> {
    let rows = client.query(STANDINGS, &[&webhooks]).await.map_err(doing("reading the webhooks' states"))?;
    let standing = |row: &tokio_postgres::Row| WebhookStanding {
        status: row.get(1),
        reason: row.get(2),
        since: row.get::<_, Option<_>>(3).map(time_of),
    };
    Ok(rows.iter().map(|row| (row.get(0), standing(row))).collect())
}

/// Suspends a webhook; what waits for it is held by the next [`hold`].
pub async fn suspend(
    client: &impl GenericClient,
    webhook: &str,
    suspension: Suspension,
    reason: &str,
) -> Result<(), LedgerError> {
    let status = suspension.as_str();
    client.execute(SET, &[&webhook, &status, &reason]).await.map_err(doing("suspending a webhook"))?;
    Ok(())
}

/// Makes a webhook active again. Returns whether it was not.
pub async fn resume(client: &impl GenericClient, webhook: &str) -> Result<bool, LedgerError> {
    let gone = client.execute(CLEAR, &[&webhook]).await.map_err(doing("resuming a webhook"))?;
    Ok(gone > 0)
}

/// Holds some of a suspended webhook's open deliveries. Returns how many; zero when none is left.
pub async fn hold(client: &Client, webhook: &str) -> Result<u64, LedgerError> {
    client.execute(HOLD, &[&webhook, &STEP]).await.map_err(doing("holding deliveries"))
}

/// Releases some of an active webhook's held deliveries, in order. Returns how many lanes; zero when none is left.
pub async fn release(client: &mut Client, webhook: &str) -> Result<usize, LedgerError> {
    let doing_it = || doing("releasing held deliveries");
    let transaction = client.transaction().await.map_err(doing_it())?;
    transaction.execute(KEEP_WRITER_OUT, &[]).await.map_err(doing_it())?;
    let moved = transaction.query(RELEASE, &[&webhook, &STEP]).await.map_err(doing_it())?;
    let lanes: Vec<i64> = moved.iter().map(|row| row.get(0)).collect();
    transaction.execute(WAKE_LANES, &[&webhook, &lanes]).await.map_err(doing_it())?;
    transaction.commit().await.map_err(doing_it())?;
    Ok(lanes.len())
}

/// Which open deliveries have waited for too long, and the reason for which they fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Overdue<'a> {
    /// Every one of at least this age, counted from its commit or from when it was sent again by hand.
    TooOld(Duration, &'a str),
    /// Those that are held, for at least so long: since their webhook was suspended, or since they came, or were sent
    /// again, whichever was last.
    HeldTooLong(Duration, &'a str),
}

/// Ends a webhook's overdue deliveries, page by page. The pages are read before the ledger's writer is kept out, and no
/// further than to where nothing is old: a backlog costs a page of each status.
#[derive(Debug)]
pub struct Expiry<'a> {
    webhook: &'a str,
    overdue: Overdue<'a>,
    statuses: &'static [&'static str],
    after: String,
}

/// How chosen deliveries end.
struct Ending<'a> {
    of: &'a [&'a str],
    /// The seconds that must have passed, and whether they are counted from the webhook's suspension at the earliest.
    past: (Option<f64>, bool),
    status: &'static str,
    reason: Option<&'a str>,
    store: StoreBodies,
}

impl<'a> Expiry<'a> {
    /// From the oldest on.
    pub fn new(webhook: &'a str, overdue: Overdue<'a>) -> Self {
        let statuses: &[&str] = match overdue {
            Overdue::TooOld(..) => &["pending", "retrying", "held"],
            Overdue::HeldTooLong(..) => &["held"],
        };
        Self { webhook, overdue, statuses, after: String::new() }
    }

    /// Ends what is overdue of a page; what stood behind it in its lanes becomes due. Returns how many; `None` when there are
    /// no more pages.
    pub async fn step(
        &mut self,
        client: &mut Client,
        store: StoreBodies,
    ) -> Result<Option<u64>, LedgerError> {
        let Some((status, others)) = self.statuses.split_first() else { return Ok(None) };
        let doing_it = || doing("ending deliveries");
        let (age, reason, from_hold) = match self.overdue {
            Overdue::TooOld(age, reason) => (age, reason, false),
            Overdue::HeldTooLong(age, reason) => (age, reason, true),
        };
        let seconds = age.as_secs_f64();
        let asked: [&(dyn ToSql + Sync); 6] =
            [&self.webhook, status, &self.after, &STEP, &seconds, &from_hold];
        let page = client.query(LOOK, &asked).await.map_err(doing_it())?;
        match page.last() {
            Some(last) if page.iter().any(|row| row.get(1)) => self.after = last.get(0),
            _ => (self.statuses, self.after) = (others, String::new()),
        }
        let ids: Vec<&str> = page.iter().filter(|row| row.get(2)).map(|row| row.get(0)).collect();
        if ids.is_empty() {
            return Ok(Some(0));
        }
        let past = (Some(seconds), from_hold);
        let ending = Ending { of: &[*status], past, status: "failed", reason: Some(reason), store };
        let transaction = client.transaction().await.map_err(doing_it())?;
        transaction.execute(KEEP_WRITER_OUT, &[]).await.map_err(doing_it())?;
        let ended = end(&transaction, self.webhook, &ids, &ending).await?;
        transaction.commit().await.map_err(doing_it())?;
        Ok(Some(ended))
    }
}

/// Cancels some of a webhook's held deliveries, as a part of a transaction that ends soon: it keeps the ledger's writer out.
/// Returns how many; zero when none is left.
pub async fn cancel_held(
    transaction: &Transaction<'_>,
    webhook: &str,
    store: StoreBodies,
) -> Result<u64, LedgerError> {
    let doing_it = || doing("cancelling deliveries");
    transaction.execute(KEEP_WRITER_OUT, &[]).await.map_err(doing_it())?;
    let held = transaction.query(HELD, &[&webhook, &STEP]).await.map_err(doing_it())?;
    let ids: Vec<&str> = held.iter().map(|row| row.get(0)).collect();
    let ending = Ending { of: &["held"], past: (None, false), status: "cancelled", reason: None, store };
    end(transaction, webhook, &ids, &ending).await
}

async fn end(
    transaction: &Transaction<'_>,
    webhook: &str,
    ids: &[&str],
    ending: &Ending<'_>,
) -> Result<u64, LedgerError> {
    let Ending { of, past: (seconds, from_hold), status, reason, store } = ending;
    let (keep, logs) = (*store != StoreBodies::None, DeliveryId::FIRST_OF_LOGS);
    let doing_it = || doing("ending deliveries");
    let parameters: [&(dyn ToSql + Sync); 9] =
        [&webhook, &ids, of, status, reason, &keep, &logs, seconds, from_hold];
    let ended = transaction.query(END, &parameters).await.map_err(doing_it())?;
    let lanes: Vec<i64> = ended.iter().map(|row| row.get(0)).collect();
    let sum = |column: usize| ended.iter().map(|row| row.get::<_, i64>(column)).sum::<i64>();
    if let Some(reason) = reason {
        let last = ended.iter().map(|row| row.get::<_, &str>(3)).max().unwrap_or_default();
        notices::note_old(transaction.client(), webhook, (sum(2), last), reason).await?;
    }
    transaction.execute(WAKE_LANES, &[&webhook, &lanes]).await.map_err(doing_it())?;
    if *status == "failed" && sum(4) > 0 {
        rollups::add_failed(transaction.client(), webhook, sum(4), sum(5)).await?;
    }
    Ok(u64::try_from(sum(1)).unwrap_or(0))
}
