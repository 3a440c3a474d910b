//! A test event through the real path: rendered as the webhook has it, into the ledger, and from there by the
//! running instance, signed and judged like any other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::keys::transaction_failed;
use super::{About, Actor, ControlError, Desk, Given, declared, fit, ledger_session, nearest, sample};
use crate::catalog::{Compiled, Rows, Snapshot};
use crate::config::Config;
use crate::domain::{Delivery, DeliveryId, Lane, NamedEvent, Notice, Operation, Ordering, Webhook, lane_of};
use crate::ledger::query::{Standing, standing};
use crate::ledger::replay::{self, Told};
use crate::ledger::trigger as row;
use crate::matcher::{names_notice, pattern_matches};
use crate::postgres::Session;
use crate::source::{TableInfo, columns, slot_state, tables};

/// How often the outcome is asked for.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long past the attempt's timeout is waited for the outcome.
const MARGIN: Duration = Duration::from_secs(10);

/// A test event on its way.
#[derive(Debug)]
pub struct Triggered {
    session: Session,
    /// The delivery's id.
    pub id: DeliveryId,
    /// The event's type.
    pub event_type: String,
    /// Whether the webhook subscribes to this event; it is sent all the same.
    pub subscribed: bool,
    patience: Duration,
}

/// Makes the event, puts it into the ledger, and tells the running instance. Refuses where none runs, or where the
/// webhook is suspended: a test that arrives some other day is no test.
pub async fn trigger(
    desk: &Desk,
    actor: &Actor,
    webhook: &str,
    event_type: Option<&str>,
    given: Option<Given>,
) -> Result<Triggered, ControlError> {
    let (config, places) = (&*desk.config(), &desk.places);
    let mut session = ledger_session(places, actor, About::Webhook(webhook)).await?;
    let (snapshot, rows) = declared(config, &session.client).await?;
    let compiled = usable(&snapshot, &rows, actor, webhook)?;
    let source = places.database.session("walhook trigger").await?;
    let slot = &config.database.slot;
    if slot_state(&source, slot).await?.is_none_or(|state| state.active_pid.is_none()) {
        return Err(ControlError::NotRunning { slot: slot.clone() });
    }
    let known = tables(&source, &config.database.schema).await?;
    let types = offered(&snapshot, config, &known, &compiled.webhook);
    let event_type = chosen(event_type, &compiled.webhook, &types)?;
    let event_type = event_type.as_str();
    let notice = Notice::of_type(event_type);
    let made = if notice.is_some() { None } else { makes(&snapshot, config, &known, event_type)? };
    let (schema, name) = made.map_or(("", ""), |(table, _)| (&table.schema, &table.table));
    let data = match (given, made) {
        (Some(given), Some((table, _))) => given.or(Operation::Test, &table.schema, &table.table).write()?,
        (Some(given), None) => given.or_of_no_table(Operation::Test).write()?,
        (None, Some((table, operation))) => {
            let columns = columns(&source, &[table.oid]).await?.remove(&table.oid).unwrap_or_default();
            let rules = |relation: &_| snapshot.matcher.interest(relation).rules().clone();
            sample::data(table, &columns, operation, rules)
        }
        (None, None) => sample::of_no_table(notice)?.or_of_no_table(Operation::Test).write()?,
    };
    let event = sample::event(event_type, places.database.database().unwrap_or_default(), &desk.clock);
    let rendered = compiled.renderer.render(&event, &data, webhook, config.delivery.max_body)?;
    let id = DeliveryId::of(&event.place, event_type, webhook);
    let delivery = Delivery {
        id: id.clone(),
        event_id: event.id.clone(),
        event_type: event.event_type.clone(),
        webhook: webhook.into(),
        lane: own_lane(&id),
        schema: schema.into(),
        table: name.into(),
        key: "".into(),
        operation: Operation::Test,
        committed_at: event.transaction.committed_at,
        content_type: compiled.renderer.content_type().into(),
        headers: rendered.headers,
        body: rendered.body,
    };
    record(&mut session, actor, &delivery).await?;
    let (subscribed, event_type) = (subscribes(&compiled.webhook, event_type), event_type.to_owned());
    Ok(Triggered { session, id, event_type, subscribed, patience: compiled.webhook.timeout + MARGIN })
}

