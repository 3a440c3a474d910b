//! `walhook retry`: ended deliveries, sent again as the API does it: one at once, many as a job of the running instance's.

use std::io::{self, IsTerminal as _};
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::print;
use super::ask::{Answer, ask};
use super::call::{Caller, Failure, Reach, cell, part};
use crate::clock::Clock;
use crate::ledger::replay::Cause;

/// How often progress is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// How long a job may wait for an instance before whoever asked is told that none runs.
const BEGUN_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags, each of its own")]
pub(in crate::cli) struct RetryArgs {
    /// A webhook's name, or a delivery's id (dlv_…)
    #[arg(value_name = "WEBHOOK|DELIVERY")]
    target: String,
    /// How they ended; what was delivered is sent only where this says so [default: failed; of one delivery, cancelled too]
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<Status>,
    /// Of one delivery: only where so many attempts of it were made, and then however short a time ago it was sent again
    #[arg(long, value_name = "COUNT")]
    attempts: Option<u32>,
    /// Only of event types like this, with * for any run of characters
    #[arg(long, value_name = "PATTERN")]
    event: Option<String>,
    /// Only of changes committed at TIME or later: 2026-01-31T08:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Only of changes committed before TIME
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    /// Only where the last attempt went like this: timeout, unreachable, refused, a status as 503, or a class as 5xx
    #[arg(long, value_name = "CAUSE", value_parser = cause)]
    error: Option<String>,
    /// At most so many a second, such as 100/s
    #[arg(long, value_name = "COUNT/s", value_parser = rate)]
    rate: Option<NonZeroU32>,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Leave it to the running instance, and do not wait
    #[arg(long, short)]
    detach: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Print the API's document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Status {
    Failed,
    Delivered,
    Cancelled,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A moment as it was typed.
#[derive(Debug, Clone)]
pub(super) enum When {
    At(Timestamp),
    Ago(Span),
}

impl When {
    /// So long ago, where that can be read.
    pub(super) fn ago(text: &str) -> Self {
        Self::Ago(text.parse().unwrap_or_default())
    }

    /// The moment, where it is now `now`; a span that reaches beyond time is its beginning.
    pub(super) fn at(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => *at,
            Self::Ago(span) => now
                .to_zoned(TimeZone::UTC)
                .checked_sub(*span)
                .map_or(Timestamp::UNIX_EPOCH, |then| then.timestamp()),
        }
    }
}

pub(super) fn when(text: &str) -> Result<When, String> {
    if let Ok(at) = text.parse() {
        return Ok(When::At(at));
    }
    let span = text.parse::<Span>().ok().filter(|span| !span.is_negative());
    let expected =
        "expected a time with its zone, such as 2026-01-31T08:00:00Z, or how long ago, such as 2h or 3d";
    span.map(When::Ago).ok_or_else(|| expected.to_owned())
}

fn cause(text: &str) -> Result<String, String> {
    Cause::named(text).map(|_| text.to_owned()).ok_or_else(|| {
        "expected timeout, unreachable, refused, a status such as 503, or a class such as 5xx".to_owned()
    })
}

fn rate(text: &str) -> Result<NonZeroU32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    number.parse().map_err(|_| "expected deliveries a second, such as 100/s".to_owned())
}

impl RetryArgs {
    /// The states that are meant.
    fn states(&self) -> Vec<&'static str> {
        let words: Vec<_> = self.status.iter().map(|status| status.as_str()).collect();
        if words.is_empty() { vec!["failed"] } else { words }
    }

    /// What is asked for.
    fn document(&self, now: Timestamp, dry_run: Option<bool>) -> Value {
        let moment = |when: &Option<When>| when.as_ref().map(|when| when.at(now));
        json!({
            "status": self.states(), "event": self.event, "since": moment(&self.since),
            "until": moment(&self.until), "error": self.error, "per_second": self.rate,
            "dry_run": dry_run,
        })
    }

    /// Whether some of a webhook's deliveries are chosen by more than how they ended.
    fn chooses(&self) -> bool {
        self.event.is_some() || self.since.is_some() || self.until.is_some() || self.error.is_some()
    }
}

