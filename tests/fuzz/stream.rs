//! A stream as it was recorded, or as somebody has bent it since: what must hold of any bytes.
//!
//! Shared by the fuzz target `stream` and by the mutations that run with the other tests. A recording is payloads one
//! after the other, each behind its length (four bytes, the first the highest).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use serde_json::value::RawValue;
use walhook::domain::{Cell, Change, OldRow, Operation, Relation, TableRules, Tuple, ValueKind};
use walhook::pgoutput::{Decoder, Message, RawOld, RawTuple, decode_head, write_json};
use walhook::render::write_data;

/// The payloads of a recording; the last one ends where the bytes do.
pub fn payloads(recording: &[u8]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(recording);
    let mut all = Vec::new();
    while rest.len() >= 4 {
        let length = usize::try_from(rest.get_u32()).unwrap_or(usize::MAX).min(rest.len());
        all.push(rest.split_to(length));
    }
    all
}

/// Reads payloads as one connection's, and makes the body's data of every row: no panic, and always JSON.
pub fn read(payloads: &[Bytes]) {
    let mut decoder = Decoder::new();
    let mut tables: HashMap<u32, Arc<Relation>> = HashMap::new();
    for payload in payloads {
        let head = decode_head(payload.clone());
        let Ok(message) = decoder.decode(payload.clone()) else { continue };
        assert!(head.is_ok(), "a whole message has a head");
        let (table, operation, old, new) = match message {
            Message::Relation(relation) => {
                tables.insert(relation.id, Arc::new(relation));
                continue;
            }
            Message::Insert { relation, new } => (relation, Operation::Insert, None, Some(new)),
            Message::Update { relation, old, new } => (relation, Operation::Update, old, Some(new)),
            Message::Delete { relation, old } => (relation, Operation::Delete, Some(old), None),
            _ => continue,
        };
        let (new, old) = (new.as_ref().map(taken_apart), old.as_ref().map(old_taken_apart));
        let Some(relation) = tables.get(&table) else { continue };
        let change = Change { relation: relation.clone(), operation, new, old, sequence: 1 };
        let mut data = Vec::new();
        write_data(&change, &TableRules::default(), as_json, &mut data);
        assert_json(&data);
    }
}

/// Every value of the rows, with the kind of its column.
pub fn values(payloads: &[Bytes]) -> Vec<(ValueKind, Bytes)> {
    let mut decoder = Decoder::new();
    let mut tables: HashMap<u32, Relation> = HashMap::new();
    let mut all = Vec::new();
    for payload in payloads {
        match decoder.decode(payload.clone()) {
            Ok(Message::Relation(relation)) => drop(tables.insert(relation.id, relation)),
            Ok(Message::Insert { relation, new }) => {
                let Some(relation) = tables.get(&relation) else { continue };
                for (cell, column) in new.decode().0.into_iter().zip(&relation.columns) {
                    if let Cell::Text(text) = cell {
                        all.push((column.kind.clone(), text));
                    }
                }
            }
            _ => {}
        }
    }
    all
}

fn as_json(kind: &ValueKind, text: &[u8], out: &mut Vec<u8>) {
    write_json(kind, text, out);
}

fn assert_json(bytes: &[u8]) {
    let read = serde_json::from_slice::<Box<RawValue>>(bytes);
    assert!(read.is_ok(), "no JSON: {}", String::from_utf8_lossy(bytes));
}

fn taken_apart(row: &RawTuple) -> Tuple {
    let tuple = row.decode();
    assert_eq!(tuple.0.len(), row.columns());
    tuple
}

fn old_taken_apart(old: &RawOld) -> OldRow {
    taken_apart(old.tuple());
    old.decode()
}
