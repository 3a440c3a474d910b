//! A change (or a logical message) becomes an event becomes the deliveries it owes, numbered and rendered.
//!
//! The one place where data turns from what Postgres says into what receivers get. Per change: who wants the table
//! ([`crate::matcher`], resolved once a table), the row taken apart, conditions, the `data` object written once, and
//! for each webhook its id, its lane and its body. A change that nobody wants costs a comparison.
//!
//! After a lost connection the stream comes again from the confirmed position: what was taken before is skipped
//! ([`progress`]). After a restart of the process nothing is remembered here, so the ledger is asked which deliveries
//! it holds already ([`recovery`], invariant I3), until the stream has passed the last of them.
//!
//! Where a webhook wants to know of tables' new shapes, each new description of a table is compared with the one that the
//! ledger remembers ([`shapes`]).
//!
//! A template that fails on a row, or a row that is too large, makes that delivery *dead*: recorded as failed with
//! the reason, and nothing else suffers (invariant I8).

mod expand;
mod fold;
mod keys;
mod messages;
mod progress;
mod recovery;
mod shapes;
mod snapshot;
mod window;

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::backfill::Pages;
use crate::catalog::{Published, Snapshot};
use crate::chores::lag::Reading;
use crate::clock::{Clock, since};
use crate::dispatcher::{Offer, Young};
use crate::domain::{EndLsn, Lineage, MARK_PREFIX, Transaction, limits};
use crate::ledger::LedgerError;
use crate::live::{ChangeNews, Live, News};
use crate::postgres::Server;
use crate::settlement::Settlement;
use crate::source::{Chunk, Entry, Item, Piece, RawChange};
use expand::{Expanded, Expander, Expansion};
use fold::Held;
use keys::Keys;
use progress::Progress;
pub use recovery::Recovery;
pub use shapes::Shapes;
use window::Window;

/// Deliveries handed to the dispatcher at once, at most.
const BATCH: usize = 256;

/// What intake works with.
pub struct Intake {
    /// From the source.
    pub items: mpsc::Receiver<Item>,
    /// To the dispatcher.
    pub offers: mpsc::Sender<Vec<Offer>>,
    /// The webhooks.
    pub catalog: watch::Receiver<Published>,
    /// What may be confirmed.
    pub settlement: Settlement,
    /// Bytes of deliveries that may be in memory.
    pub memory: Arc<Semaphore>,
    /// The size of all of it.
    pub memory_bytes: usize,
    /// The largest body.
    pub max_body: usize,
    /// Which log the positions belong to.
    pub lineage: Lineage,
    /// The database's name.
    pub database: Arc<str>,
    /// For the keys of tables whose stream does not tell them.
    pub server: Server,
    /// The page of existing rows that is being read, if any.
    pub pages: Pages,
    /// What the ledger held at the start.
    pub recovery: Recovery,
    /// What the tables looked like.
    pub shapes: Shapes,
    /// Who listens to what is taken in.
    pub live: Live,
    /// How old it is.
    pub reading: Reading,
    /// What keeps it from being taken in, if anything does.
    pub trouble: watch::Sender<Option<String>>,
    /// The time.
    pub clock: Clock,
}

struct Running {
    with: Intake,
    snapshot: Arc<Snapshot>,
    expander: Expander,
    progress: Progress,
    window: Window,
    /// A delete that may be half of a move. It counts as taken: a lost connection does not bring it again.
    held: Option<Held>,
    batch: Vec<Offer>,
    /// Events that were made since they were last counted.
    events: u64,
    /// The end of the newest transaction that the settlement does not know of yet.
    ended: Option<EndLsn>,
    stop: CancellationToken,
}

/// Which way a delivery goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Straight from memory.
    Young,
    /// From the ledger, where it gets a row before anything is sent.
    ByLedger,
}

/// Why intake ended before its time.
#[derive(Debug)]
enum Halt {
    /// It was asked to.
    Stopped,
    /// The ledger could not be asked what it holds.
    Ledger(LedgerError),
}

