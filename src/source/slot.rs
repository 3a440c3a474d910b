//! The replication slot: the server's memory of what we have confirmed.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::link::{Link, TextRow};
use super::publication::literal;
use super::{SetupError, SourceError};
use crate::domain::{EndLsn, Lsn, limits};
use crate::postgres::Session;

/// The first number of the advisory lock on making and dropping a slot; the second is made of its name.
const MAKING: i32 = 0x7768_6D6B;
/// How often a lock that somebody else has is asked for.
const LOCK_EVERY: Duration = Duration::from_millis(200);

/// Whether the log that the slot needs is there (`pg_replication_slots.wal_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond it, kept for the slot.
    Extended,
    /// About to be removed: the slot can still be saved by confirming.
    Unreserved,
    /// Removed.
    Lost,
}

impl WalStatus {
    /// Every one, the best first.
    pub const ALL: [Self; 4] = [Self::Reserved, Self::Extended, Self::Unreserved, Self::Lost];

    /// The server's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Extended => "extended",
            Self::Unreserved => "unreserved",
            Self::Lost => "lost",
        }
    }
}

/// A slot as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Its output plugin.
    pub plugin: String,
    /// Its database.
    pub database: String,
    /// The server process that streams from it.
    pub active_pid: Option<i32>,
    /// Up to where everything was confirmed.
    pub confirmed: EndLsn,
    /// The oldest position it holds.
    pub restart: Option<Lsn>,
    /// Whether its log is there.
    pub wal_status: WalStatus,
    /// Why it is lost, in the server's word; from Postgres 17 on.
    pub invalidation_reason: Option<String>,
    /// Whether it is copied to the standbys (`failover`); `None` before Postgres 17.
    pub failover: Option<bool>,
    /// Whether it is the copy of a primary's slot (`synced`): it stays so when the standby is promoted.
    pub synced: bool,
    /// How many bytes may still be written before it is lost; `None` without a limit.
    pub safe_wal_bytes: Option<i64>,
    /// How far the server's log is ahead of `confirmed`, in bytes.
    pub lag_bytes: u64,
    /// How much log the server keeps for it, in bytes.
    pub retained_bytes: u64,
}

fn query_text(slot: &str) -> String {
    format!(
        "select s.plugin, s.database, s.active_pid, s.confirmed_flush_lsn, s.restart_lsn, s.wal_status, \
         s.safe_wal_size, case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
         else pg_current_wal_flush_lsn() end, \
         to_jsonb(s) ->> 'invalidation_reason', to_jsonb(s) ->> 'failover', to_jsonb(s) ->> 'synced' \
         from pg_catalog.pg_replication_slots s where s.slot_name = {}",
        literal(slot)
    )
}

impl SlotState {
    fn read(row: &[Option<String>]) -> Self {
        let text = |index: usize| row.get(index).and_then(Option::as_deref);
        let lsn = |index: usize| text(index).and_then(|text| text.parse::<Lsn>().ok());
        let (confirmed, now) = (lsn(3).unwrap_or_default(), lsn(7).unwrap_or_default());
        Self {
            plugin: text(0).unwrap_or_default().to_owned(),
            database: text(1).unwrap_or_default().to_owned(),
            active_pid: text(2).and_then(|text| text.parse().ok()),
            confirmed: EndLsn(confirmed),
            restart: lsn(4),
            wal_status: WalStatus::ALL
                .into_iter()
                .find(|status| text(5) == Some(status.as_str()))
                .unwrap_or(WalStatus::Reserved),
            invalidation_reason: text(8).map(str::to_owned),
            failover: text(9).map(|text| text == "true"),
            synced: text(10) == Some("true"),
            safe_wal_bytes: text(6).and_then(|text| text.parse().ok()),
            lag_bytes: now.bytes_since(confirmed),
            retained_bytes: lsn(4).map_or(0, |restart| now.bytes_since(restart)),
        }
    }

    /// The error that says how the slot was lost.
    pub(crate) fn lost(&self, slot: &str) -> SourceError {
        SourceError::SlotLost {
            slot: slot.to_owned(),
            confirmed: Some(self.confirmed),
            reason: self.invalidation_reason.clone(),
        }
    }

