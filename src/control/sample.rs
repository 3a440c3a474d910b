//! Events that no change made: from a table's columns, or from what somebody gives.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ControlError;
use crate::chores::notices;
use crate::clock::Clock;
use crate::domain::{
    Cell, Change, Column, CommitLsn, Event, EventId, Lsn, Mask, Notice, OldRow, Operation, Origin, Place,
    Relation, ReplicaIdentity, TableRules, TableShape, Transaction, Treatment, Tuple, ValueKind,
};
use crate::pgoutput::{self, kind_of};
use crate::render::{write_data, write_schema_data};
use crate::source::{ColumnInfo, RowIdentity, TableInfo};

/// An event's data as somebody wrote it: the fields of `data`, each as its bytes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    table: Option<String>,
    #[serde(default)]
    record: Option<Box<RawValue>>,
    #[serde(default)]
    old: Option<Box<RawValue>>,
    #[serde(default)]
    changed: Option<Vec<String>>,
    #[serde(default)]
    unavailable: Vec<String>,
    #[serde(default)]
    schema_change: Option<Box<RawValue>>,
    #[serde(skip)]
    of_no_table: bool,
    #[serde(skip)]
    around: Around,
}

/// What a whole standard body tells beside `data`. A preview shows it as it is; what is sent has its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Around {
    id: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    timestamp: Option<Timestamp>,
    metadata: Metadata,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    database: Option<String>,
    lsn: Option<String>,
    xid: Option<u32>,
    sequence: Option<u32>,
    webhook: Option<String>,
}

/// Whether it is a whole body.
#[derive(Deserialize)]
struct Whole {
    data: Option<Given>,
}

#[derive(serde::Serialize)]
struct Data<'a> {
    operation: &'a str,
    schema: Option<&'a str>,
    table: Option<&'a str>,
    record: Option<&'a RawValue>,
    old: Option<&'a RawValue>,
    changed: Option<&'a [String]>,
    unavailable: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_change: Option<&'a RawValue>,
}

impl Given {
    /// Reads JSON: the fields of `data`, or a whole standard body.
    pub fn parse(text: &[u8]) -> Result<Self, ControlError> {
        let bad = |problem: String| ControlError::Data { problem };
        // The reader takes lists for objects whose fields come in order.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(bad("it is no JSON object".to_owned()));
        }
        let read = |error: serde_json::Error| bad(error.to_string());
        let given = match serde_json::from_slice::<Whole>(text).map_err(read)?.data {
            Some(data) => Self { around: serde_json::from_slice(text).map_err(read)?, ..data },
            None => serde_json::from_slice::<Self>(text).map_err(read)?,
        };
        for (name, row) in [("record", &given.record), ("old", &given.old)] {
            let is_row = row.as_ref().is_none_or(|row| row.get().starts_with('{') || row.get() == "null");
            if !is_row {
                return Err(bad(format!("\"{name}\" is neither an object nor null")));
            }
        }
        if given.record.is_none() && given.old.is_none() && given.schema_change.is_none() {
            return Err(bad("it has neither \"record\" nor \"old\"".to_owned()));
        }
        Ok(given)
    }

    /// Is no longer said to be what was done to a row.
    #[must_use]
    pub fn as_test(mut self) -> Self {
        self.operation = None;
        self
    }

    /// Takes what is not given from an operation and a table.
    pub(super) fn or(mut self, operation: Operation, schema: &str, table: &str) -> Self {
        self.operation.get_or_insert_with(|| operation.as_str().to_owned());
        self.schema.get_or_insert_with(|| schema.to_owned());
        self.table.get_or_insert_with(|| table.to_owned());
        self
    }

    /// The same for an event that is about no table, as logical messages are.
    pub(super) fn or_of_no_table(mut self, operation: Operation) -> Self {
        self.operation.get_or_insert_with(|| operation.as_str().to_owned());
        self.of_no_table = true;
        self
    }

    pub(super) fn operation(&self) -> Operation {
        self.operation.as_deref().map_or(Operation::Test, Operation::from_word)
    }

    pub(super) fn table(&self) -> (&str, &str) {
        (self.schema.as_deref().unwrap_or("public"), self.table.as_deref().unwrap_or("orders"))
    }

    /// The event for a preview: what a whole body tells of it, the rest made up. `event_type` wins, `of_data` is last.
    pub(super) fn event(
        &self,
        event_type: Option<&str>,
        of_data: &str,
        clock: &Clock,
    ) -> Result<Event, ControlError> {
        let Around { id, event_type: own_type, timestamp, metadata } = &self.around;
        let event_type = event_type.or(own_type.as_deref()).unwrap_or(of_data);
        let mut event = event(event_type, metadata.database.as_deref().unwrap_or("app"), clock);
        if let Some(id) = id {
            event.id = EventId::from_ledger(id);
        }
        if let Some(lsn) = &metadata.lsn {
            let lsn: Lsn = lsn.parse().map_err(|error| ControlError::Data { problem: format!("{error}") })?;
            event.transaction.commit = CommitLsn(lsn);
        }
        event.transaction.committed_at = timestamp.unwrap_or(event.transaction.committed_at);
        event.transaction.xid = metadata.xid.unwrap_or(event.transaction.xid);
        event.place.sequence = metadata.sequence.unwrap_or(event.place.sequence);
        Ok(event)
    }

    /// The webhook that a whole body was for.
    pub(super) fn webhook(&self) -> Option<&str> {
        self.around.metadata.webhook.as_deref()
    }

    /// The bytes of `data`.
    pub(super) fn write(&self) -> Result<Vec<u8>, ControlError> {
        let (schema, table) = self.table();
        let of_table =
            !self.of_no_table && !matches!(self.operation(), Operation::Message | Operation::Notice);
        let data = Data {
            operation: self.operation.as_deref().unwrap_or("test"),
            schema: of_table.then_some(schema),
            table: of_table.then_some(table),
            record: self.record.as_deref(),
            old: self.old.as_deref(),
            changed: self.changed.as_deref(),
            unavailable: &self.unavailable,
            schema_change: self.schema_change.as_deref(),
        };
        serde_json::to_vec(&data).map_err(|error| ControlError::Data { problem: error.to_string() })
    }
}

