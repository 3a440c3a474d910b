//! Deliveries, searched and handled one by one.

use serde_json::json;

use super::keys::transaction_failed;
use super::{About, Actor, ControlError, Desk};
use crate::domain::StoreBodies;
use crate::ledger::deliveries::{self, Page, Search, Whole};
use crate::ledger::query::standing;
use crate::ledger::replay::{self, Ended, Reached, Which};

/// Finds deliveries, newest first, behind the one of an id.
pub async fn search(
    desk: &Desk,
    actor: &Actor,
    search: &Search,
    behind: Option<&str>,
    limit: u32,
) -> Result<Page, ControlError> {
    let about = search.webhook.as_deref().map_or(About::Seen, About::Webhook);
    let mut session = desk.session(actor, about).await?;
    let search = &Search { tenant: actor.sight.tenant().map(str::to_owned), ..search.clone() };
    let prepared = session.prepared();
    let transaction =
        session.build_transaction().read_only(true).start().await.map_err(transaction_failed)?;
    deliveries::plan_for(&transaction, search).await?;
    let page = deliveries::search(&prepared.on(&transaction), search, behind, limit).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(page)
}

/// One delivery of a webhook with all that is known of it.
pub async fn get(desk: &Desk, actor: &Actor, webhook: &str, id: &str) -> Result<Whole, ControlError> {
    let session = desk.session(actor, About::Webhook(webhook)).await?;
    let whole = deliveries::whole(&session.prepared().on(&*session), webhook, id).await?;
    whole.ok_or_else(|| no_delivery(id))
}

/// The same by its id alone, which is all that a receiver knows of it.
pub async fn find(desk: &Desk, actor: &Actor, id: &str) -> Result<Whole, ControlError> {
    let session = desk.session(actor, About::Seen).await?;
    let webhook = deliveries::webhook_of(&*session, id).await?;
    let webhook = webhook.filter(|webhook| actor.sight.sees(webhook)).ok_or_else(|| no_delivery(id))?;
    let whole = deliveries::whole(&*session, &webhook, id).await?;
    whole.ok_or_else(|| no_delivery(id))
}

/// Sends one that has ended again, whether it failed, was cancelled or was delivered: who names one means it.
pub async fn retry(desk: &Desk, actor: &Actor, webhook: &str, id: &str) -> Result<Whole, ControlError> {
    let which = Which {
        id: Some(id.to_owned()),
        webhook: Some(webhook.to_owned()),
        ended: vec![Ended::Failed, Ended::Delivered, Ended::Cancelled],
        ..Which::default()
    };
    let mut session = desk.session(actor, About::Webhook(webhook)).await?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let before = deliveries::whole(&transaction, webhook, id).await?.ok_or_else(|| no_delivery(id))?;
    let census = replay::count(&transaction, &which).await?;
    let moved = replay::replay_in(&transaction, &which, &census, &mut Reached::default(), 1).await?;
    if moved == 0 {
        let status = before.listed.status;
        let reason = match &*status {
            "failed" | "delivered" | "cancelled" => "Its body was not kept (ledger.store_bodies).".to_owned(),
            _ => format!("It is {status}."),
        };
        return Err(ControlError::NotReplayable { id: id.to_owned(), reason });
    }
    let after = deliveries::whole(&transaction, webhook, id).await?.ok_or_else(|| no_delivery(id))?;
    let told = (
        Some(json!({ "webhook": webhook, "status": before.listed.status })),
        Some(json!({ "webhook": webhook, "status": after.listed.status })),
    );
    actor.note(&transaction, "delivery.retry", id, told).await?;
    replay::announce(&transaction).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(after)
}

/// Ends one that waits, without another attempt. One that is under way, or still in memory, is left.
pub async fn cancel(desk: &Desk, actor: &Actor, webhook: &str, id: &str) -> Result<Whole, ControlError> {
    let keep = desk.config().ledger.store_bodies != StoreBodies::None;
    let mut session = desk.session(actor, About::Webhook(webhook)).await?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let before = deliveries::whole(&transaction, webhook, id).await?.ok_or_else(|| no_delivery(id))?;
    if !deliveries::cancel(&transaction, webhook, id, keep).await? {
        let now = standing(&transaction, id).await?.map(|standing| standing.status).unwrap_or_default();
        let reason = match &*now {
            "delivered" | "failed" | "cancelled" => format!("It is {now}."),
            _ => "An attempt of it is under way.".to_owned(),
        };
        return Err(ControlError::NotCancellable { id: id.to_owned(), reason });
    }
    let after = deliveries::whole(&transaction, webhook, id).await?.ok_or_else(|| no_delivery(id))?;
    let told = (
        Some(json!({ "webhook": webhook, "status": before.listed.status })),
        Some(json!({ "webhook": webhook, "status": after.listed.status })),
    );
    actor.note(&transaction, "delivery.cancel", id, told).await?;
    replay::announce(&transaction).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(after)
}

fn no_delivery(id: &str) -> ControlError {
    ControlError::Unknown { what: "delivery", name: id.to_owned(), nearest: None }
}
