//! `walhook uninstall`.

use std::process::ExitCode;

use clap::Args;

use super::super::print;
use super::Here;
use super::ask::{Answer, ask};
use super::table::bytes;
use crate::control::uninstall::{Traces, look, remove};
use crate::control::{Actor, ControlError};

/// Wrong usage, as clap has it.
const USAGE: u8 = 2;

#[derive(Debug, Args)]
pub(in crate::cli) struct UninstallArgs {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(args: &UninstallArgs, here: &Here) -> Result<ExitCode, ControlError> {
    let traces = look(&here.config, &here.places).await?;
    if traces.is_empty() {
        print::line(&format!("nothing of walhook is in {}", here.places.database.display()));
        return Ok(ExitCode::SUCCESS);
    }
    for line in lines(&traces, &here.places.database.display()) {
        print::line(&line);
    }
    if let (Some((slot, _)), Some(pid)) = (&traces.slot, traces.streaming_pid) {
        return Err(ControlError::SlotBusy { slot: slot.clone(), pid });
    }
    if !args.yes {
        match ask("Drop all of this for good?") {
            Answer::Yes => {}
            Answer::No => {
                print::line("nothing was dropped");
                return Ok(ExitCode::FAILURE);
            }
            Answer::Nobody => {
                print::error("there is nobody to ask\n  hint: Say --yes to drop it without a question.");
                return Ok(ExitCode::from(USAGE));
            }
        }
    }
    let told = |what: &str| {
        print::line(&format!("dropped {what}"));
    };
    remove(&here.places, &Actor::command_line(), &traces, told).await?;
    Ok(ExitCode::SUCCESS)
}

fn lines(traces: &Traces, database: &str) -> Vec<String> {
    let mut lines = vec![format!("This goes from {database}:")];
    if let Some((slot, lag)) = &traces.slot {
        lines.push(format!(
            "  slot {slot}, {} behind: what it has not delivered is not delivered",
            bytes(*lag)
        ));
    }
    for publication in &traces.publications {
        lines.push(format!("  publication {publication}"));
    }
    if let Some((schema, held)) = &traces.schema {
        let held = held.map_or_else(String::new, |held| {
            format!(
                " with {} open, {} failed and about {} delivered deliveries, and {} webhooks",
                held.open, held.failed, held.delivered, held.webhooks
            )
        });
        lines.push(format!("  schema {schema}{held}"));
    }
    for publication in &traces.publications_that_stay {
        lines.push(format!(
            "It stays, because database.manage_publication is false: publication {publication}"
        ));
    }
    lines
}
