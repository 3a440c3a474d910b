//! `walhook stats`, `walhook webhooks stats`: the numbers of webhooks as the API tells them.

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::print;
use super::Here;
use super::call::{Caller, Failure, Reach, cell, gather_all, part};
use super::retry::{When, when};
use super::table::{Align, cut, span, table};
use crate::clock::Clock;
use crate::control::stats::{Waiting, Wanted, stats};
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
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct OneStatsArgs {
    /// The webhook's name
    webhook: String,
    /// Since when: how long ago, such as 24h or 3d, or a time with its zone [default: 5m, 1h, 24h and 7d]
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Since>,
    /// Print the API's document
    #[arg(long)]
    json: bool,
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

/// The window of all webhooks, where none is named.
const USUAL: &str = "24h";

impl Since {
    /// As the API is asked: a duration as it was typed, or a time.
    fn window(&self, now: Timestamp) -> String {
        match &self.when {
            When::Ago(_) => self.text.clone(),
            When::At(_) => self.when.at(now).to_string(),
        }
    }
}

pub(super) async fn run(args: &StatsArgs, caller: &Caller, clock: &Clock) -> Result<ExitCode, Failure> {
    if let Some(webhook) = &args.webhook {
        let (webhook, since, json) = (webhook.clone(), args.since.clone(), args.json);
        return of_one(&OneStatsArgs { webhook, since, json }, caller, clock).await;
    }
    let all = match caller.here() {
        Some(here) => of_all(args.since.as_ref(), here).await?,
        None => of_each(args.since.as_ref(), caller, clock.now()).await?,
    };
    print::line(&if args.json { json!({ "webhooks": all }).to_string() } else { every(&all).join("\n") });
    Ok(ExitCode::SUCCESS)
}

/// The numbers of one webhook.
pub(super) async fn of_one(args: &OneStatsArgs, caller: &Caller, clock: &Clock) -> Result<ExitCode, Failure> {
    let window = args.since.as_ref().map(|since| since.window(clock.now()));
    let found = one_of(caller, &args.webhook, window.as_deref()).await?;
    print::line(&if args.json { found.to_string() } else { one(&found).join("\n") });
    Ok(ExitCode::SUCCESS)
}

async fn one_of(caller: &Caller, webhook: &str, window: Option<&str>) -> Result<Value, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(window.map(|window| ("window", window)));
    Ok(caller.get(&format!("/webhooks/{}/stats?{}", part(webhook), query.finish())).await?.document)
}

/// The numbers of all webhooks that are declared or have any.
async fn of_all(since: Option<&Since>, here: &Here) -> Result<Vec<Value>, ControlError> {
    let now = here.clock.now();
    let wanted = match since {
        Some(since) => Wanted { name: since.text.clone(), since: since.when.at(now) },
        None => Wanted { name: USUAL.to_owned(), since: When::ago(USUAL).at(now) },
    };
    let all = stats(&here.desk(), &Actor::command_line(), None, &[wanted]).await?;
    Ok(all.iter().map(|one| json!(one)).collect())
}

/// Those of all that are declared, one after the other.
async fn of_each(since: Option<&Since>, caller: &Caller, now: Timestamp) -> Result<Vec<Value>, Failure> {
    let window = since.map_or_else(|| USUAL.to_owned(), |since| since.window(now));
    let list = gather_all(caller, "/webhooks").await?;
    let mut all = Vec::with_capacity(list.len());
    for webhook in &list {
        all.push(one_of(caller, &cell(webhook, "name"), Some(&window)).await?);
    }
    Ok(all)
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

/// A number within a document.
fn float(of: &Value, pointer: &str) -> Option<f64> {
    of.pointer(pointer).and_then(Value::as_f64)
}

fn numbers(window: &Value) -> Vec<String> {
    let seconds = |pointer| took(float(window, pointer));
    vec![
        cell(window, "deliveries/delivered"),
        cell(window, "deliveries/failed"),
        percent(float(window, "/deliveries/success_rate")),
        cell(window, "attempts/total"),
        seconds("/receipt_seconds/p50"),
        seconds("/receipt_seconds/p90"),
        seconds("/receipt_seconds/p99"),
        seconds("/request_seconds/p99"),
        percent(float(window, "/sla/share")),
    ]
}

fn listed<'v>(of: &'v Value, field: &str) -> &'v [Value] {
    of.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A line a webhook.
