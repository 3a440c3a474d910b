//! Everything that could go wrong, looked at before it does: the file, the database, the tables, the receivers.
//! Changes nothing. It goes on past a problem wherever something is left to look at.
//!
//! | what is looked at | where |
//! | --- | --- |
//! | version, privileges, slot; in whose hands the server is | [`server`], [`managed`] |
//! | secrets that the database holds as plain text | [`secrets`] |
//! | settings that will hurt one day | [`settings`] |
//! | the ledger's schema | here |
//! | patterns, identities, the publications | [`tables`] |
//! | partitions, children, large values | [`traps`] |
//! | moves between partitions that are to be folded | [`moves`] |
//! | whether a change says whose row it is | [`tenants`] |
//! | what is named like a table and cannot be published | [`strangers`] |
//! | conditions and templates against the columns | `conditions`, [`templates`] |
//! | who is told of webhooks that fail | [`notices`] |
//! | receivers | [`receivers`] |
//!
//! An [`Error`](Severity::Error) is a problem: it does not work. A [`Warning`](Severity::Warning) works, perhaps not as
//! meant. A [`Hint`](Severity::Hint) is something to know or to improve. What is as it should be is told in a line.

mod managed;
mod moves;
mod notices;
mod receivers;
mod secrets;
mod server;
mod settings;
mod strangers;
mod tables;
mod templates;
mod tenants;
mod traps;

use serde::Serialize;

use super::{Places, load_config};
use crate::catalog::{self, Rows, Snapshot};
use crate::clock::Clock;
use crate::config::{Config, Sources};
use crate::domain::{Mask, TableRule};
use crate::ledger::LedgerError;
use crate::source::{SetupError, SourceError};

pub use tables::TableReport;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works; something to know, or to improve.
    Hint,
    /// It works, perhaps not as meant.
    Warning,
    /// It does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at: `file`, `database`, `slot`, `ledger`, `publication`, `tables`, `webhooks`, `conditions`,
    /// `templates`, `receivers`.
    pub about: &'static str,
    /// What was found.
    pub message: String,
    /// What is known beyond that.
    pub detail: Option<String>,
    /// The remedy.
    pub hint: Option<String>,
}

/// Everything that was looked at, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// What was found.
    pub findings: Vec<Finding>,
    /// The tables that webhooks want.
    pub tables: Vec<TableReport>,
}

impl Finding {
    pub(super) fn new(severity: Severity, about: &'static str, message: impl Into<String>) -> Self {
        Self { severity, about, message: message.into(), detail: None, hint: None }
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl CheckReport {
    /// How many findings are so bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    fn ok(&mut self, about: &'static str, message: impl Into<String>) {
        self.findings.push(Finding::new(Severity::Ok, about, message));
    }

    fn told(&mut self, severity: Severity, about: &'static str, told: Told) {
        let (message, detail, hint) = told;
        self.findings.push(Finding { severity, about, message, detail, hint });
    }

    fn error(&mut self, about: &'static str, told: Told) {
        self.told(Severity::Error, about, told);
    }
}

/// Primary, detail, hint.
type Told = (String, Option<String>, Option<String>);

fn setup(error: &SetupError) -> Told {
    (error.to_string(), error.detail(), error.hint())
}

fn link(error: &SourceError) -> Told {
    (error.to_string(), error.detail(), error.hint())
}

/// Looks at everything.
pub async fn check(sources: &Sources, clock: &Clock) -> CheckReport {
    let mut report = CheckReport::default();
    let config = match load_config(sources) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems.0 {
                let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
                let message = format!("{}: {key}{}", problem.place, problem.message);
                report.error("file", (message, problem.detail, problem.hint));
            }
            return report;
        }
    };
    let (webhooks, events) = (config.webhooks.len(), config.events.len());
    report.ok("file", format!("{}: {webhooks} webhooks, {events} events", config.path.display()));
    report.findings.extend(keyless_hashes(&config));
    let snapshot = match (Places::of(&config), catalog::compile_file(&config)) {
        (Ok(places), Ok(snapshot)) => database(&config, &places, snapshot, &mut report).await,
        (places, snapshot) => {
            if let Err(error) = places {
                report.error("file", (error.to_string(), error.detail(), error.hint()));
            }
            if let Err(error) = snapshot {
                report.error("file", (error, None, None));
            }
            return report;
        }
    };
    report.findings.extend(notices::nobody(&snapshot));
    receivers::receivers(&config, &snapshot, clock, &mut report).await;
    report
}

