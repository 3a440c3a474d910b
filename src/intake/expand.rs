//! One change and all the deliveries it owes.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::keys::{Key, Keys};
use crate::catalog::{Compiled, Snapshot};
use crate::domain::{
    Cell, Change, Delivery, DeliveryId, Event, EventId, FailReason, Lineage, OldRow, Operation, Ordering,
    Place, Relation, Transaction, ValueKind, lane_of,
};
use crate::matcher::{ConditionFailure, Interest, Owed};
use crate::pgoutput::{self, Written};
use crate::render::{RenderError, write_data};
use crate::source::RawChange;

/// The longest text of a row's key that is kept for people to search.
const KEY_TEXT_BYTES: usize = 256;

/// A delivery, or why it can never be one.
pub(super) struct Expanded {
    pub delivery: Delivery,
    pub dead: Option<FailReason>,
}

/// Turns changes into deliveries; remembers what it has resolved of each table.
pub(super) struct Expander {
    keys: Keys,
    lineage: Lineage,
    database: Arc<str>,
    max_body: usize,
    tables: FxHashMap<u32, Arc<Table>>,
    failed_conditions: FxHashSet<String>,
}

/// What is resolved of a table, once for each description and snapshot.
struct Table {
    relation: Arc<Relation>,
    interest: Interest,
    key: Key,
    schema: Arc<str>,
    name: Arc<str>,
}

impl Expander {
    pub fn new(keys: Keys, lineage: Lineage, database: Arc<str>, max_body: usize) -> Self {
        Self {
            keys,
            lineage,
            database,
            max_body,
            tables: FxHashMap::default(),
            failed_conditions: FxHashSet::default(),
        }
    }

    /// The snapshot or the connection is another: what was resolved is void.
    pub fn forget_relations(&mut self) {
        self.tables.clear();
    }

    /// The deliveries a change owes; `None` where nobody wants it.
    pub async fn expand(
        &mut self,
        snapshot: &Snapshot,
        transaction: Transaction,
        raw: &RawChange,
    ) -> Option<Expansion> {
        self.resolve(snapshot, &raw.relation).await;
        let table = self.tables.get(&raw.relation.id)?;
        if !table.interest.wants(raw.operation) {
            return None;
        }
        let change = raw.decode();
        let owing = table.interest.owed(&change, json);
        for failure in &owing.failures {
            report(&mut self.failed_conditions, failure);
        }
        if owing.deliveries.is_empty() {
            return None;
        }
        let mut data = Vec::new();
        if raw.oversized().is_none() {
            write_data(&change, table.interest.rules(), json, &mut data);
        }
        Some(Expansion {
            table: Arc::clone(table),
            change,
            owed: owing.deliveries.into_iter(),
            place: Place {
                origin: self.lineage.of(transaction.commit),
                commit: transaction.commit,
                sequence: raw.sequence,
            },
            transaction,
            database: Arc::clone(&self.database),
            event: None,
            payload: Payload { data, oversized: raw.oversized(), max_body: self.max_body },
        })
    }

    async fn resolve(&mut self, snapshot: &Snapshot, relation: &Arc<Relation>) {
        if self.tables.get(&relation.id).is_some_and(|table| Arc::ptr_eq(&table.relation, relation)) {
            return;
        }
        let interest = snapshot.matcher.interest(relation);
        let key = if interest.is_empty() { Key::EachRow } else { self.keys.of(relation).await };
        let (schema, name) = (relation.schema.as_ref().into(), relation.name.as_ref().into());
        let table = Table { relation: Arc::clone(relation), interest, key, schema, name };
        self.tables.insert(relation.id, Arc::new(table));
    }
}

/// A change and what it owes, made into deliveries one after another: a change that a thousand webhooks want is never
/// a thousand bodies at once.
pub(super) struct Expansion {
    table: Arc<Table>,
    change: Change,
    owed: std::vec::IntoIter<Owed>,
    place: Place,
    transaction: Transaction,
    database: Arc<str>,
    event: Option<Event>,
    payload: Payload,
}

impl Expansion {
    /// The next delivery; `snapshot` is the one that was expanded with.
    pub fn next(&mut self, snapshot: &Snapshot) -> Option<Expanded> {
        let (owed, compiled) = loop {
            let owed = self.owed.next()?;
            if let Some(compiled) = snapshot.webhook(owed.webhook) {
                break (owed, compiled);
            }
        };
        let event = event_of(&mut self.event, &owed, self.place, self.transaction, &self.database);
        let values = self.table.key_values(&self.change);
        Some(self.table.delivery(compiled, event, &owed, &values, self.change.operation, &self.payload))
    }
}

