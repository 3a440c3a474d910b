//! `walhook enable`, `walhook pause`, `walhook disable`.

use std::process::ExitCode;

use clap::Args;

use super::super::print;
use super::Here;
use crate::control::ControlError;
use crate::control::states::{Wish, set};

#[derive(Debug, Args)]
pub(in crate::cli) struct EnableArgs {
    /// The webhook's name
    webhook: String,
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
    let changed = set(&here.config, &here.places, &args.webhook, &Wish::Enable).await?;
    let what = if changed { "is active again; what was held goes out" } else { "was active already" };
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
    let changed = set(&here.config, &here.places, &args.webhook, wish).await?;
    let webhook = &args.webhook;
    let text = if changed {
        format!("{webhook} is {state}; what it is owed is held until `walhook enable {webhook}`")
    } else {
        format!("{webhook} was {state} already; the reason is now \"{}\"", print::plain(&args.reason))
    };
    print::line(&text);
    Ok(ExitCode::SUCCESS)
}
