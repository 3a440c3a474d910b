//! Arrays as Postgres writes them, made at random: every element comes out again.

use walhook::domain::ValueKind;
use walhook::pgoutput::{Written, write_json};

use super::bend::{Run, pick};
use super::value::{self, Nested};

/// What `array_out` does: quotes what is empty, `NULL`, or holds one of these (manual, "Array Input and Output Syntax").
fn out(array: &Nested<'_>, delimiter: u8, text: &mut Vec<u8>) {
    match array {
        Nested::Null => text.extend_from_slice(b"NULL"),
        Nested::List(items) => {
            text.push(b'{');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(delimiter);
                }
                out(item, delimiter, text);
            }
            text.push(b'}');
        }
        Nested::Leaf(leaf) => {
            let marks = |byte: &u8| b"{}\"\\ \t\n\r\x0b\x0c".contains(byte) || *byte == delimiter;
            if !leaf.is_empty() && !leaf.eq_ignore_ascii_case(b"null") && !leaf.iter().any(marks) {
                return text.extend_from_slice(leaf);
            }
            text.push(b'"');
            for byte in leaf.iter() {
                if matches!(byte, b'"' | b'\\') {
                    text.push(b'\\');
                }
                text.push(*byte);
            }
            text.push(b'"');
        }
    }
}

fn array(dice: &mut fastrand::Rng, levels: u8) -> Nested<'static> {
    let count = dice.usize(0..4);
    let item = |dice: &mut fastrand::Rng| match (levels, dice.u8(0..6)) {
        (_, 0) => Nested::Null,
        (0, _) => {
            let letters = b"aN\"\\{},;: uLl\n\t0\xc3\xa9";
            let leaf: Vec<u8> = (0..dice.usize(0..6)).map(|_| *pick(dice, letters)).collect();
            Nested::Leaf(leaf.into())
        }
        _ => array(dice, levels - 1),
    };
    Nested::List((0..count).map(|_| item(dice)).collect())
}

#[test]
fn every_element_of_any_array_comes_out_again() {
    let mut run = Run::of(2);
    while run.goes_on() {
        let delimiter = *pick(&mut run.dice, b",;:");
        let levels = run.dice.u8(0..4);
        let made = array(&mut run.dice, levels);
        let mut text = Vec::new();
        out(&made, delimiter, &mut text);
        run.check(String::from_utf8_lossy(&text), || {
            let kind = ValueKind::Array(Box::new(ValueKind::Text), delimiter);
            let mut json = Vec::new();
            let written = write_json(&kind, &text, &mut json);
            assert!(made.is_written_as(&ValueKind::Text, &json, 1), "{}", String::from_utf8_lossy(&json));
            assert!(written == Written::Value || std::str::from_utf8(&text).is_err());
            value::write(&kind, &text);
        });
    }
    run.end();
}
