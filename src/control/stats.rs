//! The numbers of webhooks over windows of time, and how long what waits has waited. Works whether or not an instance runs.
//!
//! | number | what it is |
//! | --- | --- |
//! | success rate | delivered, of all deliveries that ended (were delivered or given up) in the window |
//! | receipt | from the commit, by the database's clock, to the receiver's acceptance, by walhook's; of what was delivered |
//! | request | how long attempts took that the receiver answered, whatever it answered |
//! | SLA | delivered within the promised time after the commit, of what ended and of what waits for longer already |
//!
//! Test events count nowhere. Rows of a backfill and deliveries sent again by hand have no commit to be measured from: they
//! are in the success rate and the request times, not in receipt and SLA. Percentiles are at most
//! [`Histogram::ERROR`] off.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::{About, Actor, ControlError, Desk, declared, nearest, webhooks};
use crate::catalog::{Rows, Snapshot};
use crate::clock::since;
use crate::domain::{Causes, Histogram, Tally, limits};
use crate::ledger::health::Health;
use crate::ledger::states::WebhookState;
use crate::ledger::{health, numbers, overview};

const HOUR: Duration = Duration::from_secs(3600);

/// The usual windows.
pub const WINDOWS: [(&str, Duration); 4] = [
    ("5m", Duration::from_secs(5 * 60)),
    ("1h", HOUR),
    ("24h", Duration::from_secs(24 * 3600)),
    ("7d", Duration::from_secs(7 * 24 * 3600)),
];

/// A span of time that ends now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it is called.
    pub name: String,
    /// When it begins.
    pub since: Timestamp,
}

/// The numbers of a webhook.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WebhookStats {
    /// Its name.
    pub webhook: String,
    /// Within how many seconds of the commit its deliveries should be there (`sla`).
    pub sla_seconds: f64,
    /// The oldest delivery that waits, by state; none where nothing waits.
    pub waiting: Vec<Waiting>,
    /// The windows, in the order asked for.
    pub windows: Vec<Window>,
}

/// The oldest delivery that waits in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Waiting {
    /// `pending` (for its first attempt or its turn), `retrying`, `held`.
    pub status: &'static str,
    /// Why the oldest waits: `paused`, `disabled` or `failing` (its webhook is), `held` (until the next look), `in_flight` (an
    /// attempt is under way), `behind` (another of its row), `retry` (its next attempt is not due yet), `due` (it waits for its
    /// rate, its webhook's concurrency or an instance).
    pub reason: &'static str,
    /// Where its webhook is `paused`, `disabled` or `failing`: that, and the reason of that.
    pub why: Option<String>,
    /// When its change committed.
    #[schema(value_type = String, format = DateTime)]
    pub oldest_committed_at: Timestamp,
    /// For how long it waits: since its commit, or since it was last sent again by hand.
    pub oldest_seconds: u64,
}

/// What happened between two moments.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Window {
    /// What it is called: `5m`, `1h`, `24h`, `7d`, or as asked for.
    pub window: String,
    /// From when: the begin of a minute, or of an hour where that is kept by the hour.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Deliveries that ended.
    pub deliveries: Deliveries,
    /// Attempts that ended.
    pub attempts: Attempts,
    /// Seconds from commit to receipt.
    pub receipt_seconds: Percentiles,
    /// Seconds that answered requests took.
    pub request_seconds: Percentiles,
    /// The share that was there in time.
    pub sla: Sla,
}

/// Deliveries that ended.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Deliveries {
    /// A receiver took them.
    pub delivered: u64,
    /// At the first attempt.
    pub first_try: u64,
    /// Given up.
    pub failed: u64,
    /// Delivered of all that ended, 0 to 1; none where none ended.
    pub success_rate: Option<f64>,
}

/// Attempts that ended.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Attempts {
    /// All.
    pub total: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those by cause.
    pub causes: Causes,
}

/// Percentiles; none where nothing was measured.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// Half took no longer.
    pub p50: Option<f64>,
    /// Nine of ten took no longer.
    pub p90: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99: Option<f64>,
}

/// The share that was there in time.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Sla {
    /// Delivered within `sla_seconds` of the commit.
    pub met: u64,
    /// Delivered later, or given up.
    pub missed: u64,
    /// Committed in the window, and waiting for longer already.
    pub late: u64,
    /// Those that met it of all these, 0 to 1; none where there are none.
    pub share: Option<f64>,
}

impl From<&Histogram> for Percentiles {
    fn from(histogram: &Histogram) -> Self {
        let at = |percent| histogram.percentile(percent).map(|duration| duration.as_secs_f64());
        Self { count: histogram.count(), p50: at(50), p90: at(90), p99: at(99) }
    }
}