impl Intake {
    /// Takes in what the source sends until asked to stop or the source has ended.
    ///
    /// The source's channel stays open until `end`: a source that nobody listens to would end before it has
    /// confirmed what the stop settles.
    pub async fn run(mut self, stop: CancellationToken, end: CancellationToken) -> Result<(), LedgerError> {
        let snapshot = self.catalog.borrow_and_update().snapshot.clone();
        let expander = Expander::new(
            Keys::new(self.server.clone(), self.trouble.clone()),
            self.lineage.clone(),
            Arc::clone(&self.database),
            self.max_body,
        );
        let mut running = Running {
            with: self,
            snapshot,
            expander,
            progress: Progress::default(),
            window: Window::default(),
            held: None,
            batch: Vec::new(),
            events: 0,
            ended: None,
            stop,
        };
        loop {
            let item = tokio::select! {
                biased;
                () = running.stop.cancelled() => break,
                item = running.with.items.recv() => item,
            };
            let taken = match item {
                Some(Item::Chunk(chunk)) => running.take(&chunk).await,
                Some(Item::Idle(end)) => {
                    if running.progress.is_between_transactions() {
                        running.with.settlement.end(end);
                    }
                    Ok(())
                }
                Some(Item::Restarted) => {
                    running.progress.restart();
                    running.forget_relations();
                    Ok(())
                }
                None => break,
            };
            match taken {
                Ok(()) => {}
                Err(Halt::Stopped) => break,
                Err(Halt::Ledger(error)) => return Err(error),
            }
        }
        let Intake { items, offers, .. } = running.with;
        drop(offers);
        end.cancelled().await;
        drop(items);
        Ok(())
    }
}

fn news_of(transaction: Transaction, raw: &RawChange) -> News {
    News::Change(ChangeNews {
        committed_at: transaction.committed_at,
        commit: transaction.commit,
        xid: transaction.xid,
        sequence: raw.sequence,
        schema: raw.relation.schema.as_ref().into(),
        table: raw.relation.name.as_ref().into(),
        operation: raw.operation.as_str(),
    })
}

/// What comes of work that may have to wait for the database.
async fn unless_stopped<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Result<T, Halt> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = stop.cancelled() => Err(Halt::Stopped),
    }
}

impl Running {
    async fn take(&mut self, chunk: &Chunk) -> Result<(), Halt> {
        let mut changes = 0;
        for (piece, all) in chunk.pieces() {
            changes += all.iter().filter_map(Entry::row).count();
            if self.progress.is_taken(piece.transaction.commit) {
                continue;
            }
            let begins = piece.begins && self.progress.is_between_transactions();
            if begins && self.with.catalog.has_changed().unwrap_or(false) {
                // A transaction is taken whole under one snapshot, also when it comes again after a lost connection.
                self.snapshot = self.with.catalog.borrow_and_update().snapshot.clone();
                self.forget_relations();
            }
            if piece.begins {
                self.window.begin(piece.transaction.xid);
            }
            for entry in all {
                if self.progress.take(piece.transaction.commit, entry.sequence()) {
                    self.entry(piece, entry).await?;
                }
            }
            if let Some(end) = piece.end {
                self.let_go().await?;
                self.ended = Some(end);
                self.progress.end(piece.transaction.commit);
            }
        }
        self.end_transactions();
        self.flush().await?;
        self.tell(chunk, changes);
        Ok(())
    }

    /// The snapshot or the connection is another: what was resolved is void.
    fn forget_relations(&mut self) {
        self.expander.forget_relations();
        self.with.shapes.forget_relations();
    }

    fn tell(&self, chunk: &Chunk, changes: usize) {
        metrics::counter!("walhook_source_changes_total").increment(u64::try_from(changes).unwrap_or(0));
        let Some((last, _)) = chunk.pieces().last() else { return };
        let ended = chunk.pieces().filter(|(piece, _)| piece.end.is_some()).count();
        metrics::counter!("walhook_source_transactions_total").increment(u64::try_from(ended).unwrap_or(0));
        let lag = since(self.with.clock.now(), last.transaction.committed_at);
        self.with.reading.note(lag);
    }

