//! `walhook check`.

use std::process::ExitCode;

use clap::Args;

use super::super::print;
use crate::clock::Clock;
use crate::config::Sources;
use crate::control::{self, CheckReport, Severity};
use crate::postgres::told;

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    /// Print the findings as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &CheckArgs, sources: &Sources, clock: &Clock) -> ExitCode {
    let report = control::check(sources, clock).await;
    if args.json {
        let ok = report.count(Severity::Error) == 0;
        print::line(
            &serde_json::json!({ "ok": ok, "findings": report.findings, "tables": report.tables })
                .to_string(),
        );
    } else {
        for line in lines(&report) {
            print::line(&line);
        }
    }
    if report.count(Severity::Error) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn lines(report: &CheckReport) -> Vec<String> {
    let mut lines = Vec::with_capacity(report.findings.len() + 1);
    for finding in &report.findings {
        let word = match finding.severity {
            Severity::Ok => "ok      ",
            Severity::Hint => "hint    ",
            Severity::Warning => "warning ",
            Severity::Error => "error   ",
        };
        let message = format!("{}: {}", finding.about, finding.message);
        lines.push(format!("{word}{}", told(&message, finding.detail.as_deref(), finding.hint.as_deref())));
    }
    let counted = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Hint, "hint")];
    let counted = counted.map(|(severity, word)| {
        let count = report.count(severity);
        format!("{count} {}", many(count, word))
    });
    lines.push(counted.join(", "));
    lines
}

fn many(count: usize, one: &str) -> String {
    if count == 1 { one.to_owned() } else { format!("{one}s") }
}
