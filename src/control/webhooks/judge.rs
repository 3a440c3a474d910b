//! What may be stored of a declaration, in what form, and by whom.

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use serde_json::{Map, Value};
use tokio_postgres::Transaction;

use super::super::{Actor, ControlError, Desk, templates};
use super::mask::{MASK, left_over};
use super::view::READ_ONLY;
use crate::catalog::{Shelf, check_row, sealed_anew};
use crate::config::{Config, Problem, Problems, StoredTemplates, Strangers, is_of_file, row_described};
use crate::domain::limits;
use crate::ledger::secrets::{COLUMNS as SECRET_COLUMNS, Held};
use crate::ledger::templates as stored_templates;
use crate::seal::SealError;
use crate::sign::{Shape, new_secret};

/// Refuses to a tenant what only the operator sets: every such key at once.
pub(super) fn insist_on_rights(
    actor: &Actor,
    config: &Config,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> Result<(), ControlError> {
    let mut after = after.clone();
    after.retain(|key, _| !READ_ONLY.contains(&key.as_str()));
    let forbidden = actor.sight.forbidden(before, &after);
    if forbidden.is_empty() {
        return Ok(());
    }
    let row = row_described(after.get("name").and_then(Value::as_str).unwrap_or_default(), config);
    let problem = |key: &String| Problem::of_row(&row, key, "only the operator sets it".to_owned());
    Err(ControlError::Declaration(Problems(forbidden.iter().map(problem).collect())))
}

/// The templates that a document may name, of which the one that it names stays there until the transaction's end.
pub(super) async fn held(
    desk: &Desk,
    transaction: &Transaction<'_>,
    document: &Map<String, Value>,
) -> Result<Arc<Shelf>, ControlError> {
    let named = document.get("template").and_then(Value::as_str);
    let config = desk.config();
    let Some(named) = named.filter(|named| !is_of_file(&config, named)) else {
        return Ok(Arc::default());
    };
    stored_templates::hold(transaction, templates::split(named).0).await?;
    desk.shelf(transaction.client()).await
}

/// A document that may be stored, without what is shown only; or every problem that it has. `name` is the name it has to
/// keep.
pub(super) fn judged(
    around: (&Config, &StoredTemplates),
    mut document: Map<String, Value>,
    name: Option<&str>,
) -> Result<Map<String, Value>, ControlError> {
    document.retain(|key, value| !value.is_null() && !READ_ONLY.contains(&key.as_str()));
    let written = document.get("name").and_then(Value::as_str).unwrap_or_default();
    let row = row_described(written, around.0);
    let problem = |key: &str, message: String| Problem::of_row(&row, key, message);
    let mut problems = Vec::new();
    if let Some(name) = name
        && written != name
    {
        problems.push(problem("name", format!("a webhook keeps its name, which is \"{name}\"")));
    }
    match document.get("description") {
        None => {}
        Some(Value::String(text)) if text.chars().count() <= limits::DESCRIPTION_CHARS => {}
        Some(_) => {
            let most = limits::DESCRIPTION_CHARS;
            problems.push(problem("description", format!("expected a string of at most {most} characters")));
        }
    }
    let metadata = document.get("metadata");
    if metadata.is_some_and(|value| !value.is_object() || value.to_string().len() > limits::METADATA_BYTES) {
        let most = limits::METADATA_BYTES;
        problems.push(problem("metadata", format!("expected an object of at most {most} bytes of JSON")));
    }
    let mut masks = Vec::new();
    left_over(&Value::Object(document.clone()), "", &mut masks);
    problems.extend(masks.into_iter().map(|pointer| {
        let what = format!("{MASK} stands for a value that is stored, and none is stored here");
        Problem { pointer, ..problem("", what) }
    }));
    let mut declared = document.clone();
    declared.retain(|key, _| !["description", "metadata"].contains(&key.as_str()));
    if let Err(Problems(others)) = check_row(&declared, around, Strangers::Refused) {
        problems.extend(others);
    }
    if problems.is_empty() { Ok(document) } else { Err(ControlError::Declaration(Problems(problems))) }
}

/// A document as it is stored: what is secret in it encrypted, where there is a key for that.
pub(super) fn sealed(
    document: &Map<String, Value>,
    config: &Config,
) -> Result<Map<String, Value>, ControlError> {
    let webhook = document.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let text = |column: &'static str| {
        document.get(column).map(|value| match value {
            Value::String(text) if column == "secret" => Zeroizing::new(text.clone()),
            other => Zeroizing::new(other.to_string()),
        })
    };
    let held = Held { webhook, columns: SECRET_COLUMNS.map(text) };
    let refused = |(column, error): (&str, SealError)| ControlError::Unusable {
        webhook: held.webhook.clone(),
        reason: format!("{column}: {error}"),
    };
    let mut document = document.clone();
    let Some(after) = sealed_anew(&held, &config.security.encryption_keys).map_err(refused)? else {
        return Ok(document);
    };
    for (column, text) in SECRET_COLUMNS.into_iter().zip(&after.columns) {
        let Some(text) = text else { continue };
        let of_json = || serde_json::from_str(text).ok();
        let value = if column == "secret" { Some(Value::from(text.as_str())) } else { of_json() };
        document.extend(value.map(|value| (column.to_owned(), value)));
    }
    Ok(document)
}

pub(super) fn made_secret() -> Result<String, ControlError> {
    let secret = new_secret(Shape::Shared).map_err(|_| ControlError::NoRandomness)?;
    Ok(secret.expose_secret().to_owned())
}
