//! Sending again by hand: ended deliveries become open, with the same id and the same bytes.
//!
//! One that could not be rendered has no bytes yet; it is rendered first, as its webhook is now ([`unrendered`]). One whose
//! body is not kept, and of whose event nothing is, is never among them, nor is a test.

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, GenericClient, Row, Transaction};

use super::ask::Ask;
use super::row::{pg_time, time_of};
use super::states::KEEP_WRITER_OUT;
use super::unrendered::{self, Render, Rendered};
use super::{LedgerError, doing, pokes};
use crate::domain::limits;

/// Deliveries opened again in one transaction, at most.
pub const STEP: u32 = 1000;

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was given up.
    Failed,
    /// The receiver took it.
    Delivered,
    /// It was cancelled by hand.
    Cancelled,
}

impl Ended {
    /// The state's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a word.
    pub fn named(word: &str) -> Option<Self> {
        [Self::Failed, Self::Delivered, Self::Cancelled].into_iter().find(|ended| ended.as_str() == word)
    }
}

/// How the last attempt of a delivery went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It ran out of time.
    TimedOut,
    /// The receiver could not be reached, or broke off.
    Unreachable,
    /// walhook did not send it: the rules of `[security]`, say.
    Refused,
    /// It was answered with a status from the first to the second of these.
    Answered(u16, u16),
}

impl Cause {
    /// A cause in words: `timeout`, `unreachable`, `refused`, a status such as `503`, a class such as `5xx`.
    pub fn named(text: &str) -> Option<Self> {
        let answered = || {
            let (first, rest) = text.split_at_checked(1)?;
            let class = first.parse::<u16>().ok().filter(|class| (1..=5).contains(class))?;
            if rest == "xx" {
                return Some(Self::Answered(class * 100, class * 100 + 99));
            }
            let status = text.parse().ok().filter(|status| (100..600).contains(status))?;
            Some(Self::Answered(status, status))
        };
        match text {
            "timeout" => Some(Self::TimedOut),
            "unreachable" => Some(Self::Unreachable),
            "refused" => Some(Self::Refused),
            _ => answered(),
        }
    }

    pub(super) fn outcome(self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Answered(..) => "responded",
        }
    }

    /// The statuses, where it was answered.
    pub(super) fn statuses(self) -> Option<(i32, i32)> {
        match self {
            Self::Answered(first, last) => Some((first.into(), last.into())),
            _ => None,
        }
    }
}

/// Which ended deliveries: those for which everything holds that is set. Tests are never among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Which {
    /// Only this one.
    pub id: Option<String>,
    /// Of this webhook.
    pub webhook: Option<String>,
    /// In one of these states.
    pub ended: Vec<Ended>,
    /// Of event types like this, with `*` for any run of characters.
    pub event: Option<String>,
    /// Of changes committed then or later.
    pub since: Option<Timestamp>,
    /// Of changes committed before.
    pub until: Option<Timestamp>,
    /// Whose last attempt went like this.
    pub cause: Option<Cause>,
    /// Of which so many attempts were made.
    pub attempts: Option<u32>,
    /// Which nobody has sent again then or later.
    pub spares: Option<Timestamp>,
}

/// How many there were, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// How many.
    pub count: u64,
    /// When they were counted, by the database's clock.
    pub at: Timestamp,
}

/// Deliveries that would be meant and cannot be sent again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// The commonest reasons, each with how many it is of: [`limits::REASONS_TOLD`] at most.
    pub reasons: Vec<(String, u64)>,
}

/// How far a replay has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reached {
    /// The last id that was looked at; the next step begins after it.
    pub(super) last: String,
}

/// The next deliveries of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The last id; empty where there is none.
    last: String,
    /// How many.
    pub count: u64,
    /// Those that have to be rendered first.
    unrendered: Vec<String>,
}

impl Page {
    /// Whether some of them have to be rendered first.
    pub fn is_to_render(&self) -> bool {
        !self.unrendered.is_empty()
    }

