//! `walhook webhooks`: what the API does with webhooks.

mod declare;
mod secrets;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::super::print;
use super::ask::{Answer, ask};
use super::call::{self, Caller, Failure, PageArgs, Reach, part};
use super::stats;
use crate::clock::Clock;
use declare::{CreateArgs, UpdateArgs};
pub(super) use declare::{json_of, text_of};

#[derive(Debug, Args)]
pub(in crate::cli) struct WebhooksArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    pub reach: Reach,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List webhooks, those of the file too, in the order of names
    #[command(after_help = "Example:\n  walhook webhooks list\n  walhook webhooks list --all --json")]
    List(PageArgs),
    /// Show one as it is declared, and how it stands; what is secret reads ***
    #[command(
        after_help = "Example:\n  walhook webhooks get crm\n  walhook webhooks get crm --json > crm.json"
    )]
    Get(OneArgs),
    /// Declare one in the database; where it is given no secret, one is made and shown this once
    #[command(
        after_help = "Example:\n  walhook webhooks create crm --url https://crm.example.com/hooks --events 'orders.*'\n  \
                            walhook webhooks create --file crm.toml"
    )]
    Create(Box<CreateArgs>),
    /// Change what is named, and leave the rest; or declare one anew
    #[command(after_help = "Example:\n  walhook webhooks update crm --filter 'record.total > 100'\n  \
                            walhook webhooks update crm --set timeout=30s --unset rate_limit\n  \
                            walhook webhooks update crm --replace --file crm.json")]
    Update(Box<UpdateArgs>),
    /// Remove one; what it is owed waits for its return
    #[command(after_help = "Example:\n  walhook webhooks delete crm --yes")]
    Delete(DeleteArgs),
    /// Send to one again, first what was held
    #[command(after_help = "Example:\n  walhook webhooks enable crm")]
    Enable(OneArgs),
    /// Send to a paused one again; a disabled one stays so
    #[command(after_help = "Example:\n  walhook webhooks resume crm")]
    Resume(OneArgs),
    /// Hold what it is owed until further notice
    #[command(after_help = "Example:\n  walhook webhooks disable crm --reason 'contract ended'")]
    Disable(SuspendArgs),
    /// Hold what it is owed for a while
    #[command(after_help = "Example:\n  walhook webhooks pause crm --reason 'maintenance until noon'")]
    Pause(SuspendArgs),
    /// Send a test event through the real path, and tell how its attempt went
    #[command(after_help = "Example:\n  walhook webhooks test crm\n  \
                            walhook webhooks test crm order.created --data event.json")]
    Test(TestArgs),
    /// Show success rates, latencies and the share delivered in time
    #[command(after_help = "Example:\n  walhook webhooks stats crm --since 24h")]
    Stats(stats::OneStatsArgs),
    /// Give a webhook of the database a new secret, shown this once; the one before it signs too for a while
    #[command(after_help = "Example:\n  walhook webhooks rotate crm --overlap 7d")]
    #[command(visible_alias = "rotate-secret")]
    Rotate(secrets::RotateArgs),
    /// Show what a webhook of the database signs with; needs admin, and that somebody asked is recorded in walhook.audit
    #[command(after_help = "Example:\n  walhook webhooks reveal crm")]
    #[command(visible_alias = "reveal-secret")]
    Reveal(OneArgs),
}

#[derive(Debug, Args)]
struct OneArgs {
    /// The webhook's name
    webhook: String,
    /// Print the API's document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// The webhook's name
    webhook: String,
    /// Only where it is still at this version
    #[arg(long, value_name = "NUMBER")]
    version: Option<i64>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
struct SuspendArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Why, for whoever looks at its status
    #[arg(long, default_value = "by hand")]
    reason: String,
}

#[derive(Debug, Args)]
struct TestArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The event's type [default: the first that the webhook subscribes to]
    event: Option<String>,
    /// JSON with "record" and, as you like, "old", …; - is standard input [default: a sample from the table's columns]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

pub(super) async fn run(args: &WebhooksArgs, caller: &Caller, clock: &Clock) -> Result<ExitCode, Failure> {
    match &args.verb {
        Verb::List(page) => show::list(caller, page).await?,
        Verb::Get(one) => {
            let document = caller.get(&path_of(&one.webhook)).await?.document;
            show::document(&document, one.json);
        }
        Verb::Create(args) => declare::create(args, caller).await?,
        Verb::Update(args) => declare::update(args, caller).await?,
        Verb::Delete(args) => return delete(args, caller).await,
        Verb::Enable(one) => switch(caller, one, "enable", None).await?,
        Verb::Resume(one) => switch(caller, one, "resume", None).await?,
        Verb::Disable(args) => switch(caller, &args.one, "disable", Some(&args.reason)).await?,
        Verb::Pause(args) => switch(caller, &args.one, "pause", Some(&args.reason)).await?,
        Verb::Test(args) => return test(args, caller).await,
        Verb::Stats(args) => return stats::of_one(args, caller, clock).await,
        Verb::Rotate(args) => secrets::rotated(args, caller).await?,
        Verb::Reveal(one) => secrets::revealed(one, caller).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `/webhooks/crm`
fn path_of(webhook: &str) -> String {
    format!("/webhooks/{}", part(webhook))
}

async fn delete(args: &DeleteArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    let name = print::plain(&args.webhook);
    // Without a terminal whoever typed this meant it.
    if !args.yes && ask(&format!("Remove {name}, and its secret with it?")) == Answer::No {
        print::line("nothing was removed");
        return Ok(ExitCode::FAILURE);
    }
    let expected = call::header("if-match", &declare::tag(args.version))?;
    caller.ask(Method::DELETE, &path_of(&args.webhook), expected, None).await?;
    print::line(&format!("{name} is removed; what it is owed waits for its return"));
    Ok(ExitCode::SUCCESS)
}

async fn switch(caller: &Caller, one: &OneArgs, verb: &str, reason: Option<&str>) -> Result<(), Failure> {
    let document = reason.map(|reason| json!({ "reason": reason }));
    let path = format!("{}/{verb}", path_of(&one.webhook));
    let now = caller.ask(Method::POST, &path, http::HeaderMap::new(), document.as_ref()).await?.document;
    if one.json {
        print::line(&now.to_string());
        return Ok(());
    }
    let status = now.get("status").and_then(Value::as_str).unwrap_or_default();
    let then = match reason {
        Some(_) => "what it is owed is held",
        None => "what was held goes out",
    };
    print::line(&print::plain(&format!("{} is {status}; {then}", one.webhook)));
    Ok(())
}

async fn test(args: &TestArgs, caller: &Caller) -> Result<ExitCode, Failure> {
    let mut document = Map::new();
    document.extend(args.event.as_deref().map(|event| ("event".to_owned(), event.into())));
    if let Some(path) = &args.data {
        document.insert("data".to_owned(), declare::json_of(path)?);
    }
    let path = format!("{}/test", path_of(&args.one.webhook));
    let tested =
        caller.ask(Method::POST, &path, http::HeaderMap::new(), Some(&document.into())).await?.document;
    let is_delivered = tested.get("status").and_then(Value::as_str) == Some("delivered");
    if args.one.json {
        print::line(&tested.to_string());
    } else {
        show::tested(&tested, &args.one.webhook);
    }
    Ok(if is_delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
