//! Webhooks, listed and edited one by one.
//!
//! Those of the file are shown and never written. Those of the database are rows of `walhook.webhooks`: what is written
//! here is judged by what judges the file and every row, and is live within a second, on every instance. A write is one
//! transaction with its entry in the audit; two writers notice each other by the row's version.

mod aim;
mod judge;
mod mask;
mod refused;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};

pub use aim::Aims;
pub use mask::MASK;
pub use view::{READ_ONLY, View};

use super::keys::transaction_failed;
use super::{About, Actor, ControlError, Desk, Repetition, nearest};
use crate::catalog::check_row;
use crate::config::{Config, Strangers};
use crate::domain::{Outcome, RefusedBy, limits, tenant_of};
use crate::ledger::ask::Ask;
use crate::ledger::refusals::Refusal;
use crate::ledger::states::standings;
use crate::ledger::webhooks::{self, Lock, Stored};
use crate::transport::Route;
use aim::Astray;
use judge::{held, insist_on_rights, judged, made_secret, sealed};
use mask::{masked, merge, unmask};
use view::{of_file, of_row, spoken};

/// What a writer has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Any,
    /// This version.
    Version(i64),
}

/// A change of a webhook.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The whole anew; without `secret`, the stored one stays.
    Replace(Map<String, Value>),
    /// A merge patch (RFC 7396).
    Merge(Map<String, Value>),
}

