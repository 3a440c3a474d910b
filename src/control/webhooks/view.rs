//! A webhook as it is shown: what is declared, where, and how it stands.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::mask::{MASK, masked};
use crate::catalog::{check_row, opened, with_texts_apart};
use crate::config::{Config, Problems, StoredTemplates, Strangers};
use crate::control::Sight;
use crate::domain::{BodyShape, Format, Webhook};
use crate::ledger::states::WebhookStanding;
use crate::ledger::webhooks::Stored;

/// What is shown and not written.
pub const READ_ONLY: [&str; 8] =
    ["id", "source", "status", "reason", "since", "version", "created_at", "updated_at"];

/// A webhook as it is shown. Its names are those of [`crate::ledger::webhooks::COLUMNS`] and [`READ_ONLY`].
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The document.
    pub document: Map<String, Value>,
    /// Its version; one of the file has none.
    pub version: Option<i64>,
}

impl View {
    /// As it is shown to whoever has this sight: a tenant is not told what a mistake in a row says of the operator's settings.
    pub(super) fn for_whom(mut self, sight: &Sight) -> Self {
        if sight.tenant().is_some() && self.document.get("status").is_some_and(|status| status == "unusable")
        {
            self.document.insert("reason".to_owned(), "its declaration does not fit any more".into());
        }
        self
    }
}

/// A row as it would be written in JSON, with what is encrypted in it opened: some columns are texts that hold more than a
/// text.
pub(super) fn spoken(row: &Map<String, Value>, config: &Config) -> Result<Map<String, Value>, Problems> {
    let mut row = with_texts_apart(opened(row, config)?);
    if let Some(Value::String(text)) = row.get("concurrency")
        && let Ok(number) = text.trim().parse::<u32>()
    {
        row.insert("concurrency".to_owned(), number.into());
    }
    if row.get("disable_after").and_then(Value::as_str).is_some_and(|text| text.trim() == "false") {
        row.insert("disable_after".to_owned(), false.into());
    }
    Ok(row)
}

fn with_standing(document: &mut Map<String, Value>, standing: Option<&WebhookStanding>) {
    let (status, reason, since) = match standing {
        Some(standing) => (standing.status.as_str(), standing.reason.clone(), standing.since),
        None => ("active", None, None),
    };
    document.insert("status".to_owned(), status.into());
    document.insert("reason".to_owned(), json!(reason));
    document.insert("since".to_owned(), json!(since));
}

/// One of the database.
pub(super) fn of_row(
    stored: Stored,
    (config, templates): (&Config, &StoredTemplates),
    standings: &HashMap<String, WebhookStanding>,
) -> View {
    let checked = check_row(&stored.row, (config, templates), Strangers::Left);
    let name = stored.row.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut document = Map::new();
    document.insert("id".to_owned(), name.clone().into());
    // What cannot be opened is not shown either way; the check says so.
    document.extend(masked(&spoken(&stored.row, config).unwrap_or(stored.row)));
    document.insert("source".to_owned(), "database".into());
    match (standings.get(&name), checked) {
        (Some(standing), _) if standing.status != "active" => with_standing(&mut document, Some(standing)),
        (_, Err(problems)) => {
            let unusable = WebhookStanding {
                status: "unusable".to_owned(),
                reason: Some(problems.to_string()),
                since: None,
            };
            with_standing(&mut document, Some(&unusable));
        }
        (standing, Ok(_)) => with_standing(&mut document, standing),
    }
    document.insert("version".to_owned(), stored.version.into());
    document.insert("created_at".to_owned(), json!(stored.created_at));
    document.insert("updated_at".to_owned(), json!(stored.updated_at));
    View { document, version: Some(stored.version) }
}

/// One of the file. Of its URL, which the operator may have kept in a variable because it is a key, only the origin is
/// shown.
pub(super) fn of_file(webhook: &Webhook, standings: &HashMap<String, WebhookStanding>) -> View {
    let mut document = Map::new();
    let mut set = |key: &str, value: Value| {
        document.insert(key.to_owned(), value);
    };
    set("id", (&*webhook.name).into());
    set("name", (&*webhook.name).into());
    set("url", format!("{}/{MASK}", webhook.url.origin().ascii_serialization()).into());
    if !webhook.secrets.is_empty() {
        set("secret", MASK.into());
    }
    set("events", json!(webhook.events));
    if let Some(filter) = &webhook.filter {
        set("filter", filter.as_str().into());
    }
    if !webhook.headers.is_empty() {
        let headers = webhook.headers.keys().map(|name| (name.as_str().to_owned(), MASK.into()));
        set("headers", Value::Object(headers.collect()));
    }
    match &webhook.body {
        BodyShape::Template(name) => set("template", (&**name).into()),
        BodyShape::Format(format) => {
            let known = Format::VERSIONS.iter().find(|(_, _, known)| known == format);
            if let Some((name, version, _)) = known {
                set("format", (*name).into());
                set("format_version", (*version).into());
            }
        }
    }
    set("timeout", format!("{}ms", webhook.timeout.as_millis()).into());
    set("source", "file".into());
    with_standing(&mut document, standings.get(&*webhook.name));
    View { document, version: None }
}
