//! Existing rows, delivered: through the same path as changes, in order with them, and never stale.
//!
//! ```text
//!   worker                         log                              intake
//!     │ emit low mark ───────────▶ ▮ low ─────────────────────────▶ opens a window: keys of the table that change
//!     │ read a page (read-only)    ▮ changes of the application ──▶ delivered as ever, and noted in the window
//!     │ emit high mark ──────────▶ ▮ high ────────────────────────▶ rows of the page, less those that changed,
//!     │                                                              become `snapshot` events at this place
//!     │ ◀──────────── which rows changed: read again ───────────────┘        │ straight to the ledger
//!     │ ◀──────────── confirmed past the high mark ──────────────────────────┘
//!     └ moves the cursor
//! ```
//!
//! **Order.** A page is read between two marks that walhook writes into the log. A row whose key changes in the stream
//! between them may be older or newer in the page than in the stream, so it is left out and read again, between two
//! marks of its own. All others are as they stand at the high mark, where their events take their place in their
//! lanes, after every change before it and before every change after it (invariant I7).
//!
//! **A commit is in the log before it is visible.** A transaction may have its commit record before the low mark and
//! still be invisible when the page is read. The page brings along which transactions were under way; one of them
//! that the stream has brought before the low mark spoils the page, and it is read anew.
//!
//! **Crashes.** A snapshot delivery is not tried from memory: it is handed to the ledger as it is, and sent from there,
//! so that nothing of a page is sent before it has its row. The position past the high mark is confirmed once all
//! rows are there (I1), and only then the cursor moves. A kill before that leaves some of the page's deliveries in the
//! ledger and the cursor where it was: whoever goes on asks the ledger for the backfill's deliveries beyond the cursor
//! and leaves those rows out of the page it reads again. The end of a delivery's id tells which row of which backfill it
//! is; its beginning, as in every id, its place. So each row is delivered once for each backfill, with one id (I2, I3).
//!
//! **Bounds.** Pages by rows and bytes; a webhook with many open deliveries is waited for, so that a table of any size
//! neither fills the ledger nor stands before the webhook's live changes for long; `--rate` on top. One page is open
//! at a time; backfills take turns.
//!
//! **Same form.** Rows are read as the text that the stream would carry ([`read`]), under the same settings, and go
//! through the same exclusions, masks, filters and templates. Their type is the table's `created`, their operation
//! `snapshot`; named events are about changes, and rows make none.

mod condition;
mod error;
mod pages;
mod read;
mod recode;
mod step;
mod table;

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use condition::{check, combine, estimate};
pub use error::BackfillError;
pub use pages::{Mark, Outcome, Page, PageRow, Pages};
pub use read::{Owned, read_one};
pub use table::Table;

use crate::catalog::{Published, Snapshot};
use crate::domain::{EndLsn, Operation};
use crate::ledger::backfills::{self, Backfill};
use crate::ledger::own::Ownership;
use crate::ledger::pokes::Pokes;
use crate::ledger::{Ledger, LedgerError};
use crate::matcher::pattern_matches;
use crate::postgres::{Server, Session, told};
use crate::source::PublicationNames;
use step::{Memory, Progress};

/// How often the ledger is asked for backfills without being told of one.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How soon a backfill that waits for its webhook, or for a server, is looked at again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What the worker works with.
pub struct Backfills {
    /// The application's database.
    pub server: Server,
    /// Where backfills and deliveries are written.
    pub ledger: Ledger,
    /// The slot, its log, our fence.
    pub own: Ownership,
    /// The webhooks.
    pub catalog: watch::Receiver<Published>,
    /// Shared with intake.
    pub pages: Pages,
    /// Up to where all deliveries have their rows.
    pub confirmed: watch::Receiver<EndLsn>,
    /// Told when somebody else has written to the ledger.
    pub pokes: watch::Receiver<Pokes>,
    /// Must carry all changes of a table that is read.
    pub publications: PublicationNames,
}

struct Worker {
    with: Backfills,
    source: Option<Session>,
    ledger: Option<Session>,
    memory: HashMap<i64, Memory>,
    pages_read: u64,
    stop: CancellationToken,
}

/// The event type that a table's existing rows come as, if the webhook takes it.
pub fn wanted_as(
    snapshot: &Snapshot,
    webhook: &str,
    schema: &str,
    table: &str,
) -> Result<String, BackfillError> {
    let compiled = snapshot.by_name(webhook);
    let compiled = compiled.ok_or_else(|| BackfillError::NoWebhook { webhook: webhook.to_owned() })?;
    let mut types = snapshot.matcher.types_of(schema, table).into_iter();
    let created = types.find(|t| t.operation == Operation::Insert && !t.named);
    let may = compiled.webhook.tenant.is_none() || created.as_ref().is_some_and(|t| t.public);
    let event_type = created.map_or_else(String::new, |t| t.event_type.to_string());
    if may && compiled.webhook.events.iter().any(|pattern| pattern_matches(pattern, &event_type)) {
        Ok(event_type)
    } else {
        Err(BackfillError::NotWanted { webhook: webhook.to_owned(), event_type })
    }
}