/// Ids of deliveries begin with `dlv_`; everything else is a webhook's name.
fn is_delivery(target: &str) -> bool {
    target.starts_with("dlv_") && target.len() == 40
}

pub(super) async fn run(args: &RetryArgs, caller: &Caller, clock: &Clock) -> Result<ExitCode, Failure> {
    if is_delivery(&args.target) { one(args, caller).await } else { many(args, caller, clock.now()).await }
}

/// One delivery, by its id.
async fn one(args: &RetryArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    let id = &args.target;
    if args.chooses() {
        let chosen = "--event, --since, --until and --error choose among the deliveries of a webhook";
        print::error(&format!("{chosen}; this is one delivery"));
        return Ok(ExitCode::from(2));
    }
    let found = caller.get(&format!("/deliveries/{}", part(id))).await?.document;
    let status = cell(&found, "status");
    let wished = if args.status.is_empty() { vec!["failed", "cancelled"] } else { args.states() };
    if !wished.contains(&status.as_str()) {
        let hint = match &*status {
            "failed" | "delivered" | "cancelled" => {
                format!("It is {status}; --status {status} sends it again, where its body was kept.")
            }
            status => format!("It is {status}."),
        };
        let told = format!("delivery {id} cannot be sent again\n  detail: {hint}");
        return Err(Failure::Told(print_lines(&told)));
    }
    if args.dry_run {
        print::line(&if args.json {
            found.to_string()
        } else {
            format!("1 {status} delivery would be sent again")
        });
        return Ok(ExitCode::SUCCESS);
    }
    let path = format!("/webhooks/{}/deliveries/{}/retry", part(&cell(&found, "webhook")), part(id));
    // The instance looks again: somebody else may press at the same time.
    let wish = json!({ "status": wished, "attempts": args.attempts });
    let sent = caller.post(&path, Some(&wish)).await?;
    print::line(&if args.json { sent.to_string() } else { on_the_way(1) });
    Ok(ExitCode::SUCCESS)
}

fn print_lines(text: &str) -> String {
    text.lines().map(print::plain).collect::<Vec<_>>().join("\n")
}

fn on_the_way(sent: u64) -> String {
    let (are, them) = if sent == 1 { ("delivery is", "it") } else { ("deliveries are", "them") };
    format!("{sent} {are} on the way again; `walhook status` shows what becomes of {them}")
}

/// Says how many cannot be sent again, and why.
fn note_left_out(counted: &Value) {
    let left_out = counted.get("left_out").and_then(Value::as_u64).unwrap_or_default();
    if left_out == 0 {
        return;
    }
    let reasons = counted.get("reasons").and_then(Value::as_array);
    let told: Vec<String> = reasons
        .into_iter()
        .flatten()
        .map(|one| format!("{}: {}", cell(one, "count"), print::plain(&cell(one, "reason"))))
        .collect();
    print::note(&format!("{left_out} cannot be sent again\n  {}", told.join("\n  ")));
}

