//! What a notice tells (`data.record`): what an operator needs to know, and what to type next. No value of a row is in it,
//! and no address.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::news::{Fact, News};
use crate::chores::lag::Behind;
use crate::clock::since;
use crate::domain::{FailReason, Notice, Topic, limits};
use crate::ledger::health::Health;
use crate::ledger::notices::Failures;
use crate::ledger::overview::Gap;
use crate::ledger::query::Backlog;
use crate::source::WalStatus;

/// The record, by what it is about.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Record<'a> {
    Webhook {
        webhook: &'a str,
        state: &'static str,
        since: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Cow<'a, str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        failing_since: Option<Timestamp>,
        #[serde(skip_serializing_if = "Option::is_none")]
        failures: Option<u64>,
        waiting: Waiting,
        next: String,
    },
    Delivery {
        webhook: &'a str,
        failures: i64,
        since: Timestamp,
        last_at: Timestamp,
        delivery: &'a str,
        event_type: Option<&'a str>,
        reason: Cow<'a, str>,
        error: Option<Cow<'a, str>>,
        waiting: Waiting,
        next: String,
    },
    Lag {
        slot: &'a str,
        since: Timestamp,
        lag_bytes: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        lag_seconds: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        wal_status: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        safe_wal_bytes: Option<i64>,
        next: String,
    },
    Gap {
        slot: &'a str,
        since: Timestamp,
        from_lsn: Option<&'a str>,
        to_lsn: &'a str,
        reason: &'a str,
        next: String,
    },
}

/// What the ledger holds of the webhook.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Waiting {
    pending: i64,
    retrying: i64,
    held: i64,
    failed: i64,
    oldest_seconds: Option<u64>,
}

impl Waiting {
    /// As it is; `oldest` is since when what waits the longest does.
    pub(super) fn of(backlog: &Backlog, oldest: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            pending: backlog.pending,
            retrying: backlog.retrying,
            held: backlog.held,
            failed: backlog.failed,
            oldest_seconds: oldest.map(|oldest| since(now, oldest).as_secs()),
        }
    }
}

/// The record's JSON. `event_type` is that of the delivery that was given up last.
pub(super) fn write(news: &News, waiting: Waiting, event_type: Option<&str>) -> Vec<u8> {
    let (name, since) = (&*news.name, news.since);
    let record = match &news.fact {
        Fact::Failing(_) | Fact::Disabled(_) | Fact::Recovered => of_webhook(news, waiting),
        Fact::GivenUp(failures) => Record::Delivery {
            webhook: name,
            failures: failures.failures,
            since,
            last_at: failures.last_at,
            delivery: &failures.delivery,
            event_type,
            reason: short(&failures.reason),
            error: failures.error.as_deref().map(short),
            waiting,
            next: format!("`walhook retry {name}` sends the failed deliveries again"),
        },
        Fact::Lagging(behind) => Record::Lag {
            slot: name,
            since,
            lag_bytes: behind.bytes,
            lag_seconds: Some(behind.age.as_secs()),
            wal_status: Some(behind.wal_status.as_str()),
            safe_wal_bytes: behind.safe_bytes,
            next: "`walhook status` shows how far it is, and what waits".to_owned(),
        },
        Fact::CaughtUp(bytes) => Record::Lag {
            slot: name,
            since,
            lag_bytes: *bytes,
            lag_seconds: None,
            wal_status: None,
            safe_wal_bytes: None,
            next: "nothing".to_owned(),
        },
        Fact::Gap(gap) => Record::Gap {
            slot: name,
            since,
            from_lsn: gap.from_lsn.as_deref(),
            to_lsn: &gap.to_lsn,
            reason: &gap.reason,
            next: "`walhook backfill WEBHOOK --table TABLE` delivers the rows that are there; then delete the gap's row in \
                   the ledger's gaps"
                .to_owned(),
        },
    };
    serde_json::to_vec(&record).unwrap_or_else(|_| b"null".to_vec())
}

/// How a webhook stands.
fn of_webhook(news: &News, waiting: Waiting) -> Record<'_> {
    let webhook = &*news.name;
    let (mut reason, mut failing_since, mut failures) = (None, None, None);
    let (state, next) = match &news.fact {
        Fact::Failing(health) => {
            reason = Some(short(&health.reason));
            (failing_since, failures) = (Some(health.failing_since), Some(health.failures));
            let next = format!(
                "{webhook} is probed and goes on by itself when its receiver does; `walhook pause {webhook}` leaves it alone"
            );
            ("failing", next)
        }
        Fact::Disabled(why) => {
            reason = Some(short(why));
            ("disabled", format!("`walhook enable {webhook}` sends to it again, what is held first"))
        }
        _ if waiting.failed > 0 => {
            let failed = waiting.failed;
            ("active", format!("`walhook retry {webhook}` sends its {failed} failed deliveries again"))
        }
        _ => ("active", "nothing: what waits is on its way".to_owned()),
    };
    Record::Webhook { webhook, state, since: news.since, reason, failing_since, failures, waiting, next }
}

/// A text, cut where it is long.
fn short(text: &str) -> Cow<'_, str> {
    if text.len() <= limits::NOTICE_TEXT_BYTES {
        return Cow::Borrowed(text);
    }
    let cut = (0..=limits::NOTICE_TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(format!("{} …", text.get(..cut).unwrap_or_default()))
}

/// What a notice of this kind tells, for those who want to see one.
pub fn sample(notice: Notice) -> Vec<u8> {
    let since = Timestamp::constant(1_768_473_000, 0);
    let later = Timestamp::constant(1_768_473_012, 500_000_000);
    let reason = || "HTTP 503".to_owned();
    let behind = || Behind {
        since,
        age: Duration::from_secs(65),
        bytes: 70 * 1024 * 1024,
        wal_status: WalStatus::Reserved,
        safe_bytes: None,
    };
    let fact = match notice {
        Notice::WebhookFailing => Fact::Failing(Health {
            failing_since: Timestamp::constant(1_768_472_970, 0),
            failures: 20,
            reason: reason(),
            open: Some((since, Duration::from_secs(5))),
        }),
        Notice::WebhookDisabled => Fact::Disabled("the receiver answered 410 Gone".to_owned()),
        Notice::WebhookRecovered => Fact::Recovered,
        Notice::DeliveryFailed => Fact::GivenUp(Failures {
            webhook: "crm".into(),
            failures: 3,
            first_at: since,
            last_at: later,
            delivery: "dlv_000100000000d4rl8000000188u61g3fkq9b".to_owned(),
            reason: FailReason::AttemptsExhausted.describe(),
            error: Some(reason()),
        }),
        Notice::SourceLagging => Fact::Lagging(behind()),
        Notice::SourceRecovered => Fact::CaughtUp(0),
        Notice::SourceGap => Fact::Gap(Gap {
            from_lsn: Some("0/1A2B3C8".to_owned()),
            to_lsn: "0/2B3C4D8".to_owned(),
            noticed_at: since,
            reason: "the slot is gone".to_owned(),
        }),
    };
    let name = if matches!(notice.topic(), Topic::Webhook | Topic::Delivery) { "crm" } else { "walhook" };
    let waiting = Waiting { pending: 40, retrying: 20, oldest_seconds: Some(31), ..Waiting::default() };
    write(&News { notice, name: name.into(), since, fact }, waiting, Some("orders.updated"))
}
