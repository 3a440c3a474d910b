//! Ended deliveries, sent again: with the same ids and the same bytes. Mostly dead letters, but what was delivered can
//! be replayed too, where somebody says so.

use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;

use serde_json::json;

use super::keys::transaction_failed;
use super::{Actor, ControlError, Places, command_session, declared, nearest};
use crate::config::Config;
use crate::ledger::query::standing;
use crate::ledger::replay::{self, Cause, Census, Ended, Reached, STEP, Which};
use crate::postgres::Session;

/// What is to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One delivery, by id.
    Delivery(String),
    /// Every failed delivery of a webhook.
    Webhook(String),
}

impl Target {
    /// Ids of deliveries begin with `dlv_`; everything else is a webhook's name.
    pub fn of(text: &str) -> Self {
        if text.starts_with("dlv_") && text.len() == 40 {
            Self::Delivery(text.to_owned())
        } else {
            Self::Webhook(text.to_owned())
        }
    }
}

/// Which of a [`Target`]'s deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Whose.
    pub target: Target,
    /// How they ended; none means failed.
    pub ended: Vec<Ended>,
    /// Of event types like this, with `*` for any run of characters.
    pub event: Option<String>,
    /// Of changes committed then or later.
    pub since: Option<Timestamp>,
    /// Of changes committed before.
    pub until: Option<Timestamp>,
    /// Whose last attempt went like this.
    pub cause: Option<Cause>,
}

/// A cause in words: see [`Cause::named`].
pub fn cause(text: &str) -> Option<Cause> {
    Cause::named(text)
}

impl Wish {
    fn which(&self) -> Which {
        let (id, webhook) = match &self.target {
            Target::Delivery(id) => (Some(id.clone()), None),
            Target::Webhook(name) => (None, Some(name.clone())),
        };
        let ended = if self.ended.is_empty() { vec![Ended::Failed] } else { self.ended.clone() };
        let Self { event, since, until, cause, .. } = self.clone();
        Which { id, webhook, ended, event, since, until, cause }
    }
}

/// Deliveries that were counted and may be sent again.
#[derive(Debug)]
pub struct Counted {
    which: Which,
    census: Census,
    session: Session,
    /// How many there were.
    pub count: u64,
    /// Why they will not leave yet: the webhook's state and its reason, where it is not active.
    pub suspended: Option<(&'static str, String)>,
    /// Whether the webhook is declared; nothing is sent to one that is not.
    pub declared: bool,
}

/// Counts what could be sent again. An unknown webhook, or a delivery that did not end as wished, is an error.
pub async fn count(config: &Config, places: &Places, wish: &Wish) -> Result<Counted, ControlError> {
    let session = command_session(places).await?;
    let which = wish.which();
    let census = replay::count(&session.client, &which).await?;
    let count = census.count;
    let (snapshot, rows) = declared(config, &session.client).await?;
    let webhook = match &wish.target {
        Target::Webhook(name) => {
            let is_declared = snapshot.by_name(name).is_some();
            if !is_declared && count == 0 {
                let names = snapshot.webhooks().iter().map(|compiled| &*compiled.webhook.name);
                let nearest = nearest(name, names);
                return Err(ControlError::Unknown { what: "webhook", name: name.clone(), nearest });
            }
            Some((name.clone(), is_declared))
        }
        Target::Delivery(id) => {
            if count == 0 {
                return Err(not_replayable(&session, id).await?);
            }
            None
        }
    };
    let suspended = webhook.as_ref().and_then(|(name, _)| rows.states.get(name.as_str()));
    let suspended = suspended.map(|state| (state.suspension.as_str(), state.reason.clone()));
    let declared = webhook.is_none_or(|(_, declared)| declared);
    Ok(Counted { which, census, session, count, suspended, declared })
}

async fn not_replayable(session: &Session, id: &str) -> Result<ControlError, ControlError> {
    let Some(standing) = standing(&session.client, id).await? else {
        return Ok(ControlError::Unknown { what: "delivery", name: id.to_owned(), nearest: None });
    };
    let reason = match &*standing.status {
        "failed" => "Its body was not kept (ledger.store_bodies), or it failed in another way.".to_owned(),
        status @ ("delivered" | "cancelled") => {
            format!("It is {status}; --status {status} sends it again, where its body was kept.")
        }
        status => format!("It is {status}."),
    };
    Ok(ControlError::NotReplayable { id: id.to_owned(), reason })
}

impl Counted {
    /// Sends them again, in steps, at most `rate` a second; tells after each step how many so far. May be dropped at any
    /// point: what was told is on its way. Those that end meanwhile are not taken along.
    pub async fn send_again(
        &mut self,
        actor: &Actor,
        rate: Option<NonZeroU32>,
        mut so_far: impl FnMut(u64),
    ) -> Result<u64, ControlError> {
        self.note(actor).await?;
        let client = &mut self.session.client;
        let step = rate.map_or(STEP, |rate| rate.get().min(STEP));
        let (mut sent, mut reached) = (0, Reached::default());
        while sent < self.count {
            let moved = replay::replay(client, &self.which, &self.census, &mut reached, step).await?;
            if moved == 0 {
                break;
            }
            replay::announce(client).await?;
            sent += moved;
            so_far(sent);
            if let Some(rate) = rate
                && sent < self.count
            {
                let moved = u32::try_from(moved).unwrap_or(u32::MAX);
                tokio::time::sleep(Duration::from_secs(1).mul_f64(f64::from(moved) / f64::from(rate.get())))
                    .await;
            }
        }
        Ok(sent)
    }

    async fn note(&mut self, actor: &Actor) -> Result<(), ControlError> {
        let transaction = self.session.client.transaction().await.map_err(transaction_failed)?;
        let Which { id, webhook, ended, event, since, until, .. } = &self.which;
        let after = json!({
            "count": self.count, "status": ended.iter().map(|ended| ended.as_str()).collect::<Vec<_>>(), "event": event,
            "since": since, "until": until,
        });
        let (action, object) = match (id, webhook) {
            (Some(id), _) => ("delivery.retry", id.as_str()),
            (None, webhook) => ("webhook.retry", webhook.as_deref().unwrap_or_default()),
        };
        actor.note(&transaction, action, object, (None, Some(after))).await?;
        transaction.commit().await.map_err(transaction_failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_from_a_name() {
        let id = format!("dlv_{}", "0".repeat(36));
        assert_eq!(Target::of(&id), Target::Delivery(id.clone()));
        assert_eq!(Target::of("dlv_crm"), Target::Webhook("dlv_crm".to_owned()));
    }
}
