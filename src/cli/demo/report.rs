//! What the demo prints, and what it remembers of it for the judgement.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::receiver::Receipt;

/// Colours of a terminal, by what they mean here.
#[derive(Debug, Clone, Copy)]
enum Tint {
    Commit,
    Good,
    Bad,
    Quiet,
}

impl Tint {
    fn code(self) -> &'static str {
        match self {
            Self::Commit => "36",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Quiet => "2",
        }
    }
}

/// Prints lines to a terminal or a pipe, and counts.
#[derive(Debug)]
pub(super) struct Report {
    is_coloured: bool,
    is_closed: bool,
    commits: usize,
    requests: usize,
    unverified: usize,
    refused: usize,
    taken: HashMap<&'static str, HashSet<String>>,
    slowest_first: Duration,
    about_rolled_back: usize,
}

impl Report {
    /// A report to standard output; in colours where that is a terminal and `NO_COLOR` is not set.
    pub(super) fn to_stdout() -> Self {
        Self {
            is_coloured: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            is_closed: false,
            commits: 0,
            requests: 0,
            unverified: 0,
            refused: 0,
            taken: HashMap::new(),
            slowest_first: Duration::ZERO,
            about_rolled_back: 0,
        }
    }

    /// Whether nobody reads any more (`walhook demo | head`).
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn line(&mut self, text: impl Display) {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            self.is_closed = true;
        }
    }

    fn tint(&self, tint: Tint, text: &str) -> String {
        if self.is_coloured { format!("\x1b[{}m{text}\x1b[0m", tint.code()) } else { text.to_owned() }
    }

    /// A sentence of the demo's own.
    pub(super) fn note(&mut self, text: &str) {
        let text = self.tint(Tint::Quiet, text);
        self.line(text);
    }

    /// What stands where, before the first commit.
    pub(super) fn opening(&mut self, database: &str, sidecar: SocketAddr) {
        self.note(&format!(
            "\n  Postgres  {database}\n  walhook   http://{sidecar}/metrics\n  \
             crm       verifies and takes everything\n  \
             warehouse fails the first two attempts of each order.shipped\n\n\
             Every line `commit` is a transaction of the shop, every line `webhook` a request that a receiver got.\n\
             Change something yourself with psql; Ctrl-C ends it and leaves nothing behind.\n"
        ));
    }

    /// A transaction of the shop.
    pub(super) fn commit(&mut self, told: &str) {
        if told.ends_with("(rolled back)") {
            let head = self.tint(Tint::Quiet, "rollback");
            self.line(format!("{head}  {told}: no webhook may follow"));
            self.about_rolled_back += 1;
            return;
        }
        self.commits += 1;
        let head = self.tint(Tint::Commit, "commit  ");
        self.line(format!("{head}  {told}"));
    }

    /// A request that a receiver got.
    pub(super) fn receipt(&mut self, receipt: &Receipt) {
        self.requests += 1;
        let tint = if receipt.is_taken() { Tint::Good } else { Tint::Bad };
        let head = self.tint(tint, "webhook ");
        let signature = if receipt.verified { "signature verified" } else { "SIGNATURE DOES NOT VERIFY" };
        let news = match (receipt.is_taken(), receipt.attempt) {
            (true, 1) => format!("{} ms after its commit", receipt.age.as_millis()),
            (true, attempt) => format!("delivered at attempt {attempt}"),
            (false, attempt) => format!("attempt {attempt} fails, on purpose"),
        };
        self.line(format!(
            "{head}    → {:<9}  {:<16} {:<14} {}  {signature}, {news}",
            receipt.receiver, receipt.event, receipt.about, receipt.status,
        ));
        if !receipt.verified {
            self.unverified += 1;
        } else if receipt.is_taken() {
            self.taken.entry(receipt.receiver).or_default().insert(receipt.id.clone());
            if receipt.attempt == 1 {
                self.slowest_first = self.slowest_first.max(receipt.age);
            }
        } else {
            self.refused += 1;
        }
    }

    fn count(&self, receiver: &str) -> usize {
        self.taken.get(receiver).map_or(0, HashSet::len)
    }

    /// Whether every receiver has taken what it is owed.
    pub(super) fn is_complete(&self, owed: &[(&str, usize)]) -> bool {
        owed.iter().all(|(receiver, count)| self.count(receiver) >= *count)
    }

    /// The judgement of a fixed run: prints it, and says whether all is well.
    pub(super) fn summary(&mut self, owed: &[(&str, usize)]) -> bool {
        let exact = owed.iter().all(|(receiver, count)| self.count(receiver) == *count);
        let is_well = exact && self.unverified == 0 && self.refused >= 2;
        let counts: Vec<String> = owed
            .iter()
            .map(|(receiver, count)| format!("{receiver} {} of {count}", self.count(receiver)))
            .collect();
        let text = format!(
            "\n{}: {} commits, {} rolled back; delivered and verified: {}; {} failed attempts retried; \
             {} signatures that do not verify; slowest first attempt {} ms after its commit",
            if is_well { "PASSED" } else { "FAILED" },
            self.commits,
            self.about_rolled_back,
            counts.join(", "),
            self.refused,
            self.unverified,
            self.slowest_first.as_millis(),
        );
        let text = self.tint(if is_well { Tint::Good } else { Tint::Bad }, &text);
        self.line(text);
        is_well
    }

    /// An error with its causes, on standard error.
    pub(super) fn failure(&self, error: &dyn Error) {
        let mut text = format!("{}: {error}", self.tint(Tint::Bad, "error"));
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        text.extend(causes.map(|cause| format!("\n  because: {cause}")));
        let printed = writeln!(std::io::stderr(), "{text}");
        drop(printed);
    }
}
