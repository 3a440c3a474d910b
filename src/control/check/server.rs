//! The server: version, privileges, slot, and in whose hands it is.

use super::managed::{self, Service};
use super::{CheckReport, Finding, Severity, link, settings, setup};
use crate::config::{Config, OnSlotLost};
use crate::control::{Places, command_session};
use crate::postgres::Session;
use crate::source::{self, Facts, SetupError, SourceError, WalStatus};

/// Version, settings, privileges, slot.
pub(super) async fn server(
    config: &Config,
    places: &Places,
    session: &Session,
    report: &mut CheckReport,
) -> Result<(), SetupError> {
    let slot = &config.database.slot;
    let (facts, problems) = source::check(session, slot).await?;
    let service = managed::service(session).await?;
    let (version, role) = (&facts.version_text, &facts.role);
    let whose = service.map_or_else(String::new, |service| format!(" on {}", service.name));
    let place = places.database.display();
    report.ok("database", format!("{place}: Postgres {version}{whose}, as role {role}"));
    if let Err(problem) = facts.insist_on_failover(config.database.slot_failover) {
        report.error("database", setup(&problem));
    }
    for problem in &problems {
        let (message, detail, hint) = setup(problem);
        let hint = service.and_then(|service| service.remedy(problem)).or(hint);
        report.error("database", (message, detail, hint));
    }
    let known = !problems.iter().any(|problem| matches!(problem, SetupError::Version { .. }));
    if known {
        let found = source::server_settings(session, slot).await?;
        report.findings.extend(settings::findings(config, &facts, &found, service));
    }
    if problems.is_empty() {
        replication(places, service, report).await;
    }
    slot_found(config, places, session, &facts, report).await
}

/// Whether the role may open a replication connection.
async fn replication(places: &Places, service: Option<&Service>, report: &mut CheckReport) {
    match source::identify(&places.database).await {
        Ok(_) => report.ok("database", "logical replication is on and open to this role"),
        Err(error) => {
            let (message, detail, hint) = link(&error);
            let pooled = service.and_then(|service| service.direct).map(str::to_owned);
            let hint = match (hint, pooled) {
                (Some(hint), Some(pooled)) => Some(format!("{hint} {pooled}")),
                (hint, pooled) => hint.or(pooled),
            };
            report.error("database", (message, detail, hint));
        }
    }
}

/// The slot's state.
async fn slot_found(
    config: &Config,
    places: &Places,
    session: &Session,
    facts: &Facts,
    report: &mut CheckReport,
) -> Result<(), SetupError> {
    let slot = &config.database.slot;
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
            let differs = state.failover.is_some_and(|is| is != config.database.slot_failover);
            if differs && facts.can_failover() {
                let message = format!("{slot} does not have failover as database.slot_failover says");
                let finding = Finding::new(Severity::Hint, "slot", message);
                report.findings.push(finding.hint("walhook alters it when it next begins to stream."));
            }
        }
    }
    Ok(())
}

async fn ledger_knows(config: &Config, places: &Places) -> bool {
    let Ok(session) = command_session(places).await else { return false };
    drop(session);
    places.ledger.knows_slot(&config.database.slot).await.unwrap_or(false)
}
