//! What the ledger already holds (invariant I3): asked after a restart, and after a commit whose answer was lost.

use std::collections::HashSet;

use tokio_postgres::Client;

use super::own::Ownership;
use super::{LedgerError, doing};
use crate::domain::{CommitLsn, DeliveryId};

const AMONG: &str = "select id from deliveries where id = any($1)";

/// Ids sort in commit order, so the greatest of all is the furthest recorded. One index probe a partition.
const FURTHEST: &str = "select max(id) from deliveries where id > $1";

/// Which of these deliveries have a row.
pub async fn among(client: &Client, ids: &[&str]) -> Result<HashSet<String>, LedgerError> {
    let rows = client.query(AMONG, &[&ids]).await.map_err(doing("looking for recorded deliveries"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The furthest recorded delivery of a transaction that commits after `commit`, where there is one.
pub async fn furthest(
    client: &Client,
    own: &Ownership,
    commit: CommitLsn,
) -> Result<Option<DeliveryId>, LedgerError> {
    let floor = DeliveryId::floor_after(own.lineage.oldest(), commit);
    let row = client
        .query_one(FURTHEST, &[&floor.as_str()])
        .await
        .map_err(doing("looking for the furthest row"))?;
    let id: Option<&str> = row.get(0);
    Ok(id.map(DeliveryId::from_ledger))
}
