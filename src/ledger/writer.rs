//! The one task that writes deliveries, strictly in the order it is told to.
//!
//! While one batch commits, the next gathers; under load it gathers for a moment longer, because a transaction of eight
//! rows costs nearly as much as one of a hundred. Trouble with the database is waited out: the young deliveries stay in
//! memory, their bytes stay accounted for, and intake stops when those are used up. A commit whose answer was lost
//! is looked up, never repeated blindly. Losing the slot ends the task, and with it the process.

mod control;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::health::Health as WebhookHealth;
use super::notices::GivenUp;
use super::own::Ownership;
use super::record::{Finish, NewRow, State, Statements};
use super::rollups::{self, Book, Kept, News, SlaOf};
use super::{Ledger, LedgerError, doing, ghosts, recorded};
use crate::clock::Clock;
use crate::domain::{Attempt, DeliveryId, Lane, StoreBodies, limits};
use crate::live::{self, DeliveryNews, Live, Tried};
use crate::postgres::Session;
use crate::settlement::Settlement;

/// What the writer is told.
#[derive(Debug)]
pub enum Command {
    /// Record a young delivery; the permit is its share of the memory, given back once it is recorded.
    Insert(Box<NewRow>, Option<OwnedSemaphorePermit>),
    /// Record a claimed delivery's attempt.
    Finish(Box<Finish>),
    /// Stop sending to a webhook, for a reason that is kept.
    Disable {
        /// The webhook.
        webhook: Arc<str>,
        /// Why.
        reason: String,
    },
    /// Remember how a webhook fares: that it fails, or (`None`) that it works.
    Health {
        /// The webhook.
        webhook: Arc<str>,
        /// What is known.
        health: Option<WebhookHealth>,
    },
    /// Count the open deliveries of a webhook by lane, unless there are more than `most`.
    Lanes {
        /// The webhook.
        webhook: Arc<str>,
        /// The most rows worth counting.
        most: usize,
    },
}

/// What the writer answers, in the order of the commands.
#[derive(Debug)]
pub enum Ack {
    /// A young delivery has its row.
    Inserted {
        /// Its webhook.
        webhook: Arc<str>,
        /// Its lane.
        lane: Lane,
        /// Whether the row is open.
        open: bool,
        /// When it is due, where it is known to be (a pending one may stand behind another).
        due: Option<Timestamp>,
    },
    /// A claimed delivery's attempt has been recorded.
    Finished {
        /// Its webhook.
        webhook: Arc<str>,
        /// Its lane.
        lane: Lane,
        /// Whether the row is still open.
        open: bool,
        /// When something of its lane is due next, at the earliest.
        due: Option<Timestamp>,
        /// Whether the lease had been lost, so that nothing was written.
        lease_lost: bool,
    },
    /// That a webhook is disabled is written.
    Disabled {
        /// The webhook.
        webhook: Arc<str>,
        /// The catalog's version from then on: whoever reads one of at least this finds it disabled, or already enabled again.
        version: i64,
    },
    /// The open deliveries of a webhook by lane; `None` where there are too many.
    Lanes {
        /// The webhook.
        webhook: Arc<str>,
        /// How many a lane.
        lanes: Option<Vec<(Lane, u32)>>,
    },
}

/// From the beginning of one batch to that of the next, at least; what comes after a quiet moment is written at once. Only
/// a kill makes a difference: what was delivered within this time is delivered again.
const GATHER: Duration = Duration::from_millis(25);
/// The same after a batch that ended claimed deliveries: those behind them in their lanes wait for it.
const GATHER_CLAIMED: Duration = Duration::from_millis(10);

/// How often the partitions that a batch wants are made: where they are there and it still does not fit, it never will.
const PARTITIONS_MADE: u32 = 3;

/// The writer, before it runs.
pub struct Writer {
    /// The ledger.
    pub ledger: Ledger,
    /// The right to write.
    pub own: Ownership,
    /// What is kept of ended deliveries' bodies.
    pub store: StoreBodies,
    /// What is promised of each webhook, for the numbers.
    pub sla: SlaOf,
    /// Where settled debts go.
    pub settlement: Settlement,
    /// The time.
    pub clock: Clock,
    /// Whether the ledger answers, for `/readyz`.
    pub health: watch::Sender<Health>,
    /// Counts what there may be to tell of: deliveries that were given up, webhooks that fare otherwise.
    pub news: watch::Sender<u64>,
    /// Who listens to what is written.
    pub live: Live,
}

