//! Retention: a day's partition is made ahead of time and dropped when all it can hold is too old; sums by the minute
//! become sums by the hour.

use std::time::Duration;

use tokio_postgres::Client;

use super::{Ledger, LedgerError, doing};

const ENSURE: &str =
    "select ensure_partitions((now() at time zone 'UTC')::date - 1, (now() at time zone 'UTC')::date + 2)";

/// Day partitions of a parent whose whole day is older than a retention (seconds).
const OLD: &str = "
select c.oid::regclass::text
from pg_catalog.pg_inherits i
join pg_catalog.pg_class c on c.oid = i.inhrelid
where i.inhparent = $1::text::regclass
  and c.relname ~ '_[0-9]{8}$'
  and (to_date(right(c.relname, 8), 'YYYYMMDD') + 1)::timestamp at time zone 'UTC' < now() - make_interval(secs => $2)
order by 1";

/// The attempts of these open deliveries may be older than any partition that is still there.
const ENSURE_OF: &str = "
select ensure_partitions(day, day) from (
    select distinct (last_attempt_at at time zone 'UTC')::date as day
    from deliveries_open where id = any($1) and last_attempt_at is not null) days";

/// Dropping and making a partition locks out everybody, and everybody waits behind who waits: better to give up soon
/// and come again.
const LOCK_SOON: &str = "set lock_timeout = '2s'";

/// How long what has ended is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Delivered rows.
    pub delivered: Duration,
    /// Failed and cancelled rows, and attempts.
    pub failed: Duration,
    /// Who did what.
    pub audit: Duration,
}

/// Makes the partitions of the days around today.
pub(super) async fn ensure_partitions(client: &Client) -> Result<(), LedgerError> {
    client.execute(ENSURE, &[]).await.map_err(doing("making the days' partitions"))?;
    Ok(())
}

/// Makes the partitions of the days around today, and of the attempts that these deliveries have made.
pub(super) async fn ensure_partitions_of(client: &Client, ids: &[&str]) -> Result<(), LedgerError> {
    ensure_partitions(client).await?;
    client.execute(ENSURE_OF, &[&ids]).await.map_err(doing("making the days' partitions"))?;
    Ok(())
}

impl Ledger {
    /// Makes the coming days' partitions and drops those past their retention; condenses the sums. Returns the dropped ones.
    pub async fn prune(&self, retention: &Retention) -> Result<Vec<String>, LedgerError> {
        let mut session = self.session("walhook prune").await?;
        session.client.batch_execute(LOCK_SOON).await.map_err(doing("preparing to drop partitions"))?;
        ensure_partitions(&session.client).await?;
        let mut dropped = Vec::new();
        let kept = [
            ("deliveries_delivered", retention.delivered),
            ("deliveries_failed", retention.failed),
            ("past_attempts", retention.failed.max(retention.delivered)),
        ];
        for (parent, age) in kept {
            let rows = session.client.query(OLD, &[&parent, &age.as_secs_f64()]).await;
            for row in rows.map_err(doing("looking for old partitions"))? {
                let partition: String = row.get(0);
                let drop = format!("drop table {partition}");
                session.client.batch_execute(&drop).await.map_err(doing("dropping an old partition"))?;
                dropped.push(partition);
            }
        }
        super::shapes::prune(&session.client).await?;
        super::retries::prune(&session.client, retention.failed).await?;
        super::audit::prune(&session.client, retention.audit).await?;
        super::condense::condense(&mut session.client).await?;
        Ok(dropped)
    }
}