    /// Renders them, as far as that is possible by now.
    pub async fn render(
        &self,
        client: &impl GenericClient,
        render: Render<'_>,
    ) -> Result<Rendered, LedgerError> {
        unrendered::render(client, &self.unrendered, render).await
    }
}

/// What [`Which`] means; the parameters are those of [`Parameters`].
const MEANT: &str = "
    d.status = any($1::text[]) and d.operation <> 'test'
    and ($2::text is null or d.id = $2) and ($3::text is null or d.webhook = $3)
    and ($4::text is null or d.event_type like $4)
    and ($5::timestamptz is null or d.committed_at >= $5) and ($6::timestamptz is null or d.committed_at < $6)
    and ($7::text is null or d.last_outcome = $7)
    and ($8::integer is null or d.last_http_status between $8 and $9::integer)
    and ($10::integer is null or d.attempts = $10)";

/// Of these, what is left to those who sent it again.
const SPARED: &str = "coalesce(d.sent_again_at >= $11::timestamptz, false)";

/// Of these, what has a body, or an event to make one of.
const HAS_BODY: &str = "(d.body is not null or d.unrendered is not null)";

/// What [`Which`] chooses.
fn chosen() -> String {
    format!("{MEANT} and not {SPARED} and {HAS_BODY}")
}

/// In the order of ids, oldest first.
fn page_sql() -> String {
    format!(
        "select d.id, d.unrendered is not null from deliveries d
where {} and d.finished_at <= $12::timestamptz and d.id > $13::text
order by d.id limit $14::bigint",
        chosen()
    )
}

/// Attempts go on counting; the retry schedule begins anew from here. What ended after the census is not taken along, and
/// what has no body still is not either. A row that two people replay at once moves once: [`KEEP_WRITER_OUT`] keeps each of
/// them out while the other is at it. None is due yet: that is for [`WAKE`].
fn replay_sql() -> String {
    format!(
        "
with chosen as (
    select d.id from deliveries d
    where {} and d.body is not null and d.finished_at <= $12::timestamptz and d.id > $13::text and d.id <= $14::text
    for update),
moved as (
    update deliveries d set
        status = case when d.attempts > 0 then 'retrying' else 'pending' end,
        finished_at = null, fail_reason = null, due_at = null, retried_from = d.attempts,
        sent_again_at = now(), unrendered = null
    where d.status = any($1::text[]) and d.id = any(array(select id from chosen))
    returning d.webhook, d.lane)
select webhook, lane, count(*) from moved group by webhook, lane",
        chosen()
    )
}

/// What is meant and not chosen, by reason, the commonest first.
fn left_out_sql() -> String {
    format!(
        "
select reason, count(*), (sum(count(*)) over ())::bigint
from (
    select case
        when {SPARED} then 'it was sent again a moment ago, or by a retry that was not over'
        when d.status = 'failed' and d.attempts = 0 then d.fail_reason
        else 'its body was not kept (ledger.store_bodies)'
    end as reason
    from deliveries d where {MEANT} and ({SPARED} or not {HAS_BODY})) left_out
group by reason order by count(*) desc, reason limit $12"
    )
}

/// Of each lane the earliest open delivery is due, and no other that is not under way (invariant I7): what comes
/// again may stand before what waits.
pub(super) const WAKE: &str = "
with heads as (
    select l.webhook, l.lane, head.id
    from unnest($1::text[], $2::bigint[]) as l(webhook, lane) cross join lateral (
        select n.id from deliveries_open n
        where n.webhook = l.webhook and n.lane = l.lane order by n.webhook, n.lane, n.id limit 1) head)
update deliveries_open o set due_at = case when o.id = h.id then now() end
from heads h
where o.webhook = h.webhook and o.lane = h.lane and o.lease is null and o.status <> 'held'
    and (o.due_at is null) = (o.id = h.id)";

