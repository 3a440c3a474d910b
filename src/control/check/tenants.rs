//! Tenant columns held against their tables: whether a change says whose row it is.

use super::{Finding, Severity};
use crate::config::Config;
use crate::control::conditions::qualified;
use crate::control::nearest;
use crate::domain::TableRule;
use crate::postgres::Session;
use crate::source::{self, ColumnInfo, RowIdentity, SetupError, TableInfo};

/// What keeps tenants from being told of their rows.
pub(super) async fn findings(
    config: &Config,
    session: &Session,
    known: &[TableInfo],
) -> Result<Vec<Finding>, SetupError> {
    let mut found = Vec::new();
    for rule in config.tables.iter().filter(|rule| is_public(config, rule)) {
        let table = known.iter().find(|t| (&t.schema, &t.table) == (&rule.schema, &rule.table));
        if let (Some(table), Some(column)) = (table, &rule.tenant) {
            let columns = source::columns(session, &[table.oid]).await?;
            let columns = columns.get(&table.oid).map_or(&[][..], Vec::as_slice);
            found.extend(of_table(table, column, columns));
        }
    }
    Ok(found)
}

/// Whether tenants may be told of anything of the table.
fn is_public(config: &Config, rule: &TableRule) -> bool {
    let of_table = |schema: &str, table: &str| (schema, table) == (&*rule.schema, &*rule.table);
    rule.tenant.is_some()
        && (!rule.public.is_empty()
            || config.events.iter().any(|event| event.public && of_table(&event.schema, &event.table)))
}

fn of_table(table: &TableInfo, tenant: &str, columns: &[ColumnInfo]) -> Option<Finding> {
    let sql_name = qualified(&table.schema, &table.table);
    let place = if table.schema == "public" {
        format!("tables.{}.tenant", table.table)
    } else {
        format!("tables.\"{}.{}\".tenant", table.schema, table.table)
    };
    let Some(column) = columns.iter().find(|column| column.name == tenant) else {
        let near = nearest(tenant, columns.iter().map(|column| column.name.as_str()));
        let hint = near.map_or_else(
            || "Name the column that says whose a row is.".to_owned(),
            |near| format!("Perhaps you meant \"{near}\"."),
        );
        let message = format!("{place}: {sql_name} has no column \"{tenant}\"");
        let finding = Finding::new(Severity::Error, "tables", message);
        return Some(finding.detail("No tenant is told of any of its rows.").hint(hint));
    };
    if column.unsent {
        let message = format!(
            "{place}: column \"{tenant}\" of {sql_name} is generated, and Postgres does not send those"
        );
        let finding = Finding::new(Severity::Error, "tables", message);
        return Some(
            finding
                .detail("No tenant is told of any of its rows.")
                .hint("Name a column that is stored by itself."),
        );
    }
    if table.identity == RowIdentity::Full || (table.identity == RowIdentity::Key && column.in_key) {
        return None;
    }
    let message = format!("{place}: of the old row {sql_name} does not give \"{tenant}\"");
    let finding = Finding::new(Severity::Warning, "tables", message).detail(
        "Of a deleted row nobody knows whose it was, so no tenant is told; an updated one is told as updated to the owner \
         that it has now, without old, and to no former owner.",
    );
    Some(finding.hint(format!("ALTER TABLE {sql_name} REPLICA IDENTITY FULL;")))
}
