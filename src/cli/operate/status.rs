//! `walhook status`.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::super::print;
use super::Here;
use super::backfill::progress;
use super::stats::{oldest, percent, took};
use super::table::{Align, bytes, cut, span, table};
use crate::clock::since;
use crate::control::status::SlotStatus;
use crate::control::{ControlError, Status, status};

const EVERY: Duration = Duration::from_secs(1);
/// How much of an error is shown in the table.
const ERROR_CHARS: usize = 60;
/// Home, and everything after it is cleared.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Show it anew every second
    #[arg(long)]
    watch: bool,
    /// Print one JSON object (with --watch: one a line)
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &StatusArgs, here: &Here) -> Result<ExitCode, ControlError> {
    loop {
        let status = status(&here.config, &here.places, &here.clock).await?;
        let text = if args.json {
            serde_json::json!(status).to_string()
        } else {
            let clear = if args.watch && io::stdout().is_terminal() { CLEAR } else { "" };
            format!("{clear}{}", lines(&status, here.clock.now()).join("\n"))
        };
        let heard = print::line(&text);
        if !(args.watch && heard) {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn lines(status: &Status, now: jiff::Timestamp) -> Vec<String> {
    let mut lines = vec![
        format!("database  {}", status.database),
        format!("slot      {}: {}", status.slot, slot(status.slot_state.as_ref())),
    ];
    if let Some(holder) = &status.holder {
        lines.push(format!(
            "held by   {} since {:.0} (slot number {}, taken over {} times)",
            print::plain(&holder.holder),
            holder.held_since,
            holder.generation,
            holder.epoch
        ));
    }
    for standby in &status.standbys {
        let from = standby.address.as_ref().map(|address| format!(" from {address}")).unwrap_or_default();
        let since = standby.since.map(|since| format!(" since {since:.0}")).unwrap_or_default();
        lines.push(format!("standby   {}{from}{since}", print::plain(&standby.instance)));
    }
    for gap in &status.gaps {
        lines.push(format!("gap       {gap}, noticed {:.0}", gap.noticed_at));
    }
    for backfill in &status.backfills {
        lines.push(format!(
            "backfill  {}: {} of {} to {}, {}",
            backfill.id,
            backfill.status.as_str(),
            print::plain(&backfill.table),
            print::plain(&backfill.webhook),
            progress(backfill)
        ));
    }
    lines.push(String::new());
    lines.extend(webhooks(status, now));
    for webhook in status.webhooks.iter().filter(|webhook| webhook.reason.is_some()) {
        let when = webhook.since.map(|since| format!(" since {since:.0}")).unwrap_or_default();
        let reason = print::plain(webhook.reason.as_deref().unwrap_or_default());
        lines.push(format!("{} is {}{when}: {reason}", webhook.name, webhook.state));
    }
    if !status.suggestions.is_empty() {
        lines.push(String::new());
        lines.extend(status.suggestions.iter().cloned());
    }
    lines
}

fn slot(slot: Option<&SlotStatus>) -> String {
    let Some(slot) = slot else { return "not there".to_owned() };
    let by =
        slot.active_pid.map_or_else(|| "nobody streams".to_owned(), |pid| format!("streaming (PID {pid})"));
    let safe = slot
        .safe_wal_bytes
        .map(|left| format!(", {} left before it is lost", bytes(u64::try_from(left).unwrap_or(0))));
    let seconds = Some(slot.lag_seconds).filter(|seconds| *seconds > 0);
    let seconds = seconds.map(|seconds| format!(" and {}", span(seconds))).unwrap_or_default();
    format!(
        "{by}, {}{seconds} behind at {}, {} of WAL kept ({}{})",
        bytes(slot.lag_bytes),
        slot.confirmed_lsn,
        bytes(slot.retained_bytes),
        slot.wal_status,
        safe.unwrap_or_default()
    )
}

fn webhooks(status: &Status, now: jiff::Timestamp) -> Vec<String> {
    if status.webhooks.is_empty() {
        return vec!["no webhook is declared".to_owned()];
    }
    let columns = [
        ("WEBHOOK", Align::Left),
        ("STATE", Align::Left),
        ("PENDING", Align::Right),
        ("RETRYING", Align::Right),
        ("HELD", Align::Right),
        ("FAILED", Align::Right),
        ("OLDEST", Align::Left),
        ("1H OK", Align::Right),
        ("1H P99", Align::Right),
        ("LAST ERROR", Align::Left),
    ];
    let row = |webhook: &crate::control::status::WebhookStatus| {
        let more = if webhook.more { "+" } else { "" };
        let count = |count: i64| format!("{count}{}", if count > 0 { more } else { "" });
        let state = if webhook.declared == "nowhere" { "not declared" } else { webhook.state };
        let ago = webhook.last_error_at.map(|at| format!(", {} ago", span(since(now, at).as_secs())));
        let error = webhook.last_error.as_deref().map(|error| cut(error, ERROR_CHARS));
        vec![
            webhook.name.clone(),
            state.to_owned(),
            count(webhook.pending),
            count(webhook.retrying),
            count(webhook.held),
            count(webhook.failed),
            oldest(&webhook.waiting),
            percent(webhook.last_hour.as_ref().and_then(|hour| hour.success_rate)),
            took(webhook.last_hour.as_ref().and_then(|hour| hour.receipt_p99_seconds)),
            error.map_or_else(|| "-".to_owned(), |error| format!("{error}{}", ago.unwrap_or_default())),
        ]
    };
    let rows: Vec<Vec<String>> = status.webhooks.iter().map(row).collect();
    table(&columns, &rows)
}
