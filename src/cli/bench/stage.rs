//! What stands while it is measured: the server, the receiver, and connections to commit with.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::watch::Receiver;
use super::{BenchError, io};
use crate::cluster::{Cluster, Fsync, Options};
use crate::tasks::{Role, Tasks};

/// The server and the receiver.
pub(super) struct Stage {
    pub(super) receiver: Receiver,
    tasks: Tasks,
    pub(super) cluster: Cluster,
}

impl Stage {
    pub(super) async fn set() -> Result<Self, BenchError> {
        let settings = vec![("max_wal_size".to_owned(), "8GB".to_owned())];
        let options = Options { fsync: Fsync::On, settings };
        let cluster = tokio::task::spawn_blocking(move || Cluster::create(&options)).await??;
        let receiver = Receiver::start().await?;
        let (tasks, _deaths) = Tasks::new();
        Ok(Self { receiver, tasks, cluster })
    }

    /// A connection to a database.
    pub(super) async fn connect(&self, database: &str) -> Result<Client, BenchError> {
        let (client, connection) = tokio_postgres::connect(&self.cluster.url(database), NoTls).await?;
        self.tasks.spawn("a connection", Role::Passing, async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
        Ok(client)
    }

    /// Makes a database with a table `orders`, and waits until the disk has what was written before.
    pub(super) async fn orders(&self, database: &str) -> Result<Client, BenchError> {
        self.cluster.create_database(database).await?;
        let client = self.connect(database).await?;
        client.batch_execute(ORDERS).await?;
        client.batch_execute("checkpoint").await?;
        Ok(client)
    }

    /// The part of a configuration that every stage has.
    pub(super) fn database(&self, database: &str, slot: &str) -> String {
        format!("[database]\nurl = \"{}\"\nslot = \"{slot}\"\n", self.cluster.url(database))
    }

    /// Ends everything, the server last.
    pub(super) async fn clear(self) -> Result<(), BenchError> {
        drop(self.receiver);
        self.tasks.finish(Duration::from_secs(1)).await;
        let cluster = self.cluster;
        tokio::task::spawn_blocking(move || drop(cluster)).await?;
        Ok(())
    }
}

const ORDERS: &str = "
create table orders (
    id bigint generated always as identity primary key,
    customer text not null,
    status text not null,
    total numeric(10, 2) not null,
    placed_at timestamptz not null default now()
)";

/// As many orders as its parameter says, in one transaction. About 500 bytes of body each.
pub(super) const PLACE: &str = "
insert into orders (customer, status, total)
select 'customer number ' || n, 'placed', n * 1.25 from generate_series(1, $1::integer) n";

/// A webhook of the operator's file for what is placed.
pub(super) fn webhook(url: &str, concurrency: u32) -> String {
    format!(
        "[[webhooks]]\nname = \"bench\"\nurl = \"{url}\"\nsecret = \"whsec_{}\"\nevents = [\"orders.created\"]\n\
         concurrency = {concurrency}\n",
        "bWVhc3VyZWQgYnkgd2FsaG9vayBiZW5jaA=="
    )
}

/// How long something of `units` may take before it counts as hung.
pub(super) fn patience(units: u32) -> Duration {
    Duration::from_secs(60) + Duration::from_millis(2) * units
}

/// Waits until a slot's position has passed everything that was committed so far.
pub(super) async fn settled(client: &Client, slot: &str) -> Result<(), BenchError> {
    let row = client.query_one("select pg_current_wal_insert_lsn()::text", &[]).await?;
    let position: String = row.get(0);
    let sql =
        "select confirmed_flush_lsn >= ($1::text)::pg_lsn from pg_replication_slots where slot_name = $2";
    for _ in 0..6000 {
        if client.query_one(sql, &[&position, &slot]).await?.get::<_, bool>(0) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(BenchError::Late { what: "the ledger" })
}

/// A child's standard error, for the case that it fails.
pub(super) fn quiet() -> Result<std::fs::File, BenchError> {
    tempfile::tempfile().map_err(io("make a temporary file"))
}
