//! Sums by the minute become sums by the hour when they are old, and go when they are older.
//!
//! In steps, each a transaction that takes minutes away and adds them to their hours: whoever reads meanwhile counts each
//! once.

use rustc_hash::FxHashMap;
use tokio_postgres::Client;

use super::rollups::{Key, SUMS, Statements, Whose, read, tally_of, write};
use super::row::time_of;
use super::{LedgerError, doing};
use crate::domain::{Tally, limits};

/// Minutes put together in one transaction.
const STEP: i64 = 2000;

/// Two at once would each add to an hour as it was.
const ONE_AT_A_TIME: &str =
    "select pg_advisory_xact_lock(hashtextextended('walhook.rollups.' || current_schema(), 0))";

const FORGET: &str =
    "delete from rollups where span = '1 hour' and begins < now() - make_interval(secs => $1)";

/// Whole hours only, so that an hour is a sum of all its minutes.
fn take_sql() -> String {
    format!(
        "
with old as (
    select webhook, begins, span, slot, epoch from rollups
    where span = '1 minute' and begins < date_trunc('hour', now() - make_interval(secs => $1), 'UTC')
    order by span, begins limit $2)
delete from rollups r using old
where r.webhook = old.webhook and r.begins = old.begins and r.span = old.span and r.slot = old.slot
    and r.epoch = old.epoch
returning r.webhook, r.begins, {}",
        SUMS.split(", ").map(|column| format!("r.{column}")).collect::<Vec<_>>().join(", ")
    )
}

/// Puts old minutes together, and drops old hours.
pub(super) async fn condense(client: &mut Client) -> Result<(), LedgerError> {
    let take = client.prepare(&take_sql()).await.map_err(doing("preparing to condense sums"))?;
    let statements = Statements::prepare(client).await?;
    let age = limits::ROLLUP_MINUTES.as_secs_f64();
    loop {
        let transaction = client.transaction().await.map_err(doing("condensing sums"))?;
        transaction.execute(ONE_AT_A_TIME, &[]).await.map_err(doing("condensing sums"))?;
        let taken = transaction.query(&take, &[&age, &STEP]).await.map_err(doing("condensing sums"))?;
        if taken.is_empty() {
            break;
        }
        let mut hours: FxHashMap<Key, Tally> = FxHashMap::default();
        for row in &taken {
            let begins = time_of(row.get(1)).as_second();
            let hour = (row.get::<_, &str>(0).into(), begins - begins.rem_euclid(3600));
            hours.entry(hour).or_default().merge(&tally_of(row, 2));
        }
        let keys: Vec<Key> = hours.keys().cloned().collect();
        let there = read(transaction.client(), &statements.kept, Whose::HOURS, &keys).await?;
        for (key, before) in &there {
            hours.entry(key.clone()).or_default().merge(before);
        }
        let hours: Vec<_> = hours.into_iter().collect();
        write(transaction.client(), &statements.keep, Whose::HOURS, &hours).await?;
        transaction.commit().await.map_err(doing("condensing sums"))?;
    }
    let age = limits::ROLLUP_HOURS.as_secs_f64();
    client.execute(FORGET, &[&age]).await.map_err(doing("dropping old sums"))?;
    Ok(())
}