/// The webhooks after a name, in the order of names: those of the file and of the database.
pub async fn list(
    desk: &Desk,
    actor: &Actor,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<View>, ControlError> {
    let config = desk.config();
    let session = desk.session(actor, About::Seen).await?;
    let prepared = session.prepared();
    let client = prepared.on(&*session);
    let rows = webhooks::page(&client, actor.sight.tenant(), after, i64::from(limit)).await?;
    let of_the_file = config.webhooks.iter().filter(|webhook| {
        actor.sight.sees(&webhook.name) && after.is_none_or(|after| *webhook.name > *after)
    });
    let shelf = desk.shelf_for(&session, &rows.iter().map(|stored| &stored.row).collect::<Vec<_>>()).await?;
    let around = (&*config, shelf.named());
    let names: Vec<&str> =
        rows.iter().filter_map(name_of).chain(of_the_file.clone().map(|w| &*w.name)).collect();
    let standings = standings(&client, &names).await?;
    let mut all = BTreeMap::new();
    for stored in &rows {
        if let Some(name) = name_of(stored) {
            all.insert(name.to_owned(), of_row(stored.clone(), around, &standings).for_whom(&actor.sight));
        }
    }
    // A row of the name of one of the file is set aside.
    all.extend(of_the_file.map(|webhook| (webhook.name.to_string(), of_file(webhook, &standings))));
    Ok(all.into_values().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
}

/// One webhook.
pub async fn get(desk: &Desk, actor: &Actor, name: &str) -> Result<View, ControlError> {
    let config = desk.config();
    let session = desk.session(actor, About::Webhook(name)).await?;
    let prepared = session.prepared();
    let client = &prepared.on(&*session);
    if let Some(webhook) = config.webhooks.iter().find(|webhook| *webhook.name == *name) {
        return Ok(of_file(webhook, &standings(client, &[name]).await?));
    }
    match webhooks::get(client, name, Lock::None).await? {
        Some(stored) => {
            let shelf = desk.shelf_for(&session, &[&stored.row]).await?;
            let standings = standings(client, &[name]).await?;
            Ok(of_row(stored, (&config, shelf.named()), &standings).for_whom(&actor.sight))
        }
        None => Err(unknown(client, &config, (actor, name)).await?),
    }
}

/// Says that there is no webhook of a name, and, to whom it concerns, which comes near.
pub(super) async fn unknown(
    client: &impl Ask,
    config: &Config,
    (actor, name): (&Actor, &str),
) -> Result<ControlError, ControlError> {
    if actor.sight.tenant().is_some() {
        return Ok(ControlError::Unknown { what: "webhook", name: name.to_owned(), nearest: None });
    }
    let names = webhooks::names(client, 1000).await?;
    let names = names.iter().map(String::as_str).chain(config.webhooks.iter().map(|webhook| &*webhook.name));
    Ok(ControlError::Unknown { what: "webhook", name: name.to_owned(), nearest: nearest(name, names) })
}

/// Makes a webhook in the database. Without `secret` one is made, and is shown in this answer alone; `null` makes one that
/// does not sign. A refused address is written into the audit.
pub async fn create(
    desk: &Desk,
    actor: &Actor,
    document: Map<String, Value>,
    repetition: Option<&Repetition>,
) -> Result<View, ControlError> {
    let config = desk.config();
    let refusal = refused::of_document(&config, actor, None, &document);
    let astray = desk.aims.astray(&config, actor, &document).await;
    let name = document.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let made = made(desk, actor, (document, astray.as_ref()), repetition).await;
    tell_refused(desk, actor, refusal.or_else(|| refused::of_astray(actor, &name, astray)), made).await
}

/// Writes down for which address a declaration was refused, where it was.
async fn tell_refused(
    desk: &Desk,
    actor: &Actor,
    refusal: Option<Refusal>,
    done: Result<View, ControlError>,
) -> Result<View, ControlError> {
    if let (Some(refusal), Err(ControlError::Declaration(_) | ControlError::Value { .. })) = (refusal, &done)
    {
        desk.refused(actor, refusal).await;
    }
    done
}

async fn made(
    desk: &Desk,
    actor: &Actor,
    (mut document, astray): (Map<String, Value>, Option<&Astray>),
    repetition: Option<&Repetition>,
) -> Result<View, ControlError> {
    let config = desk.config();
    actor.sight.claim(&mut document)?;
    insist_on_rights(actor, &config, &Map::new(), &document)?;
    let made = if document.contains_key("secret") { None } else { Some(made_secret()?) };
    if let Some(secret) = &made {
        document.insert("secret".to_owned(), secret.as_str().into());
    }
    let mut session = desk.session(actor, About::Seen).await?;
    let prepared = session.prepared();
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let shelf = held(desk, &transaction, &document).await?;
    let around = (&*config, shelf.named());
    let document = judged(around, document, None)?;
    if let Some(astray) = astray {
        return Err(astray.clone().into());
    }
    let client = prepared.on(&transaction);
    if let Some(repetition) = repetition
        && let Some(answered) = repeated(&client, repetition, &config).await?
    {
        return Ok(answered);
    }
    let name = document.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let exists = || ControlError::Exists { what: "webhook", name: name.clone() };
    if config.webhooks.iter().any(|webhook| *webhook.name == *name) {
        return Err(exists());
    }
    insist_on_room(desk, actor, &client).await?;
    // First who did it: from the row on, until the end, no other webhook can be written.
    let after = Some(Value::Object(masked(&document)));
    actor.note(&client, "webhook.create", &name, (None, after)).await?;
    let stored = webhooks::insert(&client, &sealed(&document, &config)?).await?.ok_or_else(exists)?;
    let shown = |stored| of_row(stored, around, &HashMap::new());
    let mut view = match repetition {
        // The answer is made when nobody waits for this transaction any more, where it is not a part of it.
        None => {
            transaction.commit().await.map_err(transaction_failed)?;
            shown(stored)
        }
        Some(repetition) => {
            let view = shown(stored);
            let answer = json!({ "document": view.document, "made_secret": made.is_some() });
            repetition.keep(&client, &answer).await?;
            transaction.commit().await.map_err(transaction_failed)?;
            view
        }
    };
    if let Some(secret) = made {
        view.document.insert("secret".to_owned(), secret.into());
    }
    Ok(view)
}

/// Refuses one more than there may be. All of them are counted only now and then: as often as half of what there was room
/// for was made here, so that other instances and other means make too many by little.
async fn insist_on_room(desk: &Desk, actor: &Actor, client: &impl Ask) -> Result<(), ControlError> {
    let too_many = |most| ControlError::TooMany { what: "webhooks", most };
    if let Some(tenant) = actor.sight.tenant() {
        let most = limits::TENANT_WEBHOOKS;
        if webhooks::count(client, Some(tenant), most).await? >= most {
            return Err(too_many(most));
        }
    }
    if desk.takes_room() {
        return Ok(());
    }
    let most = i64::try_from(limits::WEBHOOKS).unwrap_or(i64::MAX);
    let left = most - webhooks::count(client, None, most).await?;
    desk.has_room(left / 2);
    if left > 0 { Ok(()) } else { Err(too_many(most)) }
}

/// Whether the receiver of a webhook that is to be made can be reached, by the rules that its deliveries go by: its name
/// resolved, connected to, and for https greeted. Nothing is sent. What is wrong with the declaration itself is for
/// [`create`] to tell. A tenant learns nothing about addresses.
pub async fn probe(desk: &Desk, actor: &Actor, document: &Map<String, Value>) -> Result<(), ControlError> {
    actor.sight.admit(About::Operators)?;
    let config = desk.config();
    let mut declared = document.clone();
    declared.retain(|key, value| !value.is_null() && !["description", "metadata"].contains(&key.as_str()));
    let shelf = if declared.contains_key("template") {
        let session = desk.session(actor, About::Operators).await?;
        desk.shelf_for(&session, &[&declared]).await?
    } else {
        Arc::default()
    };
    let around = (&*config, shelf.named());
    let Ok(webhook) = check_row(&declared, around, Strangers::Refused) else { return Ok(()) };
    let transport = super::transport(&config, &desk.clock)?;
    let (route, patience) = (Route::of(&webhook.reach), webhook.timeout.min(limits::API_PROBE_WITHIN));
    let reached = transport.probe(&webhook.url, webhook.source, route.as_ref(), patience).await;
    let Err(outcome) = reached else { return Ok(()) };
    if let Outcome::Refused { by: RefusedBy::Address(address), .. } = &outcome {
        desk.refused(actor, refused::of_address(actor, &webhook.name, ("url", *address))).await;
    }
    let problem = format!("the receiver cannot be reached: {}", outcome.describe());
    Err(ControlError::Value { key: "url", problem })
}

/// The answer that was given before. The secret that was made then is not kept with it: it is the row's, as long as nobody
/// has changed that.
async fn repeated(
    transaction: &impl Ask,
    repetition: &Repetition,
    config: &Config,
) -> Result<Option<View>, ControlError> {
    let Some(answer) = repetition.answered(transaction).await? else { return Ok(None) };
    let made_secret = answer.get("made_secret").and_then(Value::as_bool).unwrap_or_default();
    let document = answer.get("document").and_then(Value::as_object).cloned().unwrap_or_default();
    let version = document.get("version").and_then(Value::as_i64);
    let name = document.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut view = View { document, version };
    if made_secret
        && let Some(stored) = webhooks::get(transaction, &name, Lock::None).await?
        && Some(stored.version) == version
        && let Ok(row) = spoken(&stored.row, config)
        && let Some(secret) = row.get("secret")
    {
        view.document.insert("secret".to_owned(), secret.clone());
    }
    Ok(Some(view))
}

/// Changes a webhook of the database. A refused address is written into the audit.
pub async fn change(
    desk: &Desk,
    actor: &Actor,
    name: &str,
    (change, expected): (Change, Expected),
) -> Result<View, ControlError> {
    let (Change::Replace(document) | Change::Merge(document)) = &change;
    let mut document = document.clone();
    if tenant_of(name).is_some() {
        document.entry("tenant").or_insert_with(|| tenant_of(name).into());
    }
    let config = desk.config();
    let refusal = refused::of_document(&config, actor, Some(name), &document);
    let astray = desk.aims.astray(&config, actor, &document).await;
    let changed = changed(desk, actor, name, (change, expected, astray.as_ref())).await;
    tell_refused(desk, actor, refusal.or_else(|| refused::of_astray(actor, name, astray)), changed).await
}

async fn changed(
    desk: &Desk,
    actor: &Actor,
    name: &str,
    (change, expected, astray): (Change, Expected, Option<&Astray>),
) -> Result<View, ControlError> {
    let config = desk.config();
    let mut session = desk.session(actor, About::Webhook(name)).await?;
    let prepared = session.prepared();
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let client = prepared.on(&transaction);
    let stored = to_write(&client, &config, (actor, name), expected).await?;
    let before = spoken(&stored.row, &config).map_err(ControlError::Declaration)?;
    let shown = Value::Object(masked(&before));
    let is_patch = matches!(change, Change::Merge(_));
    let mut given = match change {
        Change::Replace(mut document) => {
            document.entry("name").or_insert_with(|| name.into());
            actor.sight.claim(&mut document)?;
            for key in actor.sight.forbidden(&before, &document) {
                // What the operator has set stays, where a tenant leaves it out.
                if let (None, Some(kept)) = (document.get(&key), before.get(&key)) {
                    document.insert(key, kept.clone());
                }
            }
            if let Some(secret) = before.get("secret").filter(|_| !document.contains_key("secret")) {
                document.insert("secret".to_owned(), secret.clone());
            }
            Value::Object(document)
        }
        Change::Merge(patch) => Value::Object(patch),
    };
    unmask(&mut given, &shown, &Value::Object(before.clone()));
    if is_patch {
        let mut document = Value::Object(before.clone());
        merge(&mut document, given);
        given = document;
    }
    let Value::Object(mut given) = given else {
        return Err(unknown(&client, &config, (actor, name)).await?);
    };
    actor.sight.claim(&mut given)?;
    insist_on_rights(actor, &config, &before, &given)?;
    let shelf = held(desk, &transaction, &given).await?;
    let around = (&*config, shelf.named());
    let document = judged(around, given, Some(name)).map_err(|error| actor.sight.told(error))?;
    // What is there already was declared when its name led elsewhere, and other keys may be changed still.
    if let Some(astray) = astray.filter(|astray| !aim::names(&before, astray)) {
        return Err(astray.clone().into());
    }
    let Some(stored) = webhooks::update(&client, &sealed(&document, &config)?).await? else {
        return Err(unknown(&client, &config, (actor, name)).await?);
    };
    let told = (Some(shown), Some(Value::Object(masked(&document))));
    actor.note(&client, "webhook.update", name, told).await?;
    let view = of_row(stored, around, &standings(&client, &[name]).await?).for_whom(&actor.sight);
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(view)
}

/// Removes a webhook of the database. What it is owed waits for its return.
pub async fn remove(desk: &Desk, actor: &Actor, name: &str, expected: Expected) -> Result<(), ControlError> {
    let config = desk.config();
    let mut session = desk.session(actor, About::Webhook(name)).await?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let stored = to_write(&transaction, &config, (actor, name), expected).await?;
    webhooks::delete(&transaction, name).await?;
    let shown = spoken(&stored.row, &config).unwrap_or(stored.row);
    let before = Some(Value::Object(masked(&shown)));
    actor.note(&transaction, "webhook.delete", name, (before, None)).await?;
    transaction.commit().await.map_err(transaction_failed)
}

/// The row that is to be written, which nobody else writes meanwhile.
async fn to_write(
    transaction: &impl Ask,
    config: &Config,
    (actor, name): (&Actor, &str),
    expected: Expected,
) -> Result<Stored, ControlError> {
    if config.webhooks.iter().any(|webhook| *webhook.name == *name) {
        let path = config.path.display().to_string();
        return Err(ControlError::ReadOnly { what: "webhook", name: name.to_owned(), path });
    }
    match webhooks::get(transaction, name, Lock::ForUpdate).await? {
        None => Err(unknown(transaction, config, (actor, name)).await?),
        Some(stored) if matches!(expected, Expected::Version(version) if version != stored.version) => {
            Err(ControlError::Stale { what: "webhook", name: name.to_owned() })
        }
        Some(stored) => Ok(stored),
    }
}

fn name_of(stored: &Stored) -> Option<&str> {
    stored.row.get("name").and_then(Value::as_str)
}
