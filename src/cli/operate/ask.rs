//! Asking a person.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Yes.
    Yes,
    /// Anything else.
    No,
    /// There is nobody to ask: input or output is no terminal.
    Nobody,
}

/// Asks a question that `y` or `yes` affirms.
pub(super) fn ask(question: &str) -> Answer {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Answer::Nobody;
    }
    let mut err = io::stderr().lock();
    let mut answer = String::new();
    let asked = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
    let heard = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    match heard {
        Ok(_) if ["y", "yes"].contains(&&*answer.trim().to_lowercase()) => Answer::Yes,
        _ => Answer::No,
    }
}
