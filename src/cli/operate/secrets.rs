//! `walhook secrets new`, `walhook secrets status`, `walhook secrets encrypt`.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use secrecy::ExposeSecret as _;

use super::super::print;
use super::Here;
use super::table::{Align, table};
use crate::catalog::Standing;
use crate::control::ControlError;
use crate::control::secrets::{Overview, RowSecrets, encrypt, overview};
use crate::ledger::audit::Actor;
use crate::ledger::secrets::COLUMNS;
use crate::sign::{Shape, new_secret, public_half};

#[derive(Debug, Args)]
pub(in crate::cli) struct SecretsArgs {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Verb {
    /// Print a new secret (whsec_) for a webhook and its receiver
    #[command(after_help = "Example:\n  walhook secrets new\n  walhook secrets new --ed25519")]
    New(NewArgs),
    /// Show which webhooks of the database hold secrets as plain text, under an older key, or unreadably
    #[command(after_help = "Example:\n  walhook secrets status")]
    Status {
        /// Print one JSON object, with every webhook that holds secrets
        #[arg(long)]
        json: bool,
    },
    /// Encrypt what the database holds of secrets with the first of its keys
    #[command(after_help = "Example:\n  walhook secrets encrypt")]
    Encrypt,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct NewArgs {
    /// A key pair instead: whsk_ for the webhook, whpk_ for its receiver
    #[arg(long)]
    ed25519: bool,
}

/// Needs neither file nor database.
pub(super) fn new(args: &NewArgs) -> Result<ExitCode, ControlError> {
    let shape = if args.ed25519 { Shape::Ed25519 } else { Shape::Shared };
    let secret = new_secret(shape)?;
    print::line(secret.expose_secret());
    if let Some(public) = public_half(&secret) {
        print::line(&public);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn run(args: &SecretsArgs, here: &Here) -> Result<ExitCode, ControlError> {
    match &args.verb {
        Verb::New(args) => new(args),
        Verb::Status { json } => {
            let overview = overview(&here.config, &here.places).await?;
            let text =
                if *json { serde_json::json!(overview).to_string() } else { lines(&overview).join("\n") };
            print::line(&text);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Encrypt => encrypted(here).await,
    }
}

fn lines(overview: &Overview) -> Vec<String> {
    let is_due = |row: &&RowSecrets| row.columns.values().any(|standing| *standing != Standing::Encrypted);
    let due: Vec<&RowSecrets> = overview.webhooks.iter().filter(is_due).collect();
    let keys = match overview.keys.as_slice() {
        [] => "security.encryption_key is not set".to_owned(),
        [only] => format!("key {only}"),
        [first, others @ ..] => format!("key {first}, older {}", others.join(", ")),
    };
    let all = overview.webhooks.len();
    let mut lines = vec![format!("{keys}: of {all} webhooks with secrets {} are encrypted", all - due.len())];
    if due.is_empty() {
        return lines;
    }
    let head = COLUMNS.map(str::to_uppercase);
    let mut columns = vec![("WEBHOOK", Align::Left)];
    columns.extend(head.iter().map(|name| (name.as_str(), Align::Left)));
    let row = |row: &&RowSecrets| {
        let cell = |column| row.columns.get(column).map_or("-", |standing| standing.as_str()).to_owned();
        std::iter::once(row.name.clone()).chain(COLUMNS.map(cell)).collect()
    };
    let rows: Vec<Vec<String>> = due.iter().map(row).collect();
    lines.push(String::new());
    lines.extend(table(&columns, &rows));
    lines
}

async fn encrypted(here: &Here) -> Result<ExitCode, ControlError> {
    let shown = io::stderr().is_terminal();
    let done = encrypt(&here.config, &here.places, &Actor::Command, |so_far| {
        if shown {
            print::progress(&format!("{so_far}"));
        }
    })
    .await?;
    if shown {
        print::progress("");
    }
    print::line(&match done.webhooks {
        0 => "nothing was to be encrypted".to_owned(),
        1 => "1 webhook's secrets are encrypted".to_owned(),
        count => format!("{count} webhooks' secrets are encrypted"),
    });
    for row in &done.unreadable {
        print::note(&format!("{} is as it was: {}", print::plain(&row.webhook), row.reason));
    }
    if done.written_meanwhile > 0 {
        let count = done.written_meanwhile;
        print::note(&format!(
            "{count} were being written at the same time; the same command goes on with them"
        ));
    }
    let is_whole = done.unreadable.is_empty() && done.written_meanwhile == 0;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
