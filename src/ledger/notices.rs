//! What webhooks are told about the machinery itself: what was told last, and what has not been told yet.
//!
//! A fact has its row where it belongs: `webhook_states`, `webhook_health`, `gaps`, and `failures`, which the
//! transaction that gives deliveries up writes too. So nothing is lost between a fact and its notice: whoever looks
//! compares the facts with what was told last, and writes the deliveries that tell the difference in one transaction with
//! the note that they do.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_postgres::Client;

use super::health::{self, Health};
use super::overview::Gap;
use super::own::Ownership;
use super::record::{Finish, NewRow};
use super::replay::WAKE;
use super::row::{pg_time, time_of};
use super::states::{self, KEEP_WRITER_OUT, WebhookState};
use super::{LedgerError, doing};
use crate::domain::{Attempt, Delivery, DeliveryId, FailReason, Notice, Topic};

/// Gaps that are told of at once.
const GAPS: i64 = 10;

/// What was told last of a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What.
    pub notice: Notice,
    /// Since when it was so.
    pub since: Timestamp,
    /// When it was told.
    pub at: Timestamp,
}

/// Deliveries of a webhook that were given up, and not told of yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    /// The webhook.
    pub webhook: Arc<str>,
    /// How many.
    pub failures: i64,
    /// When the first was given up.
    pub first_at: Timestamp,
    /// When the last was.
    pub last_at: Timestamp,
    /// The last one.
    pub delivery: String,
    /// Why it was given up.
    pub reason: String,
    /// How its last attempt failed.
    pub error: Option<String>,
}

/// The facts, and what was told.
#[derive(Debug, Default)]
pub struct Known {
    /// By what it is about.
    pub told: HashMap<(Topic, Arc<str>), Told>,
    /// The webhooks that are not active.
    pub states: HashMap<Arc<str>, WebhookState>,
    /// The webhooks that fail.
    pub health: HashMap<Arc<str>, Health>,
    /// What was given up.
    pub failures: Vec<Failures>,
    /// The gaps that were noticed after the last that was told, the oldest first.
    pub gaps: Vec<Gap>,
}

/// A notice, with the deliveries that it owes.
#[derive(Debug)]
pub struct Telling {
    /// What is told.
    pub notice: Notice,
    /// Of which webhook or slot.
    pub name: Arc<str>,
    /// Since when it is so.
    pub since: Timestamp,
    /// How many failures are told of.
    pub failures: i64,
    /// The deliveries; one that cannot be rendered has failed already.
    pub deliveries: Vec<(Delivery, Option<FailReason>)>,
}

/// Young or claimed deliveries that one transaction gives up, by webhook: how many, and the last.
#[derive(Debug, Default)]
pub(super) struct GivenUp<'a> {
    by_webhook: HashMap<&'a str, (i64, &'a DeliveryId, &'a str, Option<&'a Attempt>)>,
}

const TOLD: &str = "select topic, name, told, since, told_at from notices";

const FAILURES: &str =
    "select webhook, failures, first_at, last_at, delivery, reason, error from failures order by first_at";

const NEW_GAPS: &str = "
select from_lsn::text, to_lsn::text, noticed_at, reason
from gaps
where slot = $1 and noticed_at > coalesce(
    (select n.since from notices n where n.topic = 'gap' and n.name = $1), '-infinity')
order by noticed_at, id
limit $2";

const NOTE: &str = "
insert into failures as f (webhook, failures, delivery, reason, error)
select * from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[])
on conflict (webhook) do update set
    failures = f.failures + excluded.failures, last_at = excluded.last_at, delivery = excluded.delivery,
    reason = excluded.reason, error = excluded.error";

const OURS: &str = "select 1 from sources where slot = $1 and epoch = $2";

/// Nothing is due yet: that is for [`WAKE`].
const OWE: &str = "
insert into deliveries (
    id, event_id, event_type, webhook, lane, status, finished_at, fail_reason, committed_at, schema_name, table_name,
    row_key, operation, content_type, headers, body, unrendered)
select $1, $2, $3, $4, $5, case when $6::text is null then 'pending' else 'failed' end,
    case when $6::text is not null then now() end, $6, $7, '', '', $8, 'notice', $9, $10,
    case when $6::text is null then $11::bytea end, case when $6::text is not null then nullif($11::bytea, '') end
where not exists (select from deliveries d where d.id = $1)";

