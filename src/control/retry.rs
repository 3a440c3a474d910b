//! Dead letters, sent again: with the same ids and the same bytes.

use super::{ControlError, Places, declared, ledger_session, nearest};
use crate::config::Config;
use crate::ledger::query::standing;
use crate::ledger::replay::{self, Which};
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

    fn which(&self) -> Which<'_> {
        match self {
            Self::Delivery(id) => Which::Delivery(id),
            Self::Webhook(name) => Which::Webhook(name),
        }
    }
}

/// Dead letters that were counted and may be sent again.
#[derive(Debug)]
pub struct Counted {
    target: Target,
    session: Session,
    /// How many there were.
    pub count: u64,
    /// Why they will not leave yet: the webhook's state and its reason, where it is not active.
    pub suspended: Option<(&'static str, String)>,
    /// Whether the webhook is declared; nothing is sent to one that is not.
    pub declared: bool,
}

/// Counts what could be sent again. An unknown webhook, or a delivery that has not failed, is an error.
pub async fn count(config: &Config, places: &Places, target: Target) -> Result<Counted, ControlError> {
    let session = ledger_session(places).await?;
    let count = replay::count(&session.client, &target.which()).await?;
    let count = u64::try_from(count).unwrap_or(0);
    let (snapshot, rows) = declared(config, &session).await?;
    let webhook = match &target {
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
    Ok(Counted { target, session, count, suspended, declared })
}

async fn not_replayable(session: &Session, id: &str) -> Result<ControlError, ControlError> {
    let Some(standing) = standing(&session.client, id).await? else {
        return Ok(ControlError::Unknown { what: "delivery", name: id.to_owned(), nearest: None });
    };
    let reason = match &*standing.status {
        "failed" => "Its body was not kept (ledger.store_bodies).".to_owned(),
        status => format!("It is {status}."),
    };
    Ok(ControlError::NotReplayable { id: id.to_owned(), reason })
}

impl Counted {
    /// Sends them again, in steps; tells after each how many so far. Those that fail meanwhile are not taken along.
    pub async fn send_again(mut self, mut so_far: impl FnMut(u64)) -> Result<u64, ControlError> {
        let client = &mut self.session.client;
        let mut sent = 0;
        while sent < self.count {
            let step = replay::replay(client, &self.target.which()).await?;
            if step == 0 {
                break;
            }
            sent += step;
            so_far(sent);
            replay::announce(client).await?;
        }
        Ok(sent)
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
