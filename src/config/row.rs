//! A webhook from the database: a row of `walhook.webhooks`, whose columns are named like the keys of the file.
//!
//! The same readers read it, with less trust: a secret is what the row holds and points nowhere, and plain http is
//! as `[security]` says. Columns that are no keys (ids, states, times) are none of its business.

use serde_json::{Map, Value};

use super::document::{Document, Origin};
use super::node::Table;
use super::path::Path;
use super::problem::{Fault, Problems};
use super::webhooks::{Surroundings, webhook};
use super::{Checks, Config};
use crate::domain::{Webhook, WebhookSource};

/// What is done with columns that are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    /// They are columns of ours: times, versions.
    Left,
    /// Somebody has written them, and is told the nearest key.
    Refused,
}

/// How messages call a webhook's row.
pub fn row_described(name: &str, config: &Config) -> String {
    format!("row \"{}\" of {}.webhooks", name.escape_debug(), config.database.schema)
}

/// Reads a row, as `to_jsonb(row)` gives it; nulls are absent keys. What the row does not set is as the file's
/// `[delivery]` says, and its template is one of the file's or of [`Checks::stored`].
pub fn webhook_from_row(
    mut row: Map<String, Value>,
    config: &Config,
    checks: &Checks<'_>,
    strangers: Strangers,
) -> Result<Webhook, Problems> {
    row.retain(|_, value| !value.is_null());
    let described = row_described(row.get("name").and_then(Value::as_str).unwrap_or_default(), config);
    let document = Document::new(Origin::Row(described), checks, Vec::new());
    let is_of_tenant = row.contains_key("tenant");
    let (allow_http, rules) = if is_of_tenant {
        (config.security.tenants.allow_http, "security.tenants.allow_http")
    } else {
        (config.security.allow_http, "security.allow_http")
    };
    let around = Surroundings {
        defaults: &config.delivery,
        named: config.templates.iter().map(|template| &*template.name).collect(),
        templates: config.templates.iter().collect(),
        allow_http,
    };
    let mut table = Table::new(&document, Path::default(), row);
    let webhook = webhook(&mut table, &around, WebhookSource::Database);
    if let Some(webhook) = &webhook
        && webhook.url.scheme() == "http"
        && !allow_http
    {
        let fault = Fault::new("plain http is not allowed to webhooks from the database")
            .hint(format!("Use https, or have the operator set {rules} = true."));
        document.report(&Path::default().key("url"), fault);
    }
    if strangers == Strangers::Refused {
        table.finish();
    }
    document.finish()?;
    // A reader that answers nothing has reported why, so this is never empty-handed.
    webhook.ok_or_else(|| Problems(Vec::new()))
}
