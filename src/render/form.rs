//! `form`: the standard body's fields as `application/x-www-form-urlencoded`
//! (<https://url.spec.whatwg.org/#application/x-www-form-urlencoded>).
//!
//! Names are paths in brackets, as PHP, Rails and qs read them: `data[record][status]=shipped`, `data[changed][]=status`. A
//! json value or an array is its JSON in one field. A null is a name without `=`: readers that know null take it for
//! null, all others for an empty text. What was not sent is absent.

use serde_json::value::RawValue;
use url::form_urlencoded::byte_serialize;

use super::formats::{Parts, columns, timestamp};
use super::xml::text_of;
use crate::domain::Event;

/// Appends the fields.
pub(super) fn write(
    out: &mut Vec<u8>,
    event: &Event,
    parts: &Parts<'_>,
    webhook: &str,
) -> Result<(), serde_json::Error> {
    let mut form = Form(out);
    form.field("id", Some(event.id.as_str()));
    form.field("type", Some(&event.event_type));
    form.field("timestamp", Some(&timestamp(event)));
    form.field("data[operation]", Some(parts.operation));
    form.field("data[schema]", parts.schema.as_deref());
    form.field("data[table]", parts.table.as_deref());
    form.row("data[record]", parts.record)?;
    form.row("data[old]", parts.old)?;
    match &parts.changed {
        Some(changed) => form.names("data[changed][]", changed),
        None => form.field("data[changed]", None),
    }
    form.names("data[unavailable][]", &serde_json::from_str::<Vec<String>>(parts.unavailable.get())?);
    form.field("metadata[database]", Some(&event.database));
    form.field("metadata[lsn]", Some(&event.transaction.commit.to_string()));
    form.field("metadata[xid]", Some(&event.transaction.xid.to_string()));
    form.field("metadata[sequence]", Some(&event.place.sequence.to_string()));
    form.field("metadata[webhook]", Some(webhook));
    Ok(())
}

struct Form<'o>(&'o mut Vec<u8>);

impl Form<'_> {
    fn field(&mut self, name: &str, value: Option<&str>) {
        if !self.0.is_empty() {
            self.0.push(b'&');
        }
        self.encoded(name);
        if let Some(value) = value {
            self.0.push(b'=');
            self.encoded(value);
        }
    }

    fn encoded(&mut self, text: &str) {
        for part in byte_serialize(text.as_bytes()) {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    /// A field for each column; the payload of a message may be another value.
    fn row(&mut self, name: &str, row: Option<&RawValue>) -> Result<(), serde_json::Error> {
        match row {
            Some(row) if row.get().starts_with('{') => {
                for (column, value) in columns(row)? {
                    self.value(&format!("{name}[{column}]"), value);
                }
            }
            Some(value) => self.value(name, value),
            None => self.field(name, None),
        }
        Ok(())
    }

    fn value(&mut self, name: &str, value: &RawValue) {
        let json = value.get();
        let text = (json != "null").then(|| text_of(json));
        self.field(name, text.as_deref());
    }

    fn names<N: AsRef<str>>(&mut self, name: &str, names: &[N]) {
        for column in names {
            self.field(name, Some(column.as_ref()));
        }
    }
}
