//! Putting a delivery that no change made into the ledger.

use tokio_postgres::{Client, GenericClient};

use super::row::pg_time;
use super::{LedgerError, doing};
use crate::domain::{Delivery, DeliveryId};

const TRIGGER: &str = "
insert into deliveries_open (
    id, event_id, event_type, webhook, lane, status, due_at, committed_at, schema_name, table_name, row_key,
    operation, content_type, headers, body)
values ($1, $2, $3, $4, $5, 'pending', timestamptz 'epoch', $6, $7, $8, $9, $10, $11, $12, $13)";

/// Those that nobody has under way, whatever an older version has made of them. Their ids are below those of all deliveries that
/// changes make, so that a backlog is not read for them.
const END: &str = "
update deliveries set status = 'failed', due_at = null, finished_at = now(), fail_reason = $2
where webhook = $1 and status in ('pending', 'retrying', 'held') and id < $3 and operation = 'test' and lease is null";

/// Ends the tests of a webhook that wait, for a reason: each has a lane of its own, so nothing waits behind them.
pub async fn end(client: &Client, webhook: &str, reason: &str) -> Result<u64, LedgerError> {
    let logs = DeliveryId::FIRST_OF_LOGS;
    client.execute(END, &[&webhook, &reason, &logs]).await.map_err(doing("ending tests"))
}

/// Records a delivery as pending and due before all others: somebody waits for it. Its id must be below those of all
/// deliveries that changes make (generation
/// zero), so that it never counts as the furthest recorded, and its lane its own.
pub async fn insert(client: &impl GenericClient, delivery: &Delivery) -> Result<(), LedgerError> {
    client
        .execute(
            TRIGGER,
            &[
                &delivery.id.as_str(),
                &delivery.event_id.as_str(),
                &&*delivery.event_type,
                &&*delivery.webhook,
                &delivery.lane.0,
                &pg_time(delivery.committed_at),
                &&*delivery.schema,
                &&*delivery.table,
                &&*delivery.key,
                &delivery.operation.as_str(),
                &&*delivery.content_type,
                &delivery.headers.as_deref(),
                &&delivery.body[..],
            ],
        )
        .await
        .map_err(doing("recording a test delivery"))?;
    Ok(())
}
