//! `walhook backfill`.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::super::print;
use super::Here;
use super::table::{Align, cut, table};
use crate::control::backfill::{Ask, Asked, ask, list, steer};
use crate::control::{Actor, ControlError};
use crate::ledger::backfills::{Backfill, BackfillStatus, Steer};

/// How often progress is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// How much of a condition or a reason is shown in the list.
const SHOWN_CHARS: usize = 50;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
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
    /// List the backfills, those that are not over first
    #[arg(long, conflicts_with_all = ["webhook", "table"])]
    list: bool,
    /// List them as a JSON array
    #[arg(long, conflicts_with_all = ["webhook", "table"])]
    json: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Stop one for a while
    #[command(after_help = "Example:\n  walhook backfill pause 3")]
    Pause {
        /// Its number
        id: i64,
    },
    /// Go on with one that is paused or has failed
    #[command(after_help = "Example:\n  walhook backfill resume 3")]
    Resume {
        /// Its number
        id: i64,
    },
    /// End one
    #[command(after_help = "Example:\n  walhook backfill cancel 3")]
    Cancel {
        /// Its number
        id: i64,
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

pub(super) async fn run(args: &BackfillArgs, here: &Here) -> Result<ExitCode, ControlError> {
    match &args.verb {
        None if args.list || args.json => {
            let all = list(&here.desk(), &Actor::command_line()).await?;
            if args.json {
                print::line(&serde_json::json!(all).to_string());
            } else {
                print::line(&lines(&all).join("\n"));
            }
            Ok(ExitCode::SUCCESS)
        }
        None => begin(args, here).await,
        Some(Verb::Pause { id }) => steered(here, *id, Steer::Pause).await,
        Some(Verb::Resume { id }) => steered(here, *id, Steer::Resume).await,
        Some(Verb::Cancel { id }) => steered(here, *id, Steer::Cancel).await,
    }
}

async fn steered(here: &Here, id: i64, what: Steer) -> Result<ExitCode, ControlError> {
    let now = steer(&here.desk(), &Actor::command_line(), (None, id), what).await?;
    print::line(&format!("backfill {id} is {}, {}", now.status.as_str(), progress(&now)));
    Ok(ExitCode::SUCCESS)
}

async fn begin(args: &BackfillArgs, here: &Here) -> Result<ExitCode, ControlError> {
    let wish = Ask {
        webhook: args.webhook.clone().unwrap_or_default(),
        table: args.table.clone().unwrap_or_default(),
        since: args.since.clone(),
        condition: args.condition.clone(),
        rows_per_second: args.rate,
    };
    let asked = ask(&here.desk(), &Actor::command_line(), &wish).await?;
    let id = asked.id;
    print::line(&format!(
        "backfill {id}: rows of {} go to {} as {}",
        wish.table, wish.webhook, asked.event_type
    ));
    if !asked.running {
        print::note("no walhook is running: it begins when one does");
    }
    if args.detach || !asked.running {
        return Ok(ExitCode::SUCCESS);
    }
    follow(&asked).await
}

/// Shows progress until it is over; leaving it does not end it.
async fn follow(asked: &Asked) -> Result<ExitCode, ControlError> {
    let shown = io::stderr().is_terminal();
    if shown {
        print::note("Ctrl-C leaves it running; `walhook backfill --list` shows how far it is");
    }
    loop {
        let now = asked.now().await?;
        if shown {
            print::progress(&format!("{}: {}   ", now.status.as_str(), progress(&now)));
        }
        if now.status.is_over() || now.status == BackfillStatus::Paused {
            if shown {
                print::note("");
            }
            print::line(&format!("backfill {} is {}, {}", asked.id, now.status.as_str(), progress(&now)));
            if let Some(reason) = &now.reason {
                print::error(reason);
            }
            let done = now.status == BackfillStatus::Done;
            return Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// `120 of about 5000 rows, 118 deliveries`.
pub(super) fn progress(now: &Backfill) -> String {
    let of = match now.estimate {
        Some(estimate) if now.status != BackfillStatus::Done => format!(" of about {estimate}"),
        _ => String::new(),
    };
    let moving = if now.rows_moving > 0 {
        format!(", {} that would not stand still left to their changes", now.rows_moving)
    } else {
        String::new()
    };
    format!("{}{of} rows, {} deliveries{moving}", now.rows_done, now.deliveries)
}

fn lines(all: &[Backfill]) -> Vec<String> {
    if all.is_empty() {
        return vec!["there are no backfills".to_owned()];
    }
    let columns = [
        ("ID", Align::Right),
        ("WEBHOOK", Align::Left),
        ("TABLE", Align::Left),
        ("STATE", Align::Left),
        ("ROWS", Align::Right),
        ("ABOUT", Align::Right),
        ("DELIVERIES", Align::Right),
        ("WHERE", Align::Left),
        ("REASON", Align::Left),
    ];
    let row = |one: &Backfill| {
        vec![
            one.id.to_string(),
            one.webhook.clone(),
            if one.schema == "public" { one.table.clone() } else { format!("{}.{}", one.schema, one.table) },
            one.status.as_str().to_owned(),
            one.rows_done.to_string(),
            one.estimate.map_or_else(String::new, |rows| rows.to_string()),
            one.deliveries.to_string(),
            cut(one.condition.as_deref().unwrap_or_default(), SHOWN_CHARS),
            cut(one.reason.as_deref().unwrap_or_default(), SHOWN_CHARS),
        ]
    };
    table(&columns, &all.iter().map(row).collect::<Vec<_>>())
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