/// Those of a webhook.
async fn many(args: &RetryArgs, caller: &Caller, now: Timestamp) -> Result<ExitCode, Failure> {
    if args.attempts.is_some() {
        print::error("--attempts is of one delivery; this is a webhook");
        return Ok(ExitCode::from(2));
    }
    let (target, kinds) = (print::plain(&args.target), args.states().join(" or "));
    let path = format!("/webhooks/{}/retry", part(&args.target));
    let counted = caller.post(&path, Some(&args.document(now, Some(true)))).await?;
    let count = counted.get("count").and_then(Value::as_u64).unwrap_or_default();
    if args.json && (args.dry_run || count == 0) {
        print::line(&counted.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    note_left_out(&counted);
    if count == 0 {
        print::line(&format!("{target} has no {kinds} deliveries that can be sent again"));
        return Ok(ExitCode::SUCCESS);
    }
    let what = if count == 1 { format!("1 {kinds} delivery") } else { format!("{count} {kinds} deliveries") };
    note_standing(args, caller).await;
    if args.dry_run {
        print::line(&format!("{what} would be sent again"));
        return Ok(ExitCode::SUCCESS);
    }
    // Without a terminal whoever typed this meant it: nothing is lost by sending again.
    if count > 1 && !args.yes && ask(&format!("Send {what} again?")) == Answer::No {
        print::line("nothing was sent");
        return Ok(ExitCode::FAILURE);
    }
    let made = caller.post(&path, Some(&args.document(now, None))).await?;
    let job = format!("{path}/{}", cell(&made, "id"));
    if args.detach {
        print::line(&if args.json {
            made.to_string()
        } else {
            format!("retry {} sends {what} again; GET /api{job} tells how far it is", cell(&made, "id"))
        });
        return Ok(ExitCode::SUCCESS);
    }
    follow(args, caller, &job).await
}

/// Says why what is sent again will not leave yet, where that is so.
async fn note_standing(args: &RetryArgs, caller: &Caller) {
    let target = print::plain(&args.target);
    match caller.get(&format!("/webhooks/{}", part(&args.target))).await {
        Ok(webhook) => {
            let (status, reason) = (cell(&webhook.document, "status"), cell(&webhook.document, "reason"));
            if matches!(&*status, "paused" | "disabled") {
                let reason = print::plain(&reason);
                print::note(&format!(
                    "{target} is {status} ({reason}): they are held until `walhook enable {target}`"
                ));
            }
        }
        // There are deliveries of it, or this would not be asked.
        Err(_) => print::note(&format!("{target} is declared nowhere any more: they wait for its return")),
    }
}

/// Shows progress until it is over. Ctrl-C ends it: what is on its way goes on.
async fn follow(args: &RetryArgs, caller: &Caller, job: &str) -> Result<ExitCode, Failure> {
    let shown = io::stderr().is_terminal() && !args.json;
    let begun = Instant::now();
    let number = |now: &Value, field| now.get(field).and_then(Value::as_u64).unwrap_or_default();
    let mut stopped = false;
    loop {
        let now = caller.get(job).await?.document;
        let (sent, status) = (number(&now, "sent"), cell(&now, "status"));
        if shown {
            print::progress(&format!("{sent} of {}", cell(&now, "found")));
        }
        let waits = status == "pending" && begun.elapsed() > BEGUN_WITHIN;
        if !waits && matches!(&*status, "pending" | "running") {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = tokio::signal::ctrl_c() => {
                    stopped = true;
                    // It may have come to its end in between; the next look tells.
                    let _ended = caller.post(&format!("{job}/cancel"), None).await;
                }
            }
            continue;
        }
        if shown {
            print::progress("");
        }
        if args.json {
            print::line(&now.to_string());
        } else if waits {
            print::line("no walhook has begun with it: one does when it runs");
        } else {
            print::line(&on_the_way(sent));
        }
        let unsent = number(&now, "unsent");
        if unsent > 0 {
            let reason = print::plain(&cell(&now, "reason"));
            print::note(&format!("{unsent} could not be rendered and are as they were; the last: {reason}"));
        }
        if status == "failed" {
            print::error(&print::plain(&cell(&now, "reason")));
        }
        if stopped && status == "cancelled" {
            let left = number(&now, "found").saturating_sub(sent + unsent);
            print::note(&format!("stopped; {left} are as they were, and the same command goes on with them"));
        }
        return Ok(if waits || status == "done" { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_how_long_ago() {
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let at = |text: &str| when(text).map(|when| when.at(now).to_string());
        assert_eq!(at("2026-01-30T10:00:00+02:00").unwrap(), "2026-01-30T08:00:00Z");
        assert_eq!(at("2h").unwrap(), "2026-01-31T06:00:00Z");
        assert_eq!(at("3d").unwrap(), "2026-01-28T08:00:00Z");
        for wrong in ["", "yesterday", "-2h", "2026-01-30", "2"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn causes_are_words_statuses_or_classes() {
        for right in ["timeout", "503", "4xx"] {
            assert_eq!(cause(right).as_deref(), Ok(right));
        }
        for wrong in ["", "xx", "9xx", "99", "600", "5x", "tls", "é"] {
            assert!(cause(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_id_is_told_from_a_name() {
        assert!(is_delivery(&format!("dlv_{}", "0".repeat(36))));
        assert!(!is_delivery("dlv_crm") && !is_delivery("crm"));
    }
}
