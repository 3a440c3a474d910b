//! Whether a webhook is sent to: by hand.

use tokio_postgres::Client;

use super::{ControlError, Places, declared, ledger_session, nearest};
use crate::config::Config;
use crate::domain::StoreBodies;
use crate::ledger::replay;
use crate::ledger::states::{self, End, Suspension};

/// What is wanted of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Send to it, first what is held.
    Enable,
    /// Send to it, but not what is held.
    EnableAnew,
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
pub async fn set(config: &Config, places: &Places, webhook: &str, wish: &Wish) -> Result<Done, ControlError> {
    let mut session = ledger_session(places).await?;
    let (snapshot, rows) = declared(config, &session).await?;
    let before = rows.states.get(webhook);
    let is_known = before.is_some()
        || snapshot.by_name(webhook).is_some()
        || snapshot.invalid.iter().any(|invalid| invalid.webhook == webhook);
    if !is_known {
        let nearest = nearest(webhook, snapshot.webhooks().iter().map(|c| &*c.webhook.name));
        return Err(ControlError::Unknown { what: "webhook", name: webhook.to_owned(), nearest });
    }
    let client = &mut session.client;
    let mut cancelled = 0;
    let (suspension, reason) = match wish {
        Wish::Enable | Wish::EnableAnew => {
            if *wish == Wish::EnableAnew {
                cancelled = cancel_held(client, webhook, config.ledger.store_bodies).await?;
            }
            let changed = states::resume(client, webhook).await?;
            if cancelled > 0 {
                replay::announce(client).await?;
            }
            return Ok(Done { changed, cancelled });
        }
        Wish::Pause(reason) => (Suspension::Paused, reason),
        Wish::Disable(reason) => (Suspension::Disabled, reason),
    };
    states::suspend(client, webhook, suspension, reason).await?;
    Ok(Done { changed: before.is_none_or(|state| state.suspension != suspension), cancelled })
}

/// In steps; returns how many.
async fn cancel_held(client: &mut Client, webhook: &str, store: StoreBodies) -> Result<u64, ControlError> {
    let mut cancelled = 0;
    loop {
        let step = states::end(client, webhook, &End::CancelHeld, store).await?;
        if step == 0 {
            return Ok(cancelled);
        }
        cancelled += step;
    }
}
