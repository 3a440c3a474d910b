//! Retries: many ended deliveries of a webhook, sent again. What is asked for, and how far it has come.
//!
//! A step opens some of them and moves the cursor, in one transaction that holds the retry's row: two instances that work
//! on one retry take turns, and whoever goes on with one that was cut short opens none twice and leaves none out.
//!
//! Two people who press at once want one retry: an equal one that is not over is the one that there is. What was sent again
//! a moment ago, or by a retry that was not over when this one was asked for, is left out.

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, GenericClient, Row, Transaction};

use super::replay::{self, Cause, Census, Ended, Reached, STEP, Which};
use super::row::{pg_time, time_of};
use super::unrendered::Render;
use super::{LedgerError, doing};
use crate::domain::limits;

/// Retries looked at in one round, at most.
const ROUND: i64 = 100;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRetry {
    /// The slot whose instance is to do it.
    pub slot: String,
    /// The webhook.
    pub webhook: String,
    /// How the deliveries ended.
    pub ended: Vec<Ended>,
    /// Of event types like this, with `*` for any run of characters.
    pub event: Option<String>,
    /// Of changes committed then or later.
    pub since: Option<Timestamp>,
    /// Of changes committed before.
    pub until: Option<Timestamp>,
    /// Whose last attempt went like this, in the words of [`Cause::named`].
    pub cause: Option<String>,
    /// At most so many a second, up to [`STEP`].
    pub per_second: Option<u32>,
    /// What was sent again then or later is left out.
    pub spares: Option<Timestamp>,
}

/// A retry as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Its number.
    pub id: i64,
    /// What was asked for.
    pub asked: NewRetry,
    /// `pending`, `running`, `done`, `failed`, `cancelled`.
    pub status: String,
    /// Why it failed; of one that did not, why the last of the unsent could not be rendered.
    pub reason: Option<String>,
    /// How many there were when it began.
    pub found: Option<i64>,
    /// How many are on their way again.
    pub sent: i64,
    /// How many could not be rendered, and have stayed as they were.
    pub unsent: i64,
    /// The last one of them.
    reached: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// What a step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// So many are on their way again, and there may be more.
    Sent(u64),
    /// There were so many left, or none.
    Done(u64),
    /// Somebody else is at it, or it is over.
    NotOurs,
}

const CREATE: &str = "
insert into retries (slot, webhook, ended, event, since, until, cause, per_second, spares)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning id";

/// Who asks for a retry of a webhook waits for whoever else does.
const ONE_AT_A_TIME: &str = "select pg_advisory_xact_lock(hashtextextended('walhook.retries.' || current_schema() || '.' || $1::text, 0))";

/// One that chooses the same and is not over, however quick it is to be.
const EQUAL: &str = "
select id from retries
where slot = $1 and webhook = $2 and status in ('pending', 'running') and ended @> $3 and ended <@ $3
    and event is not distinct from $4 and since is not distinct from $5 and until is not distinct from $6
    and cause is not distinct from $7
order by id limit 1";

/// What was sent again a moment ago, or since the first of the retries was asked for that are not over.
const SPARES: &str = "
select least(now() - make_interval(secs => $2),
    (select min(created_at) from retries where slot = $3 and webhook = $1 and status in ('pending', 'running')))";

const COLUMNS: &str = "
select id, slot, webhook, ended, event, since, until, cause, per_second, spares, status, reason, found, sent, unsent,
    reached, created_at, updated_at, finished_at
from retries";

const COUNTED: &str = "
update retries set status = 'running', found = $2, started_at = now(), updated_at = now()
where id = $1 and status = 'pending'";

const ADVANCE: &str = "
update retries set sent = sent + $2, reached = $3, status = case when $4 then 'done' else status end,
    finished_at = case when $4 then now() end, unsent = unsent + $5, reason = coalesce($6, reason), updated_at = now()
where id = $1";

const FAIL: &str = "
update retries set status = 'failed', reason = $2, finished_at = now(), updated_at = now()
where id = $1 and status in ('pending', 'running')";

const CANCEL: &str = "
update retries set status = 'cancelled', finished_at = now(), updated_at = now()
where slot = $1 and webhook = $2 and id = $3 and status in ('pending', 'running')";

