//! Recorded streams, bent at random: whatever the bytes, the decoder answers and every value is JSON.
//!
//! What a fuzzer does, bounded to seconds and without one: flipped bits, lengths that lie, cut and spliced payloads,
//! messages out of their order. `WALHOOK_FUZZ_SECONDS=7200` makes it two hours, `WALHOOK_SEED` repeats a run.

#[cfg(test)]
#[path = "fuzz/stream.rs"]
mod stream;

#[cfg(test)]
mod bent {
    use std::panic::catch_unwind;
    use std::path::Path;

    use bytes::Bytes;
    use tokio::time::{Duration, Instant};
    use walhook::domain::ValueKind;

    use super::stream;

    /// Payloads that are bent together, at most.
    const TOGETHER: usize = 40;
    /// Numbers at which parsers break.
    const EDGES: [u32; 12] =
        [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x0001_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

    #[expect(clippy::disallowed_methods, reason = "a test's knobs are no part of the configuration")]
    fn knob(name: &str, default: u64) -> u64 {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    }

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

    fn pick<'a, T>(dice: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
        &from[dice.usize(..from.len())]
    }

    /// Bends bytes in one way; `other` is what may be spliced in.
    fn bend(dice: &mut fastrand::Rng, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = dice.usize(..=bytes.len());
        match dice.u8(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.u8(0..8),
            1 if at < bytes.len() => bytes[at] = *pick(dice, b"\x00\xffntubKON{}\"\\,;:[]= -0195e.TZ"),
            2 => bytes.truncate(at),
            3 if at + 4 <= bytes.len() => {
                bytes[at..at + 4].copy_from_slice(&pick(dice, &EDGES).to_be_bytes());
            }
            4 if at + 2 <= bytes.len() => {
                let [_, _, high, low] = pick(dice, &EDGES).to_be_bytes();
                bytes[at..at + 2].copy_from_slice(&[high, low]);
            }
            5 => {
                let from = dice.usize(..=other.len());
                let to = dice.usize(from..=other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            6 => {
                let to = dice.usize(at..=bytes.len());
                bytes.drain(at..to);
            }
            _ => bytes.insert(at, dice.u8(..)),
        }
    }

    /// A few parts, some of their payloads bent, dropped, doubled or moved.
    fn bent_stream(dice: &mut fastrand::Rng, parts: &[Vec<Bytes>]) -> Vec<Bytes> {
        let mut payloads: Vec<Bytes> =
            (0..dice.usize(1..=2)).flat_map(|_| pick(dice, parts).clone()).collect();
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
        let seed = knob("WALHOOK_SEED", u64::from(std::process::id()));
        let span = Duration::from_secs(knob("WALHOOK_FUZZ_SECONDS", 8));
        println!("WALHOOK_SEED={seed} repeats these dice");
        let parts = parts();
        assert!(parts.len() > 100, "{} parts", parts.len());
        let values = stream::values(&parts.concat());
        assert!(values.len() > 300, "{} values", values.len());
        let mut dice = fastrand::Rng::with_seed(seed);
        let (until, mut rounds) = (Instant::now() + span, 0_u64);
        while Instant::now() < until {
            rounds += 1;
            let payloads = bent_stream(&mut dice, &parts);
            if catch_unwind(|| stream::read(&payloads)).is_err() {
                let told: Vec<String> = payloads.iter().map(hex::encode).collect();
                panic!("WALHOOK_SEED={seed}, round {rounds}: {told:#?}");
            }
            for _ in 0..8 {
                let (kind, text) = bent_value(&mut dice, &values);
                let written = catch_unwind(|| stream::write(&kind, &text));
                assert!(
                    written.is_ok(),
                    "WALHOOK_SEED={seed}, round {rounds}: {kind:?} {}",
                    hex::encode(text)
                );
            }
        }
        println!("{rounds} streams, {} values", rounds * 8);
        assert!(rounds > 100, "too slow to mean anything: {rounds} rounds");
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
}
