//! Existing rows, delivered: asked for here, done by the running instance.

use serde_json::json;
use tokio_postgres::GenericClient;

use super::keys::transaction_failed;
use super::{About, Actor, ControlError, Desk, declared, ledger_session, nearest, webhooks};
use crate::backfill::{self, Table, wanted_as};
use crate::ledger::backfills::{self, Backfill, NewBackfill, Steer};
use crate::ledger::replay::{self, Told};
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
pub async fn ask(desk: &Desk, actor: &Actor, ask: &Ask) -> Result<Asked, ControlError> {
    let (config, places) = (&*desk.config(), &desk.places);
    let mut session = ledger_session(places, actor, About::Operators).await?;
    let (snapshot, _) = declared(config, &session.client).await?;
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
    table.insist_on_order(&source.client).await?;
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
    let transaction = session.client.transaction().await.map_err(transaction_failed)?;
    let id = backfills::create(&transaction, &new).await?;
    let after = json!({
        "backfill": id, "table": format!("{schema}.{name}"), "condition": new.condition,
        "rows_per_second": new.rows_per_second,
    });
    actor.note(&transaction, "backfill.create", webhook, (None, Some(after))).await?;
    replay::announce(&transaction, Told::Jobs).await?;
    transaction.commit().await.map_err(transaction_failed)?;
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
        one(&self.session.client, &self.slot, self.id).await
    }
}

async fn one(client: &impl GenericClient, slot: &str, id: i64) -> Result<Backfill, ControlError> {
    backfills::get(client, slot, id).await?.ok_or_else(|| no_backfill(id))
}

fn no_backfill(id: i64) -> ControlError {
    ControlError::Unknown { what: "backfill", name: id.to_string(), nearest: None }
}

/// All backfills of the slot before a number, newest first.
pub async fn list(
    desk: &Desk,
    actor: &Actor,
    (before, limit): (Option<i64>, u32),
) -> Result<Vec<Backfill>, ControlError> {
    let session = desk.session(actor, About::Operators).await?;
    let whose = (&*desk.config().database.slot, None);
    Ok(backfills::page(&session, whose, before, i64::from(limit)).await?)
}

/// One of whichever webhook.
pub async fn find(desk: &Desk, actor: &Actor, id: i64) -> Result<Backfill, ControlError> {
    let session = desk.session(actor, About::Operators).await?;
    one(&*session, &desk.config().database.slot, id).await
}

/// The backfills of a webhook before a number, newest first.
pub async fn list_of(
    desk: &Desk,
    actor: &Actor,
    webhook: &str,
    (before, limit): (Option<i64>, u32),
) -> Result<Vec<Backfill>, ControlError> {
    let slot = &desk.config().database.slot;
    let session = desk.session(actor, About::Operators).await?;
    let found = backfills::page(&session, (slot, Some(webhook)), before, i64::from(limit)).await?;
    drop(session);
    if found.is_empty() {
        // One that is gone may have left some; of one that never was there is nothing to list.
        webhooks::get(desk, actor, webhook).await?;
    }
    Ok(found)
}

/// One of a webhook.
pub async fn get(desk: &Desk, actor: &Actor, webhook: &str, id: i64) -> Result<Backfill, ControlError> {
    let session = desk.session(actor, About::Operators).await?;
    let found = one(&*session, &desk.config().database.slot, id).await?;
    if found.webhook == webhook { Ok(found) } else { Err(no_backfill(id)) }
}

/// Pauses, resumes or cancels one of `webhook`. What of it is in the ledger already is sent all
/// the same.
pub async fn steer(
    desk: &Desk,
    actor: &Actor,
    (webhook, id): (&str, i64),
    steer: Steer,
) -> Result<Backfill, ControlError> {
    let slot = &desk.config().database.slot;
    let mut session = desk.session(actor, About::Operators).await?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let before = one(&transaction, slot, id).await?;
    if webhook != before.webhook {
        return Err(no_backfill(id));
    }
    let (what, action) = match steer {
        Steer::Pause => ("paused", "backfill.pause"),
        Steer::Resume => ("resumed", "backfill.resume"),
        Steer::Cancel => ("cancelled", "backfill.cancel"),
    };
    if !backfills::steer(&transaction, slot, id, steer).await? {
        return Err(ControlError::NotSteerable { id, what, status: before.status.as_str() });
    }
    let after = one(&transaction, slot, id).await?;
    let told = |of: &Backfill| Some(json!({ "backfill": id, "status": of.status.as_str() }));
    actor.note(&transaction, action, &before.webhook, (told(&before), told(&after))).await?;
    replay::announce(&transaction, Told::Jobs).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(after)
}
