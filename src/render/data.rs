//! The `data` object of a body: made once per change, shared by every webhook.

use super::escape::json_string;
use crate::domain::{Change, JsonWriter, Operation, SchemaChange, Seen, TableRules};

/// Appends the `data` object: operation, schema, table, record, old, changed, unavailable, in this order, compact. What
/// was not sent is absent, never null; excluded columns are nowhere, masked ones masked.
pub fn write_data(change: &Change, rules: &TableRules, json: JsonWriter, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"operation\":\"");
    out.extend_from_slice(change.operation.as_str().as_bytes());
    out.extend_from_slice(b"\",\"schema\":");
    json_string(&change.relation.schema, out);
    out.extend_from_slice(b",\"table\":");
    json_string(&change.relation.name, out);
    out.extend_from_slice(b",\"record\":");
    if change.new.is_some() {
        row(change, (rules, json), out, |position| rules.after(change, position));
    } else {
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(b",\"old\":");
    if change.old.is_some() {
        row(change, (rules, json), out, |position| rules.before(change, position));
    } else {
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(b",\"changed\":");
    match rules.changed(change) {
        Some(positions) => names(change, positions.into_iter(), out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"unavailable\":");
    names(change, rules.unavailable(change), out);
    out.push(b'}');
}

/// The same of a logical message: `record` is its payload, which is JSON, and there is neither schema nor table.
pub fn write_message_data(payload: &[u8], out: &mut Vec<u8>) {
    write_without_table(Operation::Message, payload, out);
}

/// The same of a notice: `record` is what it tells.
pub fn write_notice_data(told: &[u8], out: &mut Vec<u8>) {
    write_without_table(Operation::Notice, told, out);
}

fn write_without_table(operation: Operation, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"operation\":\"");
    out.extend_from_slice(operation.as_str().as_bytes());
    out.extend_from_slice(b"\",\"schema\":null,\"table\":null,\"record\":");
    out.extend_from_slice(payload);
    out.extend_from_slice(b",\"old\":null,\"changed\":null,\"unavailable\":[]}");
}

/// The same of a table's new shape: there is no row, and `schema_change` tells the difference. The table has the name that it
/// has by now; `operation` is `schema`, or `test` for a sample.
pub fn write_schema_data(
    operation: Operation,
    (schema, table): (&str, &str),
    difference: &SchemaChange<'_>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"operation\":\"");
    out.extend_from_slice(operation.as_str().as_bytes());
    out.extend_from_slice(b"\",\"schema\":");
    json_string(schema, out);
    out.extend_from_slice(b",\"table\":");
    json_string(table, out);
    out.extend_from_slice(
        b",\"record\":null,\"old\":null,\"changed\":null,\"unavailable\":[],\"schema_change\":",
    );
    let written = serde_json::to_vec(difference).unwrap_or_else(|_| b"null".to_vec());
    out.extend_from_slice(&written);
    out.push(b'}');
}

fn row<'a>(
    change: &Change,
    (rules, json): (&TableRules, JsonWriter),
    out: &mut Vec<u8>,
    seen: impl Fn(usize) -> Seen<'a>,
) {
    let mut separator = b'{';
    for (position, column) in change.relation.columns.iter().enumerate() {
        let value = seen(position);
        if value == Seen::Absent {
            continue;
        }
        out.push(separator);
        separator = b',';
        json_string(&column.name, out);
        out.push(b':');
        match value {
            Seen::Absent | Seen::Null => out.extend_from_slice(b"null"),
            Seen::Plain(text) => json(rules.kind(position, &column.kind), text, out),
            Seen::Masked(text) => json_string(&text, out),
        }
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn names(change: &Change, positions: impl Iterator<Item = usize>, out: &mut Vec<u8>) {
    out.push(b'[');
    let columns = positions.filter_map(|position| change.relation.columns.get(position));
    for (index, column) in columns.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json_string(&column.name, out);
    }
    out.push(b']');
}
