//! What operators read of deliveries: searched, and one with all that is known of it; and cancelling one.
//!
//! A search goes by the ids, newest first: every part of the table has an index on them, and one on those of each webhook,
//! so the next page is found without counting. No index knows every combination of what may be asked for, and each one
//! more would cost every delivery a write; so a page looks through a bounded number of rows, and may be short, or empty,
//! with more behind it. Days that ended before the time asked for are not looked at.

use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Transaction};

use super::ask::Ask;
use super::replay::Cause;
use super::row::{pg_time, time_of};
use super::states::{KEEP_WRITER_OUT, WAKE_LANES};
use super::{LedgerError, doing};
use crate::domain::{DeliveryId, limits};

/// What is searched for: deliveries for which everything holds that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Of the webhooks of this tenant.
    pub tenant: Option<String>,
    /// Of this webhook.
    pub webhook: Option<String>,
    /// In one of these states; none means any.
    pub status: Vec<&'static str>,
    /// Of event types like this, with `*` for any run of characters.
    pub event: Option<String>,
    /// Of this table: its schema and its name.
    pub table: Option<(String, String)>,
    /// Of the row of this key.
    pub key: Option<String>,
    /// Whose last attempt went like this.
    pub cause: Option<Cause>,
    /// Of changes committed then or later.
    pub since: Option<Timestamp>,
    /// Of changes committed before.
    pub until: Option<Timestamp>,
}

/// A delivery without its body.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its event's id.
    pub event_id: String,
    /// Its event's type.
    pub event_type: String,
    /// Its webhook.
    pub webhook: String,
    /// `pending`, `retrying`, …
    pub status: String,
    /// Attempts made.
    pub attempts: i32,
    /// When it is tried next, where that is known.
    pub due_at: Option<Timestamp>,
    /// When the change was committed.
    pub committed_at: Timestamp,
    /// When it came to the ledger.
    pub recorded_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The schema of the row's table.
    pub schema: String,
    /// The row's table.
    pub table: String,
    /// The row's key.
    pub key: String,
    /// `insert`, `update`, …
    pub operation: String,
    /// Why it failed.
    pub fail_reason: Option<String>,
    /// How the last attempt went.
    pub last: Option<Try>,
}

/// How an attempt went.
#[derive(Debug, Clone, PartialEq)]
pub struct Try {
    /// Which one it was, from 1.
    pub number: i32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// `responded`, `timed_out`, `unreachable`, `refused`.
    pub outcome: String,
    /// The answer's status.
    pub http_status: Option<i32>,
    /// What went wrong.
    pub error: Option<String>,
    /// The beginning of the answer's body.
    pub response: Option<Vec<u8>>,
}

/// A delivery with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Whole {
    /// What the list has.
    pub listed: Listed,
    /// The body's media type.
    pub content_type: String,
    /// The headers that came with the body, a line `name: value` each.
    pub headers: Option<String>,
    /// The body, where it was kept.
    pub body: Option<Vec<u8>>,
    /// When it was last sent again by hand.
    pub sent_again_at: Option<Timestamp>,
    /// Its attempts that are still known, oldest first.
    pub attempts: Vec<Try>,
}

/// A page of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// What was found, newest first.
    pub found: Vec<Listed>,
    /// Where the next page begins; `None`: there is no more.
    pub next: Option<String>,
}

/// Every state.
pub const STATES: [&str; 6] = ["pending", "retrying", "held", "delivered", "failed", "cancelled"];
/// Sorts behind every id.
const BEHIND_ALL: &str = "e";

const COLUMNS: &str =
    "d.id, d.event_id, d.event_type, d.webhook, d.status, d.attempts, d.due_at, d.committed_at,
    d.recorded_at, d.finished_at, d.schema_name, d.table_name, d.row_key, d.operation, d.fail_reason,
    d.last_attempt_at, d.last_took_ms, d.last_outcome, d.last_http_status, d.last_error";

