//! What is written to the ledger, and the statements that write it.
//!
//! An attempt and the state it leads to are one row's change (invariant I5): the last attempt stands in the
//! delivery's own row, earlier ones are moved to `past_attempts` by the same statement.
//!
//! Only the first open delivery of a lane is due, and those of its lane that are leased with it, in the same batch: what
//! becomes of these stands behind it again, tried or not, until it has ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::row::{Columns, time_of};
use super::{LedgerError, copy, doing};
use crate::domain::{Attempt, Delivery, DeliveryId, DeliveryStatus, Lane, Operation, StoreBodies};
use crate::settlement::Owed;

/// The right to finish a claimed delivery; finishing consumes it (invariant I6).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a claimed delivery must be finished or released"]
pub struct Lease {
    pub(super) token: i64,
}

impl Lease {
    /// A lease on a delivery that is recorded with it.
    pub fn with_token(token: i64) -> Self {
        Self { token }
    }

    /// What tells it from every other.
    pub fn token(&self) -> i64 {
        self.token
    }
}

/// What a delivery is recorded as.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Not tried yet; due as soon as nothing earlier is open in its lane.
    Pending,
    /// Its first attempt is under way: leased until then.
    Leased {
        /// The lease's token.
        token: i64,
        /// When it may be claimed by others.
        until: Timestamp,
    },
    /// Tried and failed; due at this time.
    Retrying {
        /// When to try again.
        due: Timestamp,
    },
    /// Its webhook is paused or disabled.
    Held,
    /// The receiver took it.
    Delivered,
    /// Given up, for this reason.
    Failed(String),
}

/// A young delivery's row.
#[derive(Debug)]
pub struct NewRow {
    /// The delivery. Where it has failed without an attempt, it could not be rendered, and in the place of its body is what
    /// is kept of its event ([`unrendered`](super::unrendered)).
    pub delivery: Delivery,
    /// What it is recorded as.
    pub state: State,
    /// Its first attempt, where there was one.
    pub attempt: Option<Attempt>,
    /// The debt that its row settles.
    pub owed: Option<Owed>,
}

/// What a claimed delivery's attempt led to.
#[derive(Debug)]
pub struct Finish {
    /// The right to write it.
    pub lease: Lease,
    /// Which delivery.
    pub id: DeliveryId,
    /// Its webhook.
    pub webhook: Arc<str>,
    /// Its lane.
    pub lane: Lane,
    /// What it becomes: `Retrying`, `Held`, `Delivered`, `Failed`; or `Pending`, to give it back untried.
    pub state: State,
    /// The attempt, where there was one.
    pub attempt: Option<Attempt>,
    /// Whether the attempt does not count for the retry schedule.
    pub off_schedule: bool,
}

/// What the ledger knows of a claimed delivery, and its numbers need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// Whether it is a test event.
    pub is_test: bool,
    /// When its change committed, where its time counts from there.
    pub measured_from: Option<Timestamp>,
}

impl NewRow {
    /// What is kept of its bytes: the body, or what there is of an event that could not be rendered. What failed before any
    /// attempt has no body.
    pub(super) fn kept(&self, store: StoreBodies) -> (Option<&[u8]>, Option<&[u8]>) {
        let bytes = Some(&self.delivery.body[..]).filter(|_| self.state.keeps_body(store));
        match (&self.state, &self.attempt) {
            (State::Failed(_), None) => (None, bytes.filter(|bytes| !bytes.is_empty())),
            _ => (bytes, None),
        }
    }
}

impl State {
    /// The state's word.
    pub fn status(&self) -> DeliveryStatus {
        match self {
            Self::Pending | Self::Leased { .. } => DeliveryStatus::Pending,
            Self::Retrying { .. } => DeliveryStatus::Retrying,
            Self::Held => DeliveryStatus::Held,
            Self::Delivered => DeliveryStatus::Delivered,
            Self::Failed(_) => DeliveryStatus::Failed,
        }
    }

