//! Existing rows, delivered: asked for here, done by the running instance.

use super::{ControlError, Places, command_session, declared, nearest};
use crate::backfill::{self, Table, wanted_as};
use crate::config::Config;
use crate::ledger::backfills::{self, Backfill, NewBackfill, Steer};
use crate::ledger::replay;
use crate::postgres::Session;
use crate::source::{TableInfo, slot_state, tables};

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The webhook.
    pub webhook: String,
    /// The table: `orders`, or `shop.orders` outside `public`.
    pub table: String,
    /// A column and a time: rows from then on.
    pub since: Option<(String, String)>,
    /// SQL over the table's columns.
    pub condition: Option<String>,
    /// At most so many rows a second.
    pub rows_per_second: Option<u32>,
}

/// A backfill that was asked for.
#[derive(Debug)]
pub struct Asked {
    session: Session,
    slot: String,
    /// Its number.
    pub id: i64,
    /// What its rows come as.
    pub event_type: String,
    /// Whether an instance streams, and so will do it now.
    pub running: bool,
}

/// Finds out that everything is as it must be, and asks for it. Nothing is written otherwise.
pub async fn ask(config: &Config, places: &Places, ask: &Ask) -> Result<Asked, ControlError> {
    let session = command_session(places).await?;
    let (snapshot, _) = declared(config, &session).await?;
    let webhook = &ask.webhook;
    if snapshot.by_name(webhook).is_none() {
        let nearest = nearest(webhook, snapshot.webhooks().iter().map(|c| &*c.webhook.name));
        return Err(ControlError::Unknown { what: "webhook", name: webhook.clone(), nearest });
    }
    let source = places.database.session("walhook backfill").await?;
    let known = tables(&source, &config.database.schema).await?;
    let (schema, name) = place(&known, &ask.table)?;
    let event_type = wanted_as(&snapshot, webhook, schema, name)?;
    let table = Table::look(&source, schema, name).await?;
    let since = ask.since.as_ref().map(|(column, time)| (column.as_str(), time.as_str()));
    let condition = ask.condition.as_deref();
    if let Some(condition) = condition {
        backfill::check(&source.client, &table, condition).await?;
    }
    let condition = backfill::combine(since, condition);
    if let Some(condition) = &condition {
        backfill::check(&source.client, &table, condition).await?;
    }
    let estimate = backfill::estimate(&source.client, &table, condition.as_deref()).await;
    let slot = config.database.slot.clone();
    let running = slot_state(&source, &slot).await?.is_some_and(|state| state.active_pid.is_some());
    let new = NewBackfill {
        slot: slot.clone(),
        webhook: webhook.clone(),
        schema: schema.to_owned(),
        table: name.to_owned(),
        condition,
        rows_per_second: ask.rows_per_second,
        estimate,
    };
    let id = backfills::create(&session.client, &new).await?;
    replay::announce(&session.client).await?;
    Ok(Asked { session, slot, id, event_type, running })
}

/// The schema and the name of a table as somebody wrote it.
pub(super) fn place<'t>(known: &'t [TableInfo], written: &str) -> Result<(&'t str, &'t str), ControlError> {
    let full = |table: &TableInfo| format!("{}.{}", table.schema, table.table);
    let is_it =
        |table: &&TableInfo| (table.schema == "public" && table.table == written) || full(table) == written;
    if let Some(table) = known.iter().find(is_it) {
        return Ok((&table.schema, &table.table));
    }
    let names: Vec<String> =
        known.iter().map(|t| if t.schema == "public" { t.table.clone() } else { full(t) }).collect();
    let nearest = nearest(written, names.iter().map(String::as_str));
    Err(ControlError::Unknown { what: "table", name: written.to_owned(), nearest })
}

impl Asked {
    /// How far it has come.
    pub async fn now(&self) -> Result<Backfill, ControlError> {
        one(&self.session, &self.slot, self.id).await
    }
}

async fn one(session: &Session, slot: &str, id: i64) -> Result<Backfill, ControlError> {
    let found = backfills::get(&session.client, slot, id).await?;
    found.ok_or_else(|| ControlError::Unknown { what: "backfill", name: id.to_string(), nearest: None })
}

/// All backfills of the slot, those that are not over first.
pub async fn list(config: &Config, places: &Places) -> Result<Vec<Backfill>, ControlError> {
    let session = command_session(places).await?;
    Ok(backfills::list(&session.client, &config.database.slot).await?)
}

/// Pauses, resumes or cancels one. What of it is in the ledger already is sent all the same.
pub async fn steer(
    config: &Config,
    places: &Places,
    id: i64,
    steer: Steer,
) -> Result<Backfill, ControlError> {
    let session = command_session(places).await?;
    let slot = &config.database.slot;
    let before = one(&session, slot, id).await?;
    if !backfills::steer(&session.client, slot, id, steer).await? {
        let what = match steer {
            Steer::Pause => "paused",
            Steer::Resume => "resumed",
            Steer::Cancel => "cancelled",
        };
        return Err(ControlError::NotSteerable { id, what, status: before.status.as_str() });
    }
    replay::announce(&session.client).await?;
    one(&session, slot, id).await
}