const PAST: &str = "
select number, attempted_at, took_ms, outcome, http_status, error, response
from past_attempts where delivery = $1 order by number limit 1000";

/// One that is under way is left: its attempt would arrive all the same.
const CANCEL: &str = "
update deliveries d set status = 'cancelled', due_at = null, lease = null, finished_at = now(),
    body = case when $3 then d.body end
where d.status in ('pending', 'retrying', 'held') and d.id = $1 and d.webhook = $2
    and (d.lease is null or d.due_at < now())
returning d.lane";

fn listed_of(row: &Row) -> Listed {
    let time = |index: usize| row.get::<_, Option<_>>(index).map(time_of);
    let last = time(15).map(|at| Try {
        number: row.get(5),
        at,
        took_ms: row.get::<_, Option<_>>(16).unwrap_or_default(),
        outcome: row.get::<_, Option<_>>(17).unwrap_or_default(),
        http_status: row.get(18),
        error: row.get(19),
        response: None,
    });
    Listed {
        id: row.get(0),
        event_id: row.get(1),
        event_type: row.get(2),
        webhook: row.get(3),
        status: row.get(4),
        attempts: row.get(5),
        due_at: time(6),
        committed_at: time_of(row.get(7)),
        recorded_at: time_of(row.get(8)),
        finished_at: time(9),
        schema: row.get(10),
        table: row.get(11),
        key: row.get(12),
        operation: row.get(13),
        fail_reason: row.get(14),
        last,
    }
}

/// Among which rows a page looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// All.
    All,
    /// Those of the webhook `$5`.
    OfWebhook,
    /// Those of the tenant `$15`, down to the id `$5`. A tenant's page ends where a change begins: that is a place in the log,
    /// where the id of the last delivery that was looked at would be somebody else's.
    OfTenant,
}

/// The rows that a page looks through, newest first: of states `$1`, before the id `$2`, `$3` at most, that ended no
/// sooner than an hour before `$4` (two clocks, one of them late), of the webhook `$5` where one is asked for.
///
/// A part of the table for each branch, in which an index has the order. Failed and cancelled ones share a part, and who
/// asks for one state alone must not have to pass all of the other: so they are told apart later. Where `what` is the id
/// alone and `$4` is not asked for, the index is all that is read.
fn looked_through(look: Look, has_since: bool, what: &str) -> String {
    let open = ["pending", "retrying", "held"];
    let mut parts: Vec<(&str, &[&str], &str)> = match look {
        Look::OfWebhook => vec![
            ("deliveries_open", &open[..1], "and d.status = 'pending'"),
            ("deliveries_open", &open[1..2], "and d.status = 'retrying'"),
            ("deliveries_open", &open[2..], "and d.status = 'held'"),
        ],
        Look::All | Look::OfTenant => vec![("deliveries_open", &open, "")],
    };
    let since = "and d.finished_at >= $4::timestamptz - interval '1 hour'";
    let since = if has_since { since } else { "" };
    parts.extend([
        ("deliveries_delivered", &["delivered"][..], since),
        ("deliveries_failed", &["failed", "cancelled"][..], since),
    ]);
    let own = match look {
        Look::All => "",
        Look::OfWebhook => "and d.webhook = $5::text",
        Look::OfTenant => "and d.id >= $5::text",
    };
    let branches: Vec<String> = parts
        .into_iter()
        .map(|(part, states, further)| {
            format!(
                "(select {what} from {part} d
                where $1::text[] && array['{}'] and d.id < $2::text {own} {further}
                order by d.id desc limit $3::bigint)",
                states.join("','")
            )
        })
        .collect();
    format!("select * from ({}) d order by d.id desc limit $3", branches.join(" union all "))
}