/// Columns whose hashes anybody can make too.
fn keyless_hashes(config: &Config) -> Option<Finding> {
    let hashed = |rule: &TableRule| {
        let names = rule.mask.iter().filter(|(_, mask)| *mask == Mask::Hash);
        names.map(|(column, _)| format!("{}.{column}", rule.table)).collect::<Vec<_>>()
    };
    let columns: Vec<String> = config.tables.iter().flat_map(hashed).collect();
    if columns.is_empty() || config.security.mask_key.is_some() {
        return None;
    }
    let message = format!("masked by a hash without a key: {}", in_short(&columns));
    let finding = Finding::new(Severity::Hint, "file", message)
        .detail("Whoever can guess a value can tell that it is the one.")
        .hint("Set security.mask_key to a secret of 16 bytes or more; the hashes are then others.");
    Some(finding)
}

/// Looks at the database and the ledger. Returns the webhooks of both file and database, as far as they are known.
async fn database(config: &Config, places: &Places, of_file: Snapshot, report: &mut CheckReport) -> Snapshot {
    let rows = ledger(config, places, report).await;
    let snapshot = match rows.map(|rows| catalog::compile_with(config, &rows)) {
        Some(Ok(snapshot)) => snapshot,
        _ => of_file,
    };
    for invalid in &snapshot.invalid {
        let message = format!("{}: its row cannot be used: {}", invalid.webhook, invalid.reason);
        let hint = format!("Correct the row in {}.webhooks.", config.database.schema);
        report.findings.push(Finding::new(Severity::Warning, "webhooks", message).hint(hint));
    }
    for (template, reason) in snapshot.shelf.set_aside() {
        let message = format!("{template}: its row cannot be used: {reason}");
        let hint =
            format!("Remove the row from {}.templates, and insert another version.", config.database.schema);
        report.findings.push(Finding::new(Severity::Warning, "templates", message).hint(hint));
    }
    let session = match places.database.session("walhook check").await {
        Ok(session) => session,
        Err(error) => {
            report.error("database", (error.to_string(), error.detail(), error.hint()));
            return snapshot;
        }
    };
    if let Err(error) = server::server(config, places, &session, report).await {
        report.error("database", setup(&error));
        return snapshot;
    }
    if let Err(error) = tables::tables(config, &session, &snapshot, report).await {
        report.error("tables", setup(&error));
    }
    snapshot
}

/// The ledger's schema; its rows, where it is there.
async fn ledger(config: &Config, places: &Places, report: &mut CheckReport) -> Option<Rows> {
    let looked = async {
        let session = places.ledger.session("walhook check").await?;
        let look = places.ledger.look(&session.client).await?;
        let rows = if look.ready { Some(catalog::load(&session.client).await?) } else { None };
        if look.ready {
            report.findings.extend(secrets::secrets(config, &session).await?);
        }
        Ok::<_, LedgerError>((look, rows))
    };
    let schema = &config.database.schema;
    match looked.await {
        // The same place and the same problem as the database's: told there.
        Err(LedgerError::Connect(_)) if config.ledger.url.is_none() => None,
        Err(error) => {
            report.error("ledger", (error.to_string(), source_of(&error), error.hint()));
            None
        }
        Ok((look, rows)) => {
            if look.may_create {
                let is = if look.ready { "is there" } else { "will be made at the first start" };
                report.ok("ledger", format!("schema {schema} {is}"));
            } else {
                let error = LedgerError::MayNotCreate { schema: schema.clone(), exists: look.exists };
                report.error("ledger", (error.to_string(), None, error.hint()));
            }
            rows
        }
    }
}

fn source_of(error: &dyn std::error::Error) -> Option<String> {
    error.source().map(crate::telemetry::chain)
}

/// The first few of a list.
fn in_short(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(10).map(String::as_str).collect();
    let more = names.len().saturating_sub(first.len());
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", first.join(", "))
}