/// Whether the ledger can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Not yet: the slot is not ours, or has just become so.
    Starting,
    /// Yes.
    Writing,
    /// No, for this reason.
    Failing(String),
}

struct Open {
    session: Session,
    statements: Statements,
    sums: rollups::Statements,
}

/// The connection, and what is remembered of one batch to the next.
#[derive(Default)]
struct Desk {
    open: Option<Open>,
    book: Book,
}

#[derive(Default)]
struct Batch {
    rows: Vec<NewRow>,
    permits: Vec<OwnedSemaphorePermit>,
    finishes: Vec<Finish>,
}

impl Batch {
    /// Whether any delivery in it has failed.
    fn gives_up(&self) -> bool {
        let mut states = self.rows.iter().map(|row| &row.state).chain(self.finishes.iter().map(|f| &f.state));
        states.any(|state| matches!(state, State::Failed(_)))
    }

    /// Tells of what was written, but for what was written by others.
    fn tell(&self, to: &Live, lost: &[String]) {
        let news =
            |(id, webhook): (&DeliveryId, &Arc<str>), event, state: &State, attempt: Option<&Attempt>| {
                let (id, webhook) = (id.as_str().into(), Arc::clone(webhook));
                to.tell(live::News::Delivery(DeliveryNews {
                    id,
                    webhook,
                    event,
                    status: state.status(),
                    attempt: attempt.map(Tried::from),
                }));
            };
        for NewRow { delivery, state, attempt, .. } in &self.rows {
            let event = Some(Arc::clone(&delivery.event_type));
            news((&delivery.id, &delivery.webhook), event, state, attempt.as_ref());
        }
        for Finish { id, webhook, state, attempt, .. } in &self.finishes {
            if !lost.iter().any(|lost| lost == id.as_str()) {
                news((id, webhook), None, state, attempt.as_ref());
            }
        }
    }
}

impl Writer {
    /// Runs until every sender of commands is gone and all is written, or the slot's ledger has been taken over.
    pub async fn run(
        self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        acks: mpsc::UnboundedSender<Vec<Ack>>,
    ) -> Result<(), LedgerError> {
        let mut desk = Desk::default();
        // Ahead of the first delivery, so that it need not wait for a login; trouble is met again with the first.
        if let Err(error) = super::within(limits::ANSWER_WITHIN, self.open(&mut desk.open)).await {
            tracing::debug!(reason = crate::telemetry::chain(&error), "the ledger cannot be reached yet");
        }
        self.health.send_replace(Health::Writing);
        let mut waiting = Vec::with_capacity(limits::LEDGER_BATCH);
        let mut next = Instant::now();
        while commands.recv_many(&mut waiting, limits::LEDGER_BATCH).await > 0 {
            if waiting.len() < limits::LEDGER_BATCH && next > Instant::now() {
                tokio::time::sleep_until(next).await;
                let room = limits::LEDGER_BATCH - waiting.len();
                waiting.extend(std::iter::from_fn(|| commands.try_recv().ok()).take(room));
            }
            let ends_claimed = waiting.iter().any(|command| matches!(command, Command::Finish(_)));
            next = Instant::now() + if ends_claimed { GATHER_CLAIMED } else { GATHER };
            let mut batch = Batch::default();
            let mut answers = Vec::with_capacity(waiting.len());
            for command in waiting.drain(..) {
                match command {
                    Command::Insert(row, permit) => {
                        batch.rows.push(*row);
                        batch.permits.extend(permit);
                    }
                    Command::Finish(finish) => batch.finishes.push(*finish),
                    control => {
                        self.write(&mut desk, &mut batch, &mut answers).await?;
                        self.control(&mut desk.open, control, &mut answers).await?;
                    }
                }
            }
            self.write(&mut desk, &mut batch, &mut answers).await?;
            if acks.send(answers).is_err() {
                // Nobody keeps lanes any more: the process is stopping, what is left is still written.
                tracing::debug!("the ledger's answers are no longer read");
            }
        }
        Ok(())
    }

