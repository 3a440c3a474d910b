//! Templates kept in the database: one row a version, which never changes.
//!
//! A row's number is that of no other row and no earlier one: whoever knows the number knows the row.

use jiff::Timestamp;
use tokio_postgres::{GenericClient, Row};

use super::row::time_of;
use super::{LedgerError, doing};
use crate::domain::limits;

/// A version of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTemplate {
    /// The template.
    pub name: String,
    /// Which version of it.
    pub version: String,
    /// The greatest of a name is its latest.
    pub number: i64,
    /// The media type of what it makes.
    pub content_type: String,
    /// Its text.
    pub body: String,
    /// For people.
    pub description: Option<String>,
    /// Since when it is there.
    pub created_at: Timestamp,
}

impl StoredTemplate {
    /// What is pinned to it names it so: `slack@v1`.
    pub fn pinned_name(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// A version that is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTemplate {
    /// The template.
    pub name: String,
    /// The version's name; `None`: the next of v1, v2, ….
    pub version: Option<String>,
    /// The media type of what it makes; `None`: JSON.
    pub content_type: Option<String>,
    /// Its text.
    pub body: String,
    /// For people.
    pub description: Option<String>,
}

const COLUMNS: &str = "name, version, number, content_type, body, description, created_at";

const NUMBERS: &str = "select number from templates order by number limit $1";

const LOCK: &str = "order by number for update";

const INSERT: &str = "
insert into templates (name, version, content_type, body, description)
values ($1, $2, coalesce($3, 'application/json'), $4, $5)
on conflict (name, version) do nothing returning ";

const LATEST: &str = "select max(number) from templates where name = $1 and number <> $2";

/// What is read is there until the transaction's end.
const HOLD: &str = "select number from templates where name = $1 for share";

fn template_of(row: &Row) -> StoredTemplate {
    StoredTemplate {
        name: row.get(0),
        version: row.get(1),
        number: row.get(2),
        content_type: row.get(3),
        body: row.get(4),
        description: row.get(5),
        created_at: time_of(row.get(6)),
    }
}

/// The numbers of all, in their order: at most one more than [`limits::TEMPLATES`].
pub async fn numbers(client: &impl GenericClient) -> Result<Vec<i64>, LedgerError> {
    let most = limits::TEMPLATES.saturating_add(1);
    let rows = client.query(NUMBERS, &[&most]).await.map_err(doing("reading the templates"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Those of these numbers, in the order of numbers.
pub async fn of_numbers(
    client: &impl GenericClient,
    numbers: &[i64],
) -> Result<Vec<StoredTemplate>, LedgerError> {
    let sql = format!("select {COLUMNS} from templates where number = any($1) order by number");
    let rows = client.query(&sql, &[&numbers]).await.map_err(doing("reading the templates"))?;
    Ok(rows.iter().map(template_of).collect())
}

/// The versions of a name, in the order of numbers; nobody else removes them until the transaction ends.
pub async fn lock(client: &impl GenericClient, name: &str) -> Result<Vec<StoredTemplate>, LedgerError> {
    let sql = format!("select {COLUMNS} from templates where name = $1 {LOCK}");
    let rows = client.query(&sql, &[&name]).await.map_err(doing("reading a template"))?;
    Ok(rows.iter().map(template_of).collect())
}

/// Keeps the versions of a name from being removed until the transaction ends.
pub async fn hold(client: &impl GenericClient, name: &str) -> Result<(), LedgerError> {
    client.query(HOLD, &[&name]).await.map_err(doing("holding a template"))?;
    Ok(())
}

/// Keeps a version, after whoever else is making one of this name; `None` where there is one of that version's name.
pub async fn insert(
    client: &impl GenericClient,
    new: &NewTemplate,
) -> Result<Option<StoredTemplate>, LedgerError> {
    let NewTemplate { name, version, content_type, body, description } = new;
    let made = client
        .query_opt(&format!("{INSERT}{COLUMNS}"), &[name, version, content_type, body, description])
        .await
        .map_err(doing("keeping a template"))?;
    Ok(made.as_ref().map(template_of))
}

/// The number of a name's latest version beside this one.
pub async fn latest_beside(
    client: &impl GenericClient,
    (name, number): (&str, i64),
) -> Result<Option<i64>, LedgerError> {
    let row = client.query_one(LATEST, &[&name, &number]).await;
    Ok(row.map_err(doing("reading a template"))?.get(0))
}

/// Removes those of these numbers.
pub async fn delete(client: &impl GenericClient, numbers: &[i64]) -> Result<(), LedgerError> {
    let sql = "delete from templates where number = any($1)";
    client.execute(sql, &[&numbers]).await.map_err(doing("removing a template"))?;
    Ok(())
}
