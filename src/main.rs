//! The command line: parses what was typed and leaves the rest to the library.
fn main() {}