/// A [`Which`] as the statements take it.
struct Parameters<'a> {
    ended: Vec<&'static str>,
    id: Option<&'a str>,
    webhook: Option<&'a str>,
    event: Option<String>,
    since: Option<std::time::SystemTime>,
    until: Option<std::time::SystemTime>,
    outcome: Option<&'static str>,
    statuses: (Option<i32>, Option<i32>),
    attempts: Option<i32>,
    spares: Option<std::time::SystemTime>,
}

impl<'a> Parameters<'a> {
    fn of(which: &'a Which) -> Self {
        let statuses = which.cause.and_then(Cause::statuses).unzip();
        Self {
            ended: which.ended.iter().map(|ended| ended.as_str()).collect(),
            id: which.id.as_deref(),
            webhook: which.webhook.as_deref(),
            event: which.event.as_deref().map(like),
            since: which.since.map(pg_time),
            until: which.until.map(pg_time),
            outcome: which.cause.map(Cause::outcome),
            statuses,
            attempts: which.attempts.map(|attempts| i32::try_from(attempts).unwrap_or(i32::MAX)),
            spares: which.spares.map(pg_time),
        }
    }

    fn all(&self) -> [&(dyn ToSql + Sync); 11] {
        [
            &self.ended,
            &self.id,
            &self.webhook,
            &self.event,
            &self.since,
            &self.until,
            &self.outcome,
            &self.statuses.0,
            &self.statuses.1,
            &self.attempts,
            &self.spares,
        ]
    }
}

/// A pattern of event types in the language of `LIKE`.
pub(super) fn like(pattern: &str) -> String {
    let mut like = String::with_capacity(pattern.len() + 4);
    for character in pattern.chars() {
        match character {
            '*' => like.push('%'),
            '%' | '_' | '\\' => like.extend(['\\', character]),
            other => like.push(other),
        }
    }
    like
}

/// Waits for whoever else sends deliveries again, and for the writer, and keeps them out until the transaction ends. Returns
/// the time, by the database's clock.
pub async fn alone(transaction: &Transaction<'_>) -> Result<Timestamp, LedgerError> {
    let doing_it = || doing("sending deliveries again");
    transaction.execute(KEEP_WRITER_OUT, &[]).await.map_err(doing_it())?;
    let row = transaction.query_one("select clock_timestamp()", &[]).await.map_err(doing_it())?;
    Ok(time_of(row.get(0)))
}

/// How many could be sent again, as far as that can be told: what has to be rendered first may fail at that again.
pub async fn count(client: &impl GenericClient, which: &Which) -> Result<Census, LedgerError> {
    count_until(client, which, None).await
}

/// How many could be sent again that had ended by then.
pub(super) async fn count_until(
    client: &impl GenericClient,
    which: &Which,
    until: Option<Timestamp>,
) -> Result<Census, LedgerError> {
    let sql = format!(
        "select count(*), now() from deliveries d
         where {} and ($12::timestamptz is null or d.finished_at <= $12)",
        chosen()
    );
    let (parameters, until) = (Parameters::of(which), until.map(pg_time));
    let mut all = parameters.all().to_vec();
    all.push(&until);
    let row = client.query_one(&sql, &all).await.map_err(doing("counting deliveries"))?;
    Ok(Census { count: u64::try_from(row.get::<_, i64>(0)).unwrap_or(0), at: time_of(row.get(1)) })
}

/// How many are meant that cannot be sent again, and why.
pub async fn left_out(client: &impl GenericClient, which: &Which) -> Result<LeftOut, LedgerError> {
    let parameters = Parameters::of(which);
    let mut all = parameters.all().to_vec();
    all.push(&limits::REASONS_TOLD);
    let rows = client.query(&left_out_sql(), &all).await.map_err(doing("counting deliveries"))?;
    let number = |row: &Row, column: usize| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
    Ok(LeftOut {
        count: rows.first().map_or(0, |row| number(row, 2)),
        reasons: rows.iter().map(|row| (row.get(0), number(row, 1))).collect(),
    })
}

