//! Sending again by hand: failed deliveries become open, with the same id and the same bytes.

use tokio_postgres::Client;

use super::states::KEEP_WRITER_OUT;
use super::{LedgerError, doing};

/// Which failed deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which<'a> {
    /// One, by id.
    Delivery(&'a str),
    /// All of a webhook.
    Webhook(&'a str),
}

const COUNT: &str = "
select count(*) from deliveries_failed
where status = 'failed' and body is not null and (id = $1 or webhook = $2)";

/// In steps, oldest first. Attempts go on counting; the retry schedule begins anew from here. A row that two people
/// replay at once moves once. None is due yet: that is for [`WAKE`].
const REPLAY: &str = "
with moved as (
    update deliveries d set
        status = case when d.attempts > 0 then 'retrying' else 'pending' end,
        finished_at = null, fail_reason = null, due_at = null, retried_from = d.attempts
    where d.status = 'failed' and d.id in (
        select id from deliveries_failed
        where status = 'failed' and body is not null and (id = $1 or webhook = $2)
        order by id limit 1000 for update skip locked)
    returning d.webhook, d.lane)
select webhook, lane, count(*) from moved group by webhook, lane";

/// Of each lane the earliest open delivery is due, and no other that is not under way (invariant I7): what comes
/// again may stand before what waits.
const WAKE: &str = "
with heads as (
    select l.webhook, l.lane, head.id
    from unnest($1::text[], $2::bigint[]) as l(webhook, lane) cross join lateral (
        select n.id from deliveries_open n
        where n.webhook = l.webhook and n.lane = l.lane order by n.webhook, n.lane, n.id limit 1) head)
update deliveries_open o set due_at = case when o.id = h.id then now() end
from heads h
where o.webhook = h.webhook and o.lane = h.lane and o.lease is null and o.status <> 'held'
    and (o.due_at is null) = (o.id = h.id)";

fn parameters<'a>(which: &Which<'a>) -> (Option<&'a str>, Option<&'a str>) {
    match which {
        Which::Delivery(id) => (Some(id), None),
        Which::Webhook(name) => (None, Some(name)),
    }
}

/// How many could be sent again.
pub async fn count(client: &Client, which: &Which<'_>) -> Result<i64, LedgerError> {
    let (id, webhook) = parameters(which);
    let row = client.query_one(COUNT, &[&id, &webhook]).await.map_err(doing("counting failed deliveries"))?;
    Ok(row.get(0))
}

/// Opens some of them again. Returns how many; call until zero, then [`announce`].
pub async fn replay(client: &mut Client, which: &Which<'_>) -> Result<u64, LedgerError> {
    let (id, webhook) = parameters(which);
    let doing_it = || doing("sending deliveries again");
    let transaction = client.transaction().await.map_err(doing_it())?;
    transaction.execute(KEEP_WRITER_OUT, &[]).await.map_err(doing_it())?;
    let moved = transaction.query(REPLAY, &[&id, &webhook]).await.map_err(doing_it())?;
    let count: i64 = moved.iter().map(|row| row.get::<_, i64>(2)).sum();
    let webhooks: Vec<&str> = moved.iter().map(|row| row.get(0)).collect();
    let lanes: Vec<i64> = moved.iter().map(|row| row.get(1)).collect();
    transaction.execute(WAKE, &[&webhooks, &lanes]).await.map_err(doing_it())?;
    transaction.commit().await.map_err(doing_it())?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Tells the running instance that the ledger has work that it did not put there.
pub async fn announce(client: &Client) -> Result<(), LedgerError> {
    let notify = "select pg_notify(current_schema(), 'ledger')";
    client.execute(notify, &[]).await.map_err(doing("telling the running instance"))?;
    Ok(())
}
