//! Many ended deliveries of a webhook, sent again by the running instance: asked for here, followed, ended.
//!
//! It is left to the instance: it goes on when whoever asked is gone, and after a restart.

use jiff::Timestamp;
use serde_json::json;

use super::keys::transaction_failed;
use super::{About, Actor, ControlError, Desk, webhooks};
use crate::domain::limits;
use crate::ledger::replay::{self, Cause, Ended, LeftOut, Told};
use crate::ledger::retries::{self, NewRetry, Retry};

/// Which deliveries of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// How they ended; none means failed.
    pub ended: Vec<Ended>,
    /// Of event types like this, with `*` for any run of characters.
    pub event: Option<String>,
    /// Of changes committed then or later.
    pub since: Option<Timestamp>,
    /// Of changes committed before.
    pub until: Option<Timestamp>,
    /// Whose last attempt went like this, in the words of [`Cause::named`].
    pub cause: Option<String>,
    /// At most so many a second, from 1 to [`replay::STEP`].
    pub per_second: Option<u32>,
}

fn asked(desk: &Desk, webhook: &str, choice: &Choice) -> Result<NewRetry, ControlError> {
    let wrong = |key, problem: &str| ControlError::Value { key, problem: problem.to_owned() };
    if choice.cause.as_deref().is_some_and(|cause| Cause::named(cause).is_none()) {
        let expected = "expected timeout, unreachable, refused, a status such as 503, or a class such as 5xx";
        return Err(wrong("error", expected));
    }
    let Choice { ended, event, since, until, cause, per_second } = choice.clone();
    Ok(NewRetry {
        slot: desk.config().database.slot.clone(),
        webhook: webhook.to_owned(),
        ended: if ended.is_empty() { vec![Ended::Failed] } else { ended },
        event,
        since,
        until,
        cause,
        per_second,
        spares: None,
    })
}

/// Sees that there is such a webhook for whoever asks. One that is declared nowhere any more may have left deliveries, which
/// wait for its return when they are sent again.
async fn known(desk: &Desk, actor: &Actor, asked: &NewRetry) -> Result<(), ControlError> {
    let Err(error) = webhooks::get(desk, actor, &asked.webhook).await else { return Ok(()) };
    if !matches!(error, ControlError::Unknown { .. }) {
        return Err(error);
    }
    let session = desk.session(actor, About::Webhook(&asked.webhook)).await?;
    if replay::count(&*session, &asked.which()).await?.count > 0 { Ok(()) } else { Err(error) }
}

/// Counts what would be sent again, and what cannot be.
pub async fn count(
    desk: &Desk,
    actor: &Actor,
    webhook: &str,
    choice: &Choice,
) -> Result<(u64, LeftOut), ControlError> {
    let mut asked = asked(desk, webhook, choice)?;
    known(desk, actor, &asked).await?;
    let session = desk.session(actor, About::Webhook(webhook)).await?;
    asked.spares = Some(retries::spares(&*session, &asked.slot, webhook).await?);
    let which = asked.which();
    Ok((replay::count(&*session, &which).await?.count, replay::left_out(&*session, &which).await?))
}

/// Asks for it, where nobody else has asked for the same. Deliveries that end from now on are not among them, nor those that
/// were sent again a moment ago.
pub async fn ask(desk: &Desk, actor: &Actor, webhook: &str, choice: &Choice) -> Result<Retry, ControlError> {
    let mut asked = asked(desk, webhook, choice)?;
    known(desk, actor, &asked).await?;
    let mut session = desk.session(actor, About::Webhook(webhook)).await?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    if let Some(id) = retries::equal(&transaction, &asked).await? {
        return Err(ControlError::SameRetry { id, webhook: webhook.to_owned() });
    }
    asked.spares = Some(retries::spares(&transaction, &asked.slot, webhook).await?);
    let most = limits::RETRIES_OPEN;
    if retries::open(&transaction, &asked.slot, webhook, most).await? >= most {
        return Err(ControlError::TooMany { what: "retries of this webhook that are not over", most });
    }
    let id = retries::create(&transaction, &asked).await?;
    let after = json!({
        "retry": id, "status": asked.ended.iter().map(|ended| ended.as_str()).collect::<Vec<_>>(), "event": asked.event,
        "since": asked.since, "until": asked.until, "error": asked.cause, "per_second": asked.per_second,
    });
    actor.note(&transaction, "retry.create", webhook, (None, Some(after))).await?;
    let made = retries::get(&transaction, &asked.slot, webhook, id).await?.ok_or_else(|| no_retry(id))?;
    replay::announce(&transaction, Told::Jobs).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(made)
}

/// One of a webhook.
pub async fn get(desk: &Desk, actor: &Actor, webhook: &str, id: i64) -> Result<Retry, ControlError> {
    let session = desk.session(actor, About::Webhook(webhook)).await?;
    let found = retries::get(&*session, &desk.config().database.slot, webhook, id).await?;
    found.ok_or_else(|| no_retry(id))
}

/// Those of a webhook before a number, newest first.
pub async fn list(
    desk: &Desk,
    actor: &Actor,
    webhook: &str,
    (before, limit): (Option<i64>, u32),
) -> Result<Vec<Retry>, ControlError> {
    let slot = &desk.config().database.slot;
    let session = desk.session(actor, About::Webhook(webhook)).await?;
    let found = retries::list(&*session, (slot, webhook), before, i64::from(limit)).await?;
    drop(session);
    if found.is_empty() {
        // One that is gone may have left some; of one that never was there is nothing to list.
        webhooks::get(desk, actor, webhook).await?;
    }
    Ok(found)
}

/// Ends one. What of it is on its way goes on.
pub async fn cancel(desk: &Desk, actor: &Actor, webhook: &str, id: i64) -> Result<Retry, ControlError> {
    let slot = &desk.config().database.slot;
    let mut session = desk.session(actor, About::Webhook(webhook)).await?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let before = retries::get(&transaction, slot, webhook, id).await?.ok_or_else(|| no_retry(id))?;
    if !retries::cancel(&transaction, (slot, webhook), id).await? {
        return Err(ControlError::RetryOver { id, status: before.status });
    }
    let after = retries::get(&transaction, slot, webhook, id).await?.ok_or_else(|| no_retry(id))?;
    let told = |of: &Retry| Some(json!({ "retry": id, "status": of.status, "sent": of.sent }));
    actor.note(&transaction, "retry.cancel", webhook, (told(&before), told(&after))).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(after)
}

fn no_retry(id: i64) -> ControlError {
    ControlError::Unknown { what: "retry", name: id.to_string(), nearest: None }
}
