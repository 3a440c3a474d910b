//! The built-in formats; `examples/formats` shows each for every operation, and tests hold them to that.
//!
//! `standard` wraps the shared `data` bytes as they are. `cloudevents` is CloudEvents 1.0 in structured JSON
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>), `cloudevents-binary` the same
//! attributes as headers
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md#31-binary-content-mode>).
//! `supabase` and `sequin` have the field names their receivers know; they take the parts of `data` as bytes, so that
//! values keep their exact form. `xml` and `form` have files of their own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use url::form_urlencoded::byte_serialize;

use super::escape::json_string;
use super::{form, xml};
use crate::domain::{Event, Format};

/// The parts of `data`, by reference.
#[derive(Deserialize)]
pub(super) struct Parts<'a> {
    pub(super) operation: &'a str,
    /// Neither schema nor table: a logical message.
    #[serde(borrow)]
    pub(super) schema: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) table: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) record: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) old: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) changed: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    pub(super) unavailable: &'a RawValue,
    /// How the table's shape differs from the one before.
    #[serde(borrow, default)]
    pub(super) schema_change: Option<&'a RawValue>,
}

/// A row's values by column.
pub(super) type Columns<'a> = Vec<(String, &'a RawValue)>;

/// The media type of a format's bodies.
pub(super) fn content_type(format: Format) -> &'static str {
    match format {
        Format::Cloudevents => "application/cloudevents+json",
        Format::Standard | Format::CloudeventsBinary | Format::Supabase | Format::Sequin | Format::Raw => {
            "application/json"
        }
        Format::Xml => "application/xml",
        Format::Form => "application/x-www-form-urlencoded",
    }
}

/// A body, and the lines of the headers beside it.
type Made = (Vec<u8>, Option<Arc<str>>);

/// Makes a body. Fails only where `data` is not what [`super::write_data`] makes.
pub(super) fn render(
    format: Format,
    event: &Event,
    data: &[u8],
    webhook: &str,
) -> Result<Made, serde_json::Error> {
    let mut body = Body(Vec::with_capacity(data.len() + 512));
    let mut headers = None;
    match format {
        Format::Standard => standard(&mut body, event, data, webhook),
        Format::Raw => body.raw(data),
        Format::Cloudevents => cloudevents(&mut body, event, data, &serde_json::from_slice(data)?),
        Format::Supabase => supabase(&mut body, &serde_json::from_slice(data)?),
        Format::Sequin => sequin(&mut body, event, &serde_json::from_slice(data)?, webhook)?,
        Format::CloudeventsBinary => {
            body.raw(data);
            headers = Some(binary_attributes(event, &serde_json::from_slice(data)?).into());
        }
        Format::Xml => xml::write(&mut body.0, event, &serde_json::from_slice(data)?, webhook)?,
        Format::Form => form::write(&mut body.0, event, &serde_json::from_slice(data)?, webhook)?,
    }
    Ok((body.0, headers))
}

struct Body(Vec<u8>);

impl Body {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends literal JSON, then a string.
    fn text(&mut self, before: &str, text: &str) {
        self.raw(before.as_bytes());
        json_string(text, &mut self.0);
    }

    /// The same, `null` where there is none.
    fn text_or_null(&mut self, before: &str, text: Option<&str>) {
        match text {
            Some(text) => self.text(before, text),
            None => self.value(before, None),
        }
    }

    /// Appends what only the events of tables' shapes have.
    fn schema_change(&mut self, parts: &Parts<'_>) {
        if parts.schema_change.is_some() {
            self.value(",\"schema_change\":", parts.schema_change);
        }
    }

    /// Appends literal JSON, then JSON bytes, `null` where there are none.
    fn value(&mut self, before: &str, value: Option<&RawValue>) {
        self.raw(before.as_bytes());
        self.raw(value.map_or("null", RawValue::get).as_bytes());
    }
}

/// UTC with microseconds: `2026-11-21T20:21:29.123456Z`.
pub(super) fn timestamp(event: &Event) -> String {
    format!("{:.6}", event.transaction.committed_at)
}

fn standard(body: &mut Body, event: &Event, data: &[u8], webhook: &str) {
    body.text("{\"id\":", event.id.as_str());
    body.text(",\"type\":", &event.event_type);
    body.text(",\"timestamp\":", &timestamp(event));
    body.raw(b",\"data\":");
    body.raw(data);
    body.text(",\"metadata\":{\"database\":", &event.database);
    body.text(",\"lsn\":", &event.transaction.commit.to_string());
    let (xid, sequence) = (event.transaction.xid, event.place.sequence);
    body.raw(format!(",\"xid\":{xid},\"sequence\":{sequence}").as_bytes());
    body.text(",\"webhook\":", webhook);
    body.raw(b"}}");
}

/// The attribute `source`: a URI reference.
fn source(event: &Event) -> String {
    let database: String = byte_serialize(event.database.as_bytes()).collect();
    format!("/walhook/{}", database.replace('+', "%20"))
}

