//! Reads what the database declares: webhooks, their states, and the version of both.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio_postgres::Client;

use crate::ledger::LedgerError;
use crate::ledger::states::{self, WebhookState};

/// What the database declares.
#[derive(Clone, Default)]
pub struct Rows {
    /// Which version this is; it grows with every change.
    pub version: i64,
    /// The rows of `webhooks`, by name, each without its nulls. They hold secrets, encrypted or not.
    pub webhooks: Vec<Map<String, Value>>,
    /// The webhooks that are not active.
    pub states: HashMap<Arc<str>, WebhookState>,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Rows");
        told.field("version", &self.version).field("webhooks", &self.webhooks.len());
        told.field("states", &self.states).finish()
    }
}

const VERSION: &str = "select version from catalog_version";

const WEBHOOKS: &str = "
select jsonb_strip_nulls(to_jsonb(w) - array['created_at', 'updated_at', 'version', 'description', 'metadata']) from webhooks w order by name";

/// The version of what the database declares.
pub(super) async fn version(client: &Client) -> Result<i64, LedgerError> {
    let row = client.query_one(VERSION, &[]).await;
    Ok(row
        .map_err(|source| LedgerError::Statement { doing: "reading the catalog's version", source })?
        .get(0))
}

/// Everything the database declares. The version is read first: a change in between is read twice, never missed.
pub async fn load(client: &Client) -> Result<Rows, LedgerError> {
    let version = version(client).await?;
    let rows = client.query(WEBHOOKS, &[]).await;
    let rows = rows.map_err(|source| LedgerError::Statement { doing: "reading the webhooks", source })?;
    let as_map = |row: &tokio_postgres::Row| match row.get(0) {
        Value::Object(map) => Some(map),
        _ => None,
    };
    let webhooks = rows.iter().filter_map(as_map).collect();
    Ok(Rows { version, webhooks, states: states::load(client).await? })
}

/// A secret is a column of text; several are a JSON array in it. So is a signature; one of the receiver's own is a JSON
/// object in it.
pub fn with_texts_apart(mut row: Map<String, Value>) -> Map<String, Value> {
    let several = row.get("secret").and_then(Value::as_str).filter(|text| text.trim_start().starts_with('['));
    if let Some(list @ Value::Array(_)) = several.and_then(|text| serde_json::from_str(text).ok()) {
        row.insert("secret".to_owned(), list);
    }
    let own = row.get("signature").and_then(Value::as_str).filter(|text| text.trim_start().starts_with('{'));
    if let Some(own @ Value::Object(_)) = own.and_then(|text| serde_json::from_str(text).ok()) {
        row.insert("signature".to_owned(), own);
    }
    row
}
