//! How it stands: the slot, the gaps, each webhook's backlog and its last hour. Works whether or not an instance runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::stats::{self, LastHour, Waiting};
use super::{ControlError, Places, declared};
use crate::catalog::{self, Snapshot};
use crate::clock::{Clock, since};
use crate::config::Config;
use crate::domain::{Verification, WebhookSource};
use crate::ledger::backfills::{self, Backfill};
use crate::ledger::health::{self, Health};
use crate::ledger::overview::{self, Gap, Holder};
use crate::ledger::positions::{self, Noted};
use crate::ledger::query::{Backlog, backlog};
use crate::ledger::states::WebhookState;
use crate::source::{SlotState, Standby, slot_state, standbys};

/// Webhooks whose backlog is asked for in one statement.
pub(super) const STEP: usize = 500;

/// How it all stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// `host:port/database`.
    pub database: String,
    /// The slot's name.
    pub slot: String,
    /// The slot, where there is one.
    pub slot_state: Option<SlotStatus>,
    /// Whether the ledger is there.
    pub ledger: bool,
    /// Who took the ledger over last.
    pub holder: Option<Holder>,
    /// The instances that wait for the slot, the first that came first.
    pub standbys: Vec<Standby>,
    /// Log that was lost, newest first.
    pub gaps: Vec<Gap>,
    /// The backfills that are not over.
    pub backfills: Vec<Backfill>,
    /// Every webhook that is declared or has rows, by name.
    pub webhooks: Vec<WebhookStatus>,
    /// What to do about it, each a sentence.
    pub suggestions: Vec<String>,
}

/// The slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotStatus {
    /// The server process that streams from it: an instance runs.
    pub active_pid: Option<i32>,
    /// Up to where everything is settled.
    pub confirmed_lsn: String,
    /// How far the server's log is ahead of that.
    pub lag_bytes: u64,
    /// For how long the oldest of it has waited, as far as an instance has seen it wait (it looks every ten seconds); where
    /// nobody streams, for how long it may have waited at most.
    pub lag_seconds: u64,
    /// How much log the server keeps for it.
    pub retained_bytes: u64,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub wal_status: &'static str,
    /// How many bytes may still be written before it is lost.
    pub safe_wal_bytes: Option<i64>,
}

/// One webhook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WebhookStatus {
    /// Its name.
    pub name: String,
    /// Where it is declared: `file`, `database`, or `nowhere` any more.
    pub declared: &'static str,
    /// `active`, `failing` (its circuit breaker is open), `paused`, `disabled`, or `unusable` where its row has mistakes.
    pub state: &'static str,
    /// Why it is not active.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Deliveries that wait for their first attempt or their turn.
    pub pending: i64,
    /// Deliveries that wait for another attempt.
    pub retrying: i64,
    /// Deliveries held until it is active.
    pub held: i64,
    /// Dead letters.
    pub failed: i64,
    /// Whether there are more than were counted.
    pub more: bool,
    /// For how long the oldest delivery that waits does: since its commit, or since it was last sent again by hand.
    pub oldest_seconds: Option<u64>,
    /// The oldest that waits in each state.
    pub waiting: Vec<Waiting>,
    /// How the last hour was; none where nothing happened.
    pub last_hour: Option<LastHour>,
    /// The last error of what waits or failed.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<Timestamp>,
}

impl SlotStatus {
    fn of(state: &SlotState, noted: Option<Noted>, now: Timestamp) -> Self {
        let nobody_since = noted.filter(|_| state.active_pid.is_none()).and_then(|noted| noted.at);
        let waiting_since = noted.and_then(|noted| noted.waiting_since).or(nobody_since);
        let waits = waiting_since.filter(|_| state.lag_bytes > 0);
        Self {
            active_pid: state.active_pid,
            confirmed_lsn: state.confirmed.to_string(),
            lag_bytes: state.lag_bytes,
            lag_seconds: waits.map_or(0, |at| since(now, at).as_secs()),
            retained_bytes: state.retained_bytes,
            wal_status: state.wal_status.as_str(),
            safe_wal_bytes: state.safe_wal_bytes,
        }
    }
}

