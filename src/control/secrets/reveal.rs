//! A webhook's secrets, shown: on purpose, and on the record.

use serde_json::json;

use super::{refuse_of_file, secrets_of, unknown};
use crate::config::Config;
use crate::control::{ControlError, Places, command_session, declared};
use crate::domain::SigningSecret;
use crate::ledger::audit::{Act, Actor, record};
use crate::ledger::{LedgerError, secrets};

/// What the webhook of a row signs with, the current one first. That somebody asked is recorded before it is answered.
pub async fn reveal(
    config: &Config,
    places: &Places,
    webhook: &str,
    actor: &Actor,
) -> Result<Vec<SigningSecret>, ControlError> {
    refuse_of_file(config, webhook, "Read it where the file has it, or where the file points to.")?;
    let mut session = command_session(places).await?;
    let failed = |source| LedgerError::Statement { doing: "revealing a webhook's secrets", source };
    let transaction = session.client.transaction().await.map_err(failed)?;
    let Some(held) = secrets::lock(&transaction, webhook).await? else {
        drop(transaction);
        let (snapshot, _) = declared(config, &session.client).await?;
        return Err(unknown(&snapshot, webhook));
    };
    let found = secrets_of(config, &held)?;
    let detail = json!({ "secrets": found.len() });
    record(&transaction, &Act { actor, action: "webhook.reveal", object: Some(webhook), detail }).await?;
    transaction.commit().await.map_err(failed)?;
    Ok(found)
}
