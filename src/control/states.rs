//! Whether a webhook is sent to: by hand.

use super::{ControlError, Places, declared, ledger_session, nearest};
use crate::config::Config;
use crate::ledger::states::{self, Suspension};

/// What is wanted of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Send to it.
    Enable,
    /// Hold what it is owed for a while, for this reason.
    Pause(String),
    /// Hold what it is owed until further notice, for this reason.
    Disable(String),
}

/// Changes a webhook's state; a running instance follows within a second. Returns whether that changed anything.
pub async fn set(config: &Config, places: &Places, webhook: &str, wish: &Wish) -> Result<bool, ControlError> {
    let session = ledger_session(places).await?;
    let client = &session.client;
    let (snapshot, rows) = declared(config, &session).await?;
    let before = rows.states.get(webhook);
    let is_known = before.is_some()
        || snapshot.by_name(webhook).is_some()
        || snapshot.invalid.iter().any(|invalid| invalid.webhook == webhook);
    if !is_known {
        let nearest = nearest(webhook, snapshot.webhooks().iter().map(|c| &*c.webhook.name));
        return Err(ControlError::Unknown { what: "webhook", name: webhook.to_owned(), nearest });
    }
    let (suspension, reason) = match wish {
        Wish::Enable => return Ok(states::resume(client, webhook).await?),
        Wish::Pause(reason) => (Suspension::Paused, reason),
        Wish::Disable(reason) => (Suspension::Disabled, reason),
    };
    states::suspend(client, webhook, suspension, reason).await?;
    Ok(before.is_none_or(|state| state.suspension != suspension))
}
