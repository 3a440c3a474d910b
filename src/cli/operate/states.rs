//! `walhook enable` (or `resume`), `walhook pause`, `walhook disable`.

use std::process::ExitCode;

use clap::Args;

use super::super::print;
use super::Here;
use crate::control::states::{Wish, set};
use crate::control::{Actor, ControlError};

#[derive(Debug, Args)]
pub(in crate::cli) struct EnableArgs {
    /// The webhook's name
    webhook: String,
    /// Cancel what was held, instead of sending it
    #[arg(long)]
    cancel_held: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SuspendArgs {
    /// The webhook's name
    webhook: String,
    /// Why, for whoever looks at its status
    #[arg(long, default_value = "by hand")]
    reason: String,
}

pub(super) async fn enable(args: &EnableArgs, here: &Here) -> Result<ExitCode, ControlError> {
    let wish = if args.cancel_held { Wish::EnableAnew } else { Wish::Enable };
    let done = set(&here.desk(), &Actor::command_line(), &args.webhook, &wish).await?;
    let what = match (done.changed, args.cancel_held) {
        (true, false) => "is active again; what was held goes out".to_owned(),
        (true, true) => format!("is active again; {} held deliveries were cancelled", done.cancelled),
        (false, _) if done.cancelled > 0 => {
            format!("was active already; {} held deliveries were cancelled", done.cancelled)
        }
        (false, _) => "was active already".to_owned(),
    };
    print::line(&format!("{} {what}", args.webhook));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn pause(args: &SuspendArgs, here: &Here) -> Result<ExitCode, ControlError> {
    suspend(args, here, &Wish::Pause(args.reason.clone()), "paused").await
}

pub(super) async fn disable(args: &SuspendArgs, here: &Here) -> Result<ExitCode, ControlError> {
    suspend(args, here, &Wish::Disable(args.reason.clone()), "disabled").await
}

async fn suspend(
    args: &SuspendArgs,
    here: &Here,
    wish: &Wish,
    state: &str,
) -> Result<ExitCode, ControlError> {
    let changed = set(&here.desk(), &Actor::command_line(), &args.webhook, wish).await?.changed;
    let webhook = &args.webhook;
    let text = if changed {
        format!("{webhook} is {state}; what it is owed is held until `walhook enable {webhook}`")
    } else {
        format!("{webhook} was {state} already; the reason is now \"{}\"", print::plain(&args.reason))
    };
    print::line(&text);
    Ok(ExitCode::SUCCESS)
}