/// The small sample of who has no database at hand: an order that was shipped.
pub(super) const BUILT_IN: &str = r#"{"operation":"update","schema":"public","table":"orders",
"record":{"id":7,"status":"shipped","total":"12.50","email":"ada@example.com","placed_at":"2026-01-15T10:30:00Z"},
"old":{"id":7,"status":"paid","total":"12.50","email":"ada@example.com","placed_at":"2026-01-15T10:30:00Z"},
"changed":["status"],"unavailable":[]}"#;

/// The sample of a logical message's event.
const OF_MESSAGE: &str = r#"{"record":{"sample":true}}"#;

/// A sample of an event without a table: of a notice, or of a logical message.
pub(super) fn of_no_table(notice: Option<Notice>) -> Result<Given, ControlError> {
    let Some(notice) = notice else { return Given::parse(OF_MESSAGE.as_bytes()) };
    let record = notices::sample(notice);
    Given::parse(&[b"{\"record\":", &record[..], b"}"].concat())
}

/// An event that stands nowhere in the log. Its ids are in generation zero, which no slot has: they never meet those
/// of changes, and sort before all of them.
pub(super) fn event(event_type: &str, database: &str, clock: &Clock) -> Event {
    let now = clock.now();
    let micros = u64::try_from(now.as_microsecond()).unwrap_or(0);
    // A few digits of dice, for two in the same microsecond.
    let dice = (0..12).fold(0, |bits, _| bits * 2 + u64::from(clock.dice() < 0.5));
    let origin = Origin { system: 0, generation: 0 };
    let place = Place { origin, commit: CommitLsn(Lsn((micros << 12) | dice)), sequence: 1 };
    Event {
        id: EventId::of(&place, event_type),
        event_type: event_type.into(),
        place,
        transaction: Transaction { commit: CommitLsn(Lsn(0)), committed_at: now, xid: 0 },
        database: database.into(),
    }
}

/// The bytes of `data` for a change of the kind `operation` of a table, with one plausible value a column, in the
/// form and with the masks that changes have. They say `test`.
pub(super) fn data(
    table: &TableInfo,
    columns: &[ColumnInfo],
    operation: Operation,
    rules: impl Fn(&Relation) -> TableRules,
) -> Vec<u8> {
    let relation = relation(table, columns);
    if operation == Operation::Schema
        && let Some(data) = shape_data(&relation, &rules(&relation))
    {
        return data;
    }
    let rules = rules(&relation);
    let cell = |(position, column): (usize, &ColumnInfo)| match rules.of(position) {
        // The hash of a value that can be guessed would tell whoever reads the sample which rows have that value.
        Treatment::Mask(Mask::Hash) => Cell::Text(Bytes::from(format!("{:032x}", fastrand::u128(..)))),
        _ => value(column),
    };
    let row: Vec<Cell> = columns.iter().enumerate().map(cell).collect();
    let row = || Tuple(row.clone());
    let full = table.identity == RowIdentity::Full;
    let old = match operation {
        Operation::Update | Operation::Delete if full => Some(OldRow::Full(row())),
        Operation::Delete => Some(OldRow::Key(row())),
        _ => None,
    };
    let new = (!matches!(operation, Operation::Delete | Operation::Truncate)).then(row);
    let change = Change { relation: Arc::new(relation), operation: Operation::Test, new, old, sequence: 1 };
    let mut data = Vec::new();
    write_data(&change, &rules, json, &mut data);
    data
}