/// The event of an owed type; several webhooks share one.
fn event_of<'e>(
    known: &'e mut Option<Event>,
    owed: &Owed,
    place: Place,
    transaction: Transaction,
    database: &Arc<str>,
) -> &'e Event {
    if known.as_ref().is_none_or(|event| event.event_type != owed.event_type) {
        *known = None;
    }
    known.get_or_insert_with(|| Event {
        id: EventId::of(&place, named(owed)),
        event_type: Arc::clone(&owed.event_type),
        place,
        transaction,
        database: Arc::clone(database),
    })
}

/// What tells apart the events of one change: the type of a named one, nothing for the change's own.
fn named(owed: &Owed) -> &str {
    if owed.named { &owed.event_type } else { "" }
}

/// The change's data, or that there is too much of it.
struct Payload {
    data: Vec<u8>,
    oversized: Option<usize>,
    max_body: usize,
}

impl Payload {
    fn body(&self, compiled: &Compiled, event: &Event) -> Result<bytes::Bytes, FailReason> {
        if let Some(bytes) = self.oversized {
            let limit = crate::domain::limits::FRAME_BYTES;
            return Err(FailReason::TooLarge(format!(
                "the row has {bytes} bytes, more than the {limit} walhook reads"
            )));
        }
        let rendered = compiled.renderer.render(event, &self.data, &compiled.webhook.name, self.max_body);
        rendered.map_err(|error| match error {
            RenderError::TooLarge { .. } => FailReason::TooLarge(format!("{error} (delivery.max_body)")),
            other => FailReason::NotRendered(other.to_string()),
        })
    }
}

impl Table {
    /// The text of the key's values, of the row after the change or, where there is none, of the one before.
    fn key_values<'c>(&self, change: &'c Change) -> Vec<&'c [u8]> {
        let Key::Columns(positions) = &self.key else { return Vec::new() };
        let old = match &change.old {
            Some(OldRow::Key(tuple) | OldRow::Full(tuple)) => Some(tuple),
            None => None,
        };
        let value = |position: &usize| {
            let cell = change.new_cell(*position).or_else(|| old.map(|tuple| tuple.cell(*position)));
            match cell {
                Some(Cell::Text(text)) => &text[..],
                _ => &[],
            }
        };
        positions.iter().map(value).collect()
    }

    fn delivery(
        &self,
        compiled: &Compiled,
        event: &Event,
        owed: &Owed,
        key: &[&[u8]],
        operation: Operation,
        written: &Payload,
    ) -> Expanded {
        let webhook = &compiled.webhook;
        let id = DeliveryId::of(&event.place, named(owed), &webhook.name);
        let ordering = match (webhook.ordering, &self.key) {
            (Ordering::Row, Key::EachRow) => Ordering::None,
            (ordering, _) => ordering,
        };
        let (body, dead) = match written.body(compiled, event) {
            Ok(body) => (body, None),
            Err(reason) => (bytes::Bytes::new(), Some(reason)),
        };
        let delivery = Delivery {
            lane: lane_of(ordering, (&self.schema, &self.name), key, &id),
            id,
            event_id: event.id.clone(),
            event_type: Arc::clone(&event.event_type),
            webhook: Arc::clone(&webhook.name),
            schema: Arc::clone(&self.schema),
            table: Arc::clone(&self.name),
            key: key_text(key),
            operation,
            committed_at: event.transaction.committed_at,
            content_type: compiled.renderer.content_type().into(),
            body,
        };
        Expanded { delivery, dead }
    }
}

/// The key for people: its values, separated by commas, cut where they are long.
fn key_text(values: &[&[u8]]) -> Arc<str> {
    let joined = values.join(&b","[..]);
    let mut text = String::from_utf8_lossy(&joined).into_owned();
    if text.len() > KEY_TEXT_BYTES {
        let cut = (0..=KEY_TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
    }
    text.into()
}

/// Writes a value and counts it where it could only go out as its text.
fn json(kind: &ValueKind, text: &[u8], out: &mut Vec<u8>) {
    if pgoutput::write_json(kind, text, out) == Written::TextInstead {
        metrics::counter!("walhook_values_as_text_total").increment(1);
    }
}

/// Counts a condition that could not be answered, and tells of each condition once.
fn report(known: &mut FxHashSet<String>, failure: &ConditionFailure) {
    metrics::counter!("walhook_conditions_errors_total").increment(1);
    let source = failure.condition.source();
    if !known.contains(source) {
        known.insert(source.to_owned());
        let reason = &failure.reason;
        tracing::warn!(
            condition = source,
            reason,
            "a condition cannot be answered on a row and does not match"
        );
    }
}
