//! Everything that could go wrong, looked at before it does: the file, the database, the tables, the receivers.
//! Changes nothing. It goes on past a problem wherever something is left to look at.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::conditions::{Looked, qualified};
use super::{Places, fit, load_config, manage, transport};
use crate::catalog::{self, Rows, Snapshot};
use crate::chores::upkeep;
use crate::clock::Clock;
use crate::config::{Config, OnSlotLost, Sources};
use crate::postgres::Session;
use crate::source::{
    self, Manage, PublicationNames, RowIdentity, SetupError, SourceError, TableInfo, WalStatus,
};

/// How long a receiver may take to be reached.
const PROBE: Duration = Duration::from_secs(5);
/// Receivers that are looked at at once.
const PROBES: usize = 16;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
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
    /// `receivers`.
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
    receivers(&config, &snapshot, clock, &mut report).await;
    report
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
    let session = match places.database.session("walhook check").await {
        Ok(session) => session,
        Err(error) => {
            report.error("database", (error.to_string(), error.detail(), error.hint()));
            return snapshot;
        }
    };
    if let Err(error) = server(config, places, &session, report).await {
        report.error("database", setup(&error));
        return snapshot;
    }
    if let Err(error) = tables(config, &session, &snapshot, report).await {
        report.error("tables", setup(&error));
    }
    snapshot
}

/// Version, settings, privileges, slot.
async fn server(
    config: &Config,
    places: &Places,
    session: &Session,
    report: &mut CheckReport,
) -> Result<(), SetupError> {
    let slot = &config.database.slot;
    let (facts, problems) = source::check(session, slot).await?;
    let (version, role) = (&facts.version_text, &facts.role);
    report.ok("database", format!("{}: Postgres {version}, as role {role}", places.database.display()));
    let may_replicate = problems.is_empty();
    if let Err(problem) = facts.insist_on_failover(config.database.slot_failover) {
        report.error("database", setup(&problem));
    }
    for problem in &problems {
        report.error("database", setup(problem));
    }
    if may_replicate {
        match source::identify(&places.database).await {
            Ok(_) => report.ok("database", "logical replication is on and open to this role"),
            Err(error) => report.error("database", link(&error)),
        }
    }
    let lost = |report: &mut CheckReport, error: &SourceError| {
        let severity = match config.database.on_slot_lost {
            OnSlotLost::Fail => Severity::Error,
            OnSlotLost::Recreate => Severity::Warning,
        };
        report.told(severity, "slot", link(error));
    };
    match source::slot_state(session, slot).await? {
        None if ledger_knows(config, places).await => {
            lost(report, &SourceError::SlotMissing { slot: slot.clone() });
        }
        None => report.ok("slot", format!("{slot} will be made at the first start")),
        Some(state) if state.plugin != "pgoutput" || Some(&*state.database) != places.database.database() => {
            let problem = format!("It uses plugin {:?} in database {:?}.", state.plugin, state.database);
            report.error("slot", link(&SourceError::SlotForeign { slot: slot.clone(), problem }));
        }
        Some(state) if state.wal_status == WalStatus::Lost => {
            lost(report, &state.lost(slot));
        }
        Some(state) => {
            let by = state.active_pid.map_or_else(
                || "nobody streams from it".to_owned(),
                |pid| format!("an instance streams from it (PID {pid})"),
            );
            report.ok("slot", format!("{slot} is {} bytes behind; {by}", state.lag_bytes));
        }
    }
    Ok(())
}

async fn ledger_knows(config: &Config, places: &Places) -> bool {
    let Ok(session) = super::ledger_session(places).await else { return false };
    drop(session);
    places.ledger.knows_slot(&config.database.slot).await.unwrap_or(false)
}

/// The ledger's schema; its rows, where it is there.
async fn ledger(config: &Config, places: &Places, report: &mut CheckReport) -> Option<Rows> {
    let looked = async {
        let session = places.ledger.session("walhook check").await?;
        let look = places.ledger.look(&session.client).await?;
        let rows = if look.ready { Some(catalog::load(&session.client).await?) } else { None };
        Ok::<_, crate::ledger::LedgerError>((look, rows))
    };
    let schema = &config.database.schema;
    match looked.await {
        // The same place and the same problem as the database's: told there.
        Err(crate::ledger::LedgerError::Connect(_)) if config.ledger.url.is_none() => None,
        Err(error) => {
            report.error("ledger", (error.to_string(), source_of(&error), error.hint()));
            None
        }
        Ok((look, rows)) => {
            if look.may_create {
                let is = if look.ready { "is there" } else { "will be made at the first start" };
                report.ok("ledger", format!("schema {schema} {is}"));
            } else {
                let message = format!("the role may not create what it needs in schema {schema}");
                let quoted = postgres_protocol::escape::escape_identifier(schema);
                let hint = if look.exists {
                    format!("GRANT CREATE, USAGE ON SCHEMA {quoted} TO <role>;")
                } else {
                    format!(
                        "GRANT CREATE ON DATABASE <database> TO <role>; or CREATE SCHEMA {quoted} AUTHORIZATION <role>;"
                    )
                };
                report.error("ledger", (message, None, Some(hint)));
            }
            rows
        }
    }
}

fn source_of(error: &dyn std::error::Error) -> Option<String> {
    error.source().map(crate::telemetry::chain)
}

