//! Sending again by hand: failed deliveries become open, with the same id and the same bytes.

use tokio_postgres::Client;

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
/// replay at once moves once.
const REPLAY: &str = "
update deliveries d set
    status = case when d.attempts > 0 then 'retrying' else 'pending' end,
    finished_at = null, fail_reason = null, due_at = now(), retried_from = d.attempts
where d.status = 'failed' and d.id in (
    select id from deliveries_failed
    where status = 'failed' and body is not null and (id = $1 or webhook = $2)
    order by id limit 1000 for update skip locked)";

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
pub async fn replay(client: &Client, which: &Which<'_>) -> Result<u64, LedgerError> {
    let (id, webhook) = parameters(which);
    client.execute(REPLAY, &[&id, &webhook]).await.map_err(doing("sending deliveries again"))
}

/// Tells the running instance that the ledger has work that it did not put there.
pub async fn announce(client: &Client) -> Result<(), LedgerError> {
    let notify = "select pg_notify(current_schema(), 'ledger')";
    client.execute(notify, &[]).await.map_err(doing("telling the running instance"))?;
    Ok(())
}
