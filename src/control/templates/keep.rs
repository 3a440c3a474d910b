//! Templates of the database, kept and removed.
//!
//! A write is one transaction with its entry in the audit. A version that webhooks use cannot go: whoever declares one with a
//! template holds its versions until that is committed, so neither of the two can miss the other.

use serde_json::{Map, Value, json};
use tokio_postgres::Transaction;

use super::super::keys::transaction_failed;
use super::super::webhooks::Expected;
use super::super::{About, Actor, ControlError, Desk, Repetition, nearest};
use crate::catalog::check_template_row;
use crate::config::{Config, Problem, Problems, is_of_file};
use crate::domain::limits;
use crate::ledger::templates::{self, NewTemplate, StoredTemplate};
use crate::ledger::webhooks;

/// A word that paths of the API have in the place of a name.
const TAKEN: &str = "render";

/// Keeps a template, or a new version of one. `expected` says which version must have been the latest until now. Under a
/// [`Repetition`] the same request is answered as it was, and keeps nothing.
pub async fn create(
    desk: &Desk,
    actor: &Actor,
    new: NewTemplate,
    (expected, repetition): (Option<Expected>, Option<&Repetition>),
) -> Result<StoredTemplate, ControlError> {
    let config = desk.config();
    let mut session = desk.session(actor, About::Operators).await?;
    refuse_of_file(&config, &new.name)?;
    let new = judged(&config, new).await?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    if let Some(repetition) = repetition
        && let Some(answered) = repeated(&transaction, repetition, &new).await?
    {
        return Ok(answered);
    }
    let taken = || ControlError::Exists {
        what: "template",
        name: format!("{}@{}", new.name, new.version.as_deref().unwrap_or_default()),
    };
    let made = templates::insert(&transaction, &new).await?.ok_or_else(taken)?;
    // Nobody else makes one of this name any more until this is committed.
    let latest = templates::latest_beside(&transaction, (&made.name, made.number)).await?;
    let is_expected = match expected {
        None => true,
        Some(Expected::Any) => latest.is_some(),
        Some(Expected::Version(number)) => latest == Some(number),
    };
    if !is_expected {
        return Err(ControlError::Stale { what: "template", name: new.name });
    }
    let most = limits::TEMPLATES;
    if i64::try_from(templates::numbers(&transaction).await?.len()).unwrap_or(i64::MAX) > most {
        return Err(ControlError::TooMany { what: "versions of templates", most });
    }
    let object = made.pinned_name();
    actor.note(&transaction, "template.create", &object, (None, Some(told(&made)))).await?;
    if let Some(repetition) = repetition {
        let answer = json!({
            "name": made.name, "version": made.version, "number": made.number, "content_type": made.content_type,
            "created_at": made.created_at,
        });
        repetition.keep(&transaction, &answer).await?;
    }
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(made)
}

/// Removes a version of a template, or (`None`) all of them: none that a webhook uses, and where the latest is `expected`.
pub async fn remove(
    desk: &Desk,
    actor: &Actor,
    (name, version): (&str, Option<&str>),
    expected: Expected,
) -> Result<(), ControlError> {
    let config = desk.config();
    let mut session = desk.session(actor, About::Operators).await?;
    refuse_of_file(&config, name)?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let rows = templates::lock(&transaction, name).await?;
    let full = version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"));
    let Some(latest) = rows.last().map(|row| row.number) else {
        let shelf = desk.shelf(transaction.client()).await?;
        let nearest = nearest(name, shelf.rows().map(|(row, _)| row.name.as_str()));
        return Err(ControlError::Unknown { what: "template", name: full, nearest });
    };
    let gone: Vec<&StoredTemplate> =
        rows.iter().filter(|row| version.is_none_or(|version| row.version == version)).collect();
    if gone.is_empty() {
        let pinned: Vec<String> = rows.iter().map(StoredTemplate::pinned_name).collect();
        let nearest = nearest(&full, pinned.iter().map(String::as_str));
        return Err(ControlError::Unknown { what: "template", name: full, nearest });
    }
    if matches!(expected, Expected::Version(number) if number != latest) {
        return Err(ControlError::Stale { what: "template", name: name.to_owned() });
    }
    // Without the latest its name would mean another text.
    let takes_latest = gone.iter().any(|row| row.number == latest);
    let mut names: Vec<String> = gone.iter().map(|row| row.pinned_name()).collect();
    names.extend(takes_latest.then(|| name.to_owned()));
    let most = i64::try_from(limits::SUBSCRIBERS_TOLD).unwrap_or(i64::MAX);
    let users = webhooks::using(&transaction, &names, most).await?;
    if !users.is_empty() {
        return Err(ControlError::InUse { what: "template", name: full, webhooks: users });
    }
    let numbers: Vec<i64> = gone.iter().map(|row| row.number).collect();
    templates::delete(&transaction, &numbers).await?;
    for row in gone {
        actor.note(&transaction, "template.delete", &row.pinned_name(), (Some(told(row)), None)).await?;
    }
    transaction.commit().await.map_err(transaction_failed)
}

