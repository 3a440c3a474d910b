//! `walhook stats`.

use std::process::ExitCode;

use clap::Args;

use super::super::print;
use super::Here;
use super::retry::{When, when};
use super::table::{Align, cut, span, table};
use crate::control::stats::{Percentiles, Waiting, Wanted, WebhookStats, Window, stats, usual};
use crate::control::{Actor, ControlError};

/// How much of a reason is shown.
const REASON_CHARS: usize = 80;

#[derive(Debug, Args)]
pub(in crate::cli) struct StatsArgs {
    /// The webhook's name; without it: all
    webhook: Option<String>,
    /// Since when: how long ago, such as 24h or 3d, or a time with its zone [default: 24h; of one webhook: 5m, 1h, 24h and 7d]
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Since>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct OneStatsArgs {
    /// The webhook's name
    webhook: String,
    /// Since when: how long ago, such as 24h or 3d, or a time with its zone [default: 5m, 1h, 24h and 7d]
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Since>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The numbers of one webhook.
pub(super) async fn of_one(args: &OneStatsArgs, here: &Here) -> Result<ExitCode, ControlError> {
    let OneStatsArgs { webhook, since, json } = args;
    run(&StatsArgs { webhook: Some(webhook.clone()), since: since.clone(), json: *json }, here).await
}

/// A moment, and how it was typed.
#[derive(Debug, Clone)]
struct Since {
    text: String,
    when: When,
}

fn since(text: &str) -> Result<Since, String> {
    when(text).map(|when| Since { text: text.to_owned(), when })
}

pub(super) async fn run(args: &StatsArgs, here: &Here) -> Result<ExitCode, ControlError> {
    let now = here.clock.now();
    let mut wanted = usual(now);
    if let Some(since) = &args.since {
        wanted = vec![Wanted { name: since.text.clone(), since: since.when.at(now) }];
    } else if args.webhook.is_none() {
        wanted.retain(|wanted| wanted.name == "24h");
    }
    let all = stats(&here.desk(), &Actor::command_line(), args.webhook.as_deref(), &wanted).await?;
    let text = match (&args.webhook, args.json) {
        (Some(_), true) => all.first().map(|one| serde_json::json!(one).to_string()).unwrap_or_default(),
        (None, true) => serde_json::json!({ "webhooks": all }).to_string(),
        (Some(_), false) => all.iter().flat_map(one).collect::<Vec<_>>().join("\n"),
        (None, false) => every(&all).join("\n"),
    };
    print::line(&text);
    Ok(ExitCode::SUCCESS)
}

const NUMBERS: [(&str, Align); 9] = [
    ("DELIVERED", Align::Right),
    ("FAILED", Align::Right),
    ("SUCCESS", Align::Right),
    ("ATTEMPTS", Align::Right),
    ("RECEIPT P50", Align::Right),
    ("P90", Align::Right),
    ("P99", Align::Right),
    ("REQUEST P99", Align::Right),
    ("SLA", Align::Right),
];

fn numbers(window: &Window) -> Vec<String> {
    let Percentiles { p50, p90, p99, .. } = window.receipt_seconds;
    vec![
        window.deliveries.delivered.to_string(),
        window.deliveries.failed.to_string(),
        percent(window.deliveries.success_rate),
        window.attempts.total.to_string(),
        took(p50),
        took(p90),
        took(p99),
        took(window.request_seconds.p99),
        percent(window.sla.share),
    ]
}

/// A line a webhook.
fn every(all: &[WebhookStats]) -> Vec<String> {
    if all.is_empty() {
        return vec!["no webhook is declared".to_owned()];
    }
    let columns: Vec<_> = [("WEBHOOK", Align::Left)]
        .into_iter()
        .chain(NUMBERS)
        .chain([("OLDEST WAITING", Align::Left)])
        .collect();
    let row = |one: &WebhookStats| {
        let mut row = vec![one.webhook.clone()];
        row.extend(one.windows.first().map(numbers).unwrap_or_default());
        row.push(oldest(&one.waiting));
        row
    };
    table(&columns, &all.iter().map(row).collect::<Vec<_>>())
}

/// A line a window, and below what is behind it.
fn one(stats: &WebhookStats) -> Vec<String> {
    let columns: Vec<_> = [("SINCE", Align::Left)].into_iter().chain(NUMBERS).collect();
    let row = |window: &Window| [vec![window.window.clone()], numbers(window)].concat();
    let mut lines = table(&columns, &stats.windows.iter().map(row).collect::<Vec<_>>());
    lines.push(String::new());
    for waiting in &stats.waiting {
        let why = waiting.why.as_deref().map(|why| format!(" ({})", cut(why, REASON_CHARS)));
        let (why, age) = (why.unwrap_or_default(), span(waiting.oldest_seconds));
        lines.push(print::plain(&format!("waiting   {}{why}: the oldest for {age}", waiting.status)));
    }
    if stats.waiting.is_empty() {
        lines.push("waiting   nothing".to_owned());
    }
    if let Some(window) = stats.windows.last() {
        lines.push(format!("failures  {} in {}", causes(window), print::plain(&window.window)));
    }
    lines.push(format!("sla       delivered within {} of the commit", took(Some(stats.sla_seconds))));
    lines
}

/// Why attempts failed, the most frequent cause first.
fn causes(window: &Window) -> String {
    let causes = &window.attempts.causes;
    let mut told = vec![
        (causes.http_4xx, "HTTP 4xx"),
        (causes.http_5xx, "HTTP 5xx"),
        (causes.http_other, "other HTTP"),
        (causes.timed_out, "timed out"),
        (causes.unreachable, "unreachable"),
        (causes.refused, "refused by a rule"),
    ];
    told.retain(|(count, _)| *count > 0);
    told.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    if told.is_empty() {
        return "no failed attempt".to_owned();
    }
    told.iter().map(|(count, cause)| format!("{count} {cause}")).collect::<Vec<_>>().join(", ")
}

/// The oldest of all that waits, and in which state.
pub(super) fn oldest(waiting: &[Waiting]) -> String {
    let oldest = waiting.iter().min_by_key(|waiting| waiting.oldest_committed_at);
    oldest.map_or_else(
        || "-".to_owned(),
        |waiting| format!("{} {}", span(waiting.oldest_seconds), waiting.status),
    )
}

/// A share as a percentage, never rounded up to all.
pub(super) fn percent(share: Option<f64>) -> String {
    let down = |share: f64| format!("{:.2}%", (share * 10_000.0).floor() / 100.0);
    share.map_or_else(|| "–".to_owned(), down)
}

/// Seconds, with as many digits as tell something.
pub(super) fn took(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return "–".to_owned() };
    match seconds {
        ..0.00995 => format!("{:.1} ms", seconds * 1e3),
        ..0.9995 => format!("{:.0} ms", seconds * 1e3),
        ..59.95 => format!("{seconds:.1} s"),
        _ => span(std::time::Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |took| took.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_times_read_well() {
        let share = [None, Some(1.0), Some(0.99999), Some(0.5), Some(0.0)].map(percent);
        assert_eq!(share, ["–", "100.00%", "99.99%", "50.00%", "0.00%"]);
        let times =
            [None, Some(0.0001), Some(0.012), Some(0.9999), Some(5.0), Some(59.96), Some(7261.0)].map(took);
        assert_eq!(times, ["–", "0.1 ms", "12 ms", "1.0 s", "5.0 s", "59s", "2h 1m"]);
    }
}
