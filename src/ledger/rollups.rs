//! The sums of what the writer writes, by webhook and minute, in the same transactions: what was counted is what is in the
//! ledger, whatever crashes.
//!
//! The writer remembers the sums of the last minutes and writes each as a whole, into a row that only it writes (of its
//! slot and epoch). So one statement a batch is enough, no sum is made by the server, and writing the same twice is
//! no harm. Where it cannot know what the row holds (a commit's answer was lost, or the minute was forgotten), it reads it
//! first. A batch in which nothing ended writes nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::own::Ownership;
use super::record::{Finish, NewRow, State, Written};
use super::row::{pg_time, time_of};
use super::{LedgerError, doing};
use crate::domain::{Attempt, Causes, Delivery, Ending, Histogram, Operation, Promise, Tally, limits};

/// Tells within which time after its commit a webhook's delivery should be delivered.
pub type SlaOf = Arc<dyn Fn(&str) -> Duration + Send + Sync>;

/// What is remembered, in seconds; what is older is read again, should anything of it come.
const REMEMBERED: i64 = 600;

/// The columns of sums, in the order of [`tally_of`] and [`Columns`].
pub(super) const SUMS: &str = "attempts, delivered, first_try, failed, sla_met, sla_missed, http_4xx, http_5xx, \
    http_other, timed_out, unreachable, refused, receipt, request";

const KEEP: &str = "
insert into rollups (
    webhook, begins, span, slot, epoch, attempts, delivered, first_try, failed, sla_met, sla_missed, http_4xx,
    http_5xx, http_other, timed_out, unreachable, refused, receipt, request)
select n.webhook, n.begins, $1::text::interval, $2, $3, n.attempts, n.delivered, n.first_try, n.failed, n.sla_met,
    n.sla_missed, n.http_4xx, n.http_5xx, n.http_other, n.timed_out, n.unreachable, n.refused, n.receipt, n.request
from unnest(
    $4::text[], $5::timestamptz[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
    $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[],
    $18::bytea[], $19::bytea[])
    as n(webhook, begins, attempts, delivered, first_try, failed, sla_met, sla_missed, http_4xx, http_5xx,
        http_other, timed_out, unreachable, refused, receipt, request)
on conflict (webhook, begins, span, slot, epoch) do update set
    attempts = excluded.attempts, delivered = excluded.delivered, first_try = excluded.first_try,
    failed = excluded.failed, sla_met = excluded.sla_met, sla_missed = excluded.sla_missed,
    http_4xx = excluded.http_4xx, http_5xx = excluded.http_5xx, http_other = excluded.http_other,
    timed_out = excluded.timed_out, unreachable = excluded.unreachable, refused = excluded.refused,
    receipt = excluded.receipt, request = excluded.request";

/// Adds to what is there: not only one may do it.
const ADD_FAILED: &str = "
insert into rollups as r (
    webhook, begins, span, slot, epoch, attempts, delivered, first_try, failed, sla_met, sla_missed, http_4xx,
    http_5xx, http_other, timed_out, unreachable, refused, receipt, request)
values ($1, date_trunc('minute', now(), 'UTC'), '1 minute', '', 0, 0, 0, 0, $2, 0, $3, 0, 0, 0, 0, 0, 0, '', '')
on conflict (webhook, begins, span, slot, epoch) do update set
    failed = r.failed + excluded.failed, sla_missed = r.sla_missed + excluded.sla_missed";

fn kept_sql() -> String {
    format!(
        "select webhook, begins, {SUMS} from rollups
where (webhook, begins) in (select * from unnest($4::text[], $5::timestamptz[]))
    and span = $1::text::interval and slot = $2 and epoch = $3"
    )
}

/// A webhook, and the second since 1970 at which a minute or an hour begins.
pub(super) type Key = (Arc<str>, i64);

/// Whose rows are meant.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    span: &'static str,
    slot: &'a str,
    epoch: i64,
}

impl<'a> Whose<'a> {
    fn minutes_of(own: &'a Ownership) -> Self {
        Self { span: "1 minute", slot: &own.slot, epoch: own.epoch }
    }
}

impl Whose<'static> {
    /// Those that were put together of minutes.
    pub(super) const HOURS: Self = Self { span: "1 hour", slot: "", epoch: 0 };
}

/// The second at which the minute of a moment begins.
fn minute_of(moment: Timestamp) -> i64 {
    let second = moment.as_second();
    second - second.rem_euclid(60)
}

/// What one batch adds.
pub(super) struct News<'a> {
    sums: FxHashMap<Key, (Tally, Duration)>,
    sla: &'a SlaOf,
    now: Timestamp,
}

