//! `fold_moves` held against the table: whether a move will be recognised.

use super::traps::Wanted;
use super::{Finding, Severity};
use crate::config::Config;
use crate::control::conditions::qualified;
use crate::control::nearest;
use crate::source::{ColumnInfo, Gives};

/// What keeps moves of the table from being folded, or folds what is none.
pub(super) fn findings(config: &Config, one: &Wanted<'_>, columns: &[ColumnInfo]) -> Vec<Finding> {
    let Some(rule) = one.rule(config) else { return Vec::new() };
    let (schema, table) = (&one.table.schema, &one.table.table);
    let sql_name = qualified(schema, table);
    let place = if schema == "public" { table.clone() } else { format!("\"{schema}.{table}\"") };
    let place = format!("tables.{place}.fold_moves");
    let mut found = Vec::new();
    for name in &rule.fold_moves {
        let Some(column) = columns.iter().find(|column| column.name == *name) else {
            let near = nearest(name, columns.iter().map(|column| column.name.as_str()));
            let hint = near.map_or_else(
                || "Name the columns that identify a row in whichever partition it stands.".to_owned(),
                |near| format!("Perhaps you meant \"{near}\"."),
            );
            let message = format!("{place}: {sql_name} has no column \"{name}\"");
            found.push(Finding::new(Severity::Error, "tables", message).hint(hint));
            continue;
        };
        if one.shape.gives != Gives::Row && !column.in_key {
            let message = format!("{place}: a deleted row of {sql_name} does not tell \"{name}\"");
            let finding = Finding::new(Severity::Error, "tables", message)
                .detail("It is not part of the replica identity, so no move can be recognised.");
            found.push(finding.hint(format!(
                "Name columns of the key, or run for the table and each of its partitions: ALTER TABLE {sql_name} \
                 REPLICA IDENTITY FULL;"
            )));
        }
    }
    if !one.table.partitioned {
        let message = format!("{place}: {sql_name} is not partitioned");
        let finding = Finding::new(Severity::Warning, "tables", message).detail(
            "Nothing moves in it; a row that is deleted and inserted again at once would be told as updated.",
        );
        found.push(finding.hint("Remove the key."));
    }
    found
}
