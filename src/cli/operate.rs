//! The operator's verbs: arguments in, [`crate::control`], words out. What the API does as well is asked as the API is: [`call`].

mod ask;
mod audit;
mod backfill;
mod call;
mod check;
mod deliveries;
mod events;
mod keys;
mod render;
mod retry;
mod secrets;
mod states;
mod stats;
mod status;
mod table;
mod templates;
mod trigger;
mod uninstall;
mod webhooks;

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use self::call::{Caller, Failure, Reach};
use super::print;
use crate::clock::Clock;
use crate::config::{Config, Sources};
use crate::control::{self, ControlError, Desk, Given, Places};
use crate::domain::limits;

/// The operator's verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Operate {
    /// Validate file, database, privileges, replica identities and receivers: every problem with its remedy
    #[command(after_help = "Example:\n  walhook check --config walhook.toml")]
    Check(check::CheckArgs),
    /// Show the slot's lag, the backlog, and how each webhook stands
    #[command(after_help = "Example:\n  walhook status --watch")]
    Status(status::StatusArgs),
    /// Show success rates, latencies and the share delivered in time: of all webhooks, or of one
    #[command(after_help = "Example:\n  walhook stats --since 24h\n  walhook stats crm")]
    Stats(stats::StatsArgs),
    /// Send failed deliveries again: all of a webhook, or one
    #[command(after_help = "Example:\n  walhook retry crm --dry-run\n  walhook retry crm")]
    Retry(Box<retry::RetryArgs>),
    /// Send to a webhook again, first what is held
    #[command(
        visible_alias = "resume",
        after_help = "Example:\n  walhook enable crm\n  walhook resume crm --cancel-held"
    )]
    Enable(states::EnableArgs),
    /// Hold a webhook's deliveries for a while
    #[command(after_help = "Example:\n  walhook pause crm --reason 'maintenance until noon'")]
    Pause(states::SuspendArgs),
    /// Hold a webhook's deliveries until further notice
    #[command(after_help = "Example:\n  walhook disable crm --reason 'contract ended'")]
    Disable(states::SuspendArgs),
    /// List, declare, change, switch and try webhooks; rotate or reveal what they sign with
    #[command(after_help = "Example:\n  walhook webhooks list\n  \
                            walhook webhooks create crm --url https://crm.example.com/hooks --events 'orders.*'")]
    Webhooks(Box<webhooks::WebhooksArgs>),
    /// Search deliveries, see one with its attempts, send it again, cancel it
    #[command(after_help = "Example:\n  walhook deliveries list --status failed --since 2h")]
    Deliveries(Box<deliveries::DeliveriesArgs>),
    /// Show who did what, newest first
    #[command(after_help = "Example:\n  walhook audit --object crm\n  walhook audit --limit 200 --json")]
    Audit(Box<audit::AuditArgs>),
    /// Show the event types that exist, or one with its JSON Schema and a sample
    #[command(after_help = "Example:\n  walhook events\n  walhook events orders.created")]
    Events(events::EventsArgs),
    /// Show the templates with their versions; keep them in the database, try one, remove one
    #[command(after_help = "Example:\n  walhook templates\n  walhook templates slack\n  \
                            walhook templates create slack --file slack.hbs")]
    Templates(Box<templates::TemplatesArgs>),
    /// Make secrets, and encrypt those in the database
    #[command(after_help = "Example:\n  walhook secrets new\n  walhook secrets encrypt")]
    Secrets(secrets::SecretsArgs),
    /// Send a sample event, or a given one, through the real path
    #[command(after_help = "Example:\n  walhook trigger crm order.created\n  \
                      echo '{\"record\": {\"id\": 7}}' | walhook trigger crm order.created --data -")]
    Trigger(trigger::TriggerArgs),
    /// Show what a format or a template makes of an event: a sample, a file's, or a real row
    #[command(after_help = "Example:\n  walhook render --template slack --data event.json\n  \
                      walhook render --format cloudevents\n  walhook render --template slack --row orders:7")]
    Render(render::RenderArgs),
    /// Deliver the rows that a table has already, as snapshot events
    #[command(
        after_help = "Example:\n  walhook backfill crm --table orders --where \"status = 'paid'\" --rate 500/s\n  \
                      walhook backfill crm --table orders --since created_at=2026-01-01\n  walhook backfill pause 3"
    )]
    Backfill(Box<backfill::BackfillArgs>),
    /// Make, list and revoke keys of the HTTP API
    #[command(after_help = "Example:\n  walhook keys create dashboard --scope webhook:read --expires 90d")]
    Keys(keys::KeysArgs),
    /// Drop the slot, the publications and the schema, after saying what goes
    #[command(after_help = "Example:\n  walhook uninstall")]
    Uninstall(uninstall::UninstallArgs),
}