impl<'a> News<'a> {
    pub(super) fn new(sla: &'a SlaOf, now: Timestamp) -> Self {
        Self { sums: FxHashMap::default(), sla, now }
    }

    /// A young delivery's row.
    pub(super) fn row(&mut self, row: &NewRow) {
        let Delivery { webhook, operation, committed_at, .. } = &row.delivery;
        let committed_at = (*operation != Operation::Snapshot).then_some(*committed_at);
        if *operation != Operation::Test {
            self.count(webhook, row.attempt.as_ref(), &row.state, committed_at);
        }
    }

    /// What a claimed delivery's attempt led to.
    pub(super) fn finish(&mut self, finish: &Finish, written: &Written) {
        if !written.is_test {
            self.count(&finish.webhook, finish.attempt.as_ref(), &finish.state, written.measured_from);
        }
    }

    fn count(
        &mut self,
        webhook: &Arc<str>,
        attempt: Option<&Attempt>,
        state: &State,
        committed_at: Option<Timestamp>,
    ) {
        let ending = match state {
            State::Delivered => Some(Ending::Delivered),
            State::Failed(_) => Some(Ending::Failed),
            _ => None,
        };
        if attempt.is_none() && ending.is_none() {
            return;
        }
        let minute = minute_of(attempt.map_or(self.now, Attempt::ended_at));
        let fresh = || (Tally::default(), (self.sla)(webhook));
        let (tally, within) = self.sums.entry((Arc::clone(webhook), minute)).or_insert_with(fresh);
        let promise = committed_at.map(|committed_at| Promise { committed_at, within: *within });
        tally.count(attempt, ending, promise);
    }
}

/// What a transaction has written, to be remembered once it is committed.
#[derive(Default)]
pub(super) struct Kept {
    sums: Vec<(Key, Tally)>,
    /// Promises that the batch kept, and broke.
    pub(super) sla: (u64, u64),
}

/// The sums that the writer remembers.
#[derive(Default)]
pub(super) struct Book {
    sums: FxHashMap<Key, Tally>,
    /// Of this minute and those before, some may have been forgotten.
    forgotten: i64,
    /// The minute in which it was last tidied.
    tidied: i64,
}

/// The prepared statements.
pub(super) struct Statements {
    pub(super) keep: Statement,
    pub(super) kept: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, LedgerError> {
        let prepared = async {
            Ok(Self { keep: client.prepare(KEEP).await?, kept: client.prepare(&kept_sql()).await? })
        };
        prepared.await.map_err(doing("preparing to sum up"))
    }
}

impl Book {
    /// Writes what a batch adds, inside the batch's transaction. With `in_doubt`, what the rows hold is read first.
    pub(super) async fn write(
        &self,
        client: &Client,
        statements: &Statements,
        own: &Ownership,
        news: News<'_>,
        in_doubt: bool,
    ) -> Result<Kept, LedgerError> {
        let mut kept = Kept::default();
        let mut unsure = Vec::new();
        for (key, (tally, _)) in news.sums {
            kept.sla.0 += tally.sla_met;
            kept.sla.1 += tally.sla_missed;
            let known = self.sums.get(&key).filter(|_| !in_doubt);
            if in_doubt || (known.is_none() && key.1 <= self.forgotten) {
                unsure.push(key.clone());
            }
            let mut sum = known.cloned().unwrap_or_default();
            sum.merge(&tally);
            kept.sums.push((key, sum));
        }
        if kept.sums.is_empty() {
            return Ok(kept);
        }
        if !unsure.is_empty() {
            let there = read(client, &statements.kept, Whose::minutes_of(own), &unsure).await?;
            for (key, sum) in &mut kept.sums {
                there.get(key).into_iter().for_each(|before| sum.merge(before));
            }
        }
        // Always in one order, so that no two who sum up wait for each other crosswise.
        kept.sums.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        write(client, &statements.keep, Whose::minutes_of(own), &kept.sums).await?;
        Ok(kept)
    }

    /// The transaction is committed.
    pub(super) fn remember(&mut self, kept: Kept, now: Timestamp) {
        metrics::counter!("walhook_sla_met_total").increment(kept.sla.0);
        metrics::counter!("walhook_sla_missed_total").increment(kept.sla.1);
        let minute = minute_of(now);
        if self.tidied != minute {
            self.tidied = minute;
            self.forget_until(minute - REMEMBERED);
        }
        if self.sums.len() + kept.sums.len() > limits::ROLLUPS_IN_MEMORY {
            self.forget_until(kept.sums.iter().map(|((_, at), _)| *at).max().unwrap_or(minute).max(minute));
        }
        self.sums.extend(kept.sums);
    }

