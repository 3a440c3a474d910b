//! The schema itself: whether it is there, what it holds, and its end.

use tokio_postgres::Client;

use super::{Ledger, LedgerError, doing, quote};

/// What there is of the ledger's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether the schema exists.
    pub exists: bool,
    /// Whether its tables do.
    pub ready: bool,
    /// Whether our role may make what is missing: the schema, or tables in it.
    pub may_create: bool,
}

/// How many deliveries the ledger holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Contents {
    /// Not ended.
    pub open: i64,
    /// Given up, or cancelled.
    pub failed: i64,
    /// Delivered: the planner's estimate, since they may be very many.
    pub delivered: i64,
    /// Webhooks that are declared here.
    pub webhooks: i64,
}

const LOOK: &str = "
select n.oid is not null,
    exists (select from pg_catalog.pg_class c where c.relnamespace = n.oid and c.relname = 'catalog_version'),
    case when n.oid is null
        then pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
        else pg_catalog.has_schema_privilege(n.oid, 'CREATE') end
from (select 1) one left join pg_catalog.pg_namespace n on n.nspname = $1";

const CONTENTS: &str = "
select (select count(*) from deliveries_open), (select count(*) from deliveries_failed),
    (select coalesce(sum(greatest(c.reltuples, 0)), 0)::int8
     from pg_catalog.pg_partition_tree('deliveries_delivered') t join pg_catalog.pg_class c on c.oid = t.relid
     where t.isleaf),
    (select count(*) from webhooks)";

impl Ledger {
    /// Looks whether the schema is there.
    pub async fn look(&self, client: &Client) -> Result<Look, LedgerError> {
        let row = client.query_one(LOOK, &[&self.schema]).await.map_err(doing("looking for the schema"))?;
        Ok(Look { exists: row.get(0), ready: row.get(1), may_create: row.get(2) })
    }

    /// Whether the ledger is there; refuses where it is not and could not be made. Changes nothing.
    pub async fn insist(&self) -> Result<bool, LedgerError> {
        let session = self.session("walhook start").await?;
        let look = self.look(&session.client).await?;
        if !look.ready && !look.may_create {
            return Err(LedgerError::MayNotCreate { schema: self.schema.clone(), exists: look.exists });
        }
        Ok(look.ready)
    }

    /// Drops the schema with everything in it, if it is there.
    pub async fn drop_schema(&self, client: &Client) -> Result<(), LedgerError> {
        let drop = format!("drop schema if exists {} cascade", quote(&self.schema));
        client.batch_execute(&drop).await.map_err(doing("dropping the schema"))
    }
}

/// Counts what the ledger holds.
pub async fn contents(client: &Client) -> Result<Contents, LedgerError> {
    let row = client.query_one(CONTENTS, &[]).await.map_err(doing("counting the ledger's rows"))?;
    Ok(Contents { open: row.get(0), failed: row.get(1), delivered: row.get(2), webhooks: row.get(3) })
}