impl NewRetry {
    /// Which deliveries these are.
    pub fn which(&self) -> Which {
        Which {
            id: None,
            webhook: Some(self.webhook.clone()),
            ended: self.ended.clone(),
            event: self.event.clone(),
            since: self.since,
            until: self.until,
            cause: self.cause.as_deref().and_then(Cause::named),
            attempts: None,
            spares: self.spares,
        }
    }
}

fn of_row(row: &Row) -> Retry {
    let time = |index: usize| row.get::<_, Option<_>>(index).map(time_of);
    let ended: Vec<&str> = row.get(3);
    let asked = NewRetry {
        slot: row.get(1),
        webhook: row.get(2),
        ended: ended.into_iter().filter_map(Ended::named).collect(),
        event: row.get(4),
        since: time(5),
        until: time(6),
        cause: row.get(7),
        per_second: row.get::<_, Option<i32>>(8).and_then(|rate| u32::try_from(rate).ok()),
        spares: time(9),
    };
    Retry {
        id: row.get(0),
        asked,
        status: row.get(10),
        reason: row.get(11),
        found: row.get(12),
        sent: row.get(13),
        unsent: row.get(14),
        reached: row.get(15),
        created_at: time_of(row.get(16)),
        updated_at: time_of(row.get(17)),
        finished_at: time(18),
    }
}

/// From when on what was sent again is left out of a retry that is asked for now.
pub async fn spares(
    client: &impl GenericClient,
    slot: &str,
    webhook: &str,
) -> Result<Timestamp, LedgerError> {
    let row = client.query_one(SPARES, &[&webhook, &limits::AGAIN_AFTER.as_secs_f64(), &slot]).await;
    Ok(time_of(row.map_err(doing("looking at the retries"))?.get(0)))
}

/// The number of a retry that chooses the same and is not over. Until the transaction ends nobody else asks for one of the
/// webhook.
pub async fn equal(transaction: &Transaction<'_>, new: &NewRetry) -> Result<Option<i64>, LedgerError> {
    let doing_it = || doing("looking for an equal retry");
    transaction.execute(ONE_AT_A_TIME, &[&new.webhook]).await.map_err(doing_it())?;
    let ended: Vec<&str> = new.ended.iter().map(|ended| ended.as_str()).collect();
    let (since, until) = (new.since.map(pg_time), new.until.map(pg_time));
    let NewRetry { slot, webhook, event, cause, .. } = new;
    let asked: [&(dyn ToSql + Sync); 7] = [slot, webhook, &ended, event, &since, &until, cause];
    let row = transaction.query_opt(EQUAL, &asked).await.map_err(doing_it())?;
    Ok(row.map(|row| row.get(0)))
}

/// Writes what is asked for. Returns its number.
pub async fn create(transaction: &Transaction<'_>, new: &NewRetry) -> Result<i64, LedgerError> {
    let ended: Vec<&str> = new.ended.iter().map(|ended| ended.as_str()).collect();
    let (since, until) = (new.since.map(pg_time), new.until.map(pg_time));
    let rate = new.per_second.map(|rate| i32::try_from(rate).unwrap_or(i32::MAX));
    let (spares, NewRetry { slot, webhook, event, cause, .. }) = (new.spares.map(pg_time), new);
    let row = transaction
        .query_one(CREATE, &[slot, webhook, &ended, event, &since, &until, cause, &rate, &spares])
        .await
        .map_err(doing("asking for a retry"))?;
    Ok(row.get(0))
}

/// How many of a webhook are not over, counted up to `most`.
pub async fn open(
    client: &impl GenericClient,
    slot: &str,
    webhook: &str,
    most: i64,
) -> Result<i64, LedgerError> {
    const OPEN: &str = "select count(*) from (
        select from retries where slot = $3 and webhook = $1 and status in ('pending', 'running') limit $2) counted";
    let row = client.query_one(OPEN, &[&webhook, &most, &slot]).await.map_err(doing("counting retries"))?;
    Ok(row.get(0))
}

/// One retry of a webhook.
pub async fn get(
    client: &impl GenericClient,
    slot: &str,
    webhook: &str,
    id: i64,
) -> Result<Option<Retry>, LedgerError> {
    let sql = format!("{COLUMNS} where slot = $1 and webhook = $2 and id = $3");
    let row = client.query_opt(&sql, &[&slot, &webhook, &id]).await.map_err(doing("reading a retry"))?;
    Ok(row.as_ref().map(of_row))
}

