//! Writing to the terminal, or to a pipe that may be closed: then there is nobody to tell.

use std::io::{self, Write};

/// A line to standard output. Returns whether anybody still reads it.
pub(super) fn line(text: &str) -> bool {
    bytes(format!("{text}\n").as_bytes())
}

/// Bytes to standard output, as they are. Returns whether anybody still reads them.
pub(super) fn bytes(bytes: &[u8]) -> bool {
    let mut out = io::stdout().lock();
    heard(out.write_all(bytes).and_then(|()| out.flush()))
}

/// A message to standard error.
pub(super) fn error(text: &str) {
    note(&format!("walhook: {text}"));
}

/// A line to standard error, beside what the command answers.
pub(super) fn note(text: &str) {
    heard(writeln!(io::stderr().lock(), "{text}"));
}

/// Words to standard error that the next ones may overwrite.
pub(super) fn progress(text: &str) {
    heard(write!(io::stderr().lock(), "\r{text}"));
}

/// Text from outside, without what a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn heard(written: io::Result<()>) -> bool {
    let Err(error) = written else { return true };
    if error.kind() != io::ErrorKind::BrokenPipe {
        tracing::debug!(%error, "the output cannot be written");
    }
    false
}