/// The statement of [`search`]: the parameters of what is looked through, of all with a null for `$5`, and then what the
/// found ones have in common.
pub fn search_sql(look: Look, has_since: bool) -> String {
    let own = match look {
        Look::All | Look::OfWebhook => "($5::text is null or d.webhook = $5)",
        Look::OfTenant => "position('~' in d.webhook) > 0 and split_part(d.webhook, '~', 1) = $15::text",
    };
    format!(
        "select {COLUMNS} from ({}) d
        where d.status = any($1) and {own}
            and ($6::text is null or d.event_type like $6)
            and ($7::text is null or (d.schema_name = $7 and d.table_name = $8::text))
            and ($9::text is null or d.row_key = $9)
            and ($10::text is null or d.last_outcome = $10)
            and ($11::integer is null or d.last_http_status between $11 and $12::integer)
            and ($4::timestamptz is null or d.committed_at >= $4)
            and ($13::timestamptz is null or d.committed_at < $13)
        order by d.id desc limit $14",
        looked_through(look, has_since, "d.*")
    )
}

/// The last of so many rows that were looked through; nothing where there were fewer.
fn end_of_look_sql(look: Look, has_since: bool) -> String {
    // All parameters have a type, whether or not they are asked for.
    let typed = "($4::timestamptz is null or true) and ($5::text is null or true)";
    format!(
        "select min(d.id) from ({}) d where {typed} having count(*) = $3",
        looked_through(look, has_since, "d.id")
    )
}

/// Until the transaction's end, the plans of a [`search`] are made once for whatever may be asked, and kept: planning takes
/// longer than the search itself, for it is over every day of both parts of the table, and nothing that is asked for makes
/// another plan better. But for the webhook: whether its own index or that of all ids is shorter, the planner sees by its
/// name alone.
pub async fn plan_for(transaction: &Transaction<'_>, search: &Search) -> Result<(), LedgerError> {
    let mode = if search.webhook.is_some() { "force_custom_plan" } else { "force_generic_plan" };
    let planned = transaction.batch_execute(&format!("set local plan_cache_mode = {mode}")).await;
    planned.map_err(doing("searching deliveries"))
}

/// Finds deliveries, newest first, behind the one of an id.
pub async fn search(
    client: &impl Ask,
    search: &Search,
    behind: Option<&str>,
    limit: u32,
) -> Result<Page, LedgerError> {
    let states = if search.status.is_empty() { STATES.to_vec() } else { search.status.clone() };
    let from = behind.unwrap_or(BEHIND_ALL);
    let wanted = i64::from(limit) + 1;
    // What is found of a webhook is all that is looked at, where nothing else is asked for.
    let finds_all = *search == Search { webhook: search.webhook.clone(), ..Search::default() };
    let most = if finds_all && search.webhook.is_some() { wanted } else { limits::API_LOOKED_THROUGH };
    let event = search.event.as_deref().map(super::replay::like);
    let (schema, table) = search.table.clone().unzip();
    let outcome = search.cause.map(Cause::outcome);
    let (least, up_to) = search.cause.and_then(Cause::statuses).unzip();
    let (since, until): (Option<SystemTime>, _) = (search.since.map(pg_time), search.until.map(pg_time));
    let look = match (&search.webhook, &search.tenant) {
        (Some(_), _) => Look::OfWebhook,
        (None, Some(_)) => Look::OfTenant,
        (None, None) => Look::All,
    };
    let doing_it = || doing("searching deliveries");
    let end = async |look: Look| {
        let looked: [&(dyn ToSql + Sync); 5] = [&states, &from, &most, &since, &search.webhook];
        let end = client.query_opt(&end_of_look_sql(look, since.is_some()), &looked).await;
        Ok::<Option<String>, LedgerError>(end.map_err(doing_it())?.map(|row| row.get(0)))
    };
    let floor = match look {
        Look::OfTenant => end(Look::All).await?.map(|id| DeliveryId::place_of(&id).to_owned()),
        Look::All | Look::OfWebhook => None,
    };
    // Of the change where it ends, all is looked at.
    let all_of_a_change = i64::try_from(limits::WEBHOOKS).unwrap_or(i64::MAX);
    let (reach, first) = (most + all_of_a_change, floor.as_deref().unwrap_or_default());
    let looked: [&(dyn ToSql + Sync); 5] = match look {
        Look::OfTenant => [&states, &from, &reach, &since, &first],
        Look::All | Look::OfWebhook => [&states, &from, &most, &since, &search.webhook],
    };
    let asked: [&(dyn ToSql + Sync); 9] =
        [&event, &schema, &table, &search.key, &outcome, &least, &up_to, &until, &wanted];
    let tenant = search.tenant.as_ref().filter(|_| look == Look::OfTenant);
    let tenant: Vec<&(dyn ToSql + Sync)> = tenant.map(|tenant| tenant as _).into_iter().collect();
    let rows = client
        .query(&search_sql(look, since.is_some()), &[&looked[..], &asked[..], &tenant[..]].concat())
        .await;
    let mut found: Vec<Listed> = rows.map_err(doing_it())?.iter().map(listed_of).collect();
    let full = found.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    let next = if full {
        found.pop();
        found.last().map(|last| last.id.clone())
    } else if look == Look::OfTenant {
        floor
    } else {
        end(look).await?
    };
    Ok(Page { found, next })
}