/// As if the table's last column had just been added.
fn shape_data(relation: &Relation, rules: &TableRules) -> Option<Vec<u8>> {
    let hides = |column: &str| rules.hides(column);
    let now = TableShape::of(relation);
    let mut before = now.clone();
    before.columns.remove(now.columns.iter().rposition(|column| !hides(&column.name))?);
    let mut data = Vec::new();
    let difference = now.since(&before, hides)?;
    write_schema_data(Operation::Test, (&now.schema, &now.table), &difference, &mut data);
    Some(data)
}

/// A value's JSON.
pub(super) fn json(kind: &ValueKind, text: &[u8], out: &mut Vec<u8>) {
    let _form = pgoutput::write_json(kind, text, out);
}

/// A table as the stream would describe it.
pub(super) fn relation(table: &TableInfo, columns: &[ColumnInfo]) -> Relation {
    let full = table.identity == RowIdentity::Full;
    let column = |column: &ColumnInfo| Column {
        name: column.name.as_str().into(),
        type_oid: column.type_oid,
        type_name: Some(column.type_name.as_str().into()),
        type_modifier: column.type_modifier,
        in_identity: full || column.in_key,
        kind: kind_of(column.type_oid, Some(&column.type_name)),
    };
    Relation {
        id: table.oid,
        schema: table.schema.as_str().into(),
        name: table.table.as_str().into(),
        identity: if full { ReplicaIdentity::Full } else { ReplicaIdentity::Default },
        columns: columns.iter().map(column).collect(),
    }
}

/// A plausible value in Postgres text form.
fn value(column: &ColumnInfo) -> Cell {
    if column.unsent {
        return Cell::Unchanged;
    }
    let text = match (&column.label, column.type_name.strip_prefix('_')) {
        (Some(label), _) => label.clone(),
        (None, Some(element)) => format!("{{{}}}", element_text(element)),
        (None, None) => scalar(column),
    };
    Cell::Text(Bytes::from(text))
}

fn element_text(element: &str) -> &'static str {
    match element {
        "bool" => "t,f",
        "int2" | "int4" | "int8" | "oid" | "float4" | "float8" | "numeric" => "1,2",
        "text" | "varchar" | "bpchar" | "name" => "one,two",
        _ => "",
    }
}

fn scalar(column: &ColumnInfo) -> String {
    let text = match &*column.type_name {
        "bool" => "t",
        "int2" | "int4" | "int8" | "oid" | "bit" | "varbit" => "1",
        "float4" | "float8" => "1.5",
        "numeric" => return numeric(column.type_modifier),
        "money" => "$12.50",
        "json" | "jsonb" => r#"{"sample": true}"#,
        "timestamptz" => "2026-01-15 10:30:00+00",
        "timestamp" => "2026-01-15 10:30:00",
        "date" => "2026-01-15",
        "time" => "10:30:00",
        "timetz" => "10:30:00+00",
        "interval" => "P1D",
        "uuid" => "11111111-2222-4333-8444-555555555555",
        "bytea" => r"\x73616d706c65",
        "inet" => "192.0.2.1",
        "cidr" => "192.0.2.0/24",
        "macaddr" => "00:00:5e:00:53:01",
        "xml" => "<sample/>",
        "point" => "(1,2)",
        "text" | "varchar" | "bpchar" | "name" | "citext" => return words(column),
        _ => "sample",
    };
    text.to_owned()
}

/// With the scale that the column has.
fn numeric(modifier: i32) -> String {
    let scale = if modifier < 4 { 2 } else { usize::try_from((modifier - 4) & 0x7ff).unwrap_or(2) };
    let mut text = "1".to_owned();
    if (1..1000).contains(&scale) {
        let written = write!(text, ".{:0<scale$}", "5");
        debug_assert!(written.is_ok());
    }
    text
}

