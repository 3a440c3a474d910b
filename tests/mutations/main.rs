//! Bytes and texts of others, bent at random: whatever they are, each reader answers, and the answer is right as far as
//! anybody else can tell.
//!
//! What a fuzzer does, bounded to seconds and without one. `WALHOOK_FUZZ_SECONDS=7200` makes it two hours,
//! `WALHOOK_SEED` repeats a run. The oracles are those of the fuzz targets, in `tests/fuzz`.

#[cfg(test)]
mod arrays;
#[cfg(test)]
mod bend;
#[cfg(test)]
#[path = "../fuzz/stream.rs"]
mod stream;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod texts;
#[cfg(test)]
#[path = "../fuzz/texts.rs"]
mod told;
#[cfg(test)]
#[path = "../fuzz/value.rs"]
mod value;