/// A webhook that is declared, and is sent to.
fn usable<'s>(
    snapshot: &'s Snapshot,
    rows: &Rows,
    actor: &Actor,
    webhook: &str,
) -> Result<&'s Compiled, ControlError> {
    if let Some(invalid) = snapshot.invalid.iter().find(|invalid| invalid.webhook == webhook) {
        let reason = match actor.sight.tenant() {
            None => invalid.reason.clone(),
            Some(_) => "Its declaration does not fit any more.".to_owned(),
        };
        let webhook = webhook.to_owned();
        return Err(ControlError::Unusable { webhook, reason });
    }
    let Some(compiled) = snapshot.by_name(webhook) else {
        let names = snapshot.webhooks().iter().map(|c| &*c.webhook.name);
        let nearest = nearest(webhook, names.filter(|_| actor.sight.tenant().is_none()));
        return Err(ControlError::Unknown { what: "webhook", name: webhook.to_owned(), nearest });
    };
    if let Some(state) = rows.states.get(webhook) {
        return Err(ControlError::Suspended {
            webhook: webhook.to_owned(),
            state: state.suspension.as_str(),
            reason: state.reason.clone(),
        });
    }
    Ok(compiled)
}

fn subscribes(webhook: &Webhook, event_type: &str) -> bool {
    webhook.events.iter().any(|pattern| asks(pattern, event_type))
}

/// The types that there are for a webhook: to a tenant's, those that are public.
fn offered(snapshot: &Snapshot, config: &Config, known: &[TableInfo], webhook: &Webhook) -> Vec<Arc<str>> {
    match webhook.tenant {
        None => fit::event_types(snapshot, config, known),
        Some(_) => fit::public_types(snapshot, known),
    }
}

/// The type that was named, or the first that the webhook subscribes to.
fn chosen(named: Option<&str>, webhook: &Webhook, types: &[Arc<str>]) -> Result<String, ControlError> {
    let first = || types.iter().find(|event_type| subscribes(webhook, event_type)).map(AsRef::as_ref);
    if let Some(named) =
        named.filter(|named| webhook.tenant.is_some() && !types.iter().any(|t| **t == **named))
    {
        let nearest = nearest(named, types.iter().map(AsRef::as_ref));
        return Err(ControlError::Unknown { what: "event", name: named.to_owned(), nearest });
    }
    let chosen = named.or_else(first).map(str::to_owned);
    chosen.ok_or_else(|| ControlError::Value {
        key: "event",
        problem: "no event that there is matches what the webhook subscribes to; name one".to_owned(),
    })
}

/// Puts it into the ledger, and tells the running instance.
async fn record(session: &mut Session, actor: &Actor, delivery: &Delivery) -> Result<(), ControlError> {
    let transaction = session.client.transaction().await.map_err(transaction_failed)?;
    row::insert(&transaction, delivery).await?;
    let after = json!({ "delivery": delivery.id.as_str(), "event": &*delivery.event_type });
    actor.note(&transaction, "webhook.test", &delivery.webhook, (None, Some(after))).await?;
    replay::announce(&transaction, Told::Wanted(&delivery.webhook)).await?;
    transaction.commit().await.map_err(transaction_failed)
}

/// Whether a pattern means events of a type.
fn asks(pattern: &str, event_type: &str) -> bool {
    match Notice::of_type(event_type) {
        Some(notice) => names_notice(pattern, notice),
        None => pattern_matches(pattern, event_type),
    }
}

/// It waits for nobody, and nobody for it.
fn own_lane(id: &DeliveryId) -> Lane {
    lane_of(Ordering::None, ("", ""), &[], id)
}

/// The table and the operation that make events of a type; neither, where logical messages make them.
fn makes<'t>(
    snapshot: &Snapshot,
    config: &Config,
    known: &'t [TableInfo],
    event_type: &str,
) -> Result<Option<(&'t TableInfo, Operation)>, ControlError> {
    let is_declared = |event: &NamedEvent| event.is_message() && &*event.event_type == event_type;
    let of = |table: &'t TableInfo| {
        let mut types = snapshot.matcher.types_of(&table.schema, &table.table).into_iter();
        types.find(|t| &*t.event_type == event_type).map(|t| (table, t.operation))
    };
    if let Some(made) = known.iter().find_map(of) {
        return Ok(Some(made));
    }
    if config.events.iter().any(is_declared) {
        return Ok(None);
    }
    let types = fit::event_types(snapshot, config, known);
    let notices = Notice::ALL.iter().map(|notice| notice.event_type());
    let nearest = nearest(event_type, types.iter().map(AsRef::as_ref).chain(notices));
    Err(ControlError::Unknown { what: "event", name: event_type.to_owned(), nearest })
}

impl Triggered {
    /// Waits for the outcome of the first attempt; `None` where there is none in time.
    pub async fn outcome(&self) -> Result<Option<Standing>, ControlError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let now = standing(&self.session.client, self.id.as_str()).await?;
            if let Some(standing) = now
                && (standing.attempts > 0 || !["pending", "retrying"].contains(&&*standing.status))
            {
                return Ok(Some(standing));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}
