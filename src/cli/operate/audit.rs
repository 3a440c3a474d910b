//! `walhook audit`: who did what, as the API tells it.

use std::process::ExitCode;

use clap::Args;

use super::call::{Caller, Failure, PageArgs, Reach, cell, gather, moment, show};
use super::table::Align;

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditArgs {
    /// What was done to this: a webhook's name, a delivery's or a key's id
    #[arg(long, value_name = "NAME")]
    object: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    pub reach: Reach,
}

pub(super) async fn run(args: &AuditArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    let query = [("object", args.object.clone())];
    let list = gather(caller, "/audit", &query, &args.page).await?;
    let columns = ["AT (UTC)", "BY", "WHO", "DID", "TO", "FROM"].map(|name| (name, Align::Left));
    show(&list, &args.page, &columns, |entry| {
        vec![
            moment(entry, "at"),
            cell(entry, "actor_kind"),
            cell(entry, "actor"),
            cell(entry, "action"),
            cell(entry, "object"),
            cell(entry, "from_address"),
        ]
    });
    Ok(ExitCode::SUCCESS)
}