    /// Writes a batch, however long it takes; then settles and answers for it.
    async fn write(
        &self,
        Desk { open, book }: &mut Desk,
        batch: &mut Batch,
        answers: &mut Vec<Ack>,
    ) -> Result<(), LedgerError> {
        if batch.rows.is_empty() && batch.finishes.is_empty() {
            return Ok(());
        }
        let (mut patience, mut made) = (Patience::default(), 0);
        let (lost, kept) = loop {
            let tried = self.try_write((&mut *open, book), batch, patience.failed());
            match super::within(patience.answer(), tried).await {
                Ok(written) => break written,
                Err(error) if is_missing_partition(&error) && made < PARTITIONS_MADE => {
                    match super::within(patience.answer(), self.make_partitions(open, batch)).await {
                        Ok(()) => made += 1,
                        Err(error) => self.wait_out(open, error, &mut patience).await?,
                    }
                }
                Err(error) => self.wait_out(open, error, &mut patience).await?,
            }
        };
        fail::fail_point!("after_ledger_commit", |_| std::process::abort());
        self.is_well();
        if batch.gives_up() {
            self.news.send_modify(|n| *n += 1);
        }
        if self.live.is_heard() {
            batch.tell(&self.live, &lost);
        }
        batch.permits.clear();
        self.settlement.settle(batch.rows.iter_mut().filter_map(|row| row.owed.take()));
        let now = self.clock.now();
        book.remember(kept, now);
        metrics::counter!("walhook_ledger_rows_total")
            .increment(u64::try_from(batch.rows.len() + batch.finishes.len()).unwrap_or(0));
        answers.extend(batch.rows.drain(..).map(|row| Ack::Inserted {
            open: !row.state.is_ended(),
            due: row.state.due(now),
            webhook: row.delivery.webhook,
            lane: row.delivery.lane,
        }));
        answers.extend(batch.finishes.drain(..).map(|finish| Ack::Finished {
            open: !finish.state.is_ended(),
            due: finish.state.due(now).or(finish.state.is_ended().then_some(now)),
            lease_lost: lost.iter().any(|id| id == finish.id.as_str()),
            webhook: finish.webhook,
            lane: finish.lane,
        }));
        Ok(())
    }

    /// One try. Returns the ids of finished deliveries whose lease had been lost, and the sums that were written.
    async fn try_write(
        &self,
        (open, book): (&mut Option<Open>, &Book),
        batch: &mut Batch,
        again: Again,
    ) -> Result<(Vec<String>, Kept), LedgerError> {
        let Open { session, statements, sums } = self.open(open).await?;
        let (slot, epoch, now) = (&*self.own.slot, self.own.epoch, self.clock.now());
        let mut already = 0;
        let transaction = session.client.transaction().await.map_err(doing("beginning to record"))?;
        if again == Again::Yes {
            let alone = statements.wait_for_our_own(transaction.client(), slot, epoch);
            Box::pin(ghosts::despite_them(&self.ledger, transaction.client(), alone)).await?;
            let ids: Vec<&str> = batch.rows.iter().map(|row| row.delivery.id.as_str()).collect();
            let there = recorded::among(transaction.client(), &ids).await?;
            already = there.len();
            // Those that are there count as written: only the others go into the statement below.
            batch.rows.sort_by_key(|row| there.contains(row.delivery.id.as_str()));
        }
        let fresh = batch.rows.get(..batch.rows.len() - already).unwrap_or_default();
        let (ended, open): (Vec<_>, Vec<_>) = fresh.iter().partition(|row| row.state.is_ended());
        if !ended.is_empty() {
            statements.copy(transaction.client(), slot, epoch, &ended, self.store).await?;
        }
        if !open.is_empty() {
            let client = transaction.client();
            let written = statements.insert(client, slot, epoch, &open, self.store, now).await?;
            if usize::try_from(written) != Ok(open.len()) {
                return Err(LedgerError::FencedOff);
            }
        }
        let mut given_up = GivenUp::default();
        given_up.among_rows(&ended);
        let (mut lost, mut news) = (Vec::new(), News::new(&self.sla, now));
        for row in fresh {
            news.row(row);
        }
        if !batch.finishes.is_empty() {
            let client = transaction.client();
            let written = statements.finish(client, slot, epoch, &batch.finishes, self.store, now).await?;
            statements.check_fence(client, slot, epoch).await?;
            for finish in &batch.finishes {
                match written.get(&(finish.id.as_str().to_owned(), finish.lease.token)) {
                    Some(written) => {
                        news.finish(finish, written);
                        if finish.state.fail_reason().is_some() {
                            given_up.finished(finish);
                        }
                    }
                    None => lost.push(finish.id.as_str().to_owned()),
                }
            }
            let ended = batch.finishes.iter().filter(|f| f.state.is_ended());
            let lanes: Vec<_> = ended.map(|f| (Arc::clone(&f.webhook), f.lane)).collect();
            if !lanes.is_empty() {
                statements.promote(client, &lanes).await?;
            }
        }
        given_up.note(transaction.client()).await?;
        let kept = book.write(transaction.client(), sums, &self.own, news, again == Again::Yes).await?;
        fail::fail_point!("before_ledger_commit", |_| std::process::abort());
        transaction.commit().await.map_err(doing("committing to the ledger"))?;
        // After a lost answer this may name some that were written; the dispatcher then only looks again.
        Ok((lost, kept))
    }