    /// Whether a stream can start from it, as `slot`.
    pub(super) fn usable(&self, slot: &str, database: &str) -> Result<(), SourceError> {
        let slot = slot.to_owned();
        if self.plugin != "pgoutput" || self.database != database {
            let problem = format!("It uses plugin {:?} in database {:?}.", self.plugin, self.database);
            return Err(SourceError::SlotForeign { slot, problem });
        }
        if self.wal_status == WalStatus::Lost {
            return Err(self.lost(&slot));
        }
        match self.active_pid {
            Some(pid) => Err(SourceError::SlotTaken { slot, pid: Some(pid) }),
            None => Ok(()),
        }
    }
}

/// Reads a slot's state; `None` where there is none of this name.
pub async fn slot_state(session: &Session, slot: &str) -> Result<Option<SlotState>, SetupError> {
    let messages = session.client.simple_query(&query_text(slot)).await;
    let messages = messages.map_err(SetupError::query("read the state of the replication slot"))?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let texts: TextRow = (0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect();
            Some(SlotState::read(&texts))
        }
        _ => None,
    }))
}

/// The same, over the replication link.
pub(super) async fn state_on(link: &mut Link, slot: &str) -> Result<Option<SlotState>, SourceError> {
    let rows = link.query("the question for the slot's state", &query_text(slot)).await?;
    Ok(rows.first().map(|row| SlotState::read(row)))
}

/// Waits until nobody else makes or drops the slots of this name by walhook's hand; until the session ends.
pub async fn lock_slot(session: &Session, slot: &str) -> Result<(), SetupError> {
    // Asked again and again: a statement that waits would keep the other's new slot from beginning.
    let sql = "select pg_catalog.pg_try_advisory_lock($1, pg_catalog.hashtext($2))";
    let mut told = false;
    loop {
        let row = session.client.query_one(sql, &[&MAKING, &slot]).await;
        if row.map_err(SetupError::query("wait for another walhook that prepares the slot"))?.get(0) {
            return Ok(());
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!(slot, "another walhook prepares the slot; waiting for it");
        }
        tokio::time::sleep(LOCK_EVERY).await;
    }
}

/// Makes a slot, and says where it begins; leaves one that somebody else has made at the same moment. The server first waits
/// for the transactions that are running.
pub(super) async fn create(
    session: &Session,
    slot: &str,
    failover: bool,
) -> Result<Option<EndLsn>, SetupError> {
    // The parameter is there from Postgres 17 on.
    let sql = if failover {
        "select lsn::text from pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput', failover => true)"
    } else {
        "select lsn::text from pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')"
    };
    // It waits for every transaction that is open, however long that takes.
    let (client, asking) = (&session.client, SetupError::query("create the replication slot"));
    client.batch_execute("set lock_timeout to 0").await.map_err(&asking)?;
    let made = client.query_one(sql, &[&slot]).await;
    client.batch_execute("reset lock_timeout").await.map_err(&asking)?;
    match made {
        Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => Ok(None),
        made => {
            let made = made.map_err(SetupError::query("create the replication slot"))?;
            Ok(made.get::<_, &str>(0).parse().ok().map(EndLsn))
        }
    }
}

/// Has the slot copied to standbys, or no longer; nobody may stream from it.
pub(super) async fn alter(link: &mut Link, slot: &str, failover: bool) -> Result<(), SourceError> {
    let name = slot.replace('"', "\"\"");
    let sql = format!("ALTER_REPLICATION_SLOT \"{name}\" (FAILOVER {failover})");
    link.query("ALTER_REPLICATION_SLOT", &sql).await?;
    tracing::info!(slot, failover, "altered the slot");
    Ok(())
}

/// Drops a slot that cannot be read any more, once whoever still tries to has heard so.
pub async fn drop_lost_slot(session: &Session, slot: &str) -> Result<(), SetupError> {
    let deadline = tokio::time::Instant::now() + limits::ANSWER_WITHIN;
    loop {
        match drop_slot(session, slot).await {
            Err(error) if error.is_of_a_slot_in_use() && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOCK_EVERY).await;
            }
            dropped => return dropped.map(drop),
        }
    }
}

/// Drops a slot, if it is there and nobody streams from it. Returns whether it was there.
pub async fn drop_slot(session: &Session, slot: &str) -> Result<bool, SetupError> {
    let sql = "select pg_catalog.pg_drop_replication_slot(s.slot_name) \
               from pg_catalog.pg_replication_slots s where s.slot_name = $1";
    let dropped = session.client.query(sql, &[&slot]).await;
    dropped.map(|rows| !rows.is_empty()).map_err(SetupError::query("drop the replication slot"))
}
