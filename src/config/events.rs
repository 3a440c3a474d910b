//! `[[events]]`: events beyond created, updated, deleted.

use super::names;
use super::node::{Node, Table};
use super::problem::Fault;
use crate::domain::{NamedEvent, Notice, Operation, TableRule, limits};

const EVENTS: usize = 10_000;
const OPERATIONS: [(&str, Operation); 5] = [
    ("insert", Operation::Insert),
    ("update", Operation::Update),
    ("delete", Operation::Delete),
    ("truncate", Operation::Truncate),
    ("message", Operation::Message),
];

/// Reads every event; `tables` says which tables have a tenant column.
pub(super) fn read(node: Node<'_>, tables: &[TableRule]) -> Option<Vec<NamedEvent>> {
    let mut events = Vec::new();
    for item in node.tables(EVENTS)? {
        let (doc, path) = (item.doc, item.path.clone());
        let Some(event) = item.table().and_then(event) else { continue };
        let has_tenants = |rule: &TableRule| {
            (&rule.schema, &rule.table) == (&event.schema, &event.table) && rule.tenant.is_some()
        };
        if event.public && !tables.iter().any(has_tenants) {
            let fault = Fault::new("public needs a tenant column of its table")
                .detail("Tenants are told of their own rows alone, and nothing says whose these are.");
            let table = if event.schema == "public" {
                event.table.clone()
            } else {
                format!("\"{}.{}\"", event.schema, event.table)
            };
            doc.report(&path.key("public"), fault.hint(format!("Set tables.{table}.tenant to the column.")));
        }
        if events.contains(&event) {
            doc.report(&path, Fault::new("this event is declared twice, word for word"));
        }
        events.push(event);
    }
    Some(events)
}

fn event(mut table: Table<'_>) -> Option<NamedEvent> {
    let name = table.require("type", "the event's type, such as \"order.shipped\"", |node| {
        node.parse("an event type, as a string", |text| match Notice::of_type(text) {
            Some(notice) => Err(Fault::new(format!("\"{notice}\" is what walhook tells of itself"))
                .hint("Choose another type, so that nobody takes one for the other.")),
            None => names::event_type(text),
        })
    });
    let on = table.get("on", operations);
    let description = table.get("description", super::tables::description);
    if let Some(on) = on.as_ref().filter(|on| on.contains(&Operation::Message)) {
        return message(table, on, (name, description));
    }
    let place = table.require("table", "the table whose changes make the event", |node| {
        node.parse("the name of a table, as a string", names::table)
    });
    let when = table.get("when", condition);
    let public = table.get("public", Node::boolean).unwrap_or_default();
    table.finish();
    let (schema, table) = place?;
    let rows = || vec![Operation::Insert, Operation::Update, Operation::Delete];
    Some(NamedEvent {
        event_type: name?.into(),
        schema,
        table,
        on: on.unwrap_or_else(rows),
        when,
        description,
        public,
    })
}

/// `on = ["message"]` declares the type of a logical message, so that webhooks may name it. Nothing else belongs to it.
fn message(
    mut table: Table<'_>,
    on: &[Operation],
    (name, description): (Option<String>, Option<String>),
) -> Option<NamedEvent> {
    let mut whole = true;
    if on.len() > 1 {
        table.refuse(
            Fault::new("\"message\" stands alone in on")
                .detail("A logical message is an event by itself; it is about no table."),
        );
        whole = false;
    }
    for (key, remedy) in [
        ("table", "Leave the key out."),
        ("when", "Leave the key out; a webhook's filter sees the message's payload as record."),
        ("public", "Leave the key out; no message says whose it is, so no tenant is told of any."),
    ] {
        if let Some(node) = table.take(key) {
            node.refuse(
                Fault::new("a logical message has no table, no condition and no tenant").hint(remedy),
            );
            whole = false;
        }
    }
    table.finish();
    let event_type = name?.into();
    let (schema, table) = (String::new(), String::new());
    whole.then(|| NamedEvent {
        event_type,
        schema,
        table,
        on: vec![Operation::Message],
        when: None,
        description,
        public: false,
    })
}

fn operations(node: Node<'_>) -> Option<Vec<Operation>> {
    let (doc, path) = (node.doc, node.path.clone());
    let items = node.list_or_one(OPERATIONS.len())?;
    if items.is_empty() {
        doc.report(&path, Fault::new("expected at least one operation, found none"));
    }
    Some(items.into_iter().filter_map(|item| item.word(&OPERATIONS)).collect())
}

/// A CEL condition, which the injected check accepts.
pub(super) fn condition(node: Node<'_>) -> Option<String> {
    let (doc, path) = (node.doc, node.path.clone());
    let text = node.parse("a condition, as a string", |text| {
        if text.trim().is_empty() {
            return Err(Fault::new("the condition is empty").hint("Leave the key out to match always."));
        }
        if text.len() > limits::CONDITION_BYTES {
            return Err(Fault::new(format!(
                "the condition is longer than {} bytes",
                limits::CONDITION_BYTES
            )));
        }
        Ok(text.to_owned())
    })?;
    let complaint = (doc.checks.condition)(&text).err();
    if let Some(complaint) = &complaint {
        doc.complain(&path, "condition", &text, complaint);
    }
    complaint.is_none().then_some(text)
}
