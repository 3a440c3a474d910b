//! Logical messages as events: what `pg_logical_emit_message(true, 'walhook:order.shipped', '{"id": 7}')` says.
//!
//! The prefix after `walhook:` is the event's type, the content its payload: one JSON value, which becomes `record`.
//! There is no row, so nothing orders messages but what they say themselves: those whose payload is an object with
//! the same `key` (a string or a number) are one lane, whatever their type; one without goes by itself.
//!
//! What cannot be sent as meant (no JSON, not UTF-8, too large, no event type) is owed all the same, to every webhook
//! whose patterns match: as a delivery that has failed, with the reason, and never with any part of the content.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::{FailReason, MESSAGE_PREFIX, ValueKind, limits};
use crate::pgoutput::{self, Written};
use crate::source::LogicalMessage;

/// The longest event type, in bytes; of a longer prefix so much is told.
const TYPE_BYTES: usize = 200;

/// A message, read.
pub(super) struct Reading<'m> {
    /// The event's type, or as much of the prefix as can stand in its place.
    pub(super) event_type: &'m str,
    /// What tells which messages must keep their order.
    pub(super) key: Option<Bytes>,
    /// The payload, which is JSON; or why there is none.
    pub(super) payload: Result<&'m [u8], FailReason>,
}

#[derive(Deserialize)]
struct Keyed<'a> {
    #[serde(borrow)]
    key: Option<&'a RawValue>,
}

/// Reads a message that is for us; `None` for others.
pub(super) fn read(message: &LogicalMessage) -> Option<Reading<'_>> {
    let whole = message.prefix.strip_prefix(MESSAGE_PREFIX)?;
    let (event_type, is_type) = as_type(whole);
    let payload = match &message.content {
        _ if !is_type => {
            let what = "what follows walhook: in the message's prefix is no event type (1 to 200 bytes: letters, \
                        digits and _ . - : / $)";
            Err(FailReason::NotRendered(what.to_owned()))
        }
        Err(bytes) => {
            let limit = limits::FRAME_BYTES;
            let what = format!("the message has {bytes} bytes, more than the {limit} walhook reads");
            Err(FailReason::TooLarge(what))
        }
        Ok(content) => check(content).map(|()| content.as_ref()),
    };
    let key = payload.as_ref().ok().and_then(|json| key(json));
    Some(Reading { event_type, key, payload })
}

/// The type, cut where it is too long, and whether it is one.
fn as_type(text: &str) -> (&str, bool) {
    let plain = |c: char| c.is_alphanumeric() || "_.-:/$".contains(c);
    if text.len() <= TYPE_BYTES {
        return (text, !text.is_empty() && text.chars().all(plain));
    }
    let cut = (0..=TYPE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    (text.get(..cut).unwrap_or_default(), false)
}

fn check(content: &[u8]) -> Result<(), FailReason> {
    let mut written = Vec::new();
    let problem = if content.is_empty() {
        "the message is empty; an event without data has {} or null"
    } else if std::str::from_utf8(content).is_err() {
        "the message's content is not UTF-8"
    } else if pgoutput::write_json(&ValueKind::Json, content, &mut written) == Written::TextInstead {
        "the message's content is no JSON value (or one that nests too deep)"
    } else {
        return Ok(());
    };
    Err(FailReason::NotRendered(problem.to_owned()))
}

/// The text of the payload's `key`.
fn key(json: &[u8]) -> Option<Bytes> {
    if !json.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let value = serde_json::from_slice::<Keyed<'_>>(json).ok()?.key?.get();
    match value.as_bytes().first()? {
        b'"' => {
            let text = serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned());
            Some(Bytes::from(text))
        }
        b'-' | b'0'..=b'9' => Some(Bytes::copy_from_slice(value.as_bytes())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(prefix: &str, content: &'static [u8]) -> LogicalMessage {
        LogicalMessage { sequence: 1, prefix: prefix.into(), content: Ok(Bytes::from_static(content)) }
    }

    #[test]
    fn a_messages_prefix_is_its_type_and_its_content_its_payload() {
        let check =
            |prefix: &str, content: &'static [u8], event_type: &str, key: Option<&str>, sendable: bool| {
                let message = message(prefix, content);
                let reading = read(&message).unwrap();
                assert_eq!(reading.event_type, event_type);
                assert_eq!(reading.key.as_deref(), key.map(str::as_bytes), "{prefix}");
                assert_eq!(reading.payload.is_ok(), sendable, "{prefix} {content:?}");
            };
        check("walhook:order.shipped", br#"{"id": 7}"#, "order.shipped", None, true);
        check("walhook:a", br#" {"key": "x\u0041", "b": 1}"#, "a", Some("xA"), true);
        check("walhook:a", br#"{"key": 7}"#, "a", Some("7"), true);
        check("walhook:a", br#"{"key": [7]}"#, "a", None, true);
        check("walhook:a", b"[1, 2]", "a", None, true);
        check("walhook:a", b"null", "a", None, true);
        check("walhook:a", b"", "a", None, false);
        check("walhook:a", b"{", "a", None, false);
        check("walhook:a", b"\"\xff\"", "a", None, false);
        check("walhook:", b"{}", "", None, false);
        check("walhook:a b\n", b"{}", "a b\n", None, false);
        let long = format!("walhook:{}", "é".repeat(200));
        check(&long, b"{}", &"é".repeat(100), None, false);
        assert!(read(&message("walhook.mark", b"{}")).is_none());
    }
}
