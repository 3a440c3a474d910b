//! New shapes of tables, as events (`T.schema_changed`), for webhooks that ask for them by name.
//!
//! Postgres describes a table at its first row change after a statement that altered it, but also after each
//! reconnect and each time it dropped its own caches. So a description means nothing by itself: it is compared with the
//! one that the ledger remembers.
//!
//! ```text
//!   log     A:1   A:2   │ alter table │   B:3   B:4
//!   ledger  (1, A, –)                     (3, B, A)         a decision: place, shape, shape before
//!   events                                 ▲ at 3: how B differs from A
//! ```
//!
//! A decision is committed before its event is owed, and stays: whoever reads the log again finds at each place either
//! the decision made there, or the latest before it, and so makes the same event with the same id (invariants I1,
//! I2). A table that was never seen has no event. The event stands at the place of the row that showed the shape, and
//! before it; its lane is the table's, like that of a `TRUNCATE`.
//!
//! Nothing is asked where no webhook wants it; where one does, a row costs one look at whose description it has, and a
//! new description one question to the ledger.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{Halt, Manner, Running, unless_stopped};
use crate::domain::{EndLsn, Place, Relation, TableShape, Transaction, limits};
use crate::ledger::own::Ownership;
use crate::ledger::{Ledger, LedgerError, shapes, within};
use crate::postgres::Session;
use crate::source::RawChange;
use crate::telemetry::chain;

/// How long to wait before the ledger is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Compares descriptions of tables with those that the ledger remembers.
pub struct Shapes {
    ledger: Ledger,
    own: Ownership,
    session: Option<Session>,
    /// The descriptions that were compared already, by the table's oid.
    compared: FxHashMap<u32, Arc<Relation>>,
}

impl Shapes {
    /// Remembers in this ledger.
    pub fn new(ledger: Ledger, own: Ownership) -> Self {
        Self { ledger, own, session: None, compared: FxHashMap::default() }
    }

    /// The snapshot or the connection is another.
    pub(super) fn forget_relations(&mut self) {
        self.compared.clear();
    }

    /// Whether a description is another than the one that was compared last.
    fn is_new(&mut self, relation: &Arc<Relation>) -> bool {
        match self.compared.get(&relation.id) {
            Some(compared) if Arc::ptr_eq(compared, relation) => false,
            _ => {
                self.compared.insert(relation.id, Arc::clone(relation));
                true
            }
        }
    }

    /// What the table looked like before this place, if it looks different here; asks until there is an answer.
    async fn before(
        &mut self,
        place: Place,
        relation: &Relation,
        confirmed: EndLsn,
    ) -> Result<Option<TableShape>, LedgerError> {
        loop {
            match within(limits::ANSWER_WITHIN, self.decide(place, relation, confirmed)).await {
                Ok(before) => return Ok(before),
                Err(error) if error.is_transient() => {
                    self.session = None;
                    tracing::debug!(reason = chain(&error), "the shape of a table cannot be compared yet");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn decide(
        &mut self,
        place: Place,
        relation: &Relation,
        confirmed: EndLsn,
    ) -> Result<Option<TableShape>, LedgerError> {
        let mut session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => self.ledger.session("walhook shapes").await?,
        };
        let shape = TableShape::of(relation);
        let previous = match shapes::remembered(&session.client, &self.own, relation.id, place).await? {
            Some(known) if known.here => {
                self.session = Some(session);
                return Ok(known.previous);
            }
            Some(known) if shape.since(&known.shape, |_| false).is_none() => {
                self.session = Some(session);
                return Ok(None);
            }
            known => known.map(|known| known.shape),
        };
        let both = (&shape, previous.as_ref());
        shapes::remember(&mut session.client, &self.own, relation.id, place, both, confirmed).await?;
        self.session = Some(session);
        Ok(previous)
    }
}

impl Running {
    /// Owes the event of a table's new shape, if this row is the first to show one.
    pub(super) async fn shape(&mut self, transaction: Transaction, raw: &RawChange) -> Result<(), Halt> {
        if !self.with.shapes.is_new(&raw.relation) {
            return Ok(());
        }
        let wanting = self.expander.wants_shape(&self.snapshot, &raw.relation);
        if !unless_stopped(&self.stop, wanting).await? {
            return Ok(());
        }
        let place = self.expander.place(transaction, raw.sequence);
        let confirmed = *self.with.settlement.confirmed().borrow();
        let before = tokio::select! {
            biased;
            before = self.with.shapes.before(place, &raw.relation, confirmed) => before,
            () = self.stop.cancelled() => return Err(Halt::Stopped),
        };
        let Some(before) = before.map_err(Halt::Ledger)? else { return Ok(()) };
        let (table, commit) = (raw.relation.config_name(), transaction.commit);
        tracing::info!(table, %commit, "a table has another shape");
        // A row that waits to be folded with the next is not folded over this.
        self.let_go().await?;
        match self.expander.expand_shape(&self.snapshot, transaction, raw, &before) {
            Some(expansion) => self.owe(expansion, Manner::Young).await,
            None => Ok(()),
        }
    }
}