    async fn open<'a>(&self, open: &'a mut Option<Open>) -> Result<&'a mut Open, LedgerError> {
        let open_now = match open.take() {
            Some(there) if !there.session.client.is_closed() => there,
            _ => {
                let session = self.ledger.session("walhook ledger").await?;
                let statements = Statements::prepare(&session.client).await?;
                let sums = rollups::Statements::prepare(&session.client).await?;
                Open { session, statements, sums }
            }
        };
        Ok(open.insert(open_now))
    }

    fn is_well(&self) {
        self.health.send_if_modified(|h| std::mem::replace(h, Health::Writing) != Health::Writing);
    }

    /// Today's partitions, and those of days long past whose attempts are moved there.
    async fn make_partitions(&self, open: &mut Option<Open>, batch: &Batch) -> Result<(), LedgerError> {
        let ids: Vec<&str> = batch.finishes.iter().map(|finish| finish.id.as_str()).collect();
        super::prune::ensure_partitions_of(&self.open(open).await?.session.client, &ids).await
    }

    /// Passes over trouble that time can heal; gives back the rest.
    async fn wait_out(
        &self,
        open: &mut Option<Open>,
        error: LedgerError,
        patience: &mut Patience,
    ) -> Result<(), LedgerError> {
        if !error.is_transient() {
            return Err(error);
        }
        *open = None;
        let reason = crate::telemetry::chain(&error);
        let news = self.health.send_if_modified(|h| {
            let failing = Health::Failing(reason.clone());
            std::mem::replace(h, failing.clone()) != failing
        });
        if news {
            tracing::warn!(reason, "the ledger cannot be written; deliveries wait in memory and in the log");
        }
        tokio::time::sleep(patience.next()).await;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    No,
    Yes,
}

/// How often it has been tried, and how long to wait before the next.
#[derive(Debug, Default)]
struct Patience {
    tries: u32,
}

impl Patience {
    fn failed(&self) -> Again {
        if self.tries == 0 { Again::No } else { Again::Yes }
    }

    /// How long the next try may go unanswered.
    fn answer(&self) -> Duration {
        limits::ANSWER_WITHIN.saturating_mul(1 << self.tries.min(4)).min(limits::ANSWER_WITHIN_MAX)
    }

    fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(100).saturating_mul(1 << self.tries.min(7));
        self.tries += 1;
        wait.min(limits::RECONNECT_MAX)
    }
}

fn is_missing_partition(error: &LedgerError) -> bool {
    let LedgerError::Statement { source, .. } = error else { return false };
    source
        .as_db_error()
        .is_some_and(|db| *db.code() == SqlState::CHECK_VIOLATION && db.constraint().is_none())
}
