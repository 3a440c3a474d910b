//! How statements are asked of a session: prepared each time, or once for as long as the session lives.
//!
//! Preparing costs a turn to the server and its parser, and planning often costs more than the answer. Whoever asks the same
//! again and again over a session of the [`pool`](super::pool) keeps what is prepared beside it: [`Prepared`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, GenericClient, Row, Statement, Transaction};

/// Statements that one session keeps; further ones are prepared each time.
const KEPT: usize = 100;

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Whom a statement can be asked of.
pub trait Ask: Sync {
    /// Runs a statement, and gives its rows.
    fn query(&self, sql: &str, with: Parameters<'_>) -> impl Future<Output = Result<Vec<Row>, Error>> + Send;

    /// Runs a statement, and gives the number of rows that it wrote.
    fn execute(&self, sql: &str, with: Parameters<'_>) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Runs a statement that gives one row, or none.
    fn query_opt(
        &self,
        sql: &str,
        with: Parameters<'_>,
    ) -> impl Future<Output = Result<Option<Row>, Error>> + Send {
        async move { Ok(self.query(sql, with).await?.into_iter().next()) }
    }
}

impl Ask for Client {
    async fn query(&self, sql: &str, with: Parameters<'_>) -> Result<Vec<Row>, Error> {
        Self::query(self, sql, with).await
    }

    async fn execute(&self, sql: &str, with: Parameters<'_>) -> Result<u64, Error> {
        Self::execute(self, sql, with).await
    }
}

impl Ask for Transaction<'_> {
    async fn query(&self, sql: &str, with: Parameters<'_>) -> Result<Vec<Row>, Error> {
        Transaction::query(self, sql, with).await
    }

    async fn execute(&self, sql: &str, with: Parameters<'_>) -> Result<u64, Error> {
        Transaction::execute(self, sql, with).await
    }
}

/// What a session has prepared. Cheap to clone.
#[derive(Clone, Default)]
pub struct Prepared(Arc<Mutex<HashMap<Box<str>, Statement>>>);

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

impl Prepared {
    /// The session that has prepared them, or a transaction of it.
    pub fn on<'a, C: GenericClient>(&'a self, client: &'a C) -> Kept<'a, C> {
        Kept { prepared: self, client }
    }

    fn with<T>(&self, then: impl FnOnce(&mut HashMap<Box<str>, Statement>) -> T) -> T {
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Asks with statements that are kept.
#[derive(Debug)]
pub struct Kept<'a, C> {
    prepared: &'a Prepared,
    client: &'a C,
}

impl<C: GenericClient + Sync> Kept<'_, C> {
    async fn statement(&self, sql: &str) -> Result<Statement, Error> {
        if let Some(known) = self.prepared.with(|known| known.get(sql).cloned()) {
            return Ok(known);
        }
        let made = self.client.prepare(sql).await?;
        self.prepared.with(|known| {
            if known.len() < KEPT {
                known.insert(sql.into(), made.clone());
            }
        });
        Ok(made)
    }

    /// One that failed is prepared anew the next time: its tables may be others by now.
    fn judged<T>(&self, sql: &str, answer: Result<T, Error>) -> Result<T, Error> {
        if answer.is_err() {
            self.prepared.with(|known| known.remove(sql));
        }
        answer
    }
}

impl<C: GenericClient + Sync> Ask for Kept<'_, C> {
    async fn query(&self, sql: &str, with: Parameters<'_>) -> Result<Vec<Row>, Error> {
        let statement = self.statement(sql).await?;
        self.judged(sql, self.client.query(&statement, with).await)
    }

    async fn execute(&self, sql: &str, with: Parameters<'_>) -> Result<u64, Error> {
        let statement = self.statement(sql).await?;
        self.judged(sql, self.client.execute(&statement, with).await)
    }
}
