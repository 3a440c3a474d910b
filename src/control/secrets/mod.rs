//! What webhooks sign with and are reached by: replaced, shown, and encrypted where the database holds it.
//!
//! Nothing shows a stored secret but [`reveal`], and that leaves a row in `audit` like [`rotate`] and [`encrypt`] do, in
//! the same transaction as the act. What is declared in the file is the operator's to write; these verbs refuse it and say
//! what to write.

mod encrypt;
mod reveal;
mod rotate;

use secrecy::zeroize::Zeroizing;

pub(in crate::control) use encrypt::rows;
pub use encrypt::{Encrypted, Overview, RowSecrets, Unreadable, encrypt, overview};
pub use reveal::reveal;
pub use rotate::{Rotated, rotate};

use super::{ControlError, nearest};
use crate::catalog::{self, Snapshot};
use crate::config::Config;
use crate::domain::SigningSecret;
use crate::ledger::secrets::Held;

/// Refuses a webhook of the file: `remedy` says what its owner does instead.
fn refuse_of_file(config: &Config, webhook: &str, remedy: &str) -> Result<(), ControlError> {
    if config.webhooks.iter().all(|ours| &*ours.name != webhook) {
        return Ok(());
    }
    let (webhook, path) = (webhook.to_owned(), config.path.display().to_string());
    Err(ControlError::OfFile { webhook, path, remedy: remedy.to_owned() })
}

/// There is no row of this name.
fn unknown(snapshot: &Snapshot, webhook: &str) -> ControlError {
    let valid = snapshot.webhooks().iter().map(|compiled| &*compiled.webhook.name);
    let invalid = snapshot.invalid.iter().map(|invalid| invalid.webhook.as_str());
    let nearest = nearest(webhook, valid.chain(invalid));
    ControlError::Unknown { what: "webhook", name: webhook.to_owned(), nearest }
}

/// The secrets that a row signs with, opened.
fn secrets_of(config: &Config, held: &Held) -> Result<Vec<SigningSecret>, ControlError> {
    let [secret, ..] = &held.columns;
    let text = secret.as_ref().map_or("", |text: &Zeroizing<String>| text.as_str());
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let unusable = |reason: String| ControlError::Unusable { webhook: held.webhook.clone(), reason };
    let read = catalog::secrets_in(&held.webhook, text, &config.security.encryption_keys);
    let read = read.map_err(|error| unusable(format!("secret: {error}\n  {}", error.hint())))?;
    read.ok_or_else(|| unusable("secret: it is JSON, and no list of secrets".to_owned()))
}
