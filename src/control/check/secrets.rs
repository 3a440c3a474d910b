//! Whether what is secret in the database is encrypted as the configuration has it.

use super::{Finding, Severity, in_short};
use crate::catalog::Standing;
use crate::config::Config;
use crate::control::secrets::rows;
use crate::ledger::LedgerError;
use crate::postgres::Session;

/// Rows that `walhook secrets encrypt` would change. Those that cannot be read are told with the rows that cannot be used.
pub(super) async fn secrets(config: &Config, session: &Session) -> Result<Option<Finding>, LedgerError> {
    let keys = &config.security.encryption_keys;
    if keys.is_empty() {
        return Ok(None);
    }
    let found = rows(session, keys).await?;
    let due = found.iter().filter(|row| {
        row.columns.values().any(|standing| matches!(standing, Standing::Plain | Standing::OlderKey))
    });
    let names: Vec<String> = due.map(|row| row.name.clone()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let message =
        format!("secrets stand as plain text in the database, or under an older key: {}", in_short(&names));
    let hint =
        "Run `walhook secrets encrypt`, once every instance has the first key of security.encryption_key.";
    Ok(Some(Finding::new(Severity::Hint, "webhooks", message).hint(hint)))
}
