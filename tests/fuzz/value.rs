//! What must hold of any bytes as a value of a kind, checked by other people's parsers where there are any.
//!
//! The form that went out is right for the bytes, and bytes that can have the form of their kind have it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use walhook::domain::{ValueKind, limits};
use walhook::pgoutput::{Written, write_json};

/// Writes any bytes as a value of a kind: exactly one JSON value, and the right one.
pub fn write(kind: &ValueKind, text: &[u8]) {
    let mut out = b"[".to_vec();
    let written = write_json(kind, text, &mut out);
    assert_eq!(out.first(), Some(&b'['), "what was there stays");
    let json = out.get(1..).unwrap_or_default();
    assert!(is_json(json), "no JSON: {}", String::from_utf8_lossy(json));
    let is_text = || string(json).as_deref() == Some(&*String::from_utf8_lossy(text));
    if let ValueKind::Array(element, delimiter) = kind {
        match (json.first(), nested(text, *delimiter)) {
            (Some(b'['), Some(parsed)) => {
                assert!(parsed.is_written_as(element, json, 1), "{kind:?}: {text:?}");
            }
            (Some(b'['), None) => panic!("an array of what is none: {text:?}"),
            (_, None) => assert!(is_text(), "{text:?}"),
            (_, Some(parsed)) => {
                assert!(is_text() && (parsed.depth() > limits::VALUE_DEPTH || is_odd(text)), "{text:?}");
            }
        }
    } else if written == Written::TextInstead {
        assert!(is_text() && !has_its_form(kind, text), "{kind:?}: {text:?}");
    } else {
        assert!(fits(kind, text, json) || (keeps_its_text(kind, text) && is_text()), "{kind:?}: {text:?}");
    }
}

/// Whether a value in the form of its kind says what the bytes say.
fn fits(kind: &ValueKind, text: &[u8], json: &[u8]) -> bool {
    let as_str = || std::str::from_utf8(text).unwrap_or_default();
    match kind {
        ValueKind::Bool => (text == b"t" && json == b"true") || (text == b"f" && json == b"false"),
        ValueKind::Integer | ValueKind::LongInteger | ValueKind::Json => {
            json == text && has_its_form(kind, text)
        }
        ValueKind::Float => json == text && as_str().parse::<f64>().is_ok(),
        ValueKind::Timestamp => back(json, "").as_deref() == Some(as_str()),
        ValueKind::TimestampTz => back(json, "Z").is_some_and(|back| format!("{back}+00") == as_str()),
        ValueKind::Bytea => {
            let bytes = text.strip_prefix(br"\x").and_then(|digits| hex::decode(digits).ok());
            bytes.is_some() && string(json).and_then(|encoded| STANDARD.decode(encoded).ok()) == bytes
        }
        ValueKind::Numeric | ValueKind::Text => {
            std::str::from_utf8(text).is_ok() && string(json).as_deref() == Some(as_str())
        }
        ValueKind::Array(..) => false,
    }
}

/// Whether bytes of a kind go out as their text and are meant to.
fn keeps_its_text(kind: &ValueKind, text: &[u8]) -> bool {
    match kind {
        ValueKind::Float => matches!(text, b"NaN" | b"Infinity" | b"-Infinity"),
        ValueKind::Timestamp | ValueKind::TimestampTz => {
            let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            text.ends_with(b"infinity") || text.ends_with(b" BC") || digits > 4
        }
        _ => false,
    }
}

/// Whether bytes have the form of a kind, as others judge it; `false` where there is no other judge.
fn has_its_form(kind: &ValueKind, text: &[u8]) -> bool {
    match kind {
        ValueKind::Bool => matches!(text, b"t" | b"f"),
        ValueKind::Integer | ValueKind::LongInteger => {
            let number =
                serde_json::from_slice::<&RawValue>(text).is_ok_and(|raw| raw.get().len() == text.len());
            number && text.iter().all(|byte| matches!(byte, b'-' | b'0'..=b'9'))
        }
        ValueKind::Json => is_json(text) && json_depth(text) <= limits::VALUE_DEPTH,
        ValueKind::Bytea => text.strip_prefix(br"\x").is_some_and(|digits| hex::decode(digits).is_ok()),
        ValueKind::Timestamp | ValueKind::TimestampTz => {
            let text = std::str::from_utf8(text).unwrap_or_default();
            let zone = if *kind == ValueKind::Timestamp { Some(text) } else { text.strip_suffix("+00") };
            let plain = |text: &str| {
                text.get(..19).is_some_and(|head| {
                    head.bytes().enumerate().all(|(at, byte)| match at {
                        4 | 7 => byte == b'-',
                        10 => byte == b' ',
                        13 | 16 => byte == b':',
                        _ => byte.is_ascii_digit(),
                    })
                }) && text.len() == 19
            };
            zone.is_some_and(plain)
        }
        ValueKind::Float => {
            serde_json::from_slice::<&RawValue>(text).is_ok_and(|raw| raw.get().len() == text.len())
                && text.first().is_some_and(|byte| matches!(byte, b'-' | b'0'..=b'9'))
        }
        ValueKind::Numeric | ValueKind::Text => std::str::from_utf8(text).is_ok(),
        ValueKind::Array(..) => false,
    }
}

