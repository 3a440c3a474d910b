//! Backfills: what is asked for, how far it has come. The deliveries themselves are rows like any other.
//!
//! An instance writes how far it has come under the fence of its epoch; whoever has lost the slot moves no cursor.

use jiff::Timestamp;
use tokio_postgres::{Client, GenericClient, Row, Transaction};

use super::own::Ownership;
use super::row::time_of;
use super::{LedgerError, doing};
use crate::domain::DeliveryId;

/// Backfills looked at in one round, at most.
const ROUND: i64 = 100;
/// Backfills listed, at most.
const LISTED: i64 = 200;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBackfill {
    /// The slot whose instance is to do it.
    pub slot: String,
    /// The webhook.
    pub webhook: String,
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// SQL over its columns.
    pub condition: Option<String>,
    /// At most so many rows a second.
    pub rows_per_second: Option<u32>,
    /// How many rows the planner expects.
    pub estimate: Option<i64>,
}

/// The state of a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackfillStatus {
    /// Nobody has begun it.
    Pending,
    /// It is being done.
    Running,
    /// Paused by hand.
    Paused,
    /// Every row is done with.
    Done,
    /// It cannot go on; it may be resumed once the reason is gone.
    Failed,
    /// Ended by hand.
    Cancelled,
}

impl BackfillStatus {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn from_word(word: &str) -> Self {
        let all = [Self::Pending, Self::Running, Self::Paused, Self::Done, Self::Failed];
        all.into_iter().find(|status| status.as_str() == word).unwrap_or(Self::Cancelled)
    }

    /// Whether nothing more will be done unless somebody asks for it.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A backfill as it stands.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Backfill {
    /// Its number.
    pub id: i64,
    /// The webhook.
    pub webhook: String,
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// SQL over its columns.
    pub condition: Option<String>,
    /// At most so many rows a second.
    pub rows_per_second: Option<i32>,
    /// Its state.
    pub status: BackfillStatus,
    /// Why it is in it, where that needs a word.
    pub reason: Option<String>,
    /// How many rows the planner expected.
    pub estimate: Option<i64>,
    /// Rows done with.
    pub rows_done: i64,
    /// Deliveries they made.
    pub deliveries: i64,
    /// Rows that changed at every look, and were left to their live changes.
    pub rows_moving: i64,
    /// The key of the last row done with.
    #[serde(skip)]
    pub cursor: Option<Vec<String>>,
    /// Deliveries beyond the cursor have greater ids.
    #[serde(skip)]
    pub floor: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// What a step of a backfill has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The key of the last row done with; `None` where there was no row.
    pub cursor: Option<Vec<String>>,
    /// Deliveries of later steps have greater ids.
    pub floor: DeliveryId,
    /// Rows.
    pub rows: i64,
    /// Deliveries.
    pub deliveries: i64,
    /// Rows that changed at every look.
    pub moving: i64,
}

/// What people do with a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// Stop for a while.
    Pause,
    /// Go on.
    Resume,
    /// End it.
    Cancel,
}

const CREATE: &str = "
insert into backfills (slot, webhook, schema_name, table_name, condition, rows_per_second, estimate)
values ($1, $2, $3, $4, $5, $6, $7) returning id";

const COLUMNS: &str = "
select id, webhook, schema_name, table_name, condition, rows_per_second, status, reason, estimate, rows_done,
    deliveries, rows_moving, cursor, floor, created_at, updated_at, finished_at
from backfills";

/// The fence, as in the writer: who has lost the slot finds no row.
const FENCE: &str = "exists (select from sources s where s.slot = $2 and s.epoch = $3)";

/// Writes what is asked for. Returns its number.
pub async fn create(client: &Transaction<'_>, new: &NewBackfill) -> Result<i64, LedgerError> {
    let rate = new.rows_per_second.map(|rate| i32::try_from(rate).unwrap_or(i32::MAX));
    let NewBackfill { slot, webhook, schema, table, condition, estimate, .. } = new;
    let row = client.query_one(CREATE, &[slot, webhook, schema, table, condition, &rate, estimate]).await;
    Ok(row.map_err(doing("asking for a backfill"))?.get(0))
}

/// The backfills of a slot, those that are not over first, then the newest.
pub async fn list(client: &Client, slot: &str) -> Result<Vec<Backfill>, LedgerError> {
    let sql = format!(
        "{COLUMNS} where slot = $1
         order by status in ('done', 'failed', 'cancelled'), id desc limit $2"
    );
    let rows = client.query(&sql, &[&slot, &LISTED]).await.map_err(doing("listing backfills"))?;
    Ok(rows.iter().map(of_row).collect())
}