    fn forget_until(&mut self, minute: i64) {
        self.forgotten = self.forgotten.max(minute);
        self.sums.retain(|(_, at), _| *at > minute);
    }
}

/// Deliveries have failed that the writer had no part in, `promised` of them with a commit to be measured from.
pub(super) async fn add_failed(
    client: &Client,
    webhook: &str,
    failed: i64,
    promised: i64,
) -> Result<(), LedgerError> {
    let added = client.execute(ADD_FAILED, &[&webhook, &failed, &promised]).await;
    added.map(drop).map_err(doing("summing up"))
}

/// What the rows of these keys hold.
pub(super) async fn read(
    client: &Client,
    kept: &Statement,
    whose: Whose<'_>,
    keys: &[Key],
) -> Result<FxHashMap<Key, Tally>, LedgerError> {
    let webhooks: Vec<&str> = keys.iter().map(|(webhook, _)| &**webhook).collect();
    let begins: Vec<SystemTime> = keys.iter().map(|(_, begins)| time_at(*begins)).collect();
    let Whose { span, slot, epoch } = whose;
    let rows = client.query(kept, &[&span, &slot, &epoch, &webhooks, &begins]).await;
    let rows = rows.map_err(doing("reading sums"))?;
    let sum = |row: &Row| ((row.get::<_, &str>(0).into(), time_of(row.get(1)).as_second()), tally_of(row, 2));
    Ok(rows.iter().map(sum).collect())
}

/// Writes sums as they are, over what the rows held.
pub(super) async fn write(
    client: &Client,
    keep: &Statement,
    whose: Whose<'_>,
    sums: &[(Key, Tally)],
) -> Result<(), LedgerError> {
    let columns = Columns::of(sums);
    let Whose { span, slot, epoch } = whose;
    let mut parameters: Vec<&(dyn ToSql + Sync)> =
        vec![&span, &slot, &epoch, &columns.webhook, &columns.begins];
    parameters.extend(columns.sums.iter().map(|column| column as &(dyn ToSql + Sync)));
    parameters.extend([&columns.receipt as &(dyn ToSql + Sync), &columns.request]);
    client.execute(keep, &parameters).await.map_err(doing("summing up"))?;
    Ok(())
}

fn time_at(second: i64) -> SystemTime {
    Timestamp::from_second(second).map_or(SystemTime::UNIX_EPOCH, pg_time)
}

/// The sums of a row, whose columns from `at` on are [`SUMS`].
pub(super) fn tally_of(row: &Row, at: usize) -> Tally {
    let sum = |index: usize| u64::try_from(row.get::<_, i64>(at + index)).unwrap_or(0);
    let histogram = |index: usize| Histogram::from_bytes(row.get(at + index));
    Tally {
        attempts: sum(0),
        delivered: sum(1),
        first_try: sum(2),
        failed: sum(3),
        sla_met: sum(4),
        sla_missed: sum(5),
        causes: Causes {
            http_4xx: sum(6),
            http_5xx: sum(7),
            http_other: sum(8),
            timed_out: sum(9),
            unreachable: sum(10),
            refused: sum(11),
        },
        receipt: histogram(12),
        request: histogram(13),
    }
}

/// One vector a column.
#[derive(Default)]
struct Columns<'a> {
    webhook: Vec<&'a str>,
    begins: Vec<SystemTime>,
    sums: [Vec<i64>; 12],
    receipt: Vec<Vec<u8>>,
    request: Vec<Vec<u8>>,
}

impl<'a> Columns<'a> {
    fn of(sums: &'a [(Key, Tally)]) -> Self {
        let mut columns = Self::default();
        for ((webhook, begins), tally) in sums {
            columns.webhook.push(webhook);
            columns.begins.push(time_at(*begins));
            for (column, sum) in columns.sums.iter_mut().zip(numbers(tally)) {
                column.push(i64::try_from(sum).unwrap_or(i64::MAX));
            }
            columns.receipt.push(tally.receipt.to_bytes());
            columns.request.push(tally.request.to_bytes());
        }
        columns
    }
}

/// The sums that are numbers, in the order of [`SUMS`].
fn numbers(tally: &Tally) -> [u64; 12] {
    let Causes { http_4xx, http_5xx, http_other, timed_out, unreachable, refused } = tally.causes;
    [
        tally.attempts,
        tally.delivered,
        tally.first_try,
        tally.failed,
        tally.sla_met,
        tally.sla_missed,
        http_4xx,
        http_5xx,
        http_other,
        timed_out,
        unreachable,
        refused,
    ]
}