    async fn entry(&mut self, piece: &Piece, entry: &Entry) -> Result<(), Halt> {
        if matches!(entry, Entry::Message(_)) {
            self.let_go().await?;
        }
        let expansion = match entry {
            Entry::Row(raw) => {
                if self.with.live.is_heard() {
                    self.with.live.tell(news_of(piece.transaction, raw));
                }
                if self.snapshot.matcher.wants_shapes() {
                    self.shape(piece.transaction, raw).await?;
                }
                if self.window.watches(raw.relation.id) {
                    let touching = self.expander.touched(&self.snapshot, raw);
                    let touched = unless_stopped(&self.stop, touching).await?;
                    self.window.touch(touched);
                }
                return self.row(piece.transaction, raw).await;
            }
            Entry::Message(message) if *message.prefix == *MARK_PREFIX => {
                return self.mark(piece, message).await;
            }
            Entry::Message(message) => {
                self.expander.expand_message(&self.snapshot, piece.transaction, message)
            }
        };
        match expansion {
            Some(expansion) => self.owe(expansion, Manner::Young).await,
            None => Ok(()),
        }
    }

    async fn change(&mut self, transaction: Transaction, raw: &RawChange) -> Result<(), Halt> {
        let expanding = self.expander.expand(&self.snapshot, transaction, raw);
        match unless_stopped(&self.stop, expanding).await? {
            Some(expansion) => self.owe(expansion, Manner::Young).await,
            None => Ok(()),
        }
    }

    /// Makes the deliveries of a change and puts them into the batch.
    async fn owe(&mut self, mut expansion: Expansion, manner: Manner) -> Result<(), Halt> {
        let snapshot = Arc::clone(&self.snapshot);
        self.end_transactions();
        let mut event = None;
        while let Some(Expanded { delivery, dead }) = expansion.next(&snapshot) {
            if event.as_ref() != Some(&delivery.event_id) {
                event = Some(delivery.event_id.clone());
                self.events += 1;
            }
            let headers = delivery.headers.as_ref().map_or(0, |headers| headers.len());
            let bytes = delivery.body.len() + headers + limits::DELIVERY_OVERHEAD_BYTES;
            let bytes = bytes.min(self.with.memory_bytes);
            let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
            let memory = Arc::clone(&self.with.memory);
            let permit = if let Ok(permit) = Arc::clone(&memory).try_acquire_many_owned(permits) {
                permit
            } else {
                // What waits in the batch holds memory too: it must be on its way before we wait.
                self.flush().await?;
                tokio::select! {
                    () = self.stop.cancelled() => return Err(Halt::Stopped),
                    permit = memory.acquire_many_owned(permits) => permit.map_err(|_| Halt::Stopped)?,
                }
            };
            let owed = self.with.settlement.owe();
            let young = Young { delivery, owed, permit: Some(permit), since: tokio::time::Instant::now() };
            self.batch.push(match (dead, manner) {
                (None, Manner::Young) => Offer::Send(young),
                (None, Manner::ByLedger) => Offer::Record(young),
                (Some(reason), _) => Offer::Dead(young, reason),
            });
            if self.batch.len() >= BATCH {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Tells the settlement of the newest end: before anything later owes, so that every debt stands in its own
    /// transaction, and else once a chunk, because most transactions owe nothing. What is still in the batch has its
    /// debt counted already.
    fn end_transactions(&mut self) {
        if let Some(end) = self.ended.take() {
            self.with.settlement.end(end);
        }
    }

    /// Hands the batch to the dispatcher, less what the ledger holds already.
    async fn flush(&mut self) -> Result<(), Halt> {
        if self.batch.is_empty() {
            return Ok(());
        }
        metrics::counter!("walhook_events_total").increment(std::mem::take(&mut self.events));
        let batch = std::mem::take(&mut self.batch);
        let batch = match self.with.recovery.filter(batch, &self.with.settlement, &self.stop).await {
            Ok(Some(batch)) => batch,
            Ok(None) => return Err(Halt::Stopped),
            Err(error) => return Err(Halt::Ledger(error)),
        };
        if batch.is_empty() {
            return Ok(());
        }
        tokio::select! {
            sent = self.with.offers.send(batch) => sent.map_err(|_| Halt::Stopped),
            () = self.stop.cancelled() => Err(Halt::Stopped),
        }
    }
}
