//! One change, or one logical message, and all the deliveries it owes.

mod naming;
mod shape;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

use super::keys::{Key, Keys};
use super::messages;
use crate::catalog::{Compiled, Snapshot, anew};
use crate::domain::{
    Cell, Change, Delivery, DeliveryId, Event, FailReason, Lineage, OldRow, Operation, Ordering, Place,
    Relation, Transaction, Treatment, ValueKind, Webhook, lane_of, limits,
};
use crate::matcher::{ConditionFailure, Interest, MessageInterest, Owed, TenantOwing};
use crate::pgoutput::{self, Written};
use crate::render::{Rendered, write_data, write_message_data};
use crate::source::{LogicalMessage, RawChange};
use naming::{Naming, event_of};

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
    /// By type, of the last so many types.
    messages: FxHashMap<Box<str>, Arc<MessageInterest>>,
    failed_conditions: FxHashSet<String>,
}

/// Which rows a change is about.
#[derive(Debug)]
pub(super) enum Touched {
    /// Those with these keys: before and after the change.
    Rows(Vec<Vec<Bytes>>),
    /// Perhaps all.
    Unknown,
}

/// What is resolved of a table, once for each description and snapshot.
struct Table {
    relation: Arc<Relation>,
    interest: Interest,
    /// Its rows' lanes.
    key: Key,
    /// What tells its rows apart: another key than that of the lanes where moves are folded.
    row_key: Key,
    /// Whether a column of the key is masked or excluded: then its text stands nowhere.
    hides_key: bool,
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
            messages: FxHashMap::default(),
            failed_conditions: FxHashSet::default(),
        }
    }

    /// The snapshot or the connection is another: what was resolved is void.
    pub fn forget_relations(&mut self) {
        self.tables.clear();
        self.messages.clear();
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
        let of_tenants = table.interest.owed_to_tenants(&change, json);
        let failures = of_tenants.iter().flat_map(|of_tenant| &of_tenant.owing.failures);
        for failure in owing.failures.iter().chain(failures) {
            report(&mut self.failed_conditions, failure);
        }
        if owing.deliveries.is_empty() && of_tenants.is_empty() {
            return None;
        }
        let table = Arc::clone(table);
        let expand = |change: &Change, owed: Vec<Owed>| {
            self.of_change(&table, change, owed, transaction, raw.oversized(), raw.sequence)
        };
        let mut expansion = None;
        for TenantOwing { part, owing } in of_tenants.into_iter().rev() {
            if !owing.deliveries.is_empty() {
                let before = expansion.replace(expand(&part.change, owing.deliveries));
                expansion = expansion.map(|it| it.named(Naming::of_cut(part.cut)).and_then(before));
            }
        }
        if owing.deliveries.is_empty() {
            return expansion;
        }
        Some(expand(&change, owing.deliveries).and_then(expansion))
    }

    fn of_change(
        &self,
        table: &Table,
        change: &Change,
        owed: Vec<Owed>,
        transaction: Transaction,
        oversized: Option<usize>,
        sequence: u32,
    ) -> Expansion {
        let mut data = Vec::new();
        let fault = oversized.map(|bytes| {
            let limit = limits::FRAME_BYTES;
            FailReason::TooLarge(format!("the row has {bytes} bytes, more than the {limit} walhook reads"))
        });
        if fault.is_none() {
            write_data(change, table.interest.rules(), json, &mut data);
        }
        let payload = Payload { data, fault, max_body: self.max_body };
        self.expansion(table.subject(change), owed, transaction, sequence, payload)
    }

    /// Which rows a change is about, before and after.
    pub async fn touched(&mut self, snapshot: &Snapshot, raw: &RawChange) -> Touched {
        self.resolve(snapshot, &raw.relation).await;
        let Some(table) = self.tables.get(&raw.relation.id) else { return Touched::Unknown };
        if !matches!(table.row_key, Key::Columns(_)) || raw.operation == Operation::Truncate {
            return Touched::Unknown;
        }
        let change = raw.decode();
        let after = change.new.as_ref().map(|_| table.key_where(|at| change.new_cell(at)));
        let before = change.old.as_ref().map(|old| {
            let (OldRow::Key(old) | OldRow::Full(old)) = old;
            table.key_where(|at| Some(old.cell(at)))
        });
        let rows: Option<Vec<_>> = after.into_iter().chain(before).collect();
        rows.map_or(Touched::Unknown, Touched::Rows)
    }

    /// The key of a row that was read; `None` where its table has none.
    pub async fn key_of(&mut self, snapshot: &Snapshot, change: &Change) -> Option<Vec<Bytes>> {
        self.resolve(snapshot, &change.relation).await;
        self.tables.get(&change.relation.id)?.key_where(|at| change.new_cell(at))
    }

    /// The delivery that a row read by a backfill (its number) owes to the backfill's webhook. Call [`Self::key_of`]
    /// first: it resolves the table.
    pub fn expand_row(
        &mut self,
        snapshot: &Snapshot,
        transaction: Transaction,
        change: &Change,
        oversized: Option<usize>,
        (job, webhook): (i64, usize),
    ) -> Option<Expansion> {
        let table = Arc::clone(self.tables.get(&change.relation.id)?);
        let owing = table.interest.owed_to(change, json, webhook);
        for failure in &owing.failures {
            report(&mut self.failed_conditions, failure);
        }
        if owing.deliveries.is_empty() || snapshot.webhook(webhook).is_none() {
            return None;
        }
        let sequence = change.sequence;
        let expansion = self.of_change(&table, change, owing.deliveries, transaction, oversized, sequence);
        let row_key = table.key_where(|at| change.new_cell(at)).unwrap_or_default();
        Some(expansion.named(Naming::of_row(job, &row_key)))
    }

    /// The deliveries a logical message owes; `None` where nobody wants it.
    pub fn expand_message(
        &mut self,
        snapshot: &Snapshot,
        transaction: Transaction,
        message: &LogicalMessage,
    ) -> Option<Expansion> {
        let reading = messages::read(message)?;
        let interest = self.interest_in(snapshot, reading.event_type);
        if interest.is_empty() {
            return None;
        }
        let owing = interest.owed(reading.payload.as_deref().ok());
        for failure in &owing.failures {
            report(&mut self.failed_conditions, failure);
        }
        if owing.deliveries.is_empty() {
            return None;
        }
        let mut data = Vec::new();
        let fault = reading.payload.map(|payload| write_message_data(payload, &mut data)).err();
        let subject = Subject {
            schema: "".into(),
            table: "".into(),
            alike: if reading.key.is_some() { Alike::ByKey } else { Alike::Never },
            key: reading.key.into_iter().collect(),
            hides_key: false,
            operation: Operation::Message,
        };
        let payload = Payload { data, fault, max_body: self.max_body };
        Some(self.expansion(subject, owing.deliveries, transaction, message.sequence, payload))
    }

    fn expansion(
        &self,
        subject: Subject,
        owed: Vec<Owed>,
        transaction: Transaction,
        sequence: u32,
        payload: Payload,
    ) -> Expansion {
        Expansion {
            subject,
            owed: owed.into_iter(),
            place: self.place(transaction, sequence),
            transaction,
            database: Arc::clone(&self.database),
            event: None,
            naming: Naming::Own,
            payload,
            then: None,
        }
    }

    /// Where something stands.
    pub fn place(&self, transaction: Transaction, sequence: u32) -> Place {
        Place { origin: self.lineage.of(transaction.commit), commit: transaction.commit, sequence }
    }

    fn interest_in(&mut self, snapshot: &Snapshot, event_type: &str) -> Arc<MessageInterest> {
        if let Some(known) = self.messages.get(event_type) {
            return Arc::clone(known);
        }
        if self.messages.len() >= limits::MESSAGE_TYPES {
            self.messages.clear();
        }
        let interest = Arc::new(snapshot.matcher.message_interest(event_type));
        self.messages.insert(event_type.into(), Arc::clone(&interest));
        interest
    }

    /// The positions of the columns by which moves of the change's table are folded; empty where they are not, or where
    /// nobody wants anything of the table.
    pub async fn fold_moves(&mut self, snapshot: &Snapshot, raw: &RawChange) -> Vec<usize> {
        self.resolve(snapshot, &raw.relation).await;
        match self.tables.get(&raw.relation.id) {
            Some(table) if !table.interest.is_empty() => table.interest.rules().fold_moves().to_vec(),
            _ => Vec::new(),
        }
    }

    async fn resolve(&mut self, snapshot: &Snapshot, relation: &Arc<Relation>) {
        if self.tables.get(&relation.id).is_some_and(|table| Arc::ptr_eq(&table.relation, relation)) {
            return;
        }
        let interest = snapshot.matcher.interest(relation);
        let row_key = if interest.is_empty() { Key::EachRow } else { self.keys.of(relation).await };
        let key = match interest.rules().fold_moves() {
            [] => row_key.clone(),
            _ if interest.is_empty() => Key::EachRow,
            // A row keeps its lane when it moves.
            columns => Key::Columns(columns.to_vec()),
        };
        let (schema, name) = (relation.schema.as_ref().into(), relation.name.as_ref().into());
        let hides = |at: &usize| interest.rules().of(*at) != Treatment::Keep;
        let hides_key = matches!(&key, Key::Columns(columns) if columns.iter().any(hides));
        let resolved = Arc::clone(relation);
        let table = Table { relation: resolved, interest, key, row_key, hides_key, schema, name };
        self.tables.insert(relation.id, Arc::new(table));
    }
}

