//! A few sessions with the ledger for whoever asks by hand: the API and the command line.
//!
//! They are apart from those of the delivery path, which has its own for each worker, and so few that a flood of
//! requests waits here and not in the database. A statement that takes long is ended by the server.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_postgres::Client;

use super::ask::Prepared;
use super::{Ledger, LedgerError, doing};
use crate::domain::limits;
use crate::postgres::Session;

/// Cheap to clone; all clones share the sessions.
#[derive(Debug, Clone)]
pub struct Pool {
    ledger: Ledger,
    idle: Arc<Mutex<Vec<(Session, Prepared)>>>,
    turns: Arc<Semaphore>,
}

/// A session that goes back when it is dropped.
#[derive(Debug)]
pub struct Borrowed {
    session: Option<Session>,
    prepared: Prepared,
    since: Instant,
    idle: Arc<Mutex<Vec<(Session, Prepared)>>>,
    _turn: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool that has no session yet.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, idle: Arc::default(), turns: Arc::new(Semaphore::new(limits::API_SESSIONS)) }
    }

    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A session; waits while all of them are in use.
    pub async fn session(&self) -> Result<Borrowed, LedgerError> {
        // The semaphore is never closed; were it, the sessions would still be few.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| LedgerError::Silent { seconds: 0 })?;
        let kept = || {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            std::iter::from_fn(|| idle.pop()).find(|(session, _)| !session.client.is_closed())
        };
        let (session, prepared) = match kept() {
            Some(kept) => kept,
            None => (self.open().await?, Prepared::default()),
        };
        Ok(Borrowed {
            session: Some(session),
            prepared,
            since: Instant::now(),
            idle: Arc::clone(&self.idle),
            _turn: turn,
        })
    }

    async fn open(&self) -> Result<Session, LedgerError> {
        let session = self.ledger.session("walhook api").await?;
        let bounds = format!(
            "set statement_timeout to {}; set lock_timeout to {}",
            limits::API_STATEMENT.as_millis(),
            limits::API_LOCK.as_millis()
        );
        session.client.batch_execute(&bounds).await.map_err(doing("preparing a session"))?;
        Ok(session)
    }
}

impl Borrowed {
    /// What this session has prepared, to be used on it and its transactions.
    pub fn prepared(&self) -> Prepared {
        self.prepared.clone()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // Who kept it for longer than any statement may take has given up on its answer: it may be silent for ever.
        let answers =
            |session: &Session| !session.client.is_closed() && self.since.elapsed() < limits::API_KEPT;
        if let Some(session) = self.session.take().filter(answers) {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((session, std::mem::take(&mut self.prepared)));
        }
    }
}

impl Deref for Borrowed {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.session.as_ref().expect("it is there until the drop").client
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.session.as_mut().expect("it is there until the drop").client
    }
}