/// The backfills of a webhook, or of all, before a number, newest first.
pub async fn page(
    client: &Client,
    (slot, webhook): (&str, Option<&str>),
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Backfill>, LedgerError> {
    let whose = if webhook.is_some() { "webhook = $2" } else { "$2::text is null" };
    let sql = format!("{COLUMNS} where slot = $1 and {whose} and id < $3 order by id desc limit $4");
    let before = before.unwrap_or(i64::MAX);
    let rows = client.query(&sql, &[&slot, &webhook, &before, &limit]).await;
    Ok(rows.map_err(doing("listing backfills"))?.iter().map(of_row).collect())
}

/// One backfill of a slot.
pub async fn get(client: &impl GenericClient, slot: &str, id: i64) -> Result<Option<Backfill>, LedgerError> {
    let sql = format!("{COLUMNS} where slot = $1 and id = $2");
    let row = client.query_opt(&sql, &[&slot, &id]).await.map_err(doing("reading a backfill"))?;
    Ok(row.as_ref().map(of_row))
}

/// The backfills that an instance has to do, the oldest first.
pub async fn to_do(client: &Client, slot: &str) -> Result<Vec<Backfill>, LedgerError> {
    let sql = format!("{COLUMNS} where slot = $1 and status in ('pending', 'running') order by id limit $2");
    let rows = client.query(&sql, &[&slot, &ROUND]).await.map_err(doing("looking for backfills"))?;
    Ok(rows.iter().map(of_row).collect())
}

/// Pauses, resumes or cancels. Returns whether the backfill was in a state for that.
pub async fn steer(client: &Transaction<'_>, slot: &str, id: i64, steer: Steer) -> Result<bool, LedgerError> {
    let (status, from, finished) = match steer {
        Steer::Pause => ("paused", "('pending', 'running')", "null"),
        Steer::Resume => ("pending", "('paused', 'failed')", "null"),
        Steer::Cancel => ("cancelled", "('pending', 'running', 'paused', 'failed')", "now()"),
    };
    let sql = format!(
        "update backfills set status = '{status}', reason = null, finished_at = {finished}, updated_at = now()
         where slot = $1 and id = $2 and status in {from}"
    );
    let moved = client.execute(&sql, &[&slot, &id]).await.map_err(doing("steering a backfill"))?;
    Ok(moved > 0)
}

/// An instance begins it, or goes on with it.
pub async fn begin(
    client: &Client,
    own: &Ownership,
    id: i64,
    floor: &DeliveryId,
) -> Result<bool, LedgerError> {
    let sql = format!(
        "update backfills set status = 'running', started_at = coalesce(started_at, now()), reason = null,
             floor = coalesce(floor, $4), updated_at = now()
         where id = $1 and status in ('pending', 'running') and {FENCE}"
    );
    let moved = client.execute(&sql, &[&id, &own.slot, &own.epoch, &floor.as_str()]).await;
    Ok(moved.map_err(doing("beginning a backfill"))? > 0)
}

/// Moves the cursor. The rows up to it have their deliveries in the ledger by now.
pub async fn advance(client: &Client, own: &Ownership, id: i64, step: &Step) -> Result<(), LedgerError> {
    let sql = format!(
        "update backfills set cursor = coalesce($4, cursor), floor = $5, rows_done = rows_done + $6,
             deliveries = deliveries + $7, rows_moving = rows_moving + $8, updated_at = now()
         where id = $1 and {FENCE}"
    );
    let Step { cursor, floor, rows, deliveries, moving } = step;
    let moved = client
        .execute(&sql, &[&id, &own.slot, &own.epoch, cursor, &floor.as_str(), rows, deliveries, moving])
        .await
        .map_err(doing("moving a backfill on"))?;
    if moved == 0 { Err(LedgerError::FencedOff) } else { Ok(()) }
}

/// Every row is done with, or (with a reason) it cannot go on. One that is paused or cancelled by now stays so.
pub async fn end(client: &Client, own: &Ownership, id: i64, failed: Option<&str>) -> Result<(), LedgerError> {
    let status = if failed.is_some() { "failed" } else { "done" };
    let sql = format!(
        "update backfills set status = '{status}', reason = $4, updated_at = now(),
             finished_at = case when $4::text is null then now() end
         where id = $1 and status in ('pending', 'running') and {FENCE}"
    );
    client.execute(&sql, &[&id, &own.slot, &own.epoch, &failed]).await.map_err(doing("ending a backfill"))?;
    Ok(())
}

/// How many open deliveries a webhook has, counted up to `most`.
pub async fn open_deliveries(client: &Client, webhook: &str, most: i64) -> Result<i64, LedgerError> {
    const OPEN: &str = "select count(*) from (
        select from deliveries_open where webhook = $1 order by webhook, lane, id limit $2) counted";
    let row = client.query_one(OPEN, &[&webhook, &most]).await.map_err(doing("counting a backlog"))?;
    Ok(row.get(0))
}

/// The snapshot deliveries of a webhook beyond a floor: what a step has left that was cut short.
pub async fn held_beyond(
    client: &Client,
    webhook: &str,
    floor: &str,
) -> Result<Vec<DeliveryId>, LedgerError> {
    const HELD: &str = "select id from deliveries where id > $2 and webhook = $1 and operation = 'snapshot'";
    let rows = client.query(HELD, &[&webhook, &floor]).await;
    let rows = rows.map_err(doing("looking for what a backfill has left"))?;
    Ok(rows.iter().map(|row| DeliveryId::from_ledger(row.get(0))).collect())
}

fn of_row(row: &Row) -> Backfill {
    Backfill {
        id: row.get(0),
        webhook: row.get(1),
        schema: row.get(2),
        table: row.get(3),
        condition: row.get(4),
        rows_per_second: row.get(5),
        status: BackfillStatus::from_word(row.get(6)),
        reason: row.get(7),
        estimate: row.get(8),
        rows_done: row.get(9),
        deliveries: row.get(10),
        rows_moving: row.get(11),
        cursor: row.get(12),
        floor: row.get(13),
        created_at: time_of(row.get(14)),
        updated_at: time_of(row.get(15)),
        finished_at: row.get::<_, Option<_>>(16).map(time_of),
    }
}