const TELL: &str = "
insert into notices (topic, name, told, since, told_at) values ($1, $2, $3, $4, $5)
on conflict (topic, name) do update set
    told = excluded.told, since = excluded.since, told_at = excluded.told_at";

const TOLD_FAILURES: &str = "
with told as (delete from failures where webhook = $1 and failures <= $2)
update failures set failures = failures - $2, first_at = last_at where webhook = $1 and failures > $2";

const FORGET: &str = "delete from notices where topic = $1 and name = $2 and told_at = $3";
const FORGET_FAILURES: &str = "delete from failures where webhook = any($1)";

/// What no log told and is still open, by webhook; the bound on notices that wait is also one on this.
const WAITING: &str = "
select webhook, count(*) from deliveries_open where id < $1 and operation = 'notice' group by webhook";

const TYPE_OF: &str = "select event_type from deliveries where id = $1";

/// The facts, and what was told of them.
pub async fn known(client: &Client, slot: &str) -> Result<Known, LedgerError> {
    let reading = doing("reading what was told");
    let mut known = Known {
        states: states::load(client).await?,
        health: health::load(client).await?,
        ..Known::default()
    };
    for row in client.query(TOLD, &[]).await.map_err(&reading)? {
        let (topic, notice) = (Topic::of_word(row.get(0)), Notice::of_type(row.get(2)));
        if let (Some(topic), Some(notice)) = (topic, notice) {
            let told = Told { notice, since: time_of(row.get(3)), at: time_of(row.get(4)) };
            known.told.insert((topic, row.get::<_, &str>(1).into()), told);
        }
    }
    let rows = client.query(FAILURES, &[]).await.map_err(&reading)?;
    known.failures.extend(rows.iter().map(|row| Failures {
        webhook: row.get::<_, &str>(0).into(),
        failures: row.get(1),
        first_at: time_of(row.get(2)),
        last_at: time_of(row.get(3)),
        delivery: row.get(4),
        reason: row.get(5),
        error: row.get(6),
    }));
    let rows = client.query(NEW_GAPS, &[&slot, &GAPS]).await.map_err(&reading)?;
    known.gaps.extend(rows.iter().map(|row| Gap {
        from_lsn: row.get(0),
        to_lsn: row.get(1),
        noticed_at: time_of(row.get(2)),
        reason: row.get(3),
    }));
    Ok(known)
}

/// How many notices wait for each webhook.
pub async fn waiting(client: &Client) -> Result<HashMap<Arc<str>, i64>, LedgerError> {
    let rows = client.query(WAITING, &[&DeliveryId::FIRST_OF_LOGS]).await;
    let rows = rows.map_err(doing("counting the notices that wait"))?;
    Ok(rows.iter().map(|row| (row.get::<_, &str>(0).into(), row.get(1))).collect())
}

/// The event type of a delivery; `None` where it is not there any more.
pub async fn type_of(client: &Client, delivery: &str) -> Result<Option<String>, LedgerError> {
    let row = client.query_opt(TYPE_OF, &[&delivery]).await.map_err(doing("looking up a delivery"))?;
    Ok(row.map(|row| row.get(0)))
}

/// Writes notices, told at a time, and the deliveries that they owe, under the fence.
pub async fn tell(
    client: &mut Client,
    own: &Ownership,
    all: &[Telling],
    now: Timestamp,
) -> Result<(), LedgerError> {
    let now = pg_time(now);
    let telling = doing("telling of the machinery");
    let transaction = client.transaction().await.map_err(&telling)?;
    transaction.execute(KEEP_WRITER_OUT, &[]).await.map_err(&telling)?;
    if transaction.query_opt(OURS, &[&own.slot, &own.epoch]).await.map_err(&telling)?.is_none() {
        return Err(LedgerError::FencedOff);
    }
    let (mut webhooks, mut lanes) = (Vec::new(), Vec::new());
    for one in all {
        for (delivery, dead) in &one.deliveries {
            owe(transaction.client(), delivery, dead.as_ref()).await.map_err(&telling)?;
            webhooks.push(&*delivery.webhook);
            lanes.push(delivery.lane.0);
        }
        let (topic, told, since) = (one.notice.topic().as_str(), one.notice.event_type(), pg_time(one.since));
        transaction.execute(TELL, &[&topic, &&*one.name, &told, &since, &now]).await.map_err(&telling)?;
        if one.failures > 0 {
            let told = transaction.execute(TOLD_FAILURES, &[&&*one.name, &one.failures]).await;
            told.map_err(&telling)?;
        }
    }
    transaction.execute(WAKE, &[&webhooks, &lanes]).await.map_err(&telling)?;
    fail::fail_point!("before_notice_commit", |_| std::process::abort());
    transaction.commit().await.map_err(&telling)
}

