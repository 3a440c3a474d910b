//! `xml`: the standard body's fields as elements.
//!
//! A column's name is an attribute, because few names of columns are names of elements: `<column name="id">`. What is no
//! string says so in `type`: `number`, `boolean`, or `json`, whose text is JSON. A null is `xsi:nil="true"`
//! (<https://www.w3.org/TR/xmlschema-1/#xsi_nil>); what was not sent is absent. Characters that XML 1.0 has no form for are
//! U+FFFD.

use serde_json::value::RawValue;

use super::escape::xml_exact;
use super::formats::{Parts, columns, timestamp};
use crate::domain::Event;

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <event xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">";

/// Appends the document.
pub(super) fn write(
    out: &mut Vec<u8>,
    event: &Event,
    parts: &Parts<'_>,
    webhook: &str,
) -> Result<(), serde_json::Error> {
    let mut document = Document(out);
    document.raw(HEAD);
    document.text("id", Some(event.id.as_str()));
    document.text("type", Some(&event.event_type));
    document.text("timestamp", Some(&timestamp(event)));
    document.raw("<data>");
    document.text("operation", Some(parts.operation));
    document.text("schema", parts.schema.as_deref());
    document.text("table", parts.table.as_deref());
    document.row("record", parts.record)?;
    document.row("old", parts.old)?;
    document.names("changed", parts.changed.as_deref());
    document.names("unavailable", Some(&serde_json::from_str::<Vec<String>>(parts.unavailable.get())?));
    document.raw("</data><metadata>");
    document.text("database", Some(&event.database));
    document.text("lsn", Some(&event.transaction.commit.to_string()));
    document.text("xid", Some(&event.transaction.xid.to_string()));
    document.text("sequence", Some(&event.place.sequence.to_string()));
    document.text("webhook", Some(webhook));
    document.raw("</metadata></event>");
    Ok(())
}

struct Document<'o>(&'o mut Vec<u8>);

impl Document<'_> {
    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// An element with text.
    fn text(&mut self, element: &str, text: Option<&str>) {
        match text {
            Some(text) => self.raw(&format!("<{element}>{}</{element}>", xml_exact(text))),
            None => self.nil(element),
        }
    }

    fn nil(&mut self, element: &str) {
        self.raw(&format!("<{element} xsi:nil=\"true\"/>"));
    }

    /// An element with a column for each value; the payload of a message may be another value.
    fn row(&mut self, element: &str, row: Option<&RawValue>) -> Result<(), serde_json::Error> {
        match row {
            Some(row) if row.get().starts_with('{') => {
                self.raw(&format!("<{element}>"));
                for (name, value) in columns(row)? {
                    self.value("column", &format!(" name=\"{}\"", xml_exact(&name)), value);
                }
                self.raw(&format!("</{element}>"));
            }
            Some(value) => self.value(element, "", value),
            None => self.nil(element),
        }
        Ok(())
    }

    /// An element with a JSON value.
    fn value(&mut self, element: &str, attributes: &str, value: &RawValue) {
        let json = value.get();
        let kind = match json.as_bytes().first() {
            Some(b'n') => return self.raw(&format!("<{element}{attributes} xsi:nil=\"true\"/>")),
            Some(b'"') => "",
            Some(b'{' | b'[') => " type=\"json\"",
            Some(b't' | b'f') => " type=\"boolean\"",
            _ => " type=\"number\"",
        };
        let text = text_of(json);
        self.raw(&format!("<{element}{attributes}{kind}>{}</{element}>", xml_exact(&text)));
    }

    /// An element with a column for each name.
    fn names<N: AsRef<str>>(&mut self, element: &str, names: Option<&[N]>) {
        let Some(names) = names else { return self.nil(element) };
        self.raw(&format!("<{element}>"));
        for name in names {
            self.raw(&format!("<column name=\"{}\"/>", xml_exact(name.as_ref())));
        }
        self.raw(&format!("</{element}>"));
    }
}

/// A JSON value as text: a string is what it says, all else its JSON. A string with a lone surrogate, which is no text,
/// stays as it is written.
pub(super) fn text_of(json: &str) -> String {
    let string = json.starts_with('"').then(|| serde_json::from_str::<String>(json).ok()).flatten();
    string.unwrap_or_else(|| json.to_owned())
}
