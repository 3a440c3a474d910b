//! Writing to the terminal, or to a pipe that may be closed: then there is nobody to tell.

use std::io::{self, Write};

/// A line to standard output.
pub(super) fn line(text: &str) {
    ignore_closed(writeln!(io::stdout().lock(), "{text}"));
}

/// A message to standard error.
pub(super) fn error(text: &str) {
    ignore_closed(writeln!(io::stderr().lock(), "walhook: {text}"));
}

fn ignore_closed(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        tracing::debug!(%error, "the output cannot be written");
    }
}
