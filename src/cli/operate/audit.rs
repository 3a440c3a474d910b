//! `walhook audit`: who did what, as the API tells it.

use std::process::ExitCode;

use clap::Args;

use super::call::{Caller, Failure, PageArgs, Reach, cell, gather, moment, show};
use super::retry::{When, when};
use super::table::Align;
use crate::clock::Clock;

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditArgs {
    /// What was done to this: a webhook's name, a delivery's or a key's id
    #[arg(long, value_name = "NAME")]
    object: Option<String>,
    /// What was done, with * for any run of characters: webhook.*
    #[arg(long, value_name = "PATTERN")]
    action: Option<String>,
    /// By whom, with * for any run of characters: the name and id of a key, a role of the database
    #[arg(long, value_name = "PATTERN")]
    actor: Option<String>,
    /// How they came: command, admin, key, walhook
    #[arg(long, value_name = "KIND")]
    actor_kind: Option<String>,
    /// Then or later: 2026-01-31T08:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Before
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    pub reach: Reach,
}

pub(super) async fn run(args: &AuditArgs, caller: &Caller, clock: &Clock) -> Result<ExitCode, Failure> {
    let time = |when: &Option<When>| when.as_ref().map(|when| when.at(clock.now()).to_string());
    let query = [
        ("object", args.object.clone()),
        ("action", args.action.clone()),
        ("actor", args.actor.clone()),
        ("actor_kind", args.actor_kind.clone()),
        ("since", time(&args.since)),
        ("until", time(&args.until)),
    ];
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
