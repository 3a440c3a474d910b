//! `--where` and `--since`: SQL of the operator's, held to being a condition and nothing more.
//!
//! It is only ever run in a read-only transaction, as one statement of the extended protocol, within parentheses. That
//! it cannot close those and go on by itself is found out by Postgres' own parser: a text is taken only if it is an
//! expression both within parentheses and without, between `case when` and `then`. What escapes from the one is a
//! syntax error in the other.

use tokio_postgres::Client;

use super::BackfillError;
use super::error::said;
use super::table::{Table, quoted};

/// Refuses what is no condition on the table's columns. Nothing of it is run; the session looks for names as a
/// backfill does from then on.
pub async fn check(client: &Client, table: &Table, condition: &str) -> Result<(), BackfillError> {
    let from = table.source_sql();
    let refuse = |problem: String| BackfillError::Condition { problem };
    if condition.trim().is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    let names = format!("set {}", table.names_sql());
    client.batch_execute(&names).await.map_err(BackfillError::query("look at the condition"))?;
    for statement in [
        format!("select case when {condition}\n then 1 end from {from} where false"),
        format!("select 1 from {from} where ({condition}\n)"),
    ] {
        let prepared = client.prepare(&statement).await.map_err(|error| {
            if error.as_db_error().is_some() {
                refuse(said(&error))
            } else {
                BackfillError::Query { doing: "look at the condition", source: error }
            }
        })?;
        if !prepared.params().is_empty() {
            return Err(refuse("it has parameters ($1, …), and nothing to put there".to_owned()));
        }
    }
    Ok(())
}

/// How many rows of a table the planner expects to satisfy a condition.
pub async fn estimate(client: &Client, table: &Table, condition: Option<&str>) -> Option<i64> {
    let sql = format!("explain (format json) select 1 from {} {}", table.source_sql(), filter(condition));
    let row = client.query_one(&sql, &[]).await.ok()?;
    let plan: serde_json::Value = row.try_get(0).ok()?;
    plan.pointer("/0/Plan/Plan Rows")?.as_i64()
}

/// `where (…)`, or nothing.
fn filter(condition: Option<&str>) -> String {
    condition.map_or_else(String::new, |condition| format!("where ({condition}\n)"))
}

/// The condition of `--since COLUMN=TIME` and `--where`, together.
pub fn combine(since: Option<(&str, &str)>, condition: Option<&str>) -> Option<String> {
    let since = since.map(|(column, time)| {
        format!("{} >= {}", quoted(column), postgres_protocol::escape::escape_literal(time).trim_start())
    });
    match (since, condition) {
        (Some(since), Some(condition)) => Some(format!("{since} and ({condition}\n)")),
        (Some(since), None) => Some(since),
        (None, condition) => condition.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_condition_that_names_and_times_cannot_break_out_of() {
        assert_eq!(combine(Some(("at", "2026-01-01")), None).unwrap(), "\"at\" >= '2026-01-01'");
        assert_eq!(
            combine(Some(("a\"b", "x' or true --")), Some("id > 1 -- rest")).unwrap(),
            "\"a\"\"b\" >= 'x'' or true --' and (id > 1 -- rest\n)"
        );
        assert_eq!(combine(None, Some("x")).as_deref(), Some("x"));
        assert_eq!(combine(None, None), None);
    }
}
