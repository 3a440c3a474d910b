//! `walhook backfill`: existing rows, delivered as the API does it, by the running instance.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::print;
use super::call::{Caller, Failure, PageArgs, Reach, cell, gather, part, show};
use super::table::{Align, cut};
use crate::ledger::backfills::{Backfill, BackfillStatus};

/// How often progress is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// How much of a condition or a reason is shown in the list.
const SHOWN_CHARS: usize = 50;

#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub(in crate::cli) struct BackfillArgs {
    /// The webhook
    #[arg(required_unless_present_any = ["list", "json"])]
    webhook: Option<String>,
    /// The table: orders, or shop.orders outside schema public
    #[arg(long, short, value_name = "TABLE", required_unless_present_any = ["list", "json"])]
    table: Option<String>,
    /// Only rows for which this SQL condition on the table's columns holds
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
    /// Only rows whose COLUMN is at TIME or later
    #[arg(long, value_name = "COLUMN=TIME", value_parser = since)]
    since: Option<(String, String)>,
    /// At most so many rows a second, such as 500/s
    #[arg(long, value_name = "ROWS/s", value_parser = rate)]
    rate: Option<u32>,
    /// Ask for it and leave it to the running instance
    #[arg(long, short)]
    detach: bool,
    /// List the backfills, newest first
    #[arg(long, conflicts_with_all = ["webhook", "table"])]
    list: bool,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    pub reach: Reach,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show how far one is
    #[command(after_help = "Example:\n  walhook backfill show 3 --json")]
    Show {
        /// Its number
        id: i64,
        /// Print the API's document
        #[arg(long)]
        json: bool,
    },
    /// Stop one for a while
    #[command(after_help = "Example:\n  walhook backfill pause 3")]
    Pause {
        /// Its number
        id: i64,
        /// Print the API's document
        #[arg(long)]
        json: bool,
    },
    /// Go on with one that is paused or has failed
    #[command(after_help = "Example:\n  walhook backfill resume 3")]
    Resume {
        /// Its number
        id: i64,
        /// Print the API's document
        #[arg(long)]
        json: bool,
    },
    /// End one
    #[command(after_help = "Example:\n  walhook backfill cancel 3")]
    Cancel {
        /// Its number
        id: i64,
        /// Print the API's document
        #[arg(long)]
        json: bool,
    },
}

fn since(text: &str) -> Result<(String, String), String> {
    let (column, time) = text.split_once('=').ok_or("expected COLUMN=TIME, such as created_at=2026-01-31")?;
    let (column, time) = (column.trim_end_matches('>').trim(), time.trim());
    if column.is_empty() || time.is_empty() {
        return Err("expected COLUMN=TIME, such as created_at=2026-01-31".to_owned());
    }
    Ok((column.to_owned(), time.to_owned()))
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    let rate = number.parse().ok().filter(|rate| (1..=1_000_000).contains(rate));
    rate.ok_or_else(|| "expected rows a second from 1 to 1000000, such as 500/s".to_owned())
}

