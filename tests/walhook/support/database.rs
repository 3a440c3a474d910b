//! A database of the test's own, on a server that the whole test process shares.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};
use walhook::cluster::{Cluster, Options};

use super::{PATIENCE, background, eventually};

static SHARED: OnceLock<Cluster> = OnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Databases of the shared server whose tests have ended. Their slots would keep its log, and use up its slots.
static RETIRED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// One database and a connection to it as superuser.
pub struct Database {
    /// Its connection string, as superuser.
    pub url: String,
    /// Its name, which is also the name of the slot that tests give their sidecar: slots are per server.
    pub name: String,
    client: Client,
    is_shared: bool,
}

/// The server that tests share. The process's end stops it.
pub fn shared() -> &'static Cluster {
    SHARED.get_or_init(|| {
        let settings =
            [("max_replication_slots", "100"), ("max_wal_senders", "60"), ("max_connections", "250")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Cluster::create(&Options { settings: settings.to_vec(), ..Options::default() })
            .expect("a Postgres cluster")
    })
}

impl Database {
    /// A fresh database on the shared server.
    pub async fn new() -> Self {
        let mut database = Self::on(shared()).await;
        database.is_shared = true;
        let retired = std::mem::take(&mut *RETIRED.lock().unwrap_or_else(PoisonError::into_inner));
        database.drop_slots(retired).await;
        database
    }

    /// Drops the slots of other databases; one whose reader is still going away is left for the next time.
    async fn drop_slots(&self, retired: Vec<String>) {
        let drop_slots =
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1";
        for name in retired {
            if self.client.query(drop_slots, &[&name]).await.is_err() {
                RETIRED.lock().unwrap_or_else(PoisonError::into_inner).push(name);
            }
        }
    }

    /// A fresh database on a server of the test's own.
    pub async fn on(cluster: &Cluster) -> Self {
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        cluster.create_database(&name).await.expect("a database");
        let url = cluster.url(&name);
        let client = connect(&url).await.expect("a connection");
        Self { url, name, client, is_shared: false }
    }

    /// The same database on another server, which is a copy of its own.
    pub async fn on_copy(&self, cluster: &Cluster) -> Self {
        let url = cluster.url(&self.name);
        let client = connect(&url).await.expect("a connection");
        Self { url, name: self.name.clone(), client, is_shared: false }
    }

    /// A fresh database with the table that most tests use: `orders (id, status, total, note)`.
    pub async fn with_orders() -> Self {
        let database = Self::new().await;
        database.execute(ORDERS).await;
        database
    }

    /// Connects again, after the server went away.
    pub async fn reconnect(&mut self) {
        self.client = connect(&self.url).await.expect("a connection");
    }

    /// Runs statements.
    pub async fn execute(&self, statements: &str) {
        self.client.batch_execute(statements).await.expect(statements);
    }

    /// Rows of a query.
    pub async fn rows(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.client.query(query, parameters).await.expect(query)
    }

    /// The only number that a query gives.
    pub async fn number(&self, query: &str) -> i64 {
        self.client.query_one(query, &[]).await.expect(query).get(0)
    }

    /// The only text that a query gives.
    pub async fn text(&self, query: &str) -> String {
        self.client.query_one(query, &[]).await.expect(query).get(0)
    }

    /// The server's version as a number: 180004 is 18.4.
    pub async fn version(&self) -> i64 {
        self.number("select current_setting('server_version_num')::int8").await
    }

    /// Waits until the slot has confirmed all that was written by now, by whomever.
    pub async fn is_followed(&self) {
        let now = self.text("select pg_current_wal_lsn()::text").await;
        let reached = "select count(*) from pg_replication_slots \
                       where slot_name = $1 and confirmed_flush_lsn >= $2::text::pg_lsn";
        eventually("a slot that follows", PATIENCE, async || {
            self.rows(reached, &[&self.name, &now]).await[0].get::<_, i64>(0) == 1
        })
        .await;
    }

    /// How many bytes of log the slot holds back.
    pub async fn slot_lag_bytes(&self) -> i64 {
        let query = "select (pg_current_wal_lsn() - confirmed_flush_lsn)::int8 from pg_replication_slots \
                     where slot_name = $1";
        self.client.query_one(query, &[&self.name]).await.expect(query).get(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.is_shared {
            RETIRED.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.name));
        }
    }
}

/// The table that most tests use.
pub const ORDERS: &str =
    "create table orders (id int8 primary key, status text not null, total numeric(12,2), note text)";

/// A connection as a test uses one.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    background(async move {
        // The end of the server is what some tests are about.
        let ended = connection.await;
        drop(ended);
    });
    Ok(client)
}