/// A change and what it owes, made into deliveries one after another: a change that a thousand webhooks want is never
/// a thousand bodies at once.
pub(super) struct Expansion {
    subject: Subject,
    owed: std::vec::IntoIter<Owed>,
    place: Place,
    transaction: Transaction,
    database: Arc<str>,
    event: Option<Event>,
    naming: Naming,
    payload: Payload,
    /// What another tenant sees of the change.
    then: Option<Box<Expansion>>,
}

impl Expansion {
    fn named(self, naming: Naming) -> Self {
        Self { naming, ..self }
    }

    fn and_then(self, then: Option<Self>) -> Self {
        Self { then: then.map(Box::new), ..self }
    }

    /// The next delivery; `snapshot` is the one that was expanded with.
    pub fn next(&mut self, snapshot: &Snapshot) -> Option<Expanded> {
        let (owed, compiled) = loop {
            let Some(owed) = self.owed.next() else {
                *self = *self.then.take()?;
                continue;
            };
            if let Some(compiled) = snapshot.webhook(owed.webhook) {
                break (owed, compiled);
            }
        };
        let naming = self.naming.of(&owed);
        let event = event_of(&mut self.event, &owed, &naming, self.place, self.transaction, &self.database);
        Some(self.subject.delivery(compiled, event, &naming, &self.payload))
    }