fn every(all: &[Value]) -> Vec<String> {
    if all.is_empty() {
        return vec!["no webhook is declared".to_owned()];
    }
    let columns: Vec<_> = [("WEBHOOK", Align::Left)]
        .into_iter()
        .chain(NUMBERS)
        .chain([("OLDEST WAITING", Align::Left)])
        .collect();
    let age = |waiting: &Value| waiting.get("oldest_seconds").and_then(Value::as_u64).unwrap_or_default();
    let row = |one: &Value| {
        let mut row = vec![cell(one, "webhook")];
        row.extend(listed(one, "windows").first().map(numbers).unwrap_or_default());
        let oldest = listed(one, "waiting").iter().max_by_key(|waiting| age(waiting));
        let oldest = oldest.map(|waiting| format!("{} {}", span(age(waiting)), cell(waiting, "status")));
        row.push(oldest.unwrap_or_else(|| "-".to_owned()));
        row
    };
    table(&columns, &all.iter().map(row).collect::<Vec<_>>())
}

/// A line a window, and below what is behind it.
fn one(told: &Value) -> Vec<String> {
    let columns: Vec<_> = [("SINCE", Align::Left)].into_iter().chain(NUMBERS).collect();
    let windows = listed(told, "windows");
    let row = |window: &Value| [vec![cell(window, "window")], numbers(window)].concat();
    let mut lines = table(&columns, &windows.iter().map(row).collect::<Vec<_>>());
    lines.push(String::new());
    let queued = listed(told, "waiting");
    for waiting in queued {
        let why = waiting.get("why").and_then(Value::as_str).map(str::to_owned);
        let why = why.unwrap_or_else(|| in_words(&cell(waiting, "reason")).to_owned());
        let why = format!(" ({})", cut(&why, REASON_CHARS));
        let age = span(waiting.get("oldest_seconds").and_then(Value::as_u64).unwrap_or_default());
        let status = cell(waiting, "status");
        lines.push(print::plain(&format!("waiting   {status}{why}: the oldest for {age}")));
    }
    if queued.is_empty() {
        lines.push("waiting   nothing".to_owned());
    }
    if let Some(window) = windows.last() {
        lines.push(print::plain(&format!("failures  {} in {}", causes(window), cell(window, "window"))));
    }
    lines.push(format!("sla       delivered within {} of the commit", took(float(told, "/sla_seconds"))));
    lines
}

/// Why the oldest waits, where its webhook is sent to.
fn in_words(reason: &str) -> &str {
    match reason {
        "held" => "to be released",
        "in_flight" => "an attempt is under way",
        "behind" => "behind another of its row",
        "retry" => "for its next attempt",
        "due" => "due, for its rate or its turn",
        other => other,
    }
}

/// Why attempts failed, the most frequent cause first.
fn causes(window: &Value) -> String {
    let causes = [
        ("http_4xx", "HTTP 4xx"),
        ("http_5xx", "HTTP 5xx"),
        ("http_other", "other HTTP"),
        ("timed_out", "timed out"),
        ("unreachable", "unreachable"),
        ("refused", "refused by a rule"),
    ];
    let count = |field| window.pointer(&format!("/attempts/causes/{field}")).and_then(Value::as_u64);
    let mut told: Vec<(u64, &str)> =
        causes.iter().filter_map(|(field, words)| Some((count(field)?, *words))).collect();
    told.retain(|(count, _)| *count > 0);
    told.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    if told.is_empty() {
        return "no failed attempt".to_owned();
    }
    told.iter().map(|(count, cause)| format!("{count} {cause}")).collect::<Vec<_>>().join(", ")
}

/// The oldest of all that waits, and in which state.
pub(super) fn oldest(waiting: &[Waiting]) -> String {
    let oldest = waiting.iter().max_by_key(|waiting| waiting.oldest_seconds);
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
