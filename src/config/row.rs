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

/// Reads a row, as `to_jsonb(row)` gives it; nulls are absent keys. What the row does not set is as the file's
/// `[delivery]` says, and its template is one of the file's.
pub fn webhook_from_row(
    mut row: Map<String, Value>,
    config: &Config,
    checks: &Checks<'_>,
) -> Result<Webhook, Problems> {
    row.retain(|_, value| !value.is_null());
    let name = row.get("name").and_then(Value::as_str).unwrap_or_default().escape_debug().to_string();
    let described = format!("row \"{name}\" of {}.webhooks", config.database.schema);
    let document = Document::new(Origin::Row(described), checks, Vec::new());
    let around = Surroundings {
        defaults: &config.delivery,
        named: config.templates.iter().map(|template| &*template.name).collect(),
        templates: config.templates.iter().collect(),
        allow_http: config.security.allow_http,
    };
    let mut table = Table::new(&document, Path::default(), row);
    let webhook = webhook(&mut table, &around, WebhookSource::Database);
    if let Some(webhook) = &webhook
        && webhook.url.scheme() == "http"
        && !config.security.allow_http
    {
        let fault = Fault::new("plain http is not allowed to webhooks from the database")
            .hint("Use https, or have the operator set security.allow_http = true.");
        document.report(&Path::default().key("url"), fault);
    }
    document.finish()?;
    // A reader that answers nothing has reported why, so this is never empty-handed.
    webhook.ok_or_else(|| Problems(Vec::new()))
}