/// The last hour in two numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastHour {
    /// Delivered of all deliveries that ended, 0 to 1; none where none ended.
    pub success_rate: Option<f64>,
    /// Seconds from commit to receipt that 99 of 100 did not exceed; none where nothing was measured.
    pub receipt_p99_seconds: Option<f64>,
}

impl From<&Tally> for LastHour {
    fn from(tally: &Tally) -> Self {
        Self {
            success_rate: share(tally.delivered, tally.delivered + tally.failed),
            receipt_p99_seconds: tally.receipt.percentile(99).map(|took| took.as_secs_f64()),
        }
    }
}

/// The last hour of every webhook that has any numbers in it.
pub(super) async fn last_hour(
    client: &Client,
    now: Timestamp,
) -> Result<BTreeMap<Arc<str>, LastHour>, ControlError> {
    let hour = Wanted { name: String::new(), since: now.checked_sub(HOUR).unwrap_or(now) };
    let mut sums: BTreeMap<Arc<str>, Tally> = BTreeMap::new();
    numbers::sums_since(client, begun(&hour, now).since, None, |sum| {
        sums.entry(sum.webhook).or_default().merge(&sum.tally);
    })
    .await?;
    Ok(sums.iter().map(|(webhook, tally)| (Arc::clone(webhook), tally.into())).collect())
}

/// A part of a whole; none of nothing.
fn share(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
    let share = (whole > 0).then(|| part as f64 / whole as f64);
    share
}

impl Window {
    fn of(wanted: &Wanted, until: Timestamp, tally: &Tally, late: u64) -> Self {
        let Tally { delivered, first_try, failed, sla_met: met, sla_missed: missed, causes, .. } = *tally;
        Self {
            window: wanted.name.clone(),
            since: wanted.since,
            until,
            deliveries: Deliveries {
                delivered,
                first_try,
                failed,
                success_rate: share(delivered, delivered + failed),
            },
            attempts: Attempts { total: tally.attempts, failed: causes.total(), causes },
            receipt_seconds: (&tally.receipt).into(),
            request_seconds: (&tally.request).into(),
            sla: Sla { met, missed, late, share: share(met, met + missed + late) },
        }
    }
}

/// The usual windows, as of now.
pub fn usual(now: Timestamp) -> Vec<Wanted> {
    let wanted = |(name, span): (&str, Duration)| Wanted {
        name: name.to_owned(),
        since: now.checked_sub(span).unwrap_or(now),
    };
    WINDOWS.into_iter().map(wanted).collect()
}

/// The numbers of one webhook, or of all that are declared or have any, by name. An unknown name is an error.
pub async fn stats(
    desk: &Desk,
    actor: &Actor,
    webhook: Option<&str>,
    windows: &[Wanted],
) -> Result<Vec<WebhookStats>, ControlError> {
    let (config, now) = (&*desk.config(), desk.clock.now());
    let windows: Vec<Wanted> = windows.iter().map(|wanted| begun(wanted, now)).collect();
    if let Some(name) = webhook.filter(|_| actor.sight.tenant().is_some()) {
        webhooks::get(desk, actor, name).await?;
    }
    let session = desk.session(actor, webhook.map_or(About::Operators, About::Webhook)).await?;
    let client: &Client = &session;
    let (snapshot, rows) = declared(config, client).await?;
    let mut sums: BTreeMap<Arc<str>, Vec<Tally>> = BTreeMap::new();
    let earliest = windows.iter().map(|wanted| wanted.since).min().unwrap_or(now);
    numbers::sums_since(client, earliest, webhook, |sum| {
        let tallies =
            sums.entry(Arc::clone(&sum.webhook)).or_insert_with(|| vec![Tally::default(); windows.len()]);
        for (tally, wanted) in tallies.iter_mut().zip(&windows) {
            if sum.ends > wanted.since {
                tally.merge(&sum.tally);
            }
        }
    })
    .await?;
    let names = names(client, &snapshot, &rows, webhook, sums.keys()).await?;
    let health = health::load(client).await?;
    let mut waiting = waiting(client, &names, (&rows.states, &health), now).await?;
    let mut stats = Vec::with_capacity(names.len());
    for name in &names {
        let within = snapshot.by_name(name).map_or(config.delivery.sla, |compiled| compiled.webhook.sla);
        let nothing = vec![Tally::default(); windows.len()];
        let tallies = sums.get(name).unwrap_or(&nothing);
        let waiting = waiting.remove(name).unwrap_or_default();
        let mut told = Vec::with_capacity(windows.len());
        for (wanted, tally) in windows.iter().zip(tallies) {
            let late = if waiting.is_empty() {
                0
            } else {
                numbers::late(client, name, within, (wanted.since, now)).await?
            };
            told.push(Window::of(wanted, now, tally, late));
        }
        let webhook = name.to_string();
        stats.push(WebhookStats { webhook, sla_seconds: within.as_secs_f64(), waiting, windows: told });
    }
    Ok(stats)
}

