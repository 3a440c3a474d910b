//! `walhook retry`.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::Args;

use super::super::print;
use super::Here;
use super::ask::{Answer, ask};
use crate::control::ControlError;
use crate::control::retry::{Target, count};

#[derive(Debug, Args)]
pub(in crate::cli) struct RetryArgs {
    /// A webhook's name, or a delivery's id (dlv_…)
    #[arg(value_name = "WEBHOOK|DELIVERY")]
    target: String,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(args: &RetryArgs, here: &Here) -> Result<ExitCode, ControlError> {
    let counted = count(&here.config, &here.places, Target::of(&args.target)).await?;
    let (count, target) = (counted.count, &args.target);
    if count == 0 {
        print::line(&format!("{target} has no failed deliveries that can be sent again"));
        return Ok(ExitCode::SUCCESS);
    }
    let what = if count == 1 { "1 failed delivery".to_owned() } else { format!("{count} failed deliveries") };
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
    let sent = counted
        .send_again(|so_far| {
            if shown {
                print::progress(&format!("{so_far} of {count}"));
            }
        })
        .await?;
    if shown {
        print::progress("");
    }
    let (are, them) = if sent == 1 { ("delivery is", "it") } else { ("deliveries are", "them") };
    print::line(&format!("{sent} {are} on the way again; `walhook status` shows what becomes of {them}"));
    Ok(ExitCode::SUCCESS)
}
