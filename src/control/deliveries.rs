//! Deliveries, searched and handled one by one.

use jiff::Timestamp;
use serde_json::json;
use tokio_postgres::Client;

use super::keys::transaction_failed;
use super::{About, Actor, ControlError, Desk, declared};
use crate::catalog::anew;
use crate::domain::{Operation, StoreBodies, limits};
use crate::ledger::deliveries::{self, Page, Search, Whole};
use crate::ledger::query::standing;
use crate::ledger::replay::{self, Census, Ended, Reached, Told, Which};
use crate::ledger::unrendered::Unrendered;

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

/// What somebody who sends a delivery again knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// How it ended, one of these; none means that it failed or was cancelled. What was delivered is sent by an explicit
    /// wish alone.
    pub ended: Vec<Ended>,
    /// How many attempts of it were made. Who says so means it, however short a time ago somebody else has sent it again;
    /// and two who say the same send it once.
    pub attempts: Option<u32>,
}

/// Sends one that has ended again, once, however many press at once.
pub async fn retry(
    desk: &Desk,
    actor: &Actor,
    webhook: &str,
    id: &str,
    known: &Known,
) -> Result<Whole, ControlError> {
    let mut session = desk.session(actor, About::Webhook(webhook)).await?;
    let mut which = Which {
        id: Some(id.to_owned()),
        webhook: Some(webhook.to_owned()),
        ended: match &known.ended[..] {
            [] => vec![Ended::Failed, Ended::Cancelled],
            ended => ended.to_vec(),
        },
        attempts: known.attempts,
        ..Which::default()
    };
    render_anew(desk, &session, &which).await?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    // Whoever else sends it again is waited for, so that what is read is what is.
    let now = replay::alone(&transaction).await?;
    if known.attempts.is_none() {
        which.spares = Some(now.checked_sub(limits::AGAIN_AFTER).unwrap_or(now));
    }
    let before = deliveries::whole(&transaction, webhook, id).await?.ok_or_else(|| no_delivery(id))?;
    let (census, mut reached) = (Census { count: 1, at: now }, Reached::default());
    let page = replay::page(&transaction, &which, &census, &reached, 1).await?;
    if replay::replay_in(&transaction, &which, &census, &mut reached, &page).await? == 0 {
        return Err(not_sent(&before, known, &which));
    }
    let after = deliveries::whole(&transaction, webhook, id).await?.ok_or_else(|| no_delivery(id))?;
    let told = (
        Some(json!({ "webhook": webhook, "status": before.listed.status })),
        Some(json!({ "webhook": webhook, "status": after.listed.status })),
    );
    actor.note(&transaction, "delivery.retry", id, told).await?;
    replay::announce(&transaction, Told::Wanted(webhook)).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(after)
}

/// Renders one that could not be rendered and is to be sent again. Nothing waits for this.
async fn render_anew(desk: &Desk, client: &Client, which: &Which) -> Result<(), ControlError> {
    let census = replay::count(client, which).await?;
    let page = replay::page(client, which, &census, &Reached::default(), 1).await?;
    if !page.is_to_render() {
        return Ok(());
    }
    let config = desk.config();
    let (snapshot, _) = declared(&config, client).await?;
    let max_body = config.delivery.max_body;
    let render =
        |kept: &Unrendered| anew::render(kept, snapshot.by_name(&kept.webhook).map(AsRef::as_ref), max_body);
    match page.render(client, &render).await?.reason {
        Some(reason) => Err(ControlError::NotReplayable { id: which.id.clone().unwrap_or_default(), reason }),
        None => Ok(()),
    }
}

/// Why a delivery was not sent again.
fn not_sent(found: &Whole, known: &Known, which: &Which) -> ControlError {
    let id = found.listed.id.clone();
    let made = u32::try_from(found.listed.attempts).unwrap_or(0);
    let Some(ended) = Ended::named(&found.listed.status) else {
        return ControlError::NotReplayable { id, reason: format!("It is {}.", found.listed.status) };
    };
    if let Some(known) = known.attempts.filter(|known| *known != made) {
        return ControlError::SentMeanwhile { id, known, made };
    }
    let is_spared = |at: &Timestamp| which.spares.is_some_and(|spares| *at >= spares);
    if let Some(at) = found.sent_again_at.filter(is_spared) {
        return ControlError::SentAgain { id, at, made };
    }
    let reason = if found.listed.operation == Operation::Test.as_str() {
        "It was a test, which is sent once.".to_owned()
    } else if !which.ended.contains(&ended) {
        let word = ended.as_str();
        format!("It is {word}; `\"status\": \"{word}\"` (--status {word}) sends it again.")
    } else if ended == Ended::Failed && made == 0 {
        let reason = found.listed.fail_reason.as_deref().unwrap_or_default();
        format!("It never had a body, and nothing to make one of: {reason}.")
    } else {
        "Its body was not kept (ledger.store_bodies).".to_owned()
    };
    ControlError::NotReplayable { id, reason }
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
    replay::announce(&transaction, Told::Moved(webhook)).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(after)
}

fn no_delivery(id: &str) -> ControlError {
    ControlError::Unknown { what: "delivery", name: id.to_owned(), nearest: None }
}
