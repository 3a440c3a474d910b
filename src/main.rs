//! The command line: parses what was typed and leaves the rest to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    walhook::cli::main()
}
