//! A stream as a real server sent it, with values that are legal and odd, decoded from end to end.
//!
//! `testdata/odd_values.sql` says what was done and how it was recorded; `odd_values.expect` holds what it means, one
//! message a line.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;

use super::{Decoder, Message, Written, decode_head, write_json, write_json_string};
use crate::domain::{Cell, OldRow, Relation, Tuple};

const RECORDED: &str = include_str!("testdata/odd_values.hex");
const EXPECTED: &str = include_str!("testdata/odd_values.expect");

static PAYLOADS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    RECORDED.lines().map(|line| hex::decode(line).expect("recorded as hexadecimal").into()).collect()
});

/// The recorded payloads, in order.
pub(super) fn payloads() -> Vec<Bytes> {
    PAYLOADS.clone()
}

#[test]
fn a_recorded_stream_reads_as_it_was_written() {
    let mut decoder = Decoder::new();
    let mut relations = HashMap::new();
    let mut actual = String::new();
    for payload in payloads() {
        let message = decoder.decode(payload).expect("a server's message");
        writeln!(actual, "{}", describe(&message, &relations)).unwrap();
        if let Message::Relation(relation) = message {
            relations.insert(relation.id, relation);
        }
    }
    for (number, (actual, expected)) in actual.lines().zip(EXPECTED.lines()).enumerate() {
        assert_eq!(actual, expected, "line {}", number + 1);
    }
    assert_eq!(actual.lines().count(), EXPECTED.lines().count());
}

#[test]
fn the_head_of_a_whole_change_is_the_change() {
    for payload in payloads() {
        let head = decode_head(payload.clone()).expect("a server's message");
        let (old, new) = match Decoder::new().decode(payload).expect("a server's message") {
            Message::Insert { new, .. } => (None, Some(new.decode())),
            Message::Update { old, new, .. } => (old.map(|old| old.decode()), Some(new.decode())),
            Message::Delete { old, .. } => (Some(old.decode()), None),
            _ => (None, None),
        };
        assert_eq!((head.old, head.new), (old, new));
    }
}

fn describe(message: &Message, relations: &HashMap<u32, Relation>) -> String {
    match message {
        Message::Relation(relation) => {
            let columns: Vec<_> = relation
                .columns
                .iter()
                .map(|c| format!("{}{} {:?}", if c.in_identity { "*" } else { "" }, c.name, c.kind))
                .collect();
            let Relation { id, schema, name, identity, .. } = relation;
            format!("Relation {id} {schema}.{name} {identity:?}: {}", columns.join(", "))
        }
        Message::Insert { relation, new } => format!("Insert {}", row(&new.decode(), &relations[relation])),
        Message::Update { relation, old, new } => {
            let relation = &relations[relation];
            let old = old.as_ref().map(|old| old_row(&old.decode(), relation));
            format!("Update {} from {old:?}", row(&new.decode(), relation)).replace("\\\"", "\"")
        }
        Message::Delete { relation, old } => {
            format!("Delete {}", old_row(&old.decode(), &relations[relation]))
        }
        // The rest has a `Debug` that says everything.
        other => format!("{other:?}"),
    }
}

fn old_row(old: &OldRow, relation: &Relation) -> String {
    match old {
        OldRow::Key(tuple) => format!("key {}", row(tuple, relation)),
        OldRow::Full(tuple) => format!("full {}", row(tuple, relation)),
    }
}

/// The row as a JSON object, nulls left out, long runs of a letter shortened; `~` marks a value that went out as text.
fn row(tuple: &Tuple, relation: &Relation) -> String {
    assert_eq!(tuple.0.len(), relation.columns.len());
    let mut out = Vec::new();
    for (cell, column) in tuple.0.iter().zip(&relation.columns) {
        let Cell::Text(text) = cell else {
            if *cell == Cell::Unchanged {
                out.extend_from_slice(format!("{}: unchanged, ", column.name).as_bytes());
            }
            continue;
        };
        write_json_string(&column.name, &mut out);
        out.extend_from_slice(b": ");
        if write_json(&column.kind, text, &mut out) == Written::TextInstead {
            out.push(b'~');
        }
        out.extend_from_slice(b", ");
    }
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    format!("{{{}}}", text.trim_end_matches(", "))
        .replace(&"x".repeat(2100), "xxx…")
        .replace(&"y".repeat(2100), "yyy…")
}
