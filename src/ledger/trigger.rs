//! Putting a delivery that no change made into the ledger.

use tokio_postgres::GenericClient;

use super::row::pg_time;
use super::{LedgerError, doing};
use crate::domain::Delivery;

const TRIGGER: &str = "
insert into deliveries_open (
    id, event_id, event_type, webhook, lane, status, due_at, committed_at, schema_name, table_name, row_key,
    operation, content_type, headers, body)
values ($1, $2, $3, $4, $5, 'pending', timestamptz 'epoch', $6, $7, $8, $9, $10, $11, $12, $13)";

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
