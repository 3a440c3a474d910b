//! Webhooks declared in the database, one by one, as whoever edits them needs them. (The catalog reads all of them.)
//!
//! A row travels as a JSON object whose names are those of the columns; a name that is not there is a null. So the keys
//! are told once, in [`COLUMNS`], and a column that a migration adds is one word here.

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio_postgres::Row;

use super::ask::Ask;
use super::row::time_of;
use super::{LedgerError, doing, withheld};

/// The columns that somebody writes: the keys of `[[webhooks]]`, and what people note beside them.
pub const COLUMNS: [&str; 27] = [
    "name",
    "tenant",
    "description",
    "metadata",
    "url",
    "secret",
    "events",
    "filter",
    "headers",
    "format",
    "format_version",
    "template",
    "compression",
    "compression_threshold",
    "timeout",
    "concurrency",
    "ordering",
    "retry",
    "rate_limit",
    "breaker",
    "disable_after",
    "held_for",
    "batch",
    "sla",
    "auth",
    "signature",
    "tls",
];

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// What is declared: [`COLUMNS`], without nulls.
    pub row: Map<String, Value>,
    /// Which version of it this is; no two are the same.
    pub version: i64,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

const READ: &str = "jsonb_strip_nulls(to_jsonb(w) - array['created_at', 'updated_at', 'version']),
    w.version, w.created_at, w.updated_at";

fn stored_of(row: &Row) -> Stored {
    Stored {
        row: match row.get(0) {
            Value::Object(map) => map,
            _ => Map::new(),
        },
        version: row.get(1),
        created_at: time_of(row.get(2)),
        updated_at: time_of(row.get(3)),
    }
}

/// The row of a name. `lock` keeps other writers out until the transaction's end.
pub async fn get(client: &impl Ask, name: &str, lock: Lock) -> Result<Option<Stored>, LedgerError> {
    let lock = if lock == Lock::ForUpdate { "for update" } else { "" };
    let sql = format!("select {READ} from webhooks w where w.name = $1 {lock}");
    let row = client.query_opt(&sql, &[&name]).await.map_err(doing("reading a webhook"))?;
    Ok(row.as_ref().map(stored_of))
}

/// Whether a row that is read will be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// It is only read.
    None,
    /// It will be.
    ForUpdate,
}

/// The rows after a name, in the order of names: of one tenant, or all.
pub async fn page(
    client: &impl Ask,
    tenant: Option<&str>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Stored>, LedgerError> {
    let own = if tenant.is_some() { "w.tenant = $3" } else { "$3::text is null" };
    let sql = format!(
        "select {READ} from webhooks w where w.name collate \"C\" > coalesce($1, '') collate \"C\" and {own}
        order by w.name collate \"C\" limit $2"
    );
    let rows = client.query(&sql, &[&after, &limit, &tenant]).await.map_err(doing("listing webhooks"))?;
    Ok(rows.iter().map(stored_of).collect())
}

/// The first names.
pub async fn names(client: &impl Ask, limit: i64) -> Result<Vec<String>, LedgerError> {
    let sql = "select name from webhooks order by name collate \"C\" limit $1";
    let rows = client.query(sql, &[&limit]).await.map_err(doing("listing webhooks"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The webhooks that have a template, with its name, in the order of their names.
pub async fn with_templates(client: &impl Ask) -> Result<Vec<(String, String)>, LedgerError> {
    let sql = "select name, template from webhooks where template is not null order by name collate \"C\"";
    let rows = client.query(sql, &[]).await.map_err(doing("listing webhooks"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The first webhooks that have one of these templates.
pub async fn using(client: &impl Ask, templates: &[String], limit: i64) -> Result<Vec<String>, LedgerError> {
    let sql = "select name from webhooks where template = any($1) order by name collate \"C\" limit $2";
    let rows = client.query(sql, &[&templates, &limit]).await.map_err(doing("listing webhooks"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// How many there are, of one tenant or all, counted up to `most`.
pub async fn count(client: &impl Ask, tenant: Option<&str>, most: i64) -> Result<i64, LedgerError> {
    let own = if tenant.is_some() { "tenant = $2" } else { "$2::text is null" };
    let sql = format!("select count(*) from (select 1 from webhooks where {own} limit $1) counted");
    let row = client.query_opt(&sql, &[&most, &tenant]).await.map_err(doing("counting webhooks"))?;
    Ok(row.map_or(0, |row| row.get(0)))
}

/// Writes a new row; `None` where there is one of this name.
pub async fn insert(client: &impl Ask, row: &Map<String, Value>) -> Result<Option<Stored>, LedgerError> {
    let columns = COLUMNS.join(", ");
    let given: Vec<String> = COLUMNS.iter().map(|column| format!("g.{column}")).collect();
    let sql = format!(
        "insert into webhooks as w ({columns})
        select {} from jsonb_populate_record(null::webhooks, $1) g
        on conflict (name) do nothing returning {READ}",
        given.join(", ")
    );
    let row = Value::Object(row.clone());
    let made = client.query_opt(&sql, &[&row]).await.map_err(withheld("storing a webhook"))?;
    Ok(made.as_ref().map(stored_of))
}

/// Writes a row over the one of its name.
pub async fn update(client: &impl Ask, row: &Map<String, Value>) -> Result<Option<Stored>, LedgerError> {
    let set: Vec<String> = COLUMNS.iter().map(|column| format!("{column} = g.{column}")).collect();
    let sql = format!(
        "update webhooks w set {} from jsonb_populate_record(null::webhooks, $1) g
        where w.name = g.name returning {READ}",
        set.join(", ")
    );
    let row = Value::Object(row.clone());
    let changed = client.query_opt(&sql, &[&row]).await.map_err(withheld("changing a webhook"))?;
    Ok(changed.as_ref().map(stored_of))
}

/// Removes a row. Returns whether it was there.
pub async fn delete(client: &impl Ask, name: &str) -> Result<bool, LedgerError> {
    let gone = client.execute("delete from webhooks where name = $1", &[&name]).await;
    Ok(gone.map_err(doing("removing a webhook"))? > 0)
}