/// Patterns, identities, the publications, conditions.
async fn tables(
    config: &Config,
    session: &Session,
    snapshot: &Snapshot,
    report: &mut CheckReport,
) -> Result<(), SetupError> {
    let known = source::tables(session, &config.database.schema).await?;
    let lonely = fit::lonely_patterns(snapshot, config, &known);
    for lonely in &lonely {
        let severity = if lonely.may_wait() { Severity::Warning } else { Severity::Error };
        let finding = Finding::new(severity, "webhooks", lonely.message(&config.path));
        report.findings.push(finding.hint(lonely.hint()));
    }
    let meant = upkeep::meant(snapshot, &known);
    for wanted in &meant {
        let Some(info) = known.iter().find(|t| (&t.schema, &t.table) == (&wanted.schema, &wanted.table))
        else {
            continue;
        };
        if !info.identity_usable() && wanted.updates_or_deletes {
            report.findings.push(no_identity(info, wanted.explicit));
        }
    }
    publication(config, session, snapshot, &known, report).await?;
    let wanted: Vec<&TableInfo> = known
        .iter()
        .filter(|t| meant.iter().any(|m| (&t.schema, &t.table) == (&m.schema, &m.table)))
        .collect();
    let oids: Vec<u32> = wanted.iter().map(|table| table.oid).collect();
    let columns = source::columns(session, &oids).await?;
    for table in &wanted {
        let columns = columns.get(&table.oid).map_or(&[][..], Vec::as_slice);
        let looked = Looked { snapshot, config, table, columns };
        report.findings.extend(looked.findings());
    }
    let names: Vec<String> = wanted.iter().map(|t| format!("{}.{}", t.schema, t.table)).collect();
    if names.is_empty() {
        report.findings.push(Finding::new(Severity::Warning, "tables", "no table is wanted by any webhook"));
    } else {
        report.ok("tables", format!("webhooks want {}", in_short(&names)));
    }
    Ok(())
}

fn no_identity(table: &TableInfo, explicit: bool) -> Finding {
    let name = qualified(&table.schema, &table.table);
    let is_virtual = table.identity == RowIdentity::Virtual;
    let usable = if is_virtual { "usable " } else { "" };
    let remedy = if is_virtual {
        format!(
            "It is full, and virtual generated columns cannot be sent: ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"
        )
    } else {
        format!("Add a primary key, or run: ALTER TABLE {name} REPLICA IDENTITY FULL;")
    };
    if explicit {
        Finding::new(Severity::Error, "tables", format!("{name} has no {usable}replica identity"))
            .detail(
                "Publishing its updates and deletes would make the application's own UPDATE and DELETE fail."
                    .to_owned(),
            )
            .hint(format!("{remedy} Or subscribe to its inserts only."))
    } else {
        let message = format!("{name} has no {usable}replica identity: only its inserts can become events");
        Finding::new(Severity::Warning, "tables", message).hint(remedy)
    }
}

/// What would be changed, and whether our role may.
async fn publication(
    config: &Config,
    session: &Session,
    snapshot: &Snapshot,
    known: &[TableInfo],
    report: &mut CheckReport,
) -> Result<(), SetupError> {
    let names = PublicationNames::of(&config.database.publication);
    let wanted = upkeep::wanted(snapshot, known);
    let statements = source::planned(session, &names, &wanted, known, manage(config)).await?;
    if statements.is_empty() {
        report.ok("publication", format!("{} holds what webhooks need", names.all));
        return Ok(());
    }
    let sql = statements.join(" ");
    let not_owned: Vec<String> = known
        .iter()
        .filter(|t| !t.owned && sql.contains(&qualified(&t.schema, &t.table)))
        .map(|t| qualified(&t.schema, &t.table))
        .collect();
    let may = not_owned.is_empty() && source::may_publish(session, &names).await?;
    if manage(config) == Manage::Look || !may {
        let needs = SetupError::NeedsOwner { publication: names.all.clone(), sql: statements };
        let (message, _, hint) = setup(&needs);
        let detail =
            (!not_owned.is_empty()).then(|| format!("The role does not own {}.", in_short(&not_owned)));
        report.error("publication", (message, detail, hint));
    } else {
        report.ok("publication", format!("{} will be changed: {sql}", names.all));
    }
    Ok(())
}

/// Whether each webhook's receiver can be reached; nothing is sent.
async fn receivers(config: &Config, snapshot: &Snapshot, clock: &Clock, report: &mut CheckReport) {
    let transport = match transport(config, clock) {
        Ok(transport) => transport,
        Err(error) => return report.error("receivers", (error.to_string(), error.detail(), error.hint())),
    };
    let probes = snapshot.webhooks().iter().map(|compiled| {
        let (webhook, transport) = (&compiled.webhook, &transport);
        async move {
            let place = format!(
                "{}://{}:{}",
                webhook.url.scheme(),
                webhook.url.host_str().unwrap_or_default(),
                webhook.url.port_or_known_default().unwrap_or_default()
            );
            let reached = transport.probe(&webhook.url, webhook.source, webhook.timeout.min(PROBE)).await;
            match reached {
                Ok(_) => {
                    Finding::new(Severity::Ok, "receivers", format!("{}: {place} answers", webhook.name))
                }
                Err(outcome) => {
                    let message = format!("{}: {place} cannot be reached", webhook.name);
                    Finding::new(Severity::Warning, "receivers", message).detail(outcome.describe()).hint(
                        format!("Check webhooks.{}.url; what it is owed meanwhile waits.", webhook.name),
                    )
                }
            }
        }
    });
    let found: Vec<Finding> = stream::iter(probes).buffered(PROBES).collect().await;
    report.findings.extend(found);
}

/// The first few of a list.
fn in_short(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(10).map(String::as_str).collect();
    let more = names.len().saturating_sub(first.len());
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", first.join(", "))
}
