//! `walhook trigger`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::super::print;
use super::{Here, given};
use crate::control::{Actor, ControlError, RowName, given_row, trigger};
use crate::ledger::query::Standing;

#[derive(Debug, Args)]
pub(in crate::cli) struct TriggerArgs {
    /// The webhook's name
    webhook: String,
    /// The event's type, such as order.created
    event: String,
    /// JSON with "record" and, as you like, "old", …; - is standard input [default: a sample from the table's columns]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// A real row instead: TABLE for the last by its primary key, or TABLE:KEY
    #[arg(long, value_name = "TABLE[:KEY]", conflicts_with = "data")]
    row: Option<RowName>,
}

pub(super) async fn run(args: &TriggerArgs, here: &Here) -> Result<ExitCode, ControlError> {
    let data = match &args.row {
        Some(row) => Some(given_row(&here.config, &here.places, row, Some(&args.webhook)).await?.as_test()),
        None => given(args.data.as_ref())?,
    };
    let triggered =
        trigger(&here.desk(), &Actor::command_line(), &args.webhook, Some(&args.event), data).await?;
    if !triggered.subscribed {
        print::note(&format!(
            "{} does not subscribe to {}; it is sent all the same",
            args.webhook, args.event
        ));
    }
    print::note(&format!("{} is on its way to {}", triggered.id, args.webhook));
    let Some(standing) = triggered.outcome().await? else {
        print::line("it has not been tried in time; `walhook status` shows what is in its way");
        return Ok(ExitCode::FAILURE);
    };
    print::line(&words(&standing));
    let is_delivered = standing.status == "delivered";
    Ok(if is_delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn words(standing: &Standing) -> String {
    let status = standing.http_status.map(|status| format!("HTTP {status}"));
    let why = standing.error.as_deref().map(print::plain).or(status).unwrap_or_default();
    let attempts = if standing.attempts == 1 {
        "1 attempt".to_owned()
    } else {
        format!("{} attempts", standing.attempts)
    };
    match &*standing.status {
        "delivered" => format!("delivered: {why}, {attempts}"),
        "retrying" => format!("the first attempt failed: {why}; it is retried on the webhook's schedule"),
        other => format!("{other}: {why}, {attempts}"),
    }
}
