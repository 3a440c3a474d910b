//! The dice, and the ways in which they bend bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::time::{Duration, Instant};

/// Numbers at which parsers break.
const EDGES: [u32; 12] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x0001_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

/// A run of so many seconds (`share` of what the environment says) with seeded dice.
pub struct Run {
    pub seed: u64,
    pub dice: fastrand::Rng,
    pub rounds: u64,
    until: Instant,
}

impl Run {
    /// Begins a run. By default it takes `seconds`; `WALHOOK_FUZZ_SECONDS` says otherwise for every run.
    pub fn of(seconds: u64) -> Self {
        let seed = knob("WALHOOK_SEED", u64::from(std::process::id()));
        let span = Duration::from_secs(knob("WALHOOK_FUZZ_SECONDS", seconds));
        println!("WALHOOK_SEED={seed} repeats these dice");
        Self { seed, dice: fastrand::Rng::with_seed(seed), rounds: 0, until: Instant::now() + span }
    }

    /// Whether there is time for another round.
    pub fn goes_on(&mut self) -> bool {
        self.rounds += 1;
        Instant::now() < self.until
    }

    /// Checks an input; where that fails, tells what repeats it.
    pub fn check(&self, input: impl std::fmt::Debug, check: impl FnOnce()) {
        let checked = catch_unwind(AssertUnwindSafe(check));
        assert!(checked.is_ok(), "WALHOOK_SEED={}, round {}: {input:?}", self.seed, self.rounds);
    }

    /// Ends the run: it must have been worth it.
    pub fn end(self) {
        println!("{} rounds", self.rounds);
        assert!(self.rounds > 20, "too slow to mean anything: {} rounds", self.rounds);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's knobs are no part of the configuration")]
fn knob(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// One of several.
pub fn pick<'a, T>(dice: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[dice.usize(..from.len())]
}

/// Bends bytes in one way; `other` is what may be spliced in.
pub fn bend(dice: &mut fastrand::Rng, bytes: &mut Vec<u8>, other: &[u8]) {
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

/// Bends a text in a few ways, so that it stays one; `marks` are characters that mean something in it.
pub fn bend_text(dice: &mut fastrand::Rng, text: &str, other: &str, marks: &str) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let others: Vec<char> = other.chars().collect();
    let marks: Vec<char> = marks.chars().collect();
    for _ in 0..dice.u8(1..=3) {
        let at = dice.usize(..=letters.len());
        match dice.u8(0..6) {
            0 if at < letters.len() => letters[at] = *pick(dice, &marks),
            1 => letters.insert(at, *pick(dice, &marks)),
            2 if at < letters.len() => drop(letters.remove(at)),
            3 => {
                let from = dice.usize(..=others.len());
                let to = dice.usize(from..=others.len().min(from + 40));
                letters.splice(at..at, others[from..to].iter().copied());
            }
            4 => {
                let to = dice.usize(at..=letters.len().min(at + 20));
                letters.drain(at..to);
            }
            _ => letters.insert(at, dice.char(..)),
        }
    }
    letters.into_iter().collect()
}