    /// Whether the ledger has the delivery of a row already, by the ends of the ids it has.
    pub fn is_held(&self, snapshot: &Snapshot, held: &HashSet<String>) -> bool {
        let (Naming::Backfill(salt), false) = (&self.naming, held.is_empty()) else { return false };
        let webhooks = self.owed.as_slice().iter().filter_map(|owed| snapshot.webhook(owed.webhook));
        let mut ids = webhooks.map(|compiled| DeliveryId::of(&self.place, salt, &compiled.webhook.name));
        ids.any(|id| held.contains(id.fingerprint()))
    }
}

/// The data, or why there are none.
struct Payload {
    data: Vec<u8>,
    fault: Option<FailReason>,
    max_body: usize,
}

impl Payload {
    fn body(&self, compiled: &Compiled, event: &Event) -> Result<Rendered, FailReason> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let rendered = compiled.renderer.render(event, &self.data, &compiled.webhook.name, self.max_body);
        rendered.map_err(|error| anew::reason(&error))
    }

    /// What is kept in the place of a body that cannot be rendered.
    fn kept(&self, event: &Event, webhook: &Webhook) -> Bytes {
        if self.fault.is_some() { Bytes::new() } else { anew::keep(event, &self.data, &webhook.name) }
    }
}

/// What an event is about, as far as its deliveries tell it.
struct Subject {
    schema: Arc<str>,
    table: Arc<str>,
    alike: Alike,
    /// The text of the key's values.
    key: Vec<Bytes>,
    hides_key: bool,
    operation: Operation,
}

/// Which events are about the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alike {
    /// Those of equal keys.
    ByKey,
    /// None.
    Never,
}

impl Table {
    fn subject(&self, change: &Change) -> Subject {
        Subject {
            schema: Arc::clone(&self.schema),
            table: Arc::clone(&self.name),
            alike: if self.key == Key::EachRow { Alike::Never } else { Alike::ByKey },
            key: self.key_values(change),
            hides_key: self.hides_key,
            operation: change.operation,
        }
    }

    /// The text of the values of the row's own key, where every one of them is known.
    fn key_where<'c>(&self, cell: impl Fn(usize) -> Option<&'c Cell>) -> Option<Vec<Bytes>> {
        let Key::Columns(positions) = &self.row_key else { return None };
        let text = |position: &usize| match cell(*position) {
            Some(Cell::Text(text)) => Some(text.clone()),
            _ => None,
        };
        positions.iter().map(text).collect()
    }

    /// The text of the values of the lane's key, of the row after the change or, where there is none, of the one before.
    fn key_values(&self, change: &Change) -> Vec<Bytes> {
        let Key::Columns(positions) = &self.key else { return Vec::new() };
        let old = match &change.old {
            Some(OldRow::Key(tuple) | OldRow::Full(tuple)) => Some(tuple),
            None => None,
        };
        let value = |position: &usize| {
            let cell = change.new_cell(*position).or_else(|| old.map(|tuple| tuple.cell(*position)));
            match cell {
                Some(Cell::Text(text)) => text.clone(),
                _ => Bytes::new(),
            }
        };
        positions.iter().map(value).collect()
    }
}

impl Subject {
    fn delivery(&self, compiled: &Compiled, event: &Event, naming: &str, written: &Payload) -> Expanded {
        let webhook = &compiled.webhook;
        let id = DeliveryId::of(&event.place, naming, &webhook.name);
        let ordering = match (webhook.ordering, self.alike) {
            (Ordering::Row, Alike::Never) => Ordering::None,
            (ordering, _) => ordering,
        };
        let (Rendered { body, headers }, dead) = match written.body(compiled, event) {
            Ok(rendered) => (rendered, None),
            Err(reason) => (Rendered { body: written.kept(event, webhook), headers: None }, Some(reason)),
        };
        let key: Vec<&[u8]> = self.key.iter().map(AsRef::as_ref).collect();
        let delivery = Delivery {
            lane: lane_of(ordering, (&self.schema, &self.table), &key, &id),
            id,
            event_id: event.id.clone(),
            event_type: Arc::clone(&event.event_type),
            webhook: Arc::clone(&webhook.name),
            schema: Arc::clone(&self.schema),
            table: Arc::clone(&self.table),
            key: if self.hides_key { "".into() } else { key_text(&key) },
            operation: self.operation,
            committed_at: event.transaction.committed_at,
            content_type: compiled.renderer.content_type().into(),
            headers,
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