/// The retries of a webhook before a number, newest first.
pub async fn list(
    client: &impl GenericClient,
    (slot, webhook): (&str, &str),
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Retry>, LedgerError> {
    let sql = format!("{COLUMNS} where webhook = $2 and slot = $1 and id < $3 order by id desc limit $4");
    let before = before.unwrap_or(i64::MAX);
    let rows = client.query(&sql, &[&slot, &webhook, &before, &limit]).await;
    Ok(rows.map_err(doing("listing retries"))?.iter().map(of_row).collect())
}

/// Ends one by hand. What of it is on its way goes on. Returns whether it was not over.
pub async fn cancel(
    transaction: &Transaction<'_>,
    (slot, webhook): (&str, &str),
    id: i64,
) -> Result<bool, LedgerError> {
    let ended = transaction.execute(CANCEL, &[&slot, &webhook, &id]).await;
    Ok(ended.map_err(doing("cancelling a retry"))? > 0)
}

/// The statement of [`to_do`].
pub fn to_do_sql() -> String {
    format!("{COLUMNS} where slot = $1 and status in ('pending', 'running') order by id limit $2")
}

/// The retries that an instance has to do, the oldest first.
pub async fn to_do(client: &Client, slot: &str) -> Result<Vec<Retry>, LedgerError> {
    let rows = client.query(&to_do_sql(), &[&slot, &ROUND]).await.map_err(doing("looking for retries"))?;
    Ok(rows.iter().map(of_row).collect())
}

/// Counts what there is to be done; nothing else waits for it.
pub async fn count(client: &Client, retry: &Retry) -> Result<(), LedgerError> {
    let census = replay::count_until(client, &retry.asked.which(), Some(retry.created_at)).await?;
    let found = i64::try_from(census.count).unwrap_or(i64::MAX);
    client.execute(COUNTED, &[&retry.id, &found]).await.map_err(doing("beginning a retry"))?;
    Ok(())
}

/// Opens the next deliveries of a retry again, at most `most` and [`STEP`]; those that have no body are rendered first.
pub async fn step(
    client: &mut Client,
    retry: &Retry,
    most: u32,
    render: Render<'_>,
) -> Result<Stepped, LedgerError> {
    let doing_it = || doing("sending deliveries again");
    let (which, most) = (retry.asked.which(), most.clamp(1, STEP));
    let census = Census { count: 0, at: retry.created_at };
    let mut reached = Reached { last: retry.reached.clone() };
    let page = replay::page(client, &which, &census, &reached, most).await?;
    // Before the transaction, which keeps the ledger's writer out.
    let rendered = page.render(client, render).await?;
    let transaction = client.transaction().await.map_err(doing_it())?;
    let sql = format!("{COLUMNS} where id = $1 and status = 'running' for update skip locked");
    let row = transaction.query_opt(&sql, &[&retry.id]).await.map_err(doing_it())?;
    let now = row.as_ref().map(of_row).filter(|now| now.reached == retry.reached);
    if now.is_none() {
        return Ok(Stepped::NotOurs);
    }
    let sent = replay::replay_in(&transaction, &which, &census, &mut reached, &page).await?;
    let is_done = page.count < u64::from(most);
    let [moved, unsent] = [sent, rendered.failed].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    let advance: [&(dyn ToSql + Sync); 6] =
        [&retry.id, &moved, &reached.last, &is_done, &unsent, &rendered.reason];
    transaction.execute(ADVANCE, &advance).await.map_err(doing_it())?;
    transaction.commit().await.map_err(doing_it())?;
    Ok(if is_done { Stepped::Done(sent) } else { Stepped::Sent(sent) })
}

/// It cannot go on.
pub async fn fail(client: &Client, id: i64, reason: &str) -> Result<(), LedgerError> {
    client.execute(FAIL, &[&id, &reason]).await.map_err(doing("ending a retry"))?;
    Ok(())
}

/// Forgets those that ended so long ago.
pub(super) async fn prune(client: &Client, age: std::time::Duration) -> Result<(), LedgerError> {
    const OLD: &str = "delete from retries where finished_at < now() - make_interval(secs => $1)";
    client.execute(OLD, &[&age.as_secs_f64()]).await.map_err(doing("forgetting old retries"))?;
    Ok(())
}
