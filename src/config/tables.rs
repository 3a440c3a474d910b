//! `[tables.NAME]`: what is said of a table beyond its changes.

use std::collections::HashSet;

use super::names;
use super::node::{Node, Table};
use super::problem::Fault;
use crate::domain::{Int8, Mask, MaskKey, Operation, TableRule, TenantChange, limits};

const MASKS: [(&str, Mask); 4] =
    [("redact", Mask::Redact), ("hash", Mask::Hash), ("partial", Mask::Partial), ("null", Mask::Null)];

const CHANGES: [(&str, TenantChange); 2] =
    [("split", TenantChange::Split), ("new_owner", TenantChange::NewOwner)];

pub(super) const INT8: [(&str, Int8); 2] = [("number", Int8::Number), ("string", Int8::String)];

const PUBLIC: [(&str, Operation); 3] =
    [("created", Operation::Insert), ("updated", Operation::Update), ("deleted", Operation::Delete)];

/// Reads every table. `mask_key` is the key of hashes.
pub(super) fn read(table: Table<'_>, mask_key: Option<&MaskKey>) -> Vec<TableRule> {
    let mut rules: Vec<TableRule> = Vec::new();
    for (name, node) in table.names() {
        let place = match names::table(&name) {
            Ok(place) => place,
            Err(fault) => {
                node.refuse(fault);
                continue;
            }
        };
        if rules.iter().any(|rule| (&rule.schema, &rule.table) == (&place.0, &place.1)) {
            node.refuse(format!("the table {}.{} is described twice", place.0, place.1));
        }
        rules.extend(
            node.table().map(|table| TableRule { mask_key: mask_key.cloned(), ..rule(table, place) }),
        );
    }
    rules
}

fn rule(mut table: Table<'_>, (schema, name): (String, String)) -> TableRule {
    let column = |node: Node<'_>| node.parse("the name of a column, as a string", names::identifier);
    let columns = |node: Node<'_>| {
        let items = node.list(limits::COLUMNS)?.into_iter();
        Some(items.filter_map(column).collect::<Vec<_>>())
    };
    let rule = TableRule {
        schema,
        table: name,
        event: table.get("event", |node| node.parse("an event type's start, as a string", names::event_type)),
        exclude: table.get("exclude", columns).unwrap_or_default(),
        mask: table.get("mask", mask).unwrap_or_default(),
        mask_key: None,
        tenant: table.get("tenant", column),
        tenant_change: table.get("tenant_change", |node| node.word(&CHANGES)).unwrap_or_default(),
        public: table.get("public", public).unwrap_or_default(),
        fold_moves: table.get("fold_moves", columns).unwrap_or_default(),
        int8: table.get("int8", |node| node.word(&INT8)),
        description: table.get("description", description),
    };
    let excluded: HashSet<_> = rule.exclude.iter().collect();
    for (masked, _) in rule.mask.iter().filter(|(name, _)| excluded.contains(name)) {
        table.refuse(Fault::new(format!("the column \"{masked}\" is both excluded and masked")).hint(
            "Exclude it, and nothing of it leaves; mask it, and receivers still see that it is there.",
        ));
    }
    if rule.tenant.is_none() && !rule.public.is_empty() {
        table.refuse(
            Fault::new("public needs a tenant column")
                .detail("Tenants are told of their own rows alone, and nothing says whose these are.")
                .hint("Name the column beside it: tenant = \"workspace_id\"."),
        );
    }
    table.finish();
    rule
}

/// A sentence for whoever reads of the events.
pub(super) fn description(node: Node<'_>) -> Option<String> {
    node.parse("a sentence, as a string", |text| {
        let most = limits::DESCRIPTION_CHARS;
        let fits = (1..=most).contains(&text.chars().count());
        if fits { Ok(text.to_owned()) } else { Err(Fault::new(format!("expected 1 to {most} characters"))) }
    })
}

/// `true` is every one, `false` none.
fn public(node: Node<'_>) -> Option<Vec<Operation>> {
    if node.value.is_boolean() || !(node.value.is_array() || node.holds_list()) {
        let all = || PUBLIC.map(|(_, operation)| operation).to_vec();
        return node.boolean().map(|all_of_them| if all_of_them { all() } else { Vec::new() });
    }
    let items = node.list(PUBLIC.len())?.into_iter();
    Some(items.filter_map(|item| item.word(&PUBLIC)).collect())
}

fn mask(node: Node<'_>) -> Option<Vec<(String, Mask)>> {
    let entries = node.table()?.names().into_iter();
    Some(
        entries
            .filter_map(|(name, node)| match names::identifier(&name) {
                Ok(name) => node.word(&MASKS).map(|mask| (name, mask)),
                Err(fault) => {
                    node.refuse(fault);
                    None
                }
            })
            .collect(),
    )
}