/// By the column's name, within its length.
fn words(column: &ColumnInfo) -> String {
    let name = column.name.to_lowercase();
    let has = |part: &str| name.contains(part);
    let text = if has("mail") {
        "ada@example.com"
    } else if has("url") || has("link") || has("website") {
        "https://example.com/"
    } else if has("phone") {
        "+1 202 555 0100"
    } else if has("name") {
        "Ada"
    } else {
        "sample"
    };
    let most = match (&*column.type_name, column.type_modifier) {
        ("varchar" | "bpchar", modifier) if modifier > 4 => {
            usize::try_from(modifier - 4).unwrap_or(usize::MAX)
        }
        _ => usize::MAX,
    };
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn column(name: &str, type_name: &str, oid: u32, modifier: i32) -> ColumnInfo {
        ColumnInfo {
            name: name.to_owned(),
            type_oid: oid,
            type_name: type_name.to_owned(),
            type_modifier: modifier,
            label: None,
            in_key: name == "id",
            unsent: false,
        }
    }

    fn table(identity: RowIdentity) -> TableInfo {
        TableInfo {
            schema: "public".to_owned(),
            table: "orders".to_owned(),
            oid: 1,
            partitioned: false,
            identity,
            owned: true,
            owner: "app".to_owned(),
            stored_in_identity: false,
        }
    }

    fn sample(identity: RowIdentity, operation: Operation) -> Value {
        let mut mood = column("mood", "mood", 20_000, -1);
        mood.label = Some("glad".to_owned());
        let mut double = column("double", "int4", 23, -1);
        double.unsent = true;
        let columns = [
            column("id", "int8", 20, -1),
            column("total", "numeric", 1700, (12 << 16) + 4 + 3),
            column("email", "varchar", 1043, 4 + 5),
            column("at", "timestamptz", 1184, -1),
            column("meta", "jsonb", 3802, -1),
            column("tags", "_text", 1009, -1),
            mood,
            double,
        ];
        let data = data(&table(identity), &columns, operation, |_| TableRules::default());
        serde_json::from_slice(&data).expect("JSON")
    }

    #[test]
    fn a_sample_has_a_plausible_value_of_each_columns_type() {
        let row = json!({
            "id": 1, "total": "1.500", "email": "ada@e", "at": "2026-01-15T10:30:00Z",
            "meta": { "sample": true }, "tags": ["one", "two"], "mood": "glad",
        });
        let made = sample(RowIdentity::Key, Operation::Insert);
        assert_eq!((&made["operation"], &made["record"], &made["old"]), (&json!("test"), &row, &Value::Null));
        let made = sample(RowIdentity::Key, Operation::Delete);
        assert_eq!((&made["record"], &made["old"]), (&Value::Null, &json!({ "id": 1 })));
        let made = sample(RowIdentity::Full, Operation::Update);
        assert_eq!((&made["record"], &made["old"]), (&row, &row));
        let made = sample(RowIdentity::Key, Operation::Schema);
        assert_eq!((&made["operation"], &made["record"]), (&json!("test"), &Value::Null));
        let change = &made["schema_change"];
        assert_eq!((&change["added"][0]["name"], &change["removed"]), (&json!("double"), &json!([])));
    }

    #[test]
    fn a_samples_ids_sort_before_those_of_every_change_and_are_its_own() {
        use crate::domain::DeliveryId;
        let clock = Clock::system();
        let one = event("orders.created", "app", &clock);
        let id = DeliveryId::of(&one.place, "orders.created", "crm");
        let first = DeliveryId::floor_after(Origin { system: 7, generation: 1 }, CommitLsn(Lsn(0)));
        assert!(id < first, "{id} {first}");
        assert_ne!(one.id, event("orders.created", "app", &clock).id);
    }

    #[test]
    fn given_data_keep_the_bytes_of_their_values_and_mistakes_are_named() {
        let given = Given::parse(br#"{"record": {"n": 1.10, "big": 12345678901234567890}}"#).unwrap();
        let bytes = given.or(Operation::Test, "public", "orders").write().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            r#"{"operation":"test","schema":"public","table":"orders","record":{"n": 1.10, "big": 12345678901234567890},"old":null,"changed":null,"unavailable":[]}"#
        );
        let whole = Given::parse(br#"{"type": "x", "data": {"record": null, "old": {"a": 1}}}"#).unwrap();
        assert!(whole.old.is_some());
        for (bad, part) in [
            ("[]", "no JSON object"),
            (r#"{"recrod": {}}"#, "recrod"),
            (r#"{"record": 1}"#, "neither an object nor null"),
            ("{}", "neither \"record\" nor \"old\""),
        ] {
            let error = Given::parse(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part), "{bad}: {error}");
        }
        assert!(Given::parse(BUILT_IN.as_bytes()).is_ok());
    }
}
