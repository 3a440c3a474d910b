//! The JSON Schema (draft 2020-12) of a body in the format `standard`, from what its table's columns are.
//!
//! It says of each value what can come: SQL null everywhere, because the catalog's `not null` may be lifted tomorrow; no
//! column is required, because large values that did not change are not sent; and a column that is added is no violation.

use serde_json::{Map, Value, json};

use crate::domain::{Mask, Notice, Operation, Relation, TableRules, Treatment, ValueKind};
use crate::source::TableInfo;

/// What a notice tells, in words.
pub(super) fn of_notice(notice: Notice) -> &'static str {
    match notice {
        Notice::WebhookFailing => "A webhook's circuit breaker has opened: what it is owed waits.",
        Notice::WebhookDisabled => "A webhook was disabled: by hand, by 410, or after nothing but failures.",
        Notice::WebhookRecovered => "A webhook that was failing or disabled is sent to again.",
        Notice::DeliveryFailed => "Deliveries of a webhook were given up.",
        Notice::SourceLagging => "The log waits longer than it should.",
        Notice::SourceRecovered => "The log waits no longer than it should.",
        Notice::SourceGap => "Log was lost before it could be read.",
    }
}

/// What makes events of a table, in words.
pub(super) fn of_operations(table: &TableInfo, operations: &[Operation]) -> String {
    let place = if table.schema == "public" {
        table.table.clone()
    } else {
        format!("{}.{}", table.schema, table.table)
    };
    let words: Vec<&str> = operations
        .iter()
        .map(|operation| match operation {
            Operation::Insert => "was created",
            Operation::Update => "was updated",
            Operation::Delete => "was deleted",
            _ => "",
        })
        .filter(|word| !word.is_empty())
        .collect();
    match operations {
        [Operation::Truncate] => format!("The table {place} was emptied at once."),
        [Operation::Schema] => format!("The columns of the table {place} are others."),
        _ => format!("A row of {place} {}.", words.join(" or ")),
    }
}

/// The `data` of a table that was emptied.
pub(super) fn truncated(schema: &str, table: &str) -> Vec<u8> {
    let data = json!({
        "operation": "truncate", "schema": schema, "table": table, "record": null, "old": null, "changed": null,
        "unavailable": [],
    });
    data.to_string().into_bytes()
}

/// The schema of events that a table's changes make.
pub(super) fn of_table(
    event_type: &str,
    (relation, rules): (&Relation, &TableRules),
    operations: &[Operation],
) -> Value {
    let row = json!({ "$ref": "#/$defs/row" });
    let maybe = json!({ "anyOf": [{ "$ref": "#/$defs/row" }, { "type": "null" }] });
    let nothing = json!({ "type": "null" });
    let (record, old) = match operations {
        [Operation::Insert] => (row, nothing),
        [Operation::Update] => (row, maybe),
        [Operation::Delete] => (nothing, row),
        [Operation::Truncate | Operation::Schema] => (nothing.clone(), nothing),
        _ => (maybe.clone(), maybe),
    };
    let mut words: Vec<&str> = operations.iter().map(|operation| operation.as_str()).collect();
    if operations.contains(&Operation::Insert) {
        words.push(Operation::Snapshot.as_str());
    }
    words.push(Operation::Test.as_str());
    let mut data = json!({
        "operation": { "enum": words },
        "schema": { "const": &*relation.schema },
        "table": { "const": &*relation.name },
        "record": record,
        "old": old,
        "changed": { "type": ["array", "null"], "items": { "type": "string" } },
        "unavailable": { "type": "array", "items": { "type": "string" } },
    });
    if let ([Operation::Schema], Some(data)) = (operations, data.as_object_mut()) {
        data.insert("schema_change".to_owned(), json!({ "type": "object" }));
    }
    let mut whole = body(event_type, &data);
    if let Some(whole) = whole.as_object_mut() {
        whole.insert("$defs".to_owned(), json!({ "row": of_row(relation, rules) }));
    }
    whole
}

/// The schema of events without a table.
pub(super) fn of_no_table(event_type: &str, operation: Operation) -> Value {
    let record = if operation == Operation::Notice { json!({ "type": "object" }) } else { json!(true) };
    let data = json!({
        "operation": { "enum": [operation.as_str(), Operation::Test.as_str()] },
        "schema": { "type": "null" },
        "table": { "type": "null" },
        "record": record,
        "old": { "type": "null" },
        "changed": { "type": "null" },
        "unavailable": { "type": "array", "maxItems": 0 },
    });
    body(event_type, &data)
}

