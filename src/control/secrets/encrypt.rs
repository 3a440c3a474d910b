//! What is secret in the database, encrypted where it stands; and how it stands.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use crate::catalog::{Standing, sealed_anew, standings};
use crate::config::Config;
use crate::control::{ControlError, Places, command_session};
use crate::domain::EncryptionKey;
use crate::ledger::audit::{Act, Actor, record};
use crate::ledger::secrets::{Change, exchange, page};
use crate::ledger::{LedgerError, secrets::Held};
use crate::postgres::Session;

/// How often rows that were written meanwhile are looked at again.
const PASSES: usize = 5;

/// A row that cannot be encrypted, because what it holds is encrypted already and none of the keys opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The webhook.
    pub webhook: String,
    /// The column, and why.
    pub reason: String,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encrypted {
    /// Webhooks whose secrets were plain or had an older key, and are encrypted with the first key now.
    pub webhooks: u64,
    /// Webhooks that were written at the same time, each time they were looked at; they are as their writer left them.
    pub written_meanwhile: u64,
    /// Rows that are as they were.
    pub unreadable: Vec<Unreadable>,
}

/// How what is secret stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// The names of the keys, the one that encrypts first.
    pub keys: Vec<String>,
    /// Every webhook of the database that holds something secret, in the order of their names.
    pub webhooks: Vec<RowSecrets>,
}

/// How what is secret in one row stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowSecrets {
    /// The webhook.
    pub name: String,
    /// Of each column that holds something secret.
    pub columns: BTreeMap<&'static str, Standing>,
}

/// Looks at every row. Changes nothing.
pub async fn overview(config: &Config, places: &Places) -> Result<Overview, ControlError> {
    let session = command_session(places).await?;
    let keys = &config.security.encryption_keys;
    Ok(Overview {
        keys: keys.iter().map(|key| key.id().to_string()).collect(),
        webhooks: rows(&session, keys).await?,
    })
}

/// How what is secret in each row stands.
pub(in crate::control) async fn rows(
    session: &Session,
    keys: &[EncryptionKey],
) -> Result<Vec<RowSecrets>, LedgerError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let held = page(&session.client, after.as_deref()).await?;
        let Some(last) = held.last() else { return Ok(found) };
        after = Some(last.webhook.clone());
        let row = |held: &Held| RowSecrets {
            name: held.webhook.clone(),
            columns: standings(held, keys).into_iter().collect(),
        };
        found.extend(held.iter().map(row).filter(|row| !row.columns.is_empty()));
    }
}

/// Encrypts what is plain, and anew what an older key encrypted; what is as it should be stays untouched. Goes in steps, each
/// with its row in `audit`, and tells after each how many webhooks so far; may be dropped at any point.
pub async fn encrypt(
    config: &Config,
    places: &Places,
    actor: &Actor,
    mut so_far: impl FnMut(u64),
) -> Result<Encrypted, ControlError> {
    let keys = &config.security.encryption_keys;
    let Some(first) = keys.first() else { return Err(ControlError::NoEncryptionKey) };
    let mut session = command_session(places).await?;
    let mut done = Encrypted::default();
    for _ in 0..PASSES {
        let mut after = None;
        done.written_meanwhile = 0;
        done.unreadable.clear();
        loop {
            let held = page(&session.client, after.as_deref()).await?;
            let Some(last) = held.last() else { break };
            after = Some(last.webhook.clone());
            let mut changes = Vec::new();
            for before in held {
                match sealed_anew(&before, keys) {
                    Ok(None) => {}
                    Ok(Some(after)) => changes.push(Change { before, after }),
                    Err((column, error)) => done
                        .unreadable
                        .push(Unreadable { webhook: before.webhook, reason: format!("{column}: {error}") }),
                }
            }
            if changes.is_empty() {
                continue;
            }
            let written = step(&mut session, &changes, (actor, first)).await?;
            done.webhooks += written;
            done.written_meanwhile += u64::try_from(changes.len()).unwrap_or(u64::MAX) - written;
            so_far(done.webhooks);
        }
        if done.written_meanwhile == 0 {
            break;
        }
    }
    Ok(done)
}

/// Writes some rows, and who did it. Returns how many were still as they had been read.
async fn step(
    session: &mut Session,
    changes: &[Change],
    (actor, key): (&Actor, &EncryptionKey),
) -> Result<u64, LedgerError> {
    let failed = |source| LedgerError::Statement { doing: "encrypting webhooks' secrets", source };
    let transaction = session.client.transaction().await.map_err(failed)?;
    let names = exchange(&transaction, changes).await?;
    if !names.is_empty() {
        let detail = json!({ "webhooks": names, "key": key.id().to_string() });
        record(&transaction, &Act { actor, action: "secrets.encrypt", object: None, detail }).await?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(u64::try_from(names.len()).unwrap_or(u64::MAX))
}
