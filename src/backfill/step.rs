//! One step of a backfill: a page, and those of its rows that had to be read again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pages::{Mark, Outcome, Page};
use super::read::{Found, Which, read};
use super::{AGAIN_AFTER, BackfillError, Owned, Table, Worker, owned_by, wanted_as};
use crate::domain::{CommitLsn, DeliveryId, Lsn, MARK_PREFIX, limits};
use crate::ledger::backfills::{self, Backfill, Step};
use crate::postgres::Session;

/// How often a row is read again that changes at every look.
const LOOKS: u32 = 25;
/// How long the stream may take to bring a mark back; beyond it the page is read anew, unless intake has it by then.
const MARK_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What is remembered of a backfill between its steps.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Not to be looked at before: its rate.
    pub not_before: Option<Instant>,
    /// The ends of the ids of deliveries that a step cut short has left in the ledger; `None`: not known yet.
    pub held: Option<Arc<HashSet<String>>>,
    /// Whether it was told already why it waits.
    pub told: bool,
}

/// How a step went.
#[derive(Debug, Clone, Copy)]
pub(super) enum Progress {
    /// There may be more to do.
    Stepped,
    /// It is over.
    Ended,
    /// Nothing can be done before.
    Wait(Instant),
    /// The process is to stop.
    Stopped,
}

/// How a page went.
enum Turned {
    /// Its rows are in the ledger; those that changed are to be read again.
    Over { rows: Found, changed: Vec<Vec<String>>, commit: Option<CommitLsn>, deliveries: u64 },
    /// It is to be read anew.
    Again,
    /// The process is to stop.
    Stopped,
}

impl Worker {
    pub(super) async fn step(
        &mut self,
        job: &Backfill,
        memory: &mut Memory,
        ledger: &Session,
    ) -> Result<Progress, BackfillError> {
        let open = backfills::open_deliveries(&ledger.client, &job.webhook, limits::BACKFILL_BACKLOG).await?;
        if open >= limits::BACKFILL_BACKLOG {
            return Ok(Progress::Wait(Instant::now() + AGAIN_AFTER));
        }
        let mut source = self.session().await?;
        let (table, owned) = self.look(&source, job).await?;
        let looked = (&table, owned.as_ref());
        let Some(held) = self.begin(job, memory, ledger, &source).await? else { return Ok(Progress::Ended) };
        let most = job.rows_per_second.and_then(|rate| usize::try_from(rate).ok());
        let most = most.unwrap_or(usize::MAX).clamp(1, limits::BACKFILL_PAGE_ROWS);
        let began = Instant::now();

        let first = Which::After(job.cursor.as_deref(), most);
        let (rows, mut changed, mut commit, mut deliveries) =
            match self.page(job, looked, &mut source, &first, &held).await? {
                Turned::Over { rows, changed, commit, deliveries } => (rows, changed, commit, deliveries),
                Turned::Again => return Ok(Progress::Wait(Instant::now() + AGAIN_AFTER / 10)),
                Turned::Stopped => return Ok(Progress::Stopped),
            };
        let mut look = 0;
        while !changed.is_empty() && look < LOOKS {
            look += 1;
            match self.page(job, looked, &mut source, &Which::Keys(&changed), &held).await? {
                Turned::Over { changed: still, commit: later, deliveries: more, .. } => {
                    (changed, commit, deliveries) = (still, later.or(commit), deliveries + more);
                }
                Turned::Again => {}
                Turned::Stopped => return Ok(Progress::Stopped),
            }
            tokio::time::sleep(Duration::from_millis(u64::from(look))).await;
        }
        fail::fail_point!("before_backfill_advance", |_| std::process::abort());
        if let Some(commit) = commit {
            let step = Step {
                cursor: rows.keys.last().cloned(),
                floor: DeliveryId::floor_after(self.with.own.lineage.of(commit), commit),
                rows: count(rows.keys.len()),
                deliveries: i64::try_from(deliveries).unwrap_or(i64::MAX),
                moving: count(changed.len()),
            };
            self.advance(job, &step, ledger).await?;
        }
        memory.held = Some(Arc::default());
        if !rows.more {
            backfills::end(&ledger.client, &self.with.own, job.id, None).await?;
            tracing::info!(backfill = job.id, webhook = job.webhook, "a backfill is done");
            self.source = Some(source);
            return Ok(Progress::Ended);
        }
        let pace = job.rows_per_second.map(|rate| {
            let rows = u32::try_from(rows.keys.len()).unwrap_or(u32::MAX);
            Duration::from_secs_f64(f64::from(rows) / f64::from(rate.max(1)))
        });
        memory.not_before = pace.map(|pace| began + pace);
        self.source = Some(source);
        Ok(Progress::Stepped)
    }

    /// The session for marks and pages. Marks need not outlive a crash of the server: whoever reads the page anew
    /// writes new ones.
    async fn session(&mut self) -> Result<Session, BackfillError> {
        if let Some(session) = self.source.take().filter(|session| !session.client.is_closed()) {
            return Ok(session);
        }
        let session = self.with.server.session("walhook backfill").await?;
        let set = session.client.batch_execute("set synchronous_commit = local").await;
        set.map_err(BackfillError::query("prepare to read rows"))?;
        Ok(session)
    }

