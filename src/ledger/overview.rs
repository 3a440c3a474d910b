//! What an operator reads of the whole: who holds the slot, what Postgres lost, and whose rows there are.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_postgres::Client;

use super::claim::open_webhooks;
use super::row::time_of;
use super::{LedgerError, doing};

/// Who took the ledger over last for a slot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Holder {
    /// The process, in its own words.
    pub holder: String,
    /// Since when.
    pub held_since: Timestamp,
    /// Which of the slots of this name it is, from 1.
    pub generation: i32,
    /// How often the ledger was taken over.
    pub epoch: i64,
}

/// Log that Postgres removed before it could be read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// Up to where everything was delivered; `None` where that is not known.
    pub from_lsn: Option<String>,
    /// Where reading went on.
    pub to_lsn: String,
    /// When it was noticed.
    pub noticed_at: Timestamp,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from_lsn.as_deref().unwrap_or("somewhere");
        write!(f, "changes from {from} to {} were lost ({})", self.to_lsn, self.reason)
    }
}

const HOLDER: &str = "select holder, held_since, generation, epoch from sources where slot = $1";

const GAPS: &str = "
select from_lsn::text, to_lsn::text, noticed_at, reason from gaps where slot = $1 order by id desc limit 10";

/// The webhooks that have dead letters: a walk that takes an index probe a webhook and partition.
const FAILED_WEBHOOKS: &str = "
with recursive walk as (
    (select webhook from deliveries_failed order by webhook limit 1)
    union all
    select (select f.webhook from deliveries_failed f where f.webhook > w.webhook order by f.webhook limit 1)
    from walk w where w.webhook is not null)
select webhook from walk where webhook is not null";

/// Who took the ledger over last; `None` where nobody ever did.
pub async fn holder(client: &Client, slot: &str) -> Result<Option<Holder>, LedgerError> {
    let row = client.query_opt(HOLDER, &[&slot]).await.map_err(doing("reading the slot's owner"))?;
    Ok(row.map(|row| Holder {
        holder: row.get(0),
        held_since: time_of(row.get(1)),
        generation: row.get(2),
        epoch: row.get(3),
    }))
}

/// The latest gaps, newest first; ten at most.
pub async fn gaps(client: &Client, slot: &str) -> Result<Vec<Gap>, LedgerError> {
    let rows = client.query(GAPS, &[&slot]).await.map_err(doing("reading the gaps"))?;
    let gap = |row: &tokio_postgres::Row| Gap {
        from_lsn: row.get(0),
        to_lsn: row.get(1),
        noticed_at: time_of(row.get(2)),
        reason: row.get(3),
    };
    Ok(rows.iter().map(gap).collect())
}

/// The names of all webhooks with open or failed deliveries.
pub async fn webhooks_with_rows(client: &Client) -> Result<BTreeSet<Arc<str>>, LedgerError> {
    let mut names: BTreeSet<Arc<str>> = open_webhooks(client).await?.into_iter().collect();
    let failed = client.query(FAILED_WEBHOOKS, &[]).await.map_err(doing("listing webhooks with failures"))?;
    names.extend(failed.iter().map(|row| Arc::from(row.get::<_, &str>(0))));
    Ok(names)
}
