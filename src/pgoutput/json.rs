//! Postgres text values to JSON values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::array::write_array;
use super::scan::{is_json, is_number};
use super::time::{Zone, is_beyond_iso, to_iso};
use crate::domain::{ValueKind, limits};

/// Bytes of a `bytea` that are turned at once; a multiple of 3, so that no padding stands inside.
const BYTEA_CHUNK: usize = 384;

/// In which form a value went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// In the form of its kind.
    Value,
    /// As a string of its text, at least in part, because it could not be read as its kind, or with bytes replaced,
    /// because they were not UTF-8. Worth counting.
    TextInstead,
}

impl Written {
    /// The form of two values together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == Self::Value { other } else { self }
    }
}

/// Appends exactly one JSON value for a value in Postgres text form. Every input has an answer.
///
/// - `Bool`, `Integer`, finite `Float`: JSON's own; `NaN` and the infinities are strings. Digits are never changed.
/// - `Json`: as it is, space included, where it is valid JSON of at most `limits::VALUE_DEPTH` levels. A receiver's
///   parser may still refuse a lone surrogate or a huge number: it is syntax all the same, and the value.
/// - `Timestamp`, `TimestampTz`: ISO 8601; what it cannot say (infinite, BC, past the year 9999) as text.
/// - `Bytea`: base64, standard alphabet, padded. `Array`: JSON arrays. `Numeric` and `Text`: strings.
///
/// Whatever does not read as its kind is a string of the text.
pub fn write_json(kind: &ValueKind, text: &[u8], out: &mut Vec<u8>) -> Written {
    write_value(kind, text, limits::VALUE_DEPTH, out)
}

/// As [`write_json`], nesting at most `depth` levels.
pub(super) fn write_value(kind: &ValueKind, text: &[u8], depth: usize, out: &mut Vec<u8>) -> Written {
    let written = match kind {
        ValueKind::Bool => write_bool(text, out),
        ValueKind::Integer => {
            let digits = text.strip_prefix(b"-").unwrap_or(text);
            (digits.iter().all(u8::is_ascii_digit) && is_number(text)).then(|| verbatim(text, out))
        }
        ValueKind::Float => write_float(text, out),
        ValueKind::Json => write_embedded(text, depth, out),
        ValueKind::Timestamp => write_timestamp(text, Zone::None, out),
        ValueKind::TimestampTz => write_timestamp(text, Zone::Utc, out),
        ValueKind::Bytea => write_bytea(text, out),
        ValueKind::Array(element, delimiter) => write_array(element, *delimiter, text, depth, out),
        ValueKind::Numeric | ValueKind::Text => return write_text(text, out),
    };
    written.unwrap_or_else(|| {
        write_text(text, out);
        Written::TextInstead
    })
}

/// Appends `text` as a JSON string. Only what JSON demands is escaped.
pub fn write_json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(plain) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)) {
        let Some((before, [special, after @ ..])) = rest.split_at_checked(plain) else { break };
        out.extend_from_slice(before);
        write_escape(*special, out);
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        0..=0x1f => {
            let hex = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' - 10 + digit };
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 0xf)]);
            return;
        }
        quote_or_backslash => quote_or_backslash,
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// A string of the text, bytes that are not UTF-8 replaced.
fn write_text(text: &[u8], out: &mut Vec<u8>) -> Written {
    if let Ok(text) = std::str::from_utf8(text) {
        write_json_string(text, out);
        Written::Value
    } else {
        write_json_string(&String::from_utf8_lossy(text), out);
        Written::TextInstead
    }
}

fn verbatim(text: &[u8], out: &mut Vec<u8>) -> Written {
    out.extend_from_slice(text);
    Written::Value
}

fn write_bool(text: &[u8], out: &mut Vec<u8>) -> Option<Written> {
    match text {
        b"t" => Some(verbatim(b"true", out)),
        b"f" => Some(verbatim(b"false", out)),
        _ => None,
    }
}

fn write_float(text: &[u8], out: &mut Vec<u8>) -> Option<Written> {
    if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        return Some(write_text(text, out));
    }
    is_number(text).then(|| verbatim(text, out))
}

fn write_embedded(text: &[u8], depth: usize, out: &mut Vec<u8>) -> Option<Written> {
    let valid = std::str::from_utf8(text).is_ok_and(|text| is_json(text, depth));
    valid.then(|| verbatim(text, out))
}

fn write_timestamp(text: &[u8], zone: Zone, out: &mut Vec<u8>) -> Option<Written> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some((date, clock, suffix)) = to_iso(text, zone) {
        for part in ["\"", date, "T", clock, suffix, "\""] {
            out.extend_from_slice(part.as_bytes());
        }
        return Some(Written::Value);
    }
    is_beyond_iso(text).then(|| write_text(text.as_bytes(), out))
}

fn write_bytea(text: &[u8], out: &mut Vec<u8>) -> Option<Written> {
    let digits = text.strip_prefix(br"\x")?;
    let start = out.len();
    let mut bytes = [0; BYTEA_CHUNK];
    let mut encoded = [0; BYTEA_CHUNK / 3 * 4];
    out.push(b'"');
    for chunk in digits.chunks(2 * BYTEA_CHUNK) {
        let turned = bytes.get_mut(..chunk.len() / 2).and_then(|bytes| {
            hex::decode_to_slice(chunk, bytes).ok()?;
            STANDARD.encode_slice(bytes, &mut encoded).ok()
        });
        let Some(length) = turned else {
            out.truncate(start);
            return None;
        };
        out.extend_from_slice(encoded.get(..length).unwrap_or_default());
    }
    out.push(b'"');
    Some(Written::Value)
}
