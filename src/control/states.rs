//! Whether a webhook is sent to: by hand.

use serde_json::json;
use tokio_postgres::Client;

use super::keys::transaction_failed;
use super::webhooks::unknown;
use super::{About, Actor, ControlError, Desk};
use crate::domain::StoreBodies;
use crate::ledger::replay::{self, Told};
use crate::ledger::states::{self, Suspension};

/// What is wanted of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Send to it, first what is held.
    Enable,
    /// Send to it, but not what is held.
    EnableAnew,
    /// Send to it again, where it is paused.
    Resume,
    /// The same, but not what is held.
    ResumeAnew,
    /// Hold what it is owed for a while, for this reason.
    Pause(String),
    /// Hold what it is owed until further notice, for this reason.
    Disable(String),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Whether the state is another one than before.
    pub changed: bool,
    /// How many held deliveries were cancelled.
    pub cancelled: u64,
}

/// Changes a webhook's state; a running instance follows within a second.
pub async fn set(desk: &Desk, actor: &Actor, webhook: &str, wish: &Wish) -> Result<Done, ControlError> {
    let config = desk.config();
    let mut session = desk.session(actor, About::Webhook(webhook)).await?;
    let standing = states::standings(&*session, &[webhook]).await?.remove(webhook);
    let is_known = standing.is_some() || config.webhooks.iter().any(|known| *known.name == *webhook);
    if !is_known {
        return Err(unknown(&*session, &config, (actor, webhook)).await?);
    }
    let before = standing.map_or_else(|| "active".to_owned(), |standing| standing.status);
    if matches!(wish, Wish::Resume | Wish::ResumeAnew) && before == "disabled" {
        let (name, what) = (webhook.to_owned(), "resumed");
        return Err(ControlError::NotSo { name, what, status: "disabled" });
    }
    let mut cancelled = 0;
    if matches!(wish, Wish::EnableAnew | Wish::ResumeAnew) {
        cancelled = cancel_held(&mut session, actor, webhook, config.ledger.store_bodies).await?;
    }
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let (action, suspension) = match wish {
        Wish::Enable | Wish::EnableAnew => ("webhook.enable", None),
        Wish::Resume | Wish::ResumeAnew => ("webhook.resume", None),
        Wish::Pause(reason) => ("webhook.pause", Some((Suspension::Paused, reason))),
        Wish::Disable(reason) => ("webhook.disable", Some((Suspension::Disabled, reason))),
    };
    let changed = match suspension {
        None => states::resume(&transaction, webhook).await?,
        Some((suspension, reason)) => {
            states::suspend(&transaction, webhook, suspension, reason).await?;
            before != suspension.as_str()
        }
    };
    let after = json!({ "reason": suspension.map(|(_, reason)| reason), "cancelled": cancelled });
    actor.note(&transaction, action, webhook, (Some(json!({ "status": before })), Some(after))).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(Done { changed, cancelled })
}

/// In steps, each with its entry in the audit: who is cut short leaves the webhook as it was, and can go on. Returns how many.
async fn cancel_held(
    client: &mut Client,
    actor: &Actor,
    webhook: &str,
    store: StoreBodies,
) -> Result<u64, ControlError> {
    let mut cancelled = 0;
    loop {
        let transaction = client.transaction().await.map_err(transaction_failed)?;
        let step = states::cancel_held(&transaction, webhook, store).await?;
        if step == 0 {
            return Ok(cancelled);
        }
        let after = Some(json!({ "cancelled": step }));
        actor.note(&transaction, "webhook.cancel_held", webhook, (None, after)).await?;
        replay::announce(&transaction, Told::Moved(webhook)).await?;
        transaction.commit().await.map_err(transaction_failed)?;
        cancelled += step;
    }
}