/// Looks at slot and ledger.
pub async fn status(config: &Config, places: &Places, clock: &Clock) -> Result<Status, ControlError> {
    let session = places.database.session("walhook status").await?;
    let slot = slot_state(&session, &config.database.slot).await?;
    let standbys = standbys(&session, &config.database.slot).await?;
    drop(session);
    let ledger = places.ledger.session("walhook status").await?;
    let ready = places.ledger.look(&ledger.client).await?.ready;
    let (mut holder, mut noted, mut gaps, mut existing) = (None, None, Vec::new(), Vec::new());
    let webhooks = if ready {
        noted = positions::noted(&ledger.client, &config.database.slot).await?;
        holder = overview::holder(&ledger.client, &config.database.slot).await?;
        gaps = overview::gaps(&ledger.client, &config.database.slot).await?;
        existing = backfills::list(&ledger.client, &config.database.slot).await?;
        existing.retain(|backfill| !backfill.status.is_over());
        let (snapshot, rows) = declared(config, &ledger.client).await?;
        let mut names = overview::webhooks_with_rows(&ledger.client).await?;
        names.extend(declared_names(&snapshot));
        names.extend(rows.states.keys().cloned());
        let backlogs = backlogs(&ledger.client, &names).await?;
        let (health, now) = (health::load(&ledger.client).await?, clock.now());
        let mut waiting = stats::waiting(&ledger.client, &names, (&rows.states, &health), now).await?;
        let mut hours = stats::last_hour(&ledger.client, now).await?;
        let about = About { snapshot: &snapshot, states: &rows.states, health: &health };
        let mut webhook = |name: &Arc<str>| WebhookStatus {
            last_hour: hours.remove(name),
            ..about.webhook(name, backlogs.get(name), waiting.remove(name).unwrap_or_default())
        };
        names.iter().map(&mut webhook).collect()
    } else {
        let snapshot = catalog::compile_file(config).map_err(ControlError::Compile)?;
        let (states, health) = (HashMap::new(), HashMap::new());
        let about = About { snapshot: &snapshot, states: &states, health: &health };
        declared_names(&snapshot).iter().map(|name| about.webhook(name, None, Vec::new())).collect()
    };
    let mut status = Status {
        database: places.database.display(),
        slot: config.database.slot.clone(),
        slot_state: slot.as_ref().map(|state| SlotStatus::of(state, noted, clock.now())),
        ledger: ready,
        holder,
        standbys,
        gaps,
        backfills: existing,
        webhooks,
        suggestions: Vec::new(),
    };
    status.suggestions = status.suggest();
    // The file alone can say so.
    let unverified = config
        .webhooks
        .iter()
        .filter(|webhook| webhook.reach.connection.verification == Verification::Skipped);
    status.suggestions.extend(unverified.map(|webhook| {
        format!(
            "{}: tls.insecure_skip_verify is set: its receiver's certificate is not checked.",
            webhook.name
        )
    }));
    Ok(status)
}

/// The names of all that is declared, usable or not.
pub(super) fn declared_names(snapshot: &Snapshot) -> BTreeSet<Arc<str>> {
    let usable = snapshot.webhooks().iter().map(|compiled| Arc::clone(&compiled.webhook.name));
    usable.chain(snapshot.invalid.iter().map(|invalid| invalid.webhook.as_str().into())).collect()
}

async fn backlogs(
    client: &tokio_postgres::Client,
    names: &BTreeSet<Arc<str>>,
) -> Result<BTreeMap<Arc<str>, Backlog>, ControlError> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let mut found = BTreeMap::new();
    for step in names.chunks(STEP) {
        let rows = backlog(client, step).await?;
        found.extend(rows.into_iter().map(|row| (Arc::clone(&row.webhook), row)));
    }
    Ok(found)
}

