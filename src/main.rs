//! The command line: parses what was typed and leaves the rest to the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Small allocations that cross threads, by the hundred for each delivery, are what this one is quick at.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    walhook::cli::main()
}
