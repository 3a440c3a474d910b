//! `walhook retry`.

use std::io::{self, IsTerminal as _};
use std::num::NonZeroU32;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::super::print;
use super::Here;
use super::ask::{Answer, ask};
use crate::control::retry::{self, Target, Wish, count};
use crate::control::{Actor, ControlError};
use crate::ledger::replay::{Cause, Ended};

#[derive(Debug, Args)]
pub(in crate::cli) struct RetryArgs {
    /// A webhook's name, or a delivery's id (dlv_…)
    #[arg(value_name = "WEBHOOK|DELIVERY")]
    target: String,
    /// How they ended; what was delivered is sent only where this says so [default: failed]
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<Status>,
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
    error: Option<Cause>,
    /// At most so many a second, such as 100/s
    #[arg(long, value_name = "COUNT/s", value_parser = rate)]
    rate: Option<NonZeroU32>,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    Failed,
    Delivered,
    Cancelled,
}

/// A moment as it was typed.
#[derive(Debug, Clone)]
pub(super) enum When {
    At(Timestamp),
    Ago(Span),
}

impl When {
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

fn cause(text: &str) -> Result<Cause, String> {
    retry::cause(text).ok_or_else(|| {
        "expected timeout, unreachable, refused, a status such as 503, or a class such as 5xx".to_owned()
    })
}

fn rate(text: &str) -> Result<NonZeroU32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    number.parse().map_err(|_| "expected deliveries a second, such as 100/s".to_owned())
}

impl RetryArgs {
    fn wish(&self, now: Timestamp) -> Wish {
        let ended = |status: &Status| match status {
            Status::Failed => Ended::Failed,
            Status::Delivered => Ended::Delivered,
            Status::Cancelled => Ended::Cancelled,
        };
        Wish {
            target: Target::of(&self.target),
            ended: self.status.iter().map(ended).collect(),
            event: self.event.clone(),
            since: self.since.as_ref().map(|when| when.at(now)),
            until: self.until.as_ref().map(|when| when.at(now)),
            cause: self.error,
        }
    }

    /// What they are called: `failed`, `failed or delivered`.
    fn kinds(&self) -> String {
        let word = |status: &Status| match status {
            Status::Failed => "failed",
            Status::Delivered => "delivered",
            Status::Cancelled => "cancelled",
        };
        let words: Vec<_> = self.status.iter().map(word).collect();
        if words.is_empty() { "failed".to_owned() } else { words.join(" or ") }
    }
}

pub(super) async fn run(args: &RetryArgs, here: &Here) -> Result<ExitCode, ControlError> {
    let mut counted = count(&here.config, &here.places, &args.wish(here.clock.now())).await?;
    let (count, target, kinds) = (counted.count, &args.target, args.kinds());
    if count == 0 {
        print::line(&format!("{target} has no {kinds} deliveries that can be sent again"));
        return Ok(ExitCode::SUCCESS);
    }
    let what = if count == 1 { format!("1 {kinds} delivery") } else { format!("{count} {kinds} deliveries") };
    if let Some((state, reason)) = &counted.suspended {
        let reason = print::plain(reason);
        print::note(&format!(
            "{target} is {state} ({reason}): they are held until `walhook enable {target}`"
        ));
    }
    if !counted.declared {
        print::note(&format!("{target} is declared nowhere any more: they wait for its return"));
    }
    if args.dry_run {
        print::line(&format!("{what} would be sent again"));
        return Ok(ExitCode::SUCCESS);
    }
    // Without a terminal whoever typed this meant it: nothing is lost by sending again.
    if count > 1 && !args.yes && ask(&format!("Send {what} again?")) == Answer::No {
        print::line("nothing was sent");
        return Ok(ExitCode::FAILURE);
    }
    let shown = io::stderr().is_terminal();
    let mut sent = 0;
    let actor = Actor::command_line();
    let sending = counted.send_again(&actor, args.rate, |so_far| {
        sent = so_far;
        if shown {
            print::progress(&format!("{so_far} of {count}"));
        }
    });
    let stopped = tokio::select! {
        done = sending => { done?; false }
        _ = tokio::signal::ctrl_c() => true,
    };
    if shown {
        print::progress("");
    }
    let (are, them) = if sent == 1 { ("delivery is", "it") } else { ("deliveries are", "them") };
    print::line(&format!("{sent} {are} on the way again; `walhook status` shows what becomes of {them}"));
    if stopped {
        print::note(&format!(
            "stopped; {} are as they were, and the same command goes on with them",
            count - sent
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
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
        assert_eq!(cause("timeout"), Ok(Cause::TimedOut));
        assert_eq!(cause("503"), Ok(Cause::Answered(503, 503)));
        assert_eq!(cause("4xx"), Ok(Cause::Answered(400, 499)));
        for wrong in ["", "xx", "9xx", "99", "600", "5x", "tls", "é"] {
            assert!(cause(wrong).is_err(), "{wrong}");
        }
    }
}
