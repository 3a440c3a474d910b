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
/// - `Bool`, `Integer`, `LongInteger`, finite `Float`: JSON's own; `NaN` and the infinities are strings. Digits are never changed.
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
        ValueKind::Integer | ValueKind::LongInteger => {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn written(kind: &ValueKind, text: &[u8]) -> (String, Written) {
        let mut out = b"before".to_vec();
        let written = write_json(kind, text, &mut out);
        let out = String::from_utf8(out).expect("JSON is UTF-8");
        (out.strip_prefix("before").expect("what was there stays").to_owned(), written)
    }

    fn check(kind: &ValueKind, cases: &[(&str, &str)]) {
        for (text, expected) in cases {
            assert_eq!(written(kind, text.as_bytes()), ((*expected).to_owned(), Written::Value), "{text}");
        }
    }

    fn check_text_instead(kind: &ValueKind, texts: &[&str]) {
        for text in texts {
            let expected = serde_json::to_string(text).unwrap();
            assert_eq!(written(kind, text.as_bytes()), (expected, Written::TextInstead), "{kind:?} {text}");
        }
    }

    fn list(element: ValueKind) -> ValueKind {
        ValueKind::Array(Box::new(element), b',')
    }

    #[test]
    fn scalars_take_their_json_form() {
        check(&ValueKind::Bool, &[("t", "true"), ("f", "false")]);
        check(&ValueKind::Integer, &[("0", "0"), ("-9223372036854775808", "-9223372036854775808")]);
        check(&ValueKind::Float, &[("1e+300", "1e+300"), ("-0", "-0"), ("NaN", "\"NaN\"")]);
        check(&ValueKind::Float, &[("Infinity", "\"Infinity\""), ("-Infinity", "\"-Infinity\"")]);
        check(&ValueKind::Numeric, &[("1.10", "\"1.10\""), ("NaN", "\"NaN\"")]);
        check(
            &ValueKind::Text,
            &[("a\"\\\n\u{1}\u{8}\u{c}\r\té🦀", "\"a\\\"\\\\\\n\\u0001\\b\\f\\r\\té🦀\"")],
        );
        check(&ValueKind::Text, &[("", "\"\""), ("\u{1f}\u{10}", "\"\\u001f\\u0010\"")]);
    }

    #[test]
    fn what_does_not_read_as_its_kind_goes_out_as_text() {
        check_text_instead(&ValueKind::Bool, &["", "true", "T", "\"t"]);
        check_text_instead(&ValueKind::Integer, &["", "-", "01", "1.0", "1e5", "--1", "NaN", "1 "]);
        check_text_instead(&ValueKind::Float, &["", "nan", ".5", "1.", "inf", "0x1"]);
        check_text_instead(&ValueKind::Json, &["", "{", "NaN", "{\"a\":1}}"]);
        check_text_instead(&ValueKind::Bytea, &["", "abc", "\\x0", "\\xzz", "\\000"]);
        check_text_instead(&list(ValueKind::Integer), &["", "{", "1,2", "{1", "{1}}", "{1,}"]);
    }

    #[test]
    fn timestamps_become_iso_8601_where_it_can_say_them() {
        let plain = [
            ("2026-11-21 20:21:29.123456", "\"2026-11-21T20:21:29.123456\""),
            ("0001-01-01 00:00:00", "\"0001-01-01T00:00:00\""),
            ("infinity", "\"infinity\""),
            ("-infinity", "\"-infinity\""),
            ("0044-03-15 00:00:00 BC", "\"0044-03-15 00:00:00 BC\""),
            ("294276-12-31 23:59:59.5", "\"294276-12-31 23:59:59.5\""),
        ];
        check(&ValueKind::Timestamp, &plain);
        let zoned = [
            ("2026-11-21 20:21:29.1+00", "\"2026-11-21T20:21:29.1Z\""),
            ("0044-03-15 00:00:00+00 BC", "\"0044-03-15 00:00:00+00 BC\""),
            ("10000-01-01 00:00:00+00", "\"10000-01-01 00:00:00+00\""),
        ];
        check(&ValueKind::TimestampTz, &zoned);
        let odd = [
            "",
            "2026-11-21",
            "2026-11-21 20:21:29",
            "2026-11-21 20:21:29+05:30:15",
            "2026-11-21 20:21:29.+00",
        ];
        check_text_instead(&ValueKind::TimestampTz, &odd);
        check_text_instead(&ValueKind::Timestamp, &["2026-11-21 20:21:29+00", "21.11.2026 20:21:29", "now"]);
    }

    #[test]
    fn json_is_embedded_byte_for_byte() {
        for text in [r#"{"a": 1, "a": 2}"#, r#""\ud800""#, r#""\u0000""#, "1e400", " [ 1 ,\n2 ] ", "1.10"] {
            check(&ValueKind::Json, &[(text, text)]);
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let (fits, deeper) = (nested(limits::VALUE_DEPTH), nested(limits::VALUE_DEPTH + 1));
        check(&ValueKind::Json, &[(&fits, &fits)]);
        check_text_instead(&ValueKind::Json, &[&deeper]);
    }

    #[test]
    fn bytea_is_base64_whatever_its_length() {
        check(&ValueKind::Bytea, &[("\\x", "\"\""), ("\\x00", "\"AA==\""), ("\\xDEADbeef", "\"3q2+7w==\"")]);
        for length in [BYTEA_CHUNK - 1, BYTEA_CHUNK, BYTEA_CHUNK + 1, 3 * BYTEA_CHUNK + 2] {
            let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
            let expected = format!("\"{}\"", STANDARD.encode(&bytes));
            check(&ValueKind::Bytea, &[(&format!("\\x{}", hex::encode(&bytes)), &expected)]);
        }
        let broken_late = format!("\\x{}zz", "00".repeat(2 * BYTEA_CHUNK));
        check_text_instead(&ValueKind::Bytea, &[&broken_late]);
    }

    #[test]
    fn arrays_are_json_arrays_of_their_elements() {
        check(
            &list(ValueKind::Integer),
            &[("{}", "[]"), ("[0:1]={7,8}", "[7,8]"), ("{{1},{NULL}}", "[[1],[null]]")],
        );
        check(
            &list(ValueKind::Text),
            &[(r#"{NULL,"NULL",null,"a\"b\\c",é}"#, r#"[null,"NULL",null,"a\"b\\c","é"]"#)],
        );
        check(&list(ValueKind::Bytea), &[(r#"{"\\x00ff",NULL}"#, r#"["AP8=",null]"#)]);
        check(&list(ValueKind::Json), &[(r#"{"{\"k\": [1]}"}"#, r#"[{"k": [1]}]"#)]);
        check(&list(ValueKind::Bool), &[("{t,f}", "[true,false]")]);
        check(&list(ValueKind::Float), &[("{1.5,NaN}", r#"[1.5,"NaN"]"#)]);
        check(
            &list(ValueKind::TimestampTz),
            &[(r#"{"2026-01-01 00:00:00+00"}"#, r#"["2026-01-01T00:00:00Z"]"#)],
        );
        let boxes = ValueKind::Array(Box::new(ValueKind::Text), b';');
        check(&boxes, &[("{(1,1),(0,0);(2,2),(1,1)}", r#"["(1,1),(0,0)","(2,2),(1,1)"]"#)]);
    }

    #[test]
    fn an_element_that_does_not_read_stays_in_its_place_and_is_told() {
        let expected = (r#"[1,"x",2]"#.to_owned(), Written::TextInstead);
        assert_eq!(written(&list(ValueKind::Integer), b"{1,x,2}"), expected);
    }

    #[test]
    fn array_and_json_inside_share_one_depth() {
        let inner = limits::VALUE_DEPTH - 1;
        let json = |depth: usize| format!("{{\"{}{}\"}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(written(&list(ValueKind::Json), json(inner).as_bytes()).1, Written::Value);
        assert_eq!(written(&list(ValueKind::Json), json(inner + 1).as_bytes()).1, Written::TextInstead);
        let arrays = format!("{}1{}", "{".repeat(inner + 2), "}".repeat(inner + 2));
        check_text_instead(&list(ValueKind::Integer), &[&arrays]);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced_and_told() {
        for kind in
            [ValueKind::Text, ValueKind::Numeric, ValueKind::Json, ValueKind::Timestamp, ValueKind::Bool]
        {
            assert_eq!(
                written(&kind, b"a\xff"),
                ("\"a\u{fffd}\"".to_owned(), Written::TextInstead),
                "{kind:?}"
            );
        }
    }

    fn any_kind() -> impl Strategy<Value = ValueKind> {
        let scalar = prop::sample::select(vec![
            ValueKind::Bool,
            ValueKind::Integer,
            ValueKind::Float,
            ValueKind::Numeric,
            ValueKind::Json,
            ValueKind::Timestamp,
            ValueKind::TimestampTz,
            ValueKind::Bytea,
            ValueKind::Text,
        ]);
        scalar.prop_recursive(3, 4, 1, |inner| {
            (inner, any::<u8>()).prop_map(|(element, byte)| {
                ValueKind::Array(Box::new(element), if byte < 200 { b',' } else { byte })
            })
        })
    }

    fn any_text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<Vec<u8>>(),
            any::<String>().prop_map(String::into_bytes),
            r#"[{}\[\]",:;\\0-9tfnulrase.+ -]{0,40}"#.prop_map(String::into_bytes),
            r#"\{("([a-z]|\\\\.)*"|[0-9]{1,3}|NULL|\{[tf]\})(,[0-9]{1,3}){0,3}\}"#
                .prop_map(String::into_bytes),
            r"\\x([0-9a-f]{2}){0,20}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn any_kind_and_any_bytes_make_exactly_one_json_value(kind in any_kind(), text in any_text()) {
            let (json, _) = written(&kind, &text);
            prop_assert!(serde_json::from_str::<Box<RawValue>>(&json).is_ok(), "{json}");
        }

        #[test]
        fn a_string_reads_back_as_it_was(text in any::<String>()) {
            let mut out = Vec::new();
            write_json_string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn json_that_others_wrote_is_embedded(text in any::<String>(), number in any::<f64>()) {
            let json = serde_json::json!({ text.clone(): [number, text, null] }).to_string();
            prop_assert_eq!(written(&ValueKind::Json, json.as_bytes()), (json.clone(), Written::Value));
        }
    }
}