/// What is known of webhooks beside their backlog.
struct About<'a> {
    snapshot: &'a Snapshot,
    states: &'a HashMap<Arc<str>, WebhookState>,
    health: &'a HashMap<Arc<str>, Health>,
}

impl About<'_> {
    fn webhook(&self, name: &Arc<str>, backlog: Option<&Backlog>, waiting: Vec<Waiting>) -> WebhookStatus {
        let invalid = self.snapshot.invalid.iter().find(|invalid| *invalid.webhook == **name);
        let declared = match (self.snapshot.by_name(name), invalid) {
            (Some(compiled), _) if compiled.webhook.source == WebhookSource::Toml => "file",
            (Some(_), _) | (None, Some(_)) => "database",
            (None, None) => "nowhere",
        };
        let (state, reason, since_when) = match (self.states.get(name), invalid) {
            (Some(state), _) => (state.suspension.as_str(), Some(state.reason.clone()), Some(state.since)),
            (None, Some(invalid)) if declared == "database" => {
                ("unusable", Some(invalid.reason.clone()), None)
            }
            (None, _) => match self.health.get(name).and_then(|health| Some((health, health.open?))) {
                Some((health, (opened, _))) if declared != "nowhere" => {
                    ("failing", Some(health.reason.clone()), Some(opened))
                }
                _ => ("active", None, None),
            },
        };
        let count = |of: fn(&Backlog) -> i64| backlog.map_or(0, of);
        WebhookStatus {
            name: name.to_string(),
            declared,
            state,
            reason,
            since: since_when,
            pending: count(|b| b.pending),
            retrying: count(|b| b.retrying),
            held: count(|b| b.held),
            failed: count(|b| b.failed),
            more: backlog.is_some_and(|b| b.more),
            oldest_seconds: waiting.iter().map(|waiting| waiting.oldest_seconds).max(),
            waiting,
            last_hour: None,
            last_error: backlog.and_then(|b| b.last_error.clone()),
            last_error_at: backlog.and_then(|b| b.last_error_at),
        }
    }
}

impl Status {
    fn suggest(&self) -> Vec<String> {
        let mut all = Vec::new();
        match &self.slot_state {
            _ if !self.ledger => all.push("walhook has not run here yet: start `walhook run`.".to_owned()),
            None => all.push(format!(
                "The slot {} is gone: changes since are lost. `walhook run` says what to do.",
                self.slot
            )),
            Some(slot) if slot.wal_status == "lost" => all.push(format!(
                "The slot {} is lost: changes after {} were removed. `walhook run` says what to do.",
                self.slot, slot.confirmed_lsn
            )),
            Some(slot) if slot.active_pid.is_none() => {
                all.push("No walhook is running: start `walhook run`.".to_owned());
            }
            Some(slot) if slot.wal_status == "unreserved" => {
                all.push(
                    "The slot is about to be lost: find out what keeps walhook from reading.".to_owned(),
                );
            }
            Some(_) => {}
        }
        for webhook in &self.webhooks {
            let name = &webhook.name;
            let waits = webhook.pending + webhook.retrying + webhook.held + webhook.failed;
            match webhook.state {
                "paused" | "disabled" if webhook.declared != "nowhere" => {
                    all.push(format!("`walhook enable {name}` sends to it again, what is held first."));
                }
                "failing" => all.push(format!(
                    "{name} is probed now and then, and goes on by itself when its receiver does."
                )),
                "unusable" => {
                    all.push(format!("Correct the row of {name}: `walhook check` lists its mistakes."));
                }
                _ if webhook.declared == "nowhere" && waits > 0 => {
                    all.push(format!(
                        "{name} is declared nowhere any more: its deliveries wait for its return."
                    ));
                }
                _ => {}
            }
            if webhook.failed > 0 && webhook.declared != "nowhere" {
                all.push(format!(
                    "`walhook retry {name}` sends its {} failed deliveries again.",
                    webhook.failed
                ));
            }
        }
        all
    }
}
