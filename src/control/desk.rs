//! What the verbs that edit work with: the configuration as it is now, a few sessions, and who it is that asks.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_postgres::Client;

use super::webhooks::Aims;
use super::{About, ControlError, Places, Sight};
use crate::catalog::{Shelf, templates_after};
use crate::clock::Clock;
use crate::config::{Config, is_of_file};
use crate::ledger::LedgerError;
use crate::ledger::ask::Ask;
use crate::ledger::audit::{self, Act, Sought, Written};
use crate::ledger::pool::{Borrowed, Pool};
use crate::ledger::refusals::{self, Refusal, Refusals};
use crate::ledger::templates::StoredTemplate;
use crate::telemetry::chain;
use crate::transport::Lookups;

/// Where an operator's hand works, by the API or the command line.
#[derive(Debug)]
pub struct Desk {
    config: watch::Receiver<Arc<Config>>,
    /// The databases.
    pub places: Places,
    /// The time.
    pub clock: Clock,
    pool: Pool,
    refusals: Refusals,
    /// Where the names in declarations lead.
    pub(super) aims: Aims,
    room: AtomicI64,
    ready: AtomicBool,
    shelf: Mutex<Shelved>,
}

/// The templates as they were last looked at.
#[derive(Debug, Clone, Default)]
struct Shelved {
    config: Option<Arc<Config>>,
    rows: Vec<Arc<StoredTemplate>>,
    shelf: Arc<Shelf>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Who it is, and how they came.
    pub who: audit::Actor,
    /// The id of the request, where there is one.
    pub request: Option<String>,
    /// Whose webhooks there are for it.
    pub sight: Sight,
}

impl Actor {
    /// Whoever may run commands on the machine.
    pub fn command_line() -> Self {
        Self { who: audit::Actor::Command, request: None, sight: Sight::All }
    }

    /// walhook itself.
    pub fn walhook() -> Self {
        Self { who: audit::Actor::Walhook, request: None, sight: Sight::All }
    }

    /// Writes what is done into the audit.
    pub(super) async fn note(
        &self,
        transaction: &impl Ask,
        action: &str,
        object: &str,
        (before, after): (Option<Value>, Option<Value>),
    ) -> Result<(), LedgerError> {
        let mut detail = Map::new();
        for (key, value) in [("before", before), ("after", after)] {
            detail.extend(value.map(|value| (key.to_owned(), value)));
        }
        self.note_that(transaction, (action, object), detail.into()).await
    }

    /// The same with an object of its own, beside which the id of the request is written.
    pub(super) async fn note_that(
        &self,
        transaction: &impl Ask,
        (action, object): (&str, &str),
        mut detail: Value,
    ) -> Result<(), LedgerError> {
        if let (Value::Object(detail), Some(request)) = (&mut detail, &self.request) {
            detail.insert("request".to_owned(), request.as_str().into());
        }
        audit::record(transaction, &Act { actor: &self.who, action, object: Some(object), detail }).await
    }
}

impl Desk {
    /// A desk beside a running instance, which follows its configuration.
    pub fn new(config: watch::Receiver<Arc<Config>>, places: Places, clock: Clock) -> Self {
        let pool = Pool::new(places.ledger.clone());
        Self {
            config,
            places,
            clock,
            pool,
            refusals: Refusals::default(),
            aims: Aims::by(Lookups::of_the_system()),
            room: AtomicI64::new(0),
            ready: AtomicBool::new(false),
            shelf: Mutex::default(),
        }
    }

    /// A desk for one command.
    pub fn of(config: Config, places: Places, clock: Clock) -> Self {
        Self::new(watch::channel(Arc::new(config)).1, places, clock)
    }

    /// The configuration as it is now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Sees that the database answers and has a ledger, so that what is wrong with either is told in full.
    pub async fn open(&self) -> Result<(), ControlError> {
        self.session(&Actor::command_line(), About::Operators).await.map(drop)
    }

    /// A session with the ledger, which must be there, for whom it concerns: nothing is looked at for anybody else.
    pub(super) async fn session(&self, actor: &Actor, about: About<'_>) -> Result<Borrowed, ControlError> {
        actor.sight.admit(about)?;
        let session = self.pool.session().await?;
        if !self.ready.load(Ordering::Relaxed) {
            if !self.places.ledger.look(&session).await?.ready {
                return Err(ControlError::NoLedger { schema: self.places.ledger.schema().to_owned() });
            }
            self.ready.store(true, Ordering::Relaxed);
        }
        Ok(session)
    }

    /// The templates of the database as they are now. What was compiled before is not compiled again.
    pub(super) async fn shelf(&self, client: &Client) -> Result<Arc<Shelf>, ControlError> {
        let last = self.shelf.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = templates_after(client, &last.rows).await?;
        let config = self.config();
        let same = |(one, other): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(one, other);
        if last.config.as_ref().is_some_and(|before| Arc::ptr_eq(before, &config))
            && rows.len() == last.rows.len()
            && rows.iter().zip(&last.rows).all(same)
        {
            return Ok(last.shelf);
        }
        let making = move || {
            let made = Arc::new(Shelf::of(&config, &rows, &last.shelf));
            Shelved { config: Some(config), rows, shelf: made }
        };
        let newest = tokio::task::spawn_blocking(making).await;
        let newest = newest.map_err(|error| ControlError::Compile(error.to_string()))?;
        let found = Arc::clone(&newest.shelf);
        *self.shelf.lock().unwrap_or_else(PoisonError::into_inner) = newest;
        Ok(found)
    }

    /// The same for whoever judges these rows, of which few name a template that is not the file's.
    pub(super) async fn shelf_for(
        &self,
        client: &Client,
        rows: &[&Map<String, Value>],
    ) -> Result<Arc<Shelf>, ControlError> {
        let config = self.config();
        let names_other = rows.iter().any(|row| {
            let named = row.get("template").and_then(Value::as_str);
            named.is_some_and(|name| !is_of_file(&config, name))
        });
        if names_other { self.shelf(client).await } else { Ok(Arc::default()) }
    }

    /// Takes room for one webhook more, where some is known to be left.
    pub(super) fn takes_room(&self) -> bool {
        let taken = |room: i64| (room > 0).then(|| room - 1);
        self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// There is room for so many more, by a count.
    pub(super) fn has_room(&self, room: i64) {
        self.room.store(room, Ordering::Relaxed);
    }

    /// What was done, newest first: entries before a number.
    pub async fn audit(
        &self,
        actor: &Actor,
        sought: &Sought,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Written>, ControlError> {
        let session = self.session(actor, About::Operators).await?;
        Ok(audit::page(&*session, sought, before, i64::from(limit)).await?)
    }

    /// Writes that somebody was refused into the audit, as far as [`Refusals`] lets it. Whoever is refused is told so whether
    /// or not this can be written. Nobody may call it who holds a session.
    pub async fn refused(&self, actor: &Actor, mut refusal: Refusal) {
        let Some(unwritten) = self.refusals.admit(&refusal) else { return };
        if let (Value::Object(detail), Some(request)) = (&mut refusal.detail, &actor.request) {
            detail.insert("request".to_owned(), request.as_str().into());
        }
        let written = async {
            let session = self.session(&Actor::walhook(), About::Operators).await?;
            Ok::<(), ControlError>(refusals::write(&*session, refusal, unwritten).await?)
        };
        if let Err(error) = written.await {
            tracing::warn!(reason = chain(&error), "a refusal could not be written into the audit");
        }
    }
}