/// As the audit has it. There is no secret in a template.
fn told(row: &StoredTemplate) -> Value {
    json!({
        "version": row.version, "content_type": row.content_type, "text": row.body, "description": row.description,
    })
}

fn refuse_of_file(config: &Config, name: &str) -> Result<(), ControlError> {
    if !is_of_file(config, name) {
        return Ok(());
    }
    let path = config.path.display().to_string();
    Err(ControlError::ReadOnly { what: "template", name: name.to_owned(), path })
}

/// What may be kept, or every problem that it has, by the names that its fields have in the API.
async fn judged(config: &std::sync::Arc<Config>, new: NewTemplate) -> Result<NewTemplate, ControlError> {
    let config = std::sync::Arc::clone(config);
    // A long text takes a while to be compiled; deliveries do not wait for it.
    let judging = tokio::task::spawn_blocking(move || {
        let problems = problems_of(&config, &new);
        if problems.is_empty() { Ok(new) } else { Err(ControlError::Declaration(Problems(problems))) }
    });
    judging.await.unwrap_or_else(|error| Err(ControlError::Compile(error.to_string())))
}

fn problems_of(config: &Config, new: &NewTemplate) -> Vec<Problem> {
    let NewTemplate { name, version, content_type, body, description } = new;
    let row = json!({ "name": name, "version": version, "content_type": content_type, "body": body });
    let row = if let Value::Object(row) = row { row } else { Map::new() };
    let mut problems = match check_template_row(row, config) {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => problems,
    };
    for problem in problems.iter_mut().filter(|problem| problem.pointer == "/body") {
        "/text".clone_into(&mut problem.pointer);
    }
    let described = format!("template \"{}\"", name.escape_debug());
    let mut refuse = |key, message| problems.push(Problem::of_row(&described, key, message));
    if name == TAKEN {
        refuse("name", format!("no template is named \"{TAKEN}\": the API has another use for that"));
    }
    let most = limits::DESCRIPTION_CHARS;
    if description.as_ref().is_some_and(|text| text.chars().count() > most) {
        refuse("description", format!("expected a string of at most {most} characters"));
    }
    problems
}

/// The answer that was given before.
async fn repeated(
    transaction: &Transaction<'_>,
    repetition: &Repetition,
    new: &NewTemplate,
) -> Result<Option<StoredTemplate>, ControlError> {
    let Some(answer) = repetition.answered(transaction).await? else { return Ok(None) };
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Some(StoredTemplate {
        name: text("name"),
        version: text("version"),
        number: answer.get("number").and_then(Value::as_i64).unwrap_or_default(),
        content_type: text("content_type"),
        // It was the same request: what it asked for is what was kept.
        body: new.body.clone(),
        description: new.description.clone(),
        created_at: text("created_at").parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_all_at_once_by_the_names_of_the_api() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walhook.toml");
        std::fs::write(&path, "[database]\nurl = 'postgres://walhook@db/app'\n").unwrap();
        let sources = crate::config::Sources { path: Some(path), environment: Vec::new() };
        let config = crate::control::load_config(&sources).unwrap();
        let new = |name: &str, body: &str| NewTemplate {
            name: name.to_owned(),
            version: Some("a b".to_owned()),
            content_type: Some("nonsense".to_owned()),
            body: body.to_owned(),
            description: Some("x".repeat(1001)),
        };
        let problems = problems_of(&config, &new("render", "line\n {{#each x}}"));
        let told: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(told, ["/version", "/content_type", "/text", "/name", "/description"]);
        assert!(problems[2].message.contains("the template is not valid"), "{}", problems[2].message);
        assert!(problems[2].message.contains("line 2"), "{}", problems[2].message);
        let long = "x".repeat(limits::TEMPLATE_BYTES + 1);
        let good = NewTemplate { version: None, content_type: None, description: None, ..new("slack", "{}") };
        assert!(problems_of(&config, &good).is_empty());
        let problems = problems_of(&config, &NewTemplate { body: long, ..good });
        assert!(problems[0].message.contains("longer than 16KiB"), "{}", problems[0].message);
    }
}
