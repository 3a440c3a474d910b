//! Reads what the database declares: webhooks, their states, templates, and the version of all.
//!
//! Every change of a row gives it a number that no row ever had ([`V12__api`](../../../migrations/V12__api.sql)). So whoever
//! reads again asks for the numbers, and then for the rows whose number is another: one change among ten thousand costs
//! one row, and not ten thousand made into JSON.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio_postgres::Client;

use crate::ledger::LedgerError;
use crate::ledger::states::{self, WebhookState};
use crate::ledger::templates::{self, StoredTemplate};

/// What the database declares.
#[derive(Clone, Default)]
pub struct Rows {
    /// Which version this is; it grows with every change.
    pub version: i64,
    /// The rows of `webhooks`, by name, each without its nulls. They hold secrets, encrypted or not.
    pub webhooks: Vec<Arc<Map<String, Value>>>,
    /// The templates, in the order of their numbers.
    pub templates: Vec<Arc<StoredTemplate>>,
    /// The webhooks that are not active.
    pub states: HashMap<Arc<str>, WebhookState>,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Rows");
        told.field("version", &self.version).field("webhooks", &self.webhooks.len());
        told.field("templates", &self.templates.len()).field("states", &self.states).finish()
    }
}

const VERSION: &str = "select version from catalog_version";

const NUMBERS: &str = "select name, version from webhooks order by name";

const WEBHOOKS: &str = "
select name, version,
    jsonb_strip_nulls(to_jsonb(w) - array['created_at', 'updated_at', 'version', 'description', 'metadata'])
from webhooks w where name = any($1)";

const OF_TENANT: &str = "
select jsonb_strip_nulls(to_jsonb(w) - array['created_at', 'updated_at', 'version', 'description', 'metadata'])
from webhooks w where tenant = $1 order by name collate \"C\"";

/// The version of what the database declares.
pub(super) async fn version(client: &Client) -> Result<i64, LedgerError> {
    let row = client.query_one(VERSION, &[]).await;
    Ok(row
        .map_err(|source| LedgerError::Statement { doing: "reading the catalog's version", source })?
        .get(0))
}

/// Everything the database declares.
pub async fn load(client: &Client) -> Result<Rows, LedgerError> {
    Reader::default().load(client).await
}

/// What the database declares for one tenant alone. It has no version: nobody follows it.
pub async fn load_of(client: &Client, tenant: &str) -> Result<Rows, LedgerError> {
    let rows = client.query(OF_TENANT, &[&tenant]).await;
    let rows =
        rows.map_err(|source| LedgerError::Statement { doing: "reading a tenant's webhooks", source })?;
    let declared = |row: &tokio_postgres::Row| match row.get(0) {
        Value::Object(declared) => Some(Arc::new(declared)),
        _ => None,
    };
    Ok(Rows { webhooks: rows.iter().filter_map(declared).collect(), ..Rows::default() })
}

/// Reads again and again, and remembers.
#[derive(Default)]
pub(super) struct Reader {
    known: HashMap<String, (i64, Arc<Map<String, Value>>)>,
    templates: Vec<Arc<StoredTemplate>>,
}

impl Reader {
    /// Everything the database declares. The version is read first: a change in between is read twice, never missed.
    pub(super) async fn load(&mut self, client: &Client) -> Result<Rows, LedgerError> {
        let reading = |source| LedgerError::Statement { doing: "reading the webhooks", source };
        let version = version(client).await?;
        let numbers = client.query(NUMBERS, &[]).await.map_err(reading)?;
        let numbers: Vec<(String, i64)> = numbers.iter().map(|row| (row.get(0), row.get(1))).collect();
        let is_known =
            |(name, number): &&(String, i64)| self.known.get(name).is_some_and(|(known, _)| known == number);
        let (same, others): (Vec<_>, Vec<_>) = numbers.iter().partition(is_known);
        let mut known: HashMap<_, _> =
            same.iter().filter_map(|(name, _)| self.known.remove_entry(name)).collect();
        if !others.is_empty() {
            let names: Vec<&str> = others.iter().map(|(name, _)| &**name).collect();
            for row in client.query(WEBHOOKS, &[&names]).await.map_err(reading)? {
                if let Value::Object(declared) = row.get(2) {
                    known.insert(row.get(0), (row.get(1), Arc::new(declared)));
                }
            }
        }
        self.known = known;
        // One that went in between is not there, and is missed by nobody.
        let declared =
            |(name, _): &(String, i64)| self.known.get(name).map(|(_, declared)| Arc::clone(declared));
        let webhooks = numbers.iter().filter_map(declared).collect();
        self.templates = templates_after(client, &self.templates).await?;
        let templates = self.templates.clone();
        Ok(Rows { version, webhooks, templates, states: states::load(client).await? })
    }
}

/// The templates as they are, in the order of their numbers; those that were read `before` are not read again.
pub async fn templates_after(
    client: &Client,
    before: &[Arc<StoredTemplate>],
) -> Result<Vec<Arc<StoredTemplate>>, LedgerError> {
    let numbers = templates::numbers(client).await?;
    let known = |number: &i64| {
        let at = before.binary_search_by_key(number, |row| row.number).ok()?;
        before.get(at).map(Arc::clone)
    };
    let mut rows: Vec<Arc<StoredTemplate>> = numbers.iter().filter_map(known).collect();
    if rows.len() < numbers.len() {
        let others: Vec<i64> = numbers.into_iter().filter(|number| known(number).is_none()).collect();
        rows.extend(templates::of_numbers(client, &others).await?.into_iter().map(Arc::new));
        rows.sort_by_key(|row| row.number);
    }
    Ok(rows)
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
