//! Brings the ledger's schema up to date: forward only, under an advisory lock, so that processes that start
//! together do not step on each other.

use super::{Ledger, LedgerError, doing, quote};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Names the lock among all advisory locks of the database; the schema's name tells ledgers apart.
const LOCK: &str = "select pg_advisory_lock(hashtextextended('walhook.migrate.' || $1, 0))";
const UNLOCK: &str = "select pg_advisory_unlock(hashtextextended('walhook.migrate.' || $1, 0))";

impl Ledger {
    /// Creates the schema where it is missing and runs the migrations it lacks; then makes today's partitions. A schema
    /// that was missing goes again where they fail.
    pub async fn migrate(&self) -> Result<(), LedgerError> {
        let mut session = self.session("walhook migrate").await?;
        let client = &mut session.client;
        client.execute(LOCK, &[&self.schema]).await.map_err(doing("waiting for other migrations"))?;
        let exists = client
            .query_opt("select 1 from pg_catalog.pg_namespace where nspname = $1", &[&self.schema])
            .await
            .map_err(doing("looking for the schema"))?;
        if exists.is_none() {
            let create = format!("create schema if not exists {}", quote(&self.schema));
            client.batch_execute(&create).await.map_err(doing("creating the schema"))?;
        }
        let migrated = embedded::migrations::runner()
            .set_migration_table_name("migrations")
            .run_async(client)
            .await
            .map_err(|e| LedgerError::Migrate(Box::new(e)));
        if let Err(error) = migrated {
            // Under the lock: nobody else has used it yet.
            if exists.is_none() {
                self.drop_schema(client).await?;
            }
            return Err(error);
        }
        client.execute(UNLOCK, &[&self.schema]).await.map_err(doing("ending the migrations"))?;
        super::prune::ensure_partitions(client).await
    }
}