/// The webhook of a delivery.
pub async fn webhook_of(client: &impl Ask, id: &str) -> Result<Option<String>, LedgerError> {
    let row = client.query_opt("select webhook from deliveries where id = $1", &[&id]).await;
    Ok(row.map_err(doing("looking for a delivery"))?.map(|row| row.get(0)))
}

/// One delivery of a webhook.
pub async fn whole(client: &impl Ask, webhook: &str, id: &str) -> Result<Option<Whole>, LedgerError> {
    let sql = format!(
        "select {COLUMNS}, d.content_type, d.headers, d.body, d.last_response, d.sent_again_at
        from deliveries d where d.id = $1 and d.webhook = $2"
    );
    let row = client.query_opt(&sql, &[&id, &webhook]).await.map_err(doing("reading a delivery"))?;
    let Some(row) = row else { return Ok(None) };
    let listed = listed_of(&row);
    let past = client.query(PAST, &[&id]).await.map_err(doing("reading a delivery's attempts"))?;
    let mut attempts: Vec<Try> = past
        .iter()
        .map(|row| Try {
            number: row.get(0),
            at: time_of(row.get(1)),
            took_ms: row.get(2),
            outcome: row.get(3),
            http_status: row.get(4),
            error: row.get(5),
            response: row.get(6),
        })
        .collect();
    attempts.extend(listed.last.clone().map(|last| Try { response: row.get(23), ..last }));
    Ok(Some(Whole {
        listed,
        content_type: row.get(20),
        headers: row.get(21),
        body: row.get(22),
        sent_again_at: row.get::<_, Option<_>>(24).map(time_of),
        attempts,
    }))
}

/// Ends an open delivery without an attempt; what stood behind it in its lane becomes due. Returns whether it was open
/// and not under way. `keep` says whether the body is kept.
pub async fn cancel(
    transaction: &Transaction<'_>,
    webhook: &str,
    id: &str,
    keep: bool,
) -> Result<bool, LedgerError> {
    let doing_it = || doing("cancelling a delivery");
    transaction.execute(KEEP_WRITER_OUT, &[]).await.map_err(doing_it())?;
    let ended = transaction.query_opt(CANCEL, &[&id, &webhook, &keep]).await.map_err(doing_it())?;
    let Some(ended) = ended else { return Ok(false) };
    let lanes: Vec<i64> = vec![ended.get(0)];
    transaction.execute(WAKE_LANES, &[&webhook, &lanes]).await.map_err(doing_it())?;
    Ok(true)
}