/// The next of them, at most `step` and [`STEP`], that had ended when they were counted.
pub async fn page(
    client: &impl GenericClient,
    which: &Which,
    census: &Census,
    reached: &Reached,
    step: u32,
) -> Result<Page, LedgerError> {
    let (parameters, at, step) = (Parameters::of(which), pg_time(census.at), i64::from(step.min(STEP)));
    let mut all = parameters.all().to_vec();
    all.extend([&at as &(dyn ToSql + Sync), &reached.last, &step]);
    let rows =
        client.query(&page_sql(), &all).await.map_err(doing("looking for deliveries to send again"))?;
    let to_render = rows.iter().filter(|row| row.get(1));
    Ok(Page {
        last: rows.last().map_or_else(|| reached.last.clone(), |row| row.get(0)),
        count: u64::try_from(rows.len()).unwrap_or(u64::MAX),
        unrendered: to_render.map(|row| row.get(0)).collect(),
    })
}

/// Opens some of them again, at most `step` and [`STEP`], that had ended when they were counted and have a body. Returns how
/// many; call until zero, with an [`announce`] after each.
pub async fn replay(
    client: &mut Client,
    which: &Which,
    census: &Census,
    reached: &mut Reached,
    step: u32,
) -> Result<u64, LedgerError> {
    let doing_it = || doing("sending deliveries again");
    let transaction = client.transaction().await.map_err(doing_it())?;
    alone(&transaction).await?;
    let page = page(&transaction, which, census, reached, step).await?;
    let count = replay_in(&transaction, which, census, reached, &page).await?;
    transaction.commit().await.map_err(doing_it())?;
    Ok(count)
}

/// Opens a page of them again as a part of a transaction, which ends soon: it keeps the ledger's writer out.
pub async fn replay_in(
    transaction: &Transaction<'_>,
    which: &Which,
    census: &Census,
    reached: &mut Reached,
    page: &Page,
) -> Result<u64, LedgerError> {
    let doing_it = || doing("sending deliveries again");
    let (parameters, at) = (Parameters::of(which), pg_time(census.at));
    let mut all = parameters.all().to_vec();
    all.extend([&at as &(dyn ToSql + Sync), &reached.last, &page.last]);
    transaction.execute(KEEP_WRITER_OUT, &[]).await.map_err(doing_it())?;
    let moved = transaction.query(&replay_sql(), &all).await.map_err(doing_it())?;
    let count: i64 = moved.iter().map(|row| row.get::<_, i64>(2)).sum();
    let webhooks: Vec<&str> = moved.iter().map(|row| row.get(0)).collect();
    let lanes: Vec<i64> = moved.iter().map(|row| row.get(1)).collect();
    transaction.execute(WAKE, &[&webhooks, &lanes]).await.map_err(doing_it())?;
    reached.last.clone_from(&page.last);
    Ok(u64::try_from(count).unwrap_or(0))
}

/// What there is for the running instance to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// Open deliveries of this webhook, which it did not put there, and for which somebody waits.
    Wanted(&'a str),
    /// Open deliveries of this webhook, which it did not put there or which went without it.
    Moved(&'a str),
    /// A backfill or a retry that was asked for, or steered.
    Jobs,
}

/// Tells the running instance what somebody else has written: in a transaction, when that is over.
pub async fn announce(client: &impl Ask, told: Told<'_>) -> Result<(), LedgerError> {
    let notify = "select pg_notify(current_schema(), $1)";
    let payload = pokes::payload(told);
    client.execute(notify, &[&payload]).await.map_err(doing("telling the running instance"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_star_stands_for_anything() {
        assert_eq!(like("order.*"), "order.%");
        assert_eq!(like("a_b%.c\\d"), "a\\_b\\%.c\\\\d");
    }
}