    /// Whether the delivery has ended.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Delivered | Self::Failed(_))
    }

    /// When a delivery in this state is due, if nothing earlier stands in its lane.
    pub(super) fn due(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Pending => Some(now),
            Self::Leased { until, .. } => Some(*until),
            Self::Retrying { due } => Some(*due),
            _ => None,
        }
    }

    /// Why it was given up, where it was.
    pub(super) fn fail_reason(&self) -> Option<&str> {
        match self {
            Self::Failed(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether a delivery that has come to this state keeps its body.
    pub(super) fn keeps_body(&self, store: StoreBodies) -> bool {
        match self {
            Self::Delivered => store == StoreBodies::All,
            Self::Failed(_) => store != StoreBodies::None,
            _ => true,
        }
    }
}

/// Open rows only: what has ended goes in by [`copy`](super::copy).
const INSERT: &str = "
with fence as (select 1 from sources where slot = $1 and epoch = $2 for share)
insert into deliveries (
    id, event_id, event_type, webhook, lane, status, attempts, due_at, lease, committed_at, schema_name,
    table_name, row_key, operation, content_type, body, headers,
    last_attempt_at, last_took_ms, last_outcome, last_http_status, last_error, last_response)
select
    n.id, n.event_id, n.event_type, n.webhook, n.lane, n.status, n.attempts,
    case
        when n.due_at is null or n.lease is not null then n.due_at
        when n.behind or exists (
            select from deliveries_open o where o.webhook = n.webhook and o.lane = n.lane and o.id < n.id)
            then null
        else n.due_at
    end,
    n.lease, n.committed_at, n.schema_name, n.table_name, n.row_key, n.operation, n.content_type, n.body,
    n.headers,
    n.at, n.took_ms, n.outcome, n.http_status, n.error, n.response
from fence, unnest(
    $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::integer[], $10::timestamptz[],
    $11::bigint[], $12::timestamptz[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[],
    $18::bytea[], $19::timestamptz[], $20::double precision[], $21::text[], $22::integer[],
    $23::text[], $24::bytea[], $25::boolean[], $26::text[])
    as n(id, event_id, event_type, webhook, lane, status, attempts, due_at, lease, committed_at, schema_name,
         table_name, row_key, operation, content_type, body, at, took_ms, outcome, http_status,
         error, response, behind, headers)";

/// Every value of the attempt is carried through `held`: the planner cannot know how many rows an `unnest` of a
/// parameter makes, and joins two such sets by trying each pair.
const FINISH: &str = "
with fence as (select 1 from sources where slot = $1 and epoch = $2 for share),
n as (
    select n.* from fence, unnest(
        $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], $7::text[], $8::timestamptz[],
        $9::double precision[], $10::text[], $11::integer[], $12::text[], $13::bytea[], $14::boolean[],
        $15::boolean[])
        as n(id, lease, status, due_at, fail_reason, at, took_ms, outcome, http_status, error, response, keep,
             off_schedule)),
held as (
    select n.*, d.attempts as made, d.last_attempt_at, d.last_took_ms, d.last_outcome, d.last_http_status,
        d.last_error, d.last_response
    from n join deliveries_open d on d.id = n.id and d.lease = n.lease
    for update of d),
past as (
    insert into past_attempts (delivery, number, attempted_at, took_ms, outcome, http_status, error, response)
    select h.id, h.made, h.last_attempt_at, h.last_took_ms, h.last_outcome, h.last_http_status, h.last_error,
        h.last_response
    from held h
    where h.made > 0 and h.at is not null)
update deliveries d set
    status = case when h.status = 'pending' and d.attempts > 0 then 'retrying' else h.status end,
    attempts = d.attempts + case when h.at is null then 0 else 1 end,
    retried_from = d.retried_from + case when h.off_schedule then 1 else 0 end,
    due_at = case
        when h.due_at is null then null
        when exists (
            select from deliveries_open o
            where o.webhook = d.webhook and o.lane = d.lane and o.id < d.id and not exists (
                select from held e where e.id = o.id and e.status in ('delivered', 'failed')))
            then null
        else h.due_at
    end,
    lease = null,
    finished_at = case when h.status in ('delivered', 'failed') then now() end,
    fail_reason = h.fail_reason,
    body = case when h.keep then d.body end,
    last_attempt_at = coalesce(h.at, d.last_attempt_at),
    last_took_ms = case when h.at is null then d.last_took_ms else h.took_ms end,
    last_outcome = case when h.at is null then d.last_outcome else h.outcome end,
    last_http_status = case when h.at is null then d.last_http_status else h.http_status end,
    last_error = case when h.at is null then d.last_error else h.error end,
    last_response = case when h.at is null then d.last_response else h.response end
from held h
where d.id = h.id and d.status in ('pending', 'retrying')
returning d.id, h.lease, d.operation,
    case when d.operation <> 'snapshot' and d.sent_again_at is null then d.committed_at end";

/// The earliest open delivery of each of these lanes becomes due, where it was waiting for an earlier one. Asked once
/// more of the row itself: who is holding it is waited for, and then only that is looked at again.
const PROMOTE: &str = "
update deliveries_open o set due_at = now()
from (select distinct l.webhook, l.lane from unnest($1::text[], $2::bigint[]) as l(webhook, lane)) l,
    lateral (
        select n.id, n.due_at, n.status from deliveries_open n
        where n.webhook = l.webhook and n.lane = l.lane
        order by n.webhook, n.lane, n.id limit 1) head
where o.id = head.id and head.due_at is null and head.status <> 'held' and o.due_at is null and o.status <> 'held'";

/// Does the fence still stand? Until the transaction ends it does; and what time it is there.
const FENCE: &str = "select now() from sources where slot = $1 and epoch = $2 for share";

/// The same, and nobody else is behind the fence: waits for a transaction of ours whose answer was lost.
const FENCE_ALONE: &str = "select 1 from sources where slot = $1 and epoch = $2 for update";

/// The prepared statements of a session that records.
pub(super) struct Statements {
    insert: Statement,
    copy: Statement,
    finish: Statement,
    promote: Statement,
    fence: Statement,
    fence_alone: Statement,
}

impl Statements {
    /// Prepares them.
    pub(super) async fn prepare(client: &Client) -> Result<Self, LedgerError> {
        let prepared = async {
            Ok(Self {
                insert: client.prepare(INSERT).await?,
                copy: client.prepare(copy::COPY).await?,
                finish: client.prepare(FINISH).await?,
                promote: client.prepare(PROMOTE).await?,
                fence: client.prepare(FENCE).await?,
                fence_alone: client.prepare(FENCE_ALONE).await?,
            })
        };
        prepared.await.map_err(doing("preparing to record"))
    }

    /// Refuses when another process has taken over. Returns the time of the transaction.
    pub(super) async fn check_fence(
        &self,
        client: &Client,
        slot: &str,
        epoch: i64,
    ) -> Result<SystemTime, LedgerError> {
        let row =
            client.query_opt(&self.fence, &[&slot, &epoch]).await.map_err(doing("checking the fence"))?;
        row.map(|row| row.get(0)).ok_or(LedgerError::FencedOff)
    }

    /// Refuses when another process has taken over; what we had sent before has ended, either way, when this returns.
    pub(super) async fn wait_for_our_own(
        &self,
        client: &Client,
        slot: &str,
        epoch: i64,
    ) -> Result<(), LedgerError> {
        let row = client.query_opt(&self.fence_alone, &[&slot, &epoch]).await;
        row.map_err(doing("waiting for a lost transaction"))?.map(|_| ()).ok_or(LedgerError::FencedOff)
    }

    /// Writes the rows of young deliveries that have ended.
    pub(super) async fn copy(
        &self,
        client: &Client,
        slot: &str,
        epoch: i64,
        rows: &[&NewRow],
        store: StoreBodies,
    ) -> Result<(), LedgerError> {
        let ended_at = self.check_fence(client, slot, epoch).await?;
        copy::ended(client, &self.copy, rows, store, ended_at).await.map_err(doing("recording deliveries"))
    }

    /// Writes the rows of young deliveries that are open.
    pub(super) async fn insert(
        &self,
        client: &Client,
        slot: &str,
        epoch: i64,
        rows: &[&NewRow],
        store: StoreBodies,
        now: Timestamp,
    ) -> Result<u64, LedgerError> {
        let mut columns = Columns::default();
        let mut lanes = HashSet::new();
        for row in rows {
            let behind = !lanes.insert((&*row.delivery.webhook, row.delivery.lane));
            columns.push_delivery(&row.delivery);
            columns.push_state(&row.state, row.state.due(now), row.state.keeps_body(store));
            columns.push_attempt(row.attempt.as_ref());
            columns.attempts.push(i32::from(row.attempt.is_some()));
            columns.behind.push(behind);
            columns.body.push(row.kept(store).0);
        }
        let c = &columns;
        let parameters: [&(dyn ToSql + Sync); 26] = [
            &slot,
            &epoch,
            &c.id,
            &c.event_id,
            &c.event_type,
            &c.webhook,
            &c.lane,
            &c.status,
            &c.attempts,
            &c.due,
            &c.lease,
            &c.committed_at,
            &c.schema,
            &c.table,
            &c.key,
            &c.operation,
            &c.content_type,
            &c.body,
            &c.at,
            &c.took_ms,
            &c.outcome,
            &c.http_status,
            &c.error,
            &c.response,
            &c.behind,
            &c.headers,
        ];
        client.execute(&self.insert, &parameters).await.map_err(doing("recording deliveries"))
    }

    /// Writes what claimed deliveries' attempts led to. Returns, by id and lease, what is known of those that still held.
    pub(super) async fn finish(
        &self,
        client: &Client,
        slot: &str,
        epoch: i64,
        rows: &[Finish],
        store: StoreBodies,
        now: Timestamp,
    ) -> Result<HashMap<(String, i64), Written>, LedgerError> {
        let mut columns = Columns::default();
        let mut leases = Vec::with_capacity(rows.len());
        let off_schedule: Vec<bool> = rows.iter().map(|row| row.off_schedule).collect();
        for row in rows {
            columns.id.push(row.id.as_str());
            leases.push(row.lease.token);
            columns.push_state(&row.state, row.state.due(now), row.state.keeps_body(store));
            columns.push_attempt(row.attempt.as_ref());
        }
        let c = &columns;
        let parameters: [&(dyn ToSql + Sync); 15] = [
            &slot,
            &epoch,
            &c.id,
            &leases,
            &c.status,
            &c.due,
            &c.fail_reason,
            &c.at,
            &c.took_ms,
            &c.outcome,
            &c.http_status,
            &c.error,
            &c.response,
            &c.keep,
            &off_schedule,
        ];
        let written = client.query(&self.finish, &parameters).await.map_err(doing("recording attempts"))?;
        let about = |row: &tokio_postgres::Row| Written {
            is_test: Operation::from_word(row.get(2)) == Operation::Test,
            measured_from: row.get::<_, Option<_>>(3).map(time_of),
        };
        Ok(written.iter().map(|row| ((row.get(0), row.get(1)), about(row))).collect())
    }

    /// Makes the next delivery of each lane due.
    pub(super) async fn promote(
        &self,
        client: &Client,
        lanes: &[(Arc<str>, Lane)],
    ) -> Result<u64, LedgerError> {
        let webhooks: Vec<&str> = lanes.iter().map(|(webhook, _)| &**webhook).collect();
        let numbers: Vec<i64> = lanes.iter().map(|(_, lane)| lane.0).collect();
        client.execute(&self.promote, &[&webhooks, &numbers]).await.map_err(doing("moving lanes on"))
    }
}
