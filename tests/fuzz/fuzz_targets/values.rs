//! Any bytes as a value of any kind: exactly one JSON value, and the right one. The first byte chooses the kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walhook::domain::ValueKind;

#[path = "../value.rs"]
mod value;

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = data.split_first() else { return };
    let scalar = match choice % 9 {
        0 => ValueKind::Bool,
        1 => ValueKind::Integer,
        2 => ValueKind::Float,
        3 => ValueKind::Numeric,
        4 => ValueKind::Json,
        5 => ValueKind::Timestamp,
        6 => ValueKind::TimestampTz,
        7 => ValueKind::Bytea,
        _ => ValueKind::Text,
    };
    let kind = match choice / 9 % 3 {
        0 => scalar,
        1 => ValueKind::Array(Box::new(scalar), b','),
        _ => ValueKind::Array(Box::new(scalar), b';'),
    };
    value::write(&kind, text);
});
