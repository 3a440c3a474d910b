//! `cargo bench`: runs `walhook bench`, which brings its own Postgres and its own receiver and prints every figure as a
//! ratio to a limit measured in the same run. What stands behind `--` goes to it: `cargo bench -- --quick`.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let status = Command::new(env!("CARGO_BIN_EXE_walhook")).arg("bench").args(arguments).status();
    if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
