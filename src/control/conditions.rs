//! What conditions ask of tables, held against what tables give.

use crate::catalog::Snapshot;
use crate::config::Config;
use crate::domain::{Relation, TableRules, Treatment};
use crate::matcher::{Condition, pattern_matches};
use crate::source::{ColumnInfo, RowIdentity, TableInfo};

use super::check::{Finding, Severity};
use super::{nearest, sample};

/// A table under the eyes of the check.
pub(super) struct Looked<'a> {
    pub snapshot: &'a Snapshot,
    pub config: &'a Config,
    pub table: &'a TableInfo,
    pub columns: &'a [ColumnInfo],
}

/// Who has a condition, and whether that is about this table in particular.
struct Owner {
    place: String,
    means_the_table: bool,
}

impl Looked<'_> {
    /// Everything that the conditions on the table cannot have.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let relation = sample::relation(self.table, self.columns);
        let interest = self.snapshot.matcher.interest(&relation);
        let mut found = Vec::new();
        for condition in self.snapshot.matcher.conditions_on(&self.table.schema, &self.table.table) {
            for owner in self.owners(condition.source()) {
                self.columns_of(&condition, &owner, &relation, interest.rules(), &mut found);
                self.old_row(&condition, &owner, &relation, &mut found);
            }
        }
        found
    }

    fn owners(&self, source: &str) -> Vec<Owner> {
        let (schema, table) = (&self.table.schema, &self.table.table);
        let named = self.config.events.iter().filter(|event| {
            event.when.as_deref() == Some(source) && (&event.schema, &event.table) == (schema, table)
        });
        let mut owners: Vec<Owner> = named
            .map(|event| Owner { place: format!("events.{}.when", event.event_type), means_the_table: true })
            .collect();
        let types = self.snapshot.matcher.types_of(schema, table);
        for compiled in self.snapshot.webhooks() {
            let webhook = &compiled.webhook;
            if webhook.filter.as_deref() != Some(source) {
                continue;
            }
            let matching = |pattern: &&String| types.iter().any(|t| pattern_matches(pattern, &t.event_type));
            let mut patterns = webhook.events.iter().filter(matching).peekable();
            if patterns.peek().is_some() {
                let means_the_table = patterns.any(|pattern| {
                    !pattern.rsplit_once('.').map_or(pattern.as_str(), |(head, _)| head).contains('*')
                });
                owners.push(Owner { place: format!("webhooks.{}.filter", webhook.name), means_the_table });
            }
        }
        owners
    }

    fn columns_of(
        &self,
        condition: &Condition,
        owner: &Owner,
        relation: &Relation,
        rules: &TableRules,
        found: &mut Vec<Finding>,
    ) {
        let name = relation.config_name();
        for column in condition.columns() {
            let (problem, hint) = match relation.position(column) {
                None => {
                    let near = nearest(column, relation.columns.iter().map(|c| &*c.name));
                    let hint = near.map_or_else(
                        || "It never matches a row of this table.".to_owned(),
                        |near| format!("Perhaps you meant \"{near}\"."),
                    );
                    (format!("{name} has no column \"{column}\""), hint)
                }
                Some(position) if rules.of(position) == Treatment::Exclude => (
                    format!("column \"{column}\" of {name} is excluded"),
                    format!("Take it out of tables.{name}.exclude, or out of the condition."),
                ),
                Some(position) if self.is_unsent(position) => (
                    format!("column \"{column}\" of {name} is generated, and Postgres does not send those"),
                    "Write the expression it is generated from instead.".to_owned(),
                ),
                Some(_) => continue,
            };
            let severity = if owner.means_the_table { Severity::Error } else { Severity::Warning };
            found
                .push(Finding::new(severity, "conditions", format!("{}: {problem}", owner.place)).hint(hint));
        }
    }

    fn is_unsent(&self, position: usize) -> bool {
        self.columns.get(position).is_some_and(|column| column.unsent)
    }

    fn old_row(&self, condition: &Condition, owner: &Owner, relation: &Relation, found: &mut Vec<Finding>) {
        if self.table.identity == RowIdentity::Full || !(condition.needs_old() || condition.needs_changed()) {
            return;
        }
        let name = relation.config_name();
        let what = if condition.needs_changed() { "changed" } else { "old" };
        let gives = match self.table.identity {
            RowIdentity::Unusable | RowIdentity::Virtual => {
                "Without a replica identity Postgres sends nothing of the old row."
            }
            _ => {
                "Postgres sends only the key of the old row, and that only where it changed or the row is deleted."
            }
        };
        found.push(
            Finding::new(
                Severity::Warning,
                "conditions",
                format!("{}: it needs \"{what}\", which {name} does not give", owner.place),
            )
            .detail(gives)
            .hint(format!(
                "ALTER TABLE {} REPLICA IDENTITY FULL;",
                qualified(&relation.schema, &relation.name)
            )),
        );
    }
}

/// A table's name as SQL has it.
pub(super) fn qualified(schema: &str, table: &str) -> String {
    let quote = postgres_protocol::escape::escape_identifier;
    format!("{}.{}", quote(schema), quote(table))
}
