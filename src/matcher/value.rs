//! Column values as conditions compare them.
//!
//! Integers, floats and numerics are numbers, timestamps timestamps, json maps and lists, whatever their form in the
//! body. What cannot be read as its type (`infinity` as a timestamp, json that is none) is its text: a condition then
//! fails on it, it never stops the stream. `numeric` is a double, except where its type has scale 0, or where it is an
//! integer too large for a double to hold exactly: comparing does not care, and arithmetic does not change from row
//! to row.

use std::collections::HashMap;

use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::Val;
use serde_json::Value as Json;

use super::time::{Moment, parse_moment};
use crate::domain::{Column, JsonWriter, Seen, ValueKind};

/// A value of a condition; it may borrow from the row.
pub(super) type Boxed<'a> = Box<dyn Val + 'a>;

/// The largest integer up to which every integer is a double.
const EXACT: u64 = 1 << 53;

/// What a condition sees of a column; nothing where the column is absent.
pub(super) fn of_column<'a>(column: &Column, seen: Seen<'a>, json: JsonWriter) -> Option<Boxed<'a>> {
    match seen {
        Seen::Absent => None,
        Seen::Null => Some(Box::new(CelNull)),
        Seen::Masked(text) => Some(Box::new(CelString::from(text))),
        Seen::Plain(bytes) => Some(plain(column, bytes, json)),
    }
}

fn plain<'a>(column: &Column, bytes: &'a [u8], json: JsonWriter) -> Boxed<'a> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Box::new(CelString::from(String::from_utf8_lossy(bytes).into_owned()));
    };
    let read = match &column.kind {
        ValueKind::Array(element, _) => {
            let mut out = Vec::new();
            json(&column.kind, bytes, &mut out);
            serde_json::from_slice(&out).ok().map(|array| of_array(element, array))
        }
        ValueKind::Json => serde_json::from_str(text).ok().map(of_json),
        kind => scalar(kind, column.type_modifier, text),
    };
    read.unwrap_or_else(|| Box::new(CelString::from(text)))
}

fn scalar(kind: &ValueKind, type_modifier: i32, text: &str) -> Option<Boxed<'static>> {
    Some(match kind {
        ValueKind::Bool => Box::new(CelBool::from(match text {
            "t" | "true" => true,
            "f" | "false" => false,
            _ => return None,
        })),
        ValueKind::Integer | ValueKind::LongInteger => Box::new(CelInt::from(text.parse::<i64>().ok()?)),
        ValueKind::Float => Box::new(CelDouble::from(text.parse::<f64>().ok()?)),
        ValueKind::Numeric => return numeric(type_modifier, text),
        ValueKind::Timestamp | ValueKind::TimestampTz => Box::new(Moment(parse_moment(text)?)),
        ValueKind::Bytea => Box::new(CelBytes::from(hex::decode(text.strip_prefix("\\x")?).ok()?)),
        ValueKind::Json | ValueKind::Array(..) | ValueKind::Text => return None,
    })
}

fn numeric(type_modifier: i32, text: &str) -> Option<Boxed<'static>> {
    let whole = text
        .split_once('.')
        .map_or(Some(text), |(whole, fraction)| fraction.bytes().all(|digit| digit == b'0').then_some(whole));
    let integer = whole.and_then(|whole| whole.parse::<i64>().ok());
    // A modifier is precision and scale, plus 4; the scale has the low 11 bits.
    let scale_is_zero = type_modifier >= 4 && (type_modifier - 4) % 2048 == 0;
    Some(match integer {
        Some(integer) if scale_is_zero || integer.unsigned_abs() > EXACT => Box::new(CelInt::from(integer)),
        _ => Box::new(CelDouble::from(text.parse::<f64>().ok()?)),
    })
}

/// An array, whose elements arrive in their body form.
fn of_array(element: &ValueKind, json: Json) -> Boxed<'static> {
    match json {
        Json::Array(items) => {
            Box::new(CelList::from(items.into_iter().map(|item| of_array(element, item)).collect::<Vec<_>>()))
        }
        Json::String(text) => scalar(element, -1, &text).unwrap_or_else(|| Box::new(CelString::from(text))),
        other => of_json(other),
    }
}

pub(super) fn of_json(json: Json) -> Boxed<'static> {
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(value) => Box::new(CelBool::from(value)),
        Json::Number(number) => {
            if let Some(integer) = number.as_i64() {
                Box::new(CelInt::from(integer))
            } else if let Some(integer) = number.as_u64() {
                Box::new(CelUInt::from(integer))
            } else {
                Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
            }
        }
        Json::String(text) => Box::new(CelString::from(text)),
        Json::Array(items) => Box::new(CelList::from(items.into_iter().map(of_json).collect::<Vec<_>>())),
        Json::Object(fields) => {
            let entries = fields
                .into_iter()
                .map(|(name, value)| (CelMapKey::String(CelString::from(name)), of_json(value)));
            Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
        }
    }
}