async fn owe(
    client: &Client,
    delivery: &Delivery,
    dead: Option<&FailReason>,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            OWE,
            &[
                &delivery.id.as_str(),
                &delivery.event_id.as_str(),
                &&*delivery.event_type,
                &&*delivery.webhook,
                &delivery.lane.0,
                &dead.map(FailReason::describe),
                &pg_time(delivery.committed_at),
                &&*delivery.key,
                &&*delivery.content_type,
                &delivery.headers.as_deref(),
                &&delivery.body[..],
            ],
        )
        .await
        .map(drop)
}

/// Drops what need not be remembered any more, and the failures of webhooks that nobody can be told of.
pub async fn forget(
    client: &Client,
    over: &[(Topic, Arc<str>, Timestamp)],
    webhooks: &[Arc<str>],
) -> Result<(), LedgerError> {
    let forgetting = doing("forgetting what was told");
    for (topic, name, at) in over {
        let gone = client.execute(FORGET, &[&topic.as_str(), &&**name, &pg_time(*at)]).await;
        gone.map_err(&forgetting)?;
    }
    if !webhooks.is_empty() {
        let names: Vec<&str> = webhooks.iter().map(AsRef::as_ref).collect();
        client.execute(FORGET_FAILURES, &[&names]).await.map_err(&forgetting)?;
    }
    Ok(())
}

impl<'a> GivenUp<'a> {
    /// Those among young deliveries' rows. Tests and notices do not count: nothing is told of what tells.
    pub fn among_rows(&mut self, rows: &[&'a NewRow]) {
        for row in rows {
            if let Some(reason) = row.state.fail_reason() {
                self.count(&row.delivery.webhook, &row.delivery.id, reason, row.attempt.as_ref());
            }
        }
    }

    /// One of those that were claimed.
    pub fn finished(&mut self, finish: &'a Finish) {
        if let Some(reason) = finish.state.fail_reason() {
            self.count(&finish.webhook, &finish.id, reason, finish.attempt.as_ref());
        }
    }

    fn count(&mut self, webhook: &'a str, id: &'a DeliveryId, reason: &'a str, attempt: Option<&'a Attempt>) {
        if id.is_of_a_log() {
            let entry = self.by_webhook.entry(webhook).or_insert((0, id, reason, attempt));
            *entry = (entry.0 + 1, id, reason, attempt);
        }
    }

    /// Whether nothing was given up.
    pub fn is_empty(&self) -> bool {
        self.by_webhook.is_empty()
    }

    /// Writes it, to be told of.
    pub async fn note(&self, client: &Client) -> Result<(), LedgerError> {
        if self.is_empty() {
            return Ok(());
        }
        let mut webhooks: Vec<_> = self.by_webhook.iter().collect();
        webhooks.sort_unstable_by_key(|(webhook, _)| **webhook);
        let names: Vec<&str> = webhooks.iter().map(|(webhook, _)| **webhook).collect();
        let counts: Vec<i64> = webhooks.iter().map(|(_, (count, ..))| *count).collect();
        let ids: Vec<&str> = webhooks.iter().map(|(_, (_, id, ..))| id.as_str()).collect();
        let reasons: Vec<&str> = webhooks.iter().map(|(_, (_, _, reason, _))| *reason).collect();
        let errors: Vec<Option<String>> =
            webhooks.iter().map(|(_, (.., attempt))| attempt.map(|a| a.outcome.describe())).collect();
        let noted = client.execute(NOTE, &[&names, &counts, &ids, &reasons, &errors]).await;
        noted.map(drop).map_err(doing("noting what was given up"))
    }
}

/// Notes deliveries that were given up without an attempt.
pub(super) async fn note_old(
    client: &Client,
    webhook: &str,
    (count, last): (i64, &str),
    reason: &str,
) -> Result<(), LedgerError> {
    if count == 0 {
        return Ok(());
    }
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&vec![webhook], &vec![count], &vec![last], &vec![reason], &vec![None::<String>]];
    client.execute(NOTE, &parameters).await.map(drop).map_err(doing("noting what was given up"))
}