    /// Everything that must hold for a page to be read; webhooks and tables may change meanwhile.
    /// Of a tenant's webhook, whose rows are its.
    async fn look(&self, source: &Session, job: &Backfill) -> Result<(Table, Option<Owned>), BackfillError> {
        let snapshot = self.with.catalog.borrow().snapshot.clone();
        wanted_as(&snapshot, &job.webhook, &job.schema, &job.table)?;
        let table = Table::look(source, &job.schema, &job.table).await?;
        table.insist_on_changes(&source.client, &self.with.publications).await?;
        table.insist_on_order(&source.client).await?;
        let owned = owned_by(&snapshot, &job.webhook, &job.schema, &job.table);
        Ok((table, owned))
    }

    /// Marks it as running, and finds out what an earlier life has left of the step that comes next. `None` where it is
    /// no longer to be done.
    async fn begin(
        &self,
        job: &Backfill,
        memory: &mut Memory,
        ledger: &Session,
        source: &Session,
    ) -> Result<Option<Arc<HashSet<String>>>, BackfillError> {
        if let Some(held) = &memory.held {
            return Ok(Some(Arc::clone(held)));
        }
        let failed = BackfillError::query("read the log's position");
        let here = "select pg_catalog.pg_current_wal_insert_lsn()::text";
        let row = source.client.query_one(here, &[]).await.map_err(failed)?;
        let here: Lsn = row.get::<_, &str>(0).parse().unwrap_or_default();
        let floor = DeliveryId::floor_after(self.with.own.lineage.of(CommitLsn(here)), CommitLsn(here));
        if !backfills::begin(&ledger.client, &self.with.own, job.id, &floor).await? {
            return Ok(None);
        }
        let mut held = HashSet::new();
        if let Some(floor) = &job.floor {
            let left = backfills::held_beyond(&ledger.client, &job.webhook, floor).await?;
            held.extend(left.iter().map(|id| id.fingerprint().to_owned()));
        }
        tracing::info!(backfill = job.id, webhook = job.webhook, table = job.table, "a backfill goes on");
        let held = Arc::new(held);
        memory.held = Some(Arc::clone(&held));
        Ok(Some(held))
    }

    /// Reads a page between two marks, and waits until the ledger has what it owes.
    async fn page(
        &mut self,
        job: &Backfill,
        (table, owned): (&Table, Option<&Owned>),
        source: &mut Session,
        which: &Which<'_>,
        held: &Arc<HashSet<String>>,
    ) -> Result<Turned, BackfillError> {
        self.pages_read += 1;
        let name = format!("{}/{}/{}/{}", self.with.own.slot, self.with.own.epoch, job.id, self.pages_read);
        let outcome = self.with.pages.open(&name, table.relation.id);
        mark(source, &Mark::Low(&name)).await?;
        let mut rows = read(&mut source.client, table, (job.condition.as_deref(), owned), which).await?;
        if rows.rows.is_empty() {
            self.with.pages.close();
            return Ok(Turned::Over { rows, changed: Vec::new(), commit: None, deliveries: 0 });
        }
        self.with.pages.fill(Page {
            job: job.id,
            webhook: job.webhook.as_str().into(),
            relation: Arc::clone(&table.relation),
            rows: std::mem::take(&mut rows.rows),
            running: std::mem::take(&mut rows.running),
            held: Arc::clone(held),
        });
        fail::fail_point!("before_backfill_mark", |_| std::process::abort());
        let marked = mark(source, &Mark::High(&name)).await;
        // An answer may be lost, and the mark is in the log: then intake may have the page, and its rows are owed.
        if let Err(error) = marked
            && self.with.pages.close()
        {
            return Err(error);
        }
        let outcome = tokio::select! {
            outcome = self.with.pages.outcome(outcome, MARK_PATIENCE) => outcome,
            () = self.stop.cancelled() => return Ok(Turned::Stopped),
        };
        match outcome {
            Some(Outcome::Taken { commit, changed, deliveries }) => {
                let settled = self.with.confirmed.wait_for(|end| end.0 > commit.0);
                tokio::select! {
                    settled = settled => if settled.is_err() { return Ok(Turned::Stopped) },
                    () = self.stop.cancelled() => return Ok(Turned::Stopped),
                }
                metrics::counter!("walhook_backfills_deliveries_total").increment(deliveries);
                let changed = changed.iter().filter_map(|at| rows.keys.get(*at).cloned()).collect();
                Ok(Turned::Over { rows, changed, commit: Some(commit), deliveries })
            }
            Some(Outcome::Spoiled) => Ok(Turned::Again),
            Some(Outcome::NoWebhook) => Err(BackfillError::NoWebhook { webhook: job.webhook.clone() }),
            None => Err(BackfillError::NoMark),
        }
    }

    /// Moves the cursor; what has been done must be known, so this is tried until it is.
    async fn advance(&self, job: &Backfill, step: &Step, ledger: &Session) -> Result<(), BackfillError> {
        let mut moved = backfills::advance(&ledger.client, &self.with.own, job.id, step).await;
        while let Err(error) = &moved {
            if !error.is_transient() || self.stop.is_cancelled() {
                break;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
            // Whether a lost answer was a yes does not matter: written twice, only the counts are too high.
            moved = match self.with.ledger.session("walhook backfill").await {
                Ok(ledger) => backfills::advance(&ledger.client, &self.with.own, job.id, step).await,
                Err(error) => Err(error),
            };
        }
        Ok(moved?)
    }
}

/// Writes a mark into the log, in a transaction of its own.
async fn mark(source: &Session, mark: &Mark<'_>) -> Result<(), BackfillError> {
    let sql = "select pg_catalog.pg_logical_emit_message(true, $1, $2::text)";
    let content = mark.content();
    let written = source.client.execute(sql, &[&MARK_PREFIX, &content]).await;
    written.map(drop).map_err(BackfillError::query("write a mark into the log"))
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