pub(super) async fn run(args: &BackfillArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    match &args.verb {
        None if args.webhook.is_none() => list(args, caller).await,
        None => begin(args, caller).await,
        Some(Verb::Pause { id, json }) => steer(caller, *id, "pause", *json).await,
        Some(Verb::Resume { id, json }) => steer(caller, *id, "resume", *json).await,
        Some(Verb::Cancel { id, json }) => steer(caller, *id, "cancel", *json).await,
        Some(Verb::Show { id, json }) => {
            let now = caller.get(&format!("/backfills/{id}")).await?.document;
            if *json {
                print::line(&now.to_string());
            } else {
                tell(&now);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(args: &BackfillArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    let list = gather(caller, "/backfills", &[], &args.page).await?;
    let (left, right) = (Align::Left, Align::Right);
    let columns = [
        ("ID", right),
        ("WEBHOOK", left),
        ("TABLE", left),
        ("STATE", left),
        ("ROWS", right),
        ("ABOUT", right),
        ("DELIVERIES", right),
        ("WHERE", left),
        ("REASON", left),
    ];
    show(&list, &args.page, &columns, |one| {
        let (schema, table) = (cell(one, "schema"), cell(one, "table"));
        vec![
            cell(one, "id"),
            cell(one, "webhook"),
            if schema == "public" { table } else { format!("{schema}.{table}") },
            cell(one, "status"),
            cell(one, "rows_done"),
            cell(one, "estimate"),
            cell(one, "deliveries"),
            cut(&cell(one, "condition"), SHOWN_CHARS),
            cut(&cell(one, "reason"), SHOWN_CHARS),
        ]
    });
    Ok(ExitCode::SUCCESS)
}

/// Pauses, resumes or ends one: of whichever webhook it is.
async fn steer(caller: &Caller, id: i64, verb: &str, as_json: bool) -> Result<ExitCode, Failure> {
    let before = caller.get(&format!("/backfills/{id}")).await?.document;
    let path = format!("/webhooks/{}/backfill/{id}/{verb}", part(&cell(&before, "webhook")));
    let now = caller.post(&path, None).await?;
    if as_json {
        print::line(&now.to_string());
    } else {
        tell(&now);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(now: &Value) {
    let (id, status) = (cell(now, "id"), cell(now, "status"));
    print::line(&print::plain(&format!("backfill {id} is {status}, {}", progress_in(now))));
}

async fn begin(args: &BackfillArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    let webhook = args.webhook.clone().unwrap_or_default();
    let since = args.since.as_ref().map(|(column, time)| json!({ "column": column, "time": time }));
    let document = json!({
        "table": args.table, "since": since, "condition": args.condition, "rows_per_second": args.rate,
    });
    let path = format!("/webhooks/{}/backfill", part(&webhook));
    let made = caller.post(&path, Some(&document)).await?;
    let (id, is_running) = (cell(&made, "id"), made.get("running").and_then(Value::as_bool) == Some(true));
    let table = args.table.as_deref().unwrap_or_default();
    if !args.page.json {
        let told = format!("backfill {id}: rows of {table} go to {webhook} as {}", cell(&made, "event"));
        print::line(&print::plain(&told));
    }
    if !is_running {
        print::note("no walhook is running: it begins when one does");
    }
    if args.detach || !is_running {
        if args.page.json {
            print::line(&made.to_string());
        }
        return Ok(ExitCode::SUCCESS);
    }
    follow(args, caller, &id).await
}

/// Shows progress until it is over; leaving it does not end it.
async fn follow(args: &BackfillArgs, caller: &Caller, id: &str) -> Result<ExitCode, Failure> {
    let shown = io::stderr().is_terminal() && !args.page.json;
    if shown {
        print::note("Ctrl-C leaves it running; `walhook backfill --list` shows how far it is");
    }
    loop {
        let now = caller.get(&format!("/backfills/{id}")).await?.document;
        let status = cell(&now, "status");
        if shown {
            print::progress(&format!("{}: {}   ", print::plain(&status), progress_in(&now)));
        }
        if !matches!(&*status, "pending" | "running") {
            if shown {
                print::note("");
            }
            if args.page.json {
                print::line(&now.to_string());
            } else {
                tell(&now);
            }
            if let Some(reason) = now.get("reason").and_then(Value::as_str) {
                print::error(&print::plain(reason));
            }
            return Ok(if status == "done" { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// `120 of about 5000 rows, 118 deliveries`.
pub(super) fn progress(now: &Backfill) -> String {
    let estimate = now.estimate.filter(|_| now.status != BackfillStatus::Done);
    in_words(now.rows_done, estimate, now.deliveries, now.rows_moving)
}

fn progress_in(now: &Value) -> String {
    let number = |field| now.get(field).and_then(Value::as_i64);
    let some = |field| number(field).unwrap_or_default();
    let estimate = number("estimate").filter(|_| cell(now, "status") != "done");
    in_words(some("rows_done"), estimate, some("deliveries"), some("rows_moving"))
}

fn in_words(rows: i64, estimate: Option<i64>, deliveries: i64, moving: i64) -> String {
    let of = estimate.map(|estimate| format!(" of about {estimate}")).unwrap_or_default();
    let moving = if moving > 0 {
        format!(", {moving} that would not stand still left to their changes")
    } else {
        String::new()
    };
    format!("{rows}{of} rows, {deliveries} deliveries{moving}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_and_rate_are_read_or_refused_with_an_example() {
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(since("created_at=2026-01-31"), pair("created_at", "2026-01-31"));
        assert_eq!(since("at>=2026-01-31 10:00+02"), pair("at", "2026-01-31 10:00+02"));
        for wrong in ["created_at", "=x", "x=", ""] {
            assert!(since(wrong).unwrap_err().contains("created_at=2026-01-31"), "{wrong}");
        }
        assert_eq!((rate("500/s"), rate("7")), (Ok(500), Ok(7)));
        for wrong in ["0", "-1/s", "fast", "1/m", "2000000"] {
            assert!(rate(wrong).unwrap_err().contains("500/s"), "{wrong}");
        }
    }
}
