//! A webhook's secrets, shown: on purpose, and on the record.
//!
//! It is the operator's alone. A tenant that has lost a secret of its own makes another ([`super::rotate`]): with that
//! nobody learns what signed before, and the receiver notices.

use serde_json::json;

use super::{refuse_of_file, secrets_of, unknown};
use crate::control::keys::transaction_failed;
use crate::control::{About, Actor, ControlError, Desk, declared};
use crate::domain::SigningSecret;
use crate::ledger::secrets;

/// What the webhook of a row signs with, the current one first. That somebody asked is recorded before it is answered.
pub async fn reveal(desk: &Desk, actor: &Actor, webhook: &str) -> Result<Vec<SigningSecret>, ControlError> {
    let config = &*desk.config();
    let mut session = desk.session(actor, About::Operators).await?;
    refuse_of_file(config, webhook, "Read it where the file has it, or where the file points to.")?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let Some(held) = secrets::lock(&transaction, webhook).await? else {
        drop(transaction);
        let (snapshot, _) = declared(config, &session).await?;
        return Err(unknown(&snapshot, webhook));
    };
    let found = secrets_of(config, &held)?;
    actor.note_that(&transaction, ("webhook.reveal", webhook), json!({ "secrets": found.len() })).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(found)
}