/// The attribute `subject`: the table; a logical message has none.
fn subject(parts: &Parts<'_>) -> Option<String> {
    let (schema, table) = (parts.schema.as_ref()?, parts.table.as_ref()?);
    Some(format!("{schema}.{table}"))
}

fn cloudevents(body: &mut Body, event: &Event, data: &[u8], parts: &Parts<'_>) {
    body.text("{\"specversion\":\"1.0\",\"id\":", event.id.as_str());
    body.text(",\"source\":", &source(event));
    body.text(",\"type\":", &event.event_type);
    body.text(",\"time\":", &timestamp(event));
    body.raw(b",\"datacontenttype\":\"application/json\"");
    if let Some(subject) = subject(parts) {
        body.text(",\"subject\":", &subject);
    }
    body.raw(b",\"data\":");
    body.raw(data);
    body.raw(b"}");
}

/// The attributes as header lines; `datacontenttype` is `content-type`.
fn binary_attributes(event: &Event, parts: &Parts<'_>) -> String {
    let mut lines = "ce-specversion: 1.0\nce-id: ".to_owned();
    header_value(event.id.as_str(), &mut lines);
    lines.push_str("\nce-source: ");
    header_value(&source(event), &mut lines);
    lines.push_str("\nce-type: ");
    header_value(&event.event_type, &mut lines);
    lines.push_str("\nce-time: ");
    header_value(&timestamp(event), &mut lines);
    if let Some(subject) = subject(parts) {
        lines.push_str("\nce-subject: ");
        header_value(&subject, &mut lines);
    }
    lines
}

/// Appends an attribute's value as the HTTP binding writes it (3.1.3.2): space, `"`, `%` and all beyond visible ASCII are
/// percent-encoded UTF-8.
fn header_value(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'"' | b'%') => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
    }
}

fn supabase(body: &mut Body, parts: &Parts<'_>) {
    let kind = match parts.operation {
        "snapshot" => "INSERT".to_owned(),
        other => other.to_ascii_uppercase(),
    };
    body.text("{\"type\":", &kind);
    body.text_or_null(",\"table\":", parts.table.as_deref());
    body.text_or_null(",\"schema\":", parts.schema.as_deref());
    body.value(",\"record\":", parts.record);
    body.value(",\"old_record\":", parts.old);
    body.schema_change(parts);
    body.raw(b"}");
}

/// A deleted row is in `record`, as Sequin has it; `changes` holds what the changed columns were.
fn sequin(body: &mut Body, event: &Event, parts: &Parts<'_>, webhook: &str) -> Result<(), serde_json::Error> {
    let deleted = parts.operation == "delete";
    body.value("{\"record\":", if deleted { parts.old } else { parts.record });
    body.raw(b",\"changes\":");
    match (parts.operation, parts.old) {
        ("update", Some(old)) => changes(body, &columns(old)?, parts)?,
        _ => body.raw(b"null"),
    }
    body.schema_change(parts);
    body.text(",\"action\":", if parts.operation == "snapshot" { "read" } else { parts.operation });
    body.text_or_null(",\"metadata\":{\"table_schema\":", parts.schema.as_deref());
    body.text_or_null(",\"table_name\":", parts.table.as_deref());
    body.text(",\"idempotency_key\":", event.id.as_str());
    body.text(",\"commit_timestamp\":", &timestamp(event));
    let (lsn, index) = (event.transaction.commit.0.0, event.place.sequence);
    body.raw(format!(",\"commit_lsn\":{lsn},\"commit_idx\":{index}").as_bytes());
    body.text(",\"database_name\":", &event.database);
    body.text(",\"transaction_annotations\":null,\"consumer\":{\"id\":", webhook);
    body.text(",\"name\":", webhook);
    body.text(",\"annotations\":{}},\"database\":{\"name\":", &event.database);
    body.text(",\"annotations\":{},\"database\":", &event.database);
    body.raw(b"}}}");
    Ok(())
}

fn changes(body: &mut Body, old: &Columns<'_>, parts: &Parts<'_>) -> Result<(), serde_json::Error> {
    let new: BTreeMap<_, _> = parts.record.map_or_else(|| Ok(Vec::new()), columns)?.into_iter().collect();
    let mut separator = "{";
    for (column, was) in old {
        let differs = match &parts.changed {
            Some(changed) => changed.iter().any(|name| name == column),
            None => new.get(column).is_some_and(|is| is.get() != was.get()),
        };
        if differs {
            body.text(separator, column);
            body.value(":", Some(was));
            separator = ",";
        }
    }
    body.raw(if separator == "{" { b"{}" } else { b"}" });
    Ok(())
}

/// A row's values by column, in order, each as its bytes.
pub(super) fn columns(row: &RawValue) -> Result<Columns<'_>, serde_json::Error> {
    struct InOrder;
    impl<'de> serde::de::Visitor<'de> for InOrder {
        type Value = Columns<'de>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a row")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut columns = Vec::new();
            while let Some(entry) = map.next_entry::<String, &'de RawValue>()? {
                columns.push(entry);
            }
            Ok(columns)
        }
    }
    serde::Deserializer::deserialize_map(&mut serde_json::Deserializer::from_str(row.get()), InOrder)
}
