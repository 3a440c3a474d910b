//! What is named and is no table that could be published: nothing, a view, another server's table, a partition.

use std::collections::BTreeSet;

use super::{Finding, Severity, in_short};
use crate::catalog::Snapshot;
use crate::config::Config;
use crate::control::conditions::qualified;
use crate::control::fit::LonelyPattern;
use crate::control::nearest;
use crate::matcher::pattern_matches;
use crate::postgres::Session;
use crate::source::{SetupError, TableInfo, Unpublishable, UnpublishableKind, unpublishable};

/// Patterns without a table, and sections of the file about what is none.
pub(super) async fn findings(
    config: &Config,
    session: &Session,
    snapshot: &Snapshot,
    known: &[TableInfo],
    lonely: &[LonelyPattern],
) -> Result<Vec<Finding>, SetupError> {
    let absent = sections(config, known);
    let mut names: BTreeSet<String> = lonely.iter().filter_map(|lonely| table_of(&lonely.pattern)).collect();
    names.extend(absent.iter().map(|section| section.table.to_owned()));
    let strange = if names.is_empty() {
        Vec::new()
    } else {
        unpublishable(session, &names.into_iter().collect::<Vec<_>>()).await?
    };
    let mut found = Vec::new();
    for lonely in lonely {
        let severity = if lonely.may_wait() { Severity::Warning } else { Severity::Error };
        let finding = Finding::new(severity, "webhooks", lonely.message(&config.path));
        let made_by = strange.iter().find(|strange| {
            let types = snapshot.matcher.types_of(&strange.schema, &strange.name);
            types.iter().any(|t| pattern_matches(&lonely.pattern, &t.event_type))
        });
        found.push(match made_by {
            Some(strange) => finding.detail(what(strange)).hint(instead(strange)),
            None => finding.hint(lonely.hint()),
        });
    }
    for section in absent {
        let name = qualified(section.schema, section.table);
        let is = strange.iter().find(|s| (&*s.schema, &*s.name) == (section.schema, section.table));
        let severity = if section.matters(snapshot) { Severity::Error } else { Severity::Warning };
        if let Some(strange) = is {
            let message = format!("{}: {}", section.place, what(strange));
            found.push(Finding::new(severity, "tables", message).hint(instead(strange)));
            continue;
        }
        let names = known.iter().map(|t| t.table.as_str());
        let hint = nearest(section.table, names).map_or_else(
            || "It waits for the table to come.".to_owned(),
            |near| format!("Perhaps you meant \"{near}\"; else it waits for the table to come."),
        );
        let message = format!("{}: there is no table {name}", section.place);
        found.push(Finding::new(Severity::Warning, "tables", message).hint(hint));
    }
    Ok(found)
}

/// A section of the file about a table that is not there.
struct Section<'a> {
    place: String,
    schema: &'a str,
    table: &'a str,
    event_type: Option<&'a str>,
}

impl Section<'_> {
    /// Whether a webhook waits for the event that it declares.
    fn matters(&self, snapshot: &Snapshot) -> bool {
        self.event_type.is_some_and(|event_type| !snapshot.matcher.subscribers_of(event_type).is_empty())
    }
}

fn sections<'a>(config: &'a Config, known: &[TableInfo]) -> Vec<Section<'a>> {
    let rules = config.tables.iter().map(|rule| Section {
        place: format!("tables.{}", rule.table),
        schema: &rule.schema,
        table: &rule.table,
        event_type: None,
    });
    let events = config.events.iter().map(|event| Section {
        place: format!("events.{}", event.event_type),
        schema: &event.schema,
        table: &event.table,
        event_type: Some(&event.event_type),
    });
    let is_known = |section: &Section<'_>| {
        known.iter().any(|table| (&*table.schema, &*table.table) == (section.schema, section.table))
    };
    rules.chain(events).filter(|section| !is_known(section)).collect()
}

/// The table that a pattern names, where it names one: `orders` of `orders.created` and of `shop.orders.*`.
fn table_of(pattern: &str) -> Option<String> {
    let (head, _) = pattern.rsplit_once('.')?;
    let table = head.rsplit_once('.').map_or(head, |(_, table)| table);
    (!table.contains('*')).then(|| table.to_owned())
}

fn what(strange: &Unpublishable) -> String {
    let name = qualified(&strange.schema, &strange.name);
    match &strange.kind {
        UnpublishableKind::View(_) => format!("{name} is a view: it has no changes of its own."),
        UnpublishableKind::MaterialisedView(_) => {
            format!("{name} is a materialized view: Postgres publishes no changes of it.")
        }
        UnpublishableKind::Foreign => {
            format!("{name} is a foreign table: its changes are in another server's log.")
        }
        UnpublishableKind::Unlogged => format!("{name} is unlogged: its changes are in no log."),
        UnpublishableKind::Temporary => {
            format!("\"{}\" is a temporary table: its changes are in no log.", strange.name)
        }
        UnpublishableKind::Partition((schema, table)) => format!(
            "{name} is a partition of {}: its rows make events under that name.",
            qualified(schema, table)
        ),
    }
}

fn instead(strange: &Unpublishable) -> String {
    match &strange.kind {
        UnpublishableKind::View(tables) | UnpublishableKind::MaterialisedView(tables)
            if tables.is_empty() =>
        {
            "Name the tables that its rows come from.".to_owned()
        }
        UnpublishableKind::View(tables) | UnpublishableKind::MaterialisedView(tables) => {
            let names: Vec<String> =
                tables.iter().map(|(schema, table)| config_name(schema, table)).collect();
            format!("Name the tables that it reads: {}.", in_short(&names))
        }
        UnpublishableKind::Foreign => "Have a walhook on the server that holds the table.".to_owned(),
        UnpublishableKind::Unlogged => {
            format!("ALTER TABLE {} SET LOGGED;", qualified(&strange.schema, &strange.name))
        }
        UnpublishableKind::Temporary => "Use an ordinary table.".to_owned(),
        UnpublishableKind::Partition((schema, table)) => {
            format!("Name {}; a filter may tell its partitions apart.", config_name(schema, table))
        }
    }
}

/// A table as the file names it.
fn config_name(schema: &str, table: &str) -> String {
    if schema == "public" { table.to_owned() } else { format!("{schema}.{table}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_a_table_where_it_has_no_star_in_its_name() {
        let check = |pattern, expect: Option<&str>| assert_eq!(table_of(pattern).as_deref(), expect);
        check("orders.created", Some("orders"));
        check("orders.*", Some("orders"));
        check("shop.orders.updated", Some("orders"));
        check("order*.created", None);
        check("*", None);
    }
}