/// A timestamp's string in Postgres' form again.
fn back(json: &[u8], suffix: &str) -> Option<String> {
    Some(string(json)?.strip_suffix(suffix)?.replacen('T', " ", 1))
}

fn string(json: &[u8]) -> Option<String> {
    serde_json::from_slice(json).ok()
}

fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok())
}

/// How deep valid JSON nests.
fn json_depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// An array as its text says, read in another way than walhook's.
#[derive(Debug)]
pub enum Nested<'a> {
    List(Vec<Self>),
    Null,
    Leaf(Cow<'a, [u8]>),
}

/// Whether Postgres never writes an array so, whoever may read it: spaces, or something before the first brace.
fn is_odd(text: &[u8]) -> bool {
    text.first() != Some(&b'{')
}

/// Reads an array; `None` where it is none.
pub fn nested(text: &[u8], delimiter: u8) -> Option<Nested<'_>> {
    let mut rest = text;
    if text.first() == Some(&b'[') {
        let equals = text.iter().position(|byte| *byte == b'=')?;
        rest = text.get(equals + 1..)?;
    }
    // Deeper than this nobody goes, and this reader calls itself.
    let list = list(&mut rest, delimiter, 200)?;
    rest.is_empty().then_some(list)
}

fn list<'a>(rest: &mut &'a [u8], delimiter: u8, left: usize) -> Option<Nested<'a>> {
    *rest = rest.strip_prefix(b"{")?;
    let mut items = Vec::new();
    if let Some(after) = rest.strip_prefix(b"}") {
        *rest = after;
        return Some(Nested::List(items));
    }
    loop {
        items.push(match rest.first()? {
            b'{' => list(rest, delimiter, left.checked_sub(1)?)?,
            b'"' => Nested::Leaf(Cow::Owned(quoted(rest)?)),
            _ => {
                let end = rest.iter().position(|byte| *byte == delimiter || b"{}\"\\".contains(byte))?;
                let (plain, after) = rest.split_at_checked(end)?;
                *rest = after;
                match plain {
                    [] => return None,
                    plain if plain.eq_ignore_ascii_case(b"null") => Nested::Null,
                    plain => Nested::Leaf(Cow::Borrowed(plain)),
                }
            }
        });
        let (byte, after) = rest.split_first()?;
        *rest = after;
        match *byte {
            b'}' => return Some(Nested::List(items)),
            byte if byte == delimiter => {}
            _ => return None,
        }
    }
}

fn quoted(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut bytes = rest.iter().copied().enumerate().skip(1);
    let mut leaf = Vec::new();
    loop {
        match bytes.next()? {
            (_, b'\\') => leaf.push(bytes.next()?.1),
            (at, b'"') => {
                *rest = rest.get(at + 1..)?;
                return Some(leaf);
            }
            (_, byte) => leaf.push(byte),
        }
    }
}

impl Nested<'_> {
    /// How deep it nests.
    pub fn depth(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Null | Self::Leaf(_) => 0,
        }
    }

    /// Whether JSON says the same, each element in the form it has by itself.
    pub fn is_written_as(&self, element: &ValueKind, json: &[u8], level: usize) -> bool {
        match self {
            Self::Null => json == b"null",
            Self::List(items) => {
                let Ok(raw) = serde_json::from_slice::<Vec<&RawValue>>(json) else { return false };
                let same = |(item, raw): (&Self, &&RawValue)| {
                    item.is_written_as(element, raw.get().as_bytes(), level + 1)
                };
                raw.len() == items.len() && items.iter().zip(&raw).all(same)
            }
            // What an element may nest depends on where it stands; near the limit there is no simple answer.
            Self::Leaf(text) if json_depth(text) + level >= limits::VALUE_DEPTH => true,
            Self::Leaf(text) => {
                let mut alone = Vec::new();
                write_json(element, text, &mut alone);
                alone.trim_ascii() == json.trim_ascii()
            }
        }
    }
}