/// Runs one, and answers the exit code.
pub(super) async fn operate(verb: Operate, sources: Sources) -> Result<ExitCode, ControlError> {
    let clock = Clock::system();
    match verb {
        Operate::Check(args) => Ok(check::run(&args, &sources, &clock).await),
        Operate::Render(args) => render::run(&args, &sources, &clock).await,
        Operate::Webhooks(_)
        | Operate::Deliveries(_)
        | Operate::Audit(_)
        | Operate::Events(_)
        | Operate::Templates(_)
        | Operate::Stats(_)
        | Operate::Retry(_)
        | Operate::Backfill(_)
        | Operate::Keys(_) => Ok(match by_api(&verb, &sources, &clock).await {
            Ok(code) => code,
            Err(failure) => {
                print::error(&failure.to_string());
                ExitCode::FAILURE
            }
        }),
        Operate::Secrets(secrets::SecretsArgs { verb: secrets::Verb::New(args) }) => secrets::new(&args),
        other => {
            let config = control::load_config(&sources)?;
            let here = Here { places: Places::of(&config)?, config, clock };
            match other {
                Operate::Status(args) => status::run(&args, &here).await,
                Operate::Enable(args) => states::enable(&args, &here).await,
                Operate::Pause(args) => states::pause(&args, &here).await,
                Operate::Disable(args) => states::disable(&args, &here).await,
                Operate::Secrets(args) => secrets::run(&args, &here).await,
                Operate::Trigger(args) => trigger::run(&args, &here).await,
                Operate::Uninstall(args) => uninstall::run(&args, &here).await,
                _ => Ok(ExitCode::SUCCESS),
            }
        }
    }
}

/// Runs one of those that ask as the API is asked.
async fn by_api(verb: &Operate, sources: &Sources, clock: &Clock) -> Result<ExitCode, Failure> {
    let caller = async |reach: &Reach| Caller::of(reach, sources, clock).await;
    match verb {
        Operate::Webhooks(args) => webhooks::run(args, &caller(&args.reach).await?, clock).await,
        Operate::Deliveries(args) => deliveries::run(args, &caller(&args.reach).await?, clock).await,
        Operate::Audit(args) => audit::run(args, &caller(&args.reach).await?, clock).await,
        Operate::Events(args) => events::run(args, &caller(&args.reach).await?).await,
        Operate::Templates(args) => templates::run(args, &caller(&args.reach).await?).await,
        Operate::Stats(args) => stats::run(args, &caller(&args.reach).await?, clock).await,
        Operate::Retry(args) => retry::run(args, &caller(&args.reach).await?, clock).await,
        Operate::Backfill(args) => backfill::run(args, &caller(&args.reach).await?).await,
        Operate::Keys(args) => keys::run(args, &caller(&args.reach).await?, clock).await,
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// What most verbs work on.
struct Here {
    config: Config,
    places: Places,
    clock: Clock,
}

impl Here {
    /// What the verbs that edit work with.
    fn desk(&self) -> Desk {
        Desk::of(self.config.clone(), self.places.clone(), self.clock.clone())
    }
}

/// An event's data from a file; `-` is standard input.
fn given(path: Option<&PathBuf>) -> Result<Option<Given>, ControlError> {
    let Some(path) = path else { return Ok(None) };
    let most = u64::try_from(limits::FRAME_BYTES).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(most).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut text))
    };
    read.map_err(|source| ControlError::Input { path: path.display().to_string(), source })?;
    Given::parse(&text).map(Some)
}