fn body(event_type: &str, data: &Value) -> Value {
    let names = |of: &Value| -> Vec<String> {
        of.as_object().map(|of| of.keys().cloned().collect()).unwrap_or_default()
    };
    let required = names(data);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": event_type,
        "type": "object",
        "required": ["id", "type", "timestamp", "data", "metadata"],
        "properties": {
            "id": { "type": "string", "pattern": "^[A-Za-z0-9_]{1,40}$" },
            "type": { "const": event_type },
            "timestamp": { "type": "string", "format": "date-time" },
            "data": { "type": "object", "required": required, "properties": data },
            "metadata": {
                "type": "object",
                "required": ["database", "lsn", "xid", "sequence", "webhook"],
                "properties": {
                    "database": { "type": "string" },
                    "lsn": { "type": "string", "pattern": "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$" },
                    "xid": { "type": "integer", "minimum": 0 },
                    "sequence": { "type": "integer", "minimum": 1 },
                    "webhook": { "type": "string" },
                },
            },
        },
    })
}

fn of_row(relation: &Relation, rules: &TableRules) -> Value {
    let mut properties = Map::new();
    for (position, column) in relation.columns.iter().enumerate() {
        let mut schema = match rules.of(position) {
            Treatment::Exclude => continue,
            Treatment::Mask(Mask::Null) => json!({ "type": "null" }),
            Treatment::Mask(_) => json!({ "type": ["string", "null"] }),
            Treatment::Keep => of_value(rules.kind(position, &column.kind), column.type_name.as_deref()),
        };
        if let (Some(schema), Some(name)) = (schema.as_object_mut(), &column.type_name) {
            let masked = if rules.of(position) == Treatment::Keep { "" } else { ", masked" };
            schema.insert("description".to_owned(), format!("{name}{masked}").into());
        }
        properties.insert(column.name.to_string(), schema);
    }
    json!({ "type": "object", "properties": properties })
}

/// What a value of a column is as JSON.
fn of_value(kind: &ValueKind, type_name: Option<&str>) -> Value {
    match kind {
        ValueKind::Bool => json!({ "type": ["boolean", "null"] }),
        ValueKind::Integer | ValueKind::LongInteger => json!({ "type": ["integer", "null"] }),
        // NaN and the infinities are no JSON numbers.
        ValueKind::Float => {
            json!({ "anyOf": [{ "type": ["number", "null"] }, { "enum": ["NaN", "Infinity", "-Infinity"] }] })
        }
        ValueKind::Json => json!({}),
        ValueKind::Bytea => json!({ "type": ["string", "null"], "contentEncoding": "base64" }),
        // Of any depth; one that begins at another index than 1 is its text.
        ValueKind::Array(element, _) => {
            let mut any = vec![of_value(element, None), json!({ "type": "array" })];
            any.dedup();
            json!({ "type": ["array", "string", "null"], "items": { "anyOf": any } })
        }
        ValueKind::Text if type_name == Some("uuid") => {
            json!({ "type": ["string", "null"], "format": "uuid" })
        }
        ValueKind::Numeric | ValueKind::Timestamp | ValueKind::TimestampTz | ValueKind::Text => {
            json!({ "type": ["string", "null"] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_described_as_what_it_comes_as() {
        let check =
            |kind: &ValueKind, name: Option<&str>, expect: Value| assert_eq!(of_value(kind, name), expect);
        check(&ValueKind::LongInteger, Some("int8"), json!({ "type": ["integer", "null"] }));
        check(&ValueKind::Numeric, Some("numeric"), json!({ "type": ["string", "null"] }));
        check(&ValueKind::Json, Some("jsonb"), json!({}));
        check(&ValueKind::Text, Some("uuid"), json!({ "type": ["string", "null"], "format": "uuid" }));
        let array = of_value(&ValueKind::Array(Box::new(ValueKind::Bool), b','), Some("_bool"));
        assert_eq!(array["items"]["anyOf"][0], json!({ "type": ["boolean", "null"] }));
    }

    #[test]
    fn every_notice_is_described() {
        for notice in Notice::ALL {
            assert!(of_notice(notice).ends_with('.'), "{notice:?}");
        }
    }
}