/// Of a tenant's webhook, which rows of a table are its; intake asks each again.
pub fn owned_by(snapshot: &Snapshot, webhook: &str, schema: &str, table: &str) -> Option<Owned> {
    let tenant = snapshot.by_name(webhook)?.webhook.tenant.as_deref()?.to_owned();
    let column = snapshot.matcher.tenant_column(schema, table)?.to_owned();
    Some(Owned { column, tenant })
}

impl Backfills {
    /// Does what is asked for until asked to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut worker = Worker {
            with: self,
            source: None,
            ledger: None,
            memory: HashMap::new(),
            pages_read: 0,
            stop: stop.clone(),
        };
        let mut told_of = None;
        loop {
            worker.with.pokes.mark_unchanged();
            let wait = match worker.round().await {
                Ok(wait) => {
                    told_of = None;
                    wait
                }
                Err(LedgerError::FencedOff) => return,
                Err(error) => {
                    let reason = crate::telemetry::chain(&error);
                    if told_of.as_ref() != Some(&reason) {
                        tracing::warn!(reason, "backfills wait for the ledger");
                        told_of = Some(reason);
                    }
                    Some(Instant::now() + AGAIN_AFTER)
                }
            };
            let until = wait.unwrap_or_else(|| Instant::now() + ASK_EVERY);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                poked = worker.with.pokes.changed() => if poked.is_err() { return },
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }
}

impl Worker {
    /// A step of each backfill, over and over while there is one to make. Returns when to look again.
    async fn round(&mut self) -> Result<Option<Instant>, LedgerError> {
        let ledger = match self.ledger.take().filter(|ledger| !ledger.client.is_closed()) {
            Some(ledger) => ledger,
            None => self.with.ledger.session("walhook backfill").await?,
        };
        loop {
            let jobs = backfills::to_do(&ledger.client, &self.with.own.slot).await?;
            self.memory.retain(|id, _| jobs.iter().any(|job| job.id == *id));
            metrics::gauge!("walhook_backfills_open").set(f64::from(u32::try_from(jobs.len()).unwrap_or(0)));
            let (mut soonest, mut stepped) = (None::<Instant>, false);
            for job in &jobs {
                match self.step_of(job, &ledger).await? {
                    Progress::Stepped => stepped = true,
                    Progress::Ended => {}
                    Progress::Wait(until) => soonest = Some(soonest.map_or(until, |s| s.min(until))),
                    Progress::Stopped => return Ok(None),
                }
            }
            if !stepped {
                if jobs.is_empty() {
                    self.source = None;
                }
                self.ledger = Some(ledger);
                return Ok(soonest);
            }
        }
    }

    /// A step of one; what keeps it from going on is written to it, or waited for where that can help.
    async fn step_of(&mut self, job: &Backfill, ledger: &Session) -> Result<Progress, LedgerError> {
        let mut memory = self.memory.remove(&job.id).unwrap_or_default();
        if memory.not_before.is_some_and(|at| at > Instant::now()) {
            let until = memory.not_before.unwrap_or_else(Instant::now);
            self.memory.insert(job.id, memory);
            return Ok(Progress::Wait(until));
        }
        let stepped = self.step(job, &mut memory, ledger).await;
        let progress = match stepped {
            Ok(progress) => {
                memory.told = false;
                progress
            }
            Err(BackfillError::Ledger(LedgerError::FencedOff)) => return Err(LedgerError::FencedOff),
            Err(error) if error.is_transient() => {
                self.source = None;
                self.with.pages.close();
                memory.held = None;
                if !std::mem::replace(&mut memory.told, true) {
                    let reason = crate::telemetry::chain(&error);
                    tracing::warn!(backfill = job.id, reason, "a backfill waits");
                }
                Progress::Wait(Instant::now() + AGAIN_AFTER)
            }
            Err(error) => {
                self.source = None;
                self.with.pages.close();
                let reason = told(&error, error.detail().as_deref(), error.hint().as_deref());
                tracing::warn!(backfill = job.id, reason, "a backfill cannot go on");
                backfills::end(&ledger.client, &self.with.own, job.id, Some(&reason)).await?;
                return Ok(Progress::Ended);
            }
        };
        self.memory.insert(job.id, memory);
        Ok(progress)
    }
}
