//! Recorded streams, bent: flipped bits, lengths that lie, cut and spliced payloads, messages out of their order.

use std::path::Path;

use bytes::Bytes;
use walhook::domain::ValueKind;

use super::bend::{Run, bend, pick};
use super::{stream, value};

/// Payloads that are bent together, at most.
const TOGETHER: usize = 40;
fn recording(name: &str) -> Vec<Bytes> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/stream").join(name);
    stream::payloads(&std::fs::read(path).expect("a recording"))
}

/// Parts of the recordings that each begin with the description of a table.
fn parts() -> Vec<Vec<Bytes>> {
    let mut parts = Vec::new();
    for payload in ["types", "changes"].into_iter().flat_map(recording) {
        let describes = matches!(payload.first(), Some(b'R' | b'Y'));
        let open = parts.last().is_some_and(|part: &Vec<Bytes>| {
            part.len() < TOGETHER
                && (!describes || matches!(part.last().and_then(|last| last.first()), Some(b'Y')))
        });
        if !open {
            parts.push(Vec::new());
        }
        parts.last_mut().expect("a part").push(payload);
    }
    parts
}

/// A few parts, some of their payloads bent, dropped, doubled or moved.
fn bent_stream(dice: &mut fastrand::Rng, parts: &[Vec<Bytes>]) -> Vec<Bytes> {
    let mut payloads: Vec<Bytes> = (0..dice.usize(1..=2)).flat_map(|_| pick(dice, parts).clone()).collect();
    for _ in 0..dice.usize(1..=6) {
        let at = dice.usize(..payloads.len());
        match dice.u8(0..12) {
            0 if payloads.len() > 1 => drop(payloads.remove(at)),
            1 => payloads.insert(at, payloads[at].clone()),
            2 => {
                let other = dice.usize(..payloads.len());
                payloads.swap(at, other);
            }
            _ => {
                let other = pick(dice, &payloads).clone();
                let mut bytes = payloads[at].to_vec();
                bend(dice, &mut bytes, &other);
                payloads[at] = bytes.into();
            }
        }
    }
    payloads
}

fn bent_value(dice: &mut fastrand::Rng, values: &[(ValueKind, Bytes)]) -> (ValueKind, Vec<u8>) {
    let (kind, text) = pick(dice, values);
    let (other_kind, other) = pick(dice, values);
    let mut text = text.to_vec();
    for _ in 0..dice.u8(0..5) {
        bend(dice, &mut text, other);
    }
    let mut kind = if dice.u8(0..4) == 0 { other_kind.clone() } else { kind.clone() };
    if dice.u8(0..8) == 0 {
        kind = ValueKind::Array(Box::new(kind), *pick(dice, b",;:"));
    }
    (kind, text)
}

#[test]
fn bent_streams_and_values_are_always_answered() {
    let mut run = Run::of(8);
    let parts = parts();
    assert!(parts.len() > 100, "{} parts", parts.len());
    let values = stream::values(&parts.concat());
    assert!(values.len() > 300, "{} values", values.len());
    while run.goes_on() {
        let payloads = bent_stream(&mut run.dice, &parts);
        run.check(payloads.iter().map(hex::encode).collect::<Vec<_>>(), || stream::read(&payloads));
        for _ in 0..8 {
            let (kind, text) = bent_value(&mut run.dice, &values);
            run.check((&kind, hex::encode(&text)), || value::write(&kind, &text));
        }
    }
    run.end();
}

#[test]
fn the_recordings_themselves_are_read_without_a_loss() {
    for name in ["types", "changes"] {
        let payloads = recording(name);
        let mut decoder = walhook::pgoutput::Decoder::new();
        for payload in &payloads {
            assert!(decoder.decode(payload.clone()).is_ok(), "{}", hex::encode(payload));
        }
        stream::read(&payloads);
    }
}