/// A window as it is kept: from the begin of a minute, or of an hour where that is long ago.
fn begun(wanted: &Wanted, now: Timestamp) -> Wanted {
    let oldest = now.checked_sub(limits::ROLLUP_HOURS).unwrap_or(now);
    let second = wanted.since.max(oldest).as_second();
    let by_the_minute = now.checked_sub(limits::ROLLUP_MINUTES).is_ok_and(|edge| wanted.since >= edge);
    let grain = if by_the_minute { 60 } else { 3600 };
    let since = Timestamp::from_second(second - second.rem_euclid(grain)).unwrap_or(wanted.since);
    Wanted { name: wanted.name.clone(), since }
}

async fn names(
    client: &Client,
    snapshot: &Snapshot,
    rows: &Rows,
    webhook: Option<&str>,
    with_sums: impl Iterator<Item = &Arc<str>>,
) -> Result<BTreeSet<Arc<str>>, ControlError> {
    let mut names: BTreeSet<Arc<str>> = overview::webhooks_with_rows(client).await?;
    names.extend(with_sums.cloned());
    names.extend(super::status::declared_names(snapshot));
    names.extend(rows.states.keys().cloned());
    let Some(webhook) = webhook else { return Ok(names) };
    if let Some(name) = names.get(webhook) {
        return Ok(BTreeSet::from([Arc::clone(name)]));
    }
    let nearest = nearest(webhook, names.iter().map(AsRef::as_ref));
    Err(ControlError::Unknown { what: "webhook", name: webhook.to_owned(), nearest })
}

type ByName<T> = HashMap<Arc<str>, T>;

/// The oldest that waits of each webhook, by state.
pub(super) async fn waiting(
    client: &Client,
    names: &BTreeSet<Arc<str>>,
    (states, health): (&ByName<WebhookState>, &ByName<Health>),
    now: Timestamp,
) -> Result<BTreeMap<Arc<str>, Vec<Waiting>>, ControlError> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let mut found: BTreeMap<Arc<str>, Vec<Waiting>> = BTreeMap::new();
    for step in names.chunks(super::status::STEP) {
        for oldest in numbers::oldest(client, step).await? {
            let suspended = states.get(&oldest.webhook);
            let failing = health.get(&oldest.webhook).filter(|health| health.open.is_some());
            let why = match (suspended, failing) {
                (Some(state), _) => Some(format!("{}: {}", state.suspension.as_str(), state.reason)),
                (None, Some(health)) => Some(format!("failing: {}", health.reason)),
                (None, None) => None,
            };
            let waiting = Waiting {
                status: oldest.status,
                reason: oldest.reason,
                why,
                oldest_committed_at: oldest.committed_at,
                oldest_seconds: since(now, oldest.since).as_secs(),
            };
            found.entry(oldest.webhook).or_default().push(waiting);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_with_a_minute_or_where_only_hours_are_kept_with_an_hour() {
        let now: Timestamp = "2026-11-22T10:30:45Z".parse().unwrap();
        let check = |since: &str, expect: &str| {
            let wanted = Wanted { name: "it".to_owned(), since: since.parse().unwrap() };
            assert_eq!(begun(&wanted, now).since, expect.parse().unwrap(), "{since}");
        };
        check("2026-11-22T10:25:45Z", "2026-11-22T10:25:00Z");
        check("2026-11-20T10:30:45Z", "2026-11-20T10:30:00Z");
        check("2026-11-20T10:29:45Z", "2026-11-20T10:00:00Z");
        check("1970-01-01T00:00:00Z", "2026-10-18T10:00:00Z");
    }

    #[test]
    fn what_waits_for_longer_than_was_promised_has_missed_it() {
        let now = Timestamp::from_second(60).unwrap();
        let wanted = Wanted { name: "1h".to_owned(), since: now };
        let tally = Tally { sla_met: 3, sla_missed: 1, delivered: 3, failed: 1, ..Tally::default() };
        let window = Window::of(&wanted, now, &tally, 4);
        assert_eq!((window.deliveries.success_rate, window.sla.share), (Some(0.75), Some(0.375)));
        let none = Window::of(&wanted, now, &Tally::default(), 0);
        assert_eq!((none.deliveries.success_rate, none.sla.share), (None, None));
        assert_eq!(none.receipt_seconds.p99, None);
    }
}
