//! The table over which a worker hands a page to intake, and intake hands back what became of it.
//!
//! At most one page is open. Its name stands in the marks in the log, so a mark of another process, of an earlier
//! life or of a page that was given up opens nothing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::domain::{CommitLsn, Relation, Tuple};

/// The page that is being read, if any. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    open: Arc<Mutex<Option<Open>>>,
}

#[derive(Debug)]
struct Open {
    name: String,
    table: u32,
    page: Option<Page>,
    outcome: oneshot::Sender<Outcome>,
}

/// Rows as they were at one moment between two marks.
#[derive(Debug)]
pub struct Page {
    /// The backfill.
    pub job: i64,
    /// The webhook they are for.
    pub webhook: Arc<str>,
    /// The table as it was read.
    pub relation: Arc<Relation>,
    /// The rows.
    pub rows: Vec<PageRow>,
    /// The transactions (their ids' low 32 bits) that were under way when the rows were read: their changes are not in
    /// them.
    pub running: HashSet<u32>,
    /// The ends of the ids of this backfill's deliveries that are in the ledger already.
    pub held: Arc<HashSet<String>>,
}

/// One row.
#[derive(Debug)]
pub struct PageRow {
    /// Its values; of one that is too large only the key's.
    pub values: Tuple,
    /// Its size, where it is too large to send.
    pub oversized: Option<usize>,
}

/// What became of a page.
#[derive(Debug)]
pub enum Outcome {
    /// Its rows have their deliveries on their way to the ledger.
    Taken {
        /// The transaction of the closing mark: when it is confirmed, the ledger holds them.
        commit: CommitLsn,
        /// The rows, by their place in the page, that changed meanwhile.
        changed: Vec<usize>,
        /// Deliveries made.
        deliveries: u64,
    },
    /// Too much changed to tell which rows did: nothing was made of it.
    Spoiled,
    /// The webhook is no longer declared: nothing was made of it.
    NoWebhook,
}

/// A mark in the log, as its content says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark<'m> {
    /// Before a page is read.
    Low(&'m str),
    /// After it has been.
    High(&'m str),
}

impl<'m> Mark<'m> {
    /// Reads a mark's content.
    pub fn parse(content: &'m [u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        text.strip_prefix("low ").map(Self::Low).or_else(|| text.strip_prefix("high ").map(Self::High))
    }

    /// A mark's content.
    pub fn content(&self) -> String {
        match self {
            Self::Low(name) => format!("low {name}"),
            Self::High(name) => format!("high {name}"),
        }
    }
}

impl Pages {
    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a page that is about to be read; one that is open is given up. What becomes of it is told once.
    pub(super) fn open(&self, name: &str, table: u32) -> oneshot::Receiver<Outcome> {
        let (outcome, told) = oneshot::channel();
        *self.lock() = Some(Open { name: name.to_owned(), table, page: None, outcome });
        told
    }

    /// Puts in what was read.
    pub(super) fn fill(&self, page: Page) {
        if let Some(open) = &mut *self.lock() {
            open.page = Some(page);
        }
    }

    /// Gives the open page up. Returns whether there was one: else it has been taken, and what becomes of it will be told.
    pub(super) fn close(&self) -> bool {
        self.lock().take().is_some()
    }

    /// What became of the open page. It is given up if it has not been taken after a while: the rows of one that has are
    /// owed, however long that takes. `None` where it was given up, or nobody can tell any more.
    pub(super) async fn outcome(
        &self,
        mut told: oneshot::Receiver<Outcome>,
        patience: Duration,
    ) -> Option<Outcome> {
        match timeout(patience, &mut told).await {
            Ok(outcome) => outcome.ok(),
            Err(_) if self.close() => None,
            Err(_) => told.await.ok(),
        }
    }

    /// The table of the open page, if it has this name.
    pub fn table_of(&self, name: &str) -> Option<u32> {
        self.lock().as_ref().filter(|open| open.name == name).map(|open| open.table)
    }

    /// Takes the open page, if it has this name and has been read; and to whom to tell what becomes of it.
    pub fn take(&self, name: &str) -> Option<(Page, oneshot::Sender<Outcome>)> {
        let mut there = self.lock();
        if there.as_ref().is_none_or(|open| open.name != name) {
            return None;
        }
        let open = there.take()?;
        Some((open.page?, open.outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ReplicaIdentity;

    #[test]
    fn a_mark_of_another_page_opens_nothing() {
        let pages = Pages::default();
        let _told = pages.open("s/1/1/1", 7);
        assert_eq!(pages.table_of("s/1/1/2"), None);
        assert!(pages.take("s/1/1/2").is_none());
        assert_eq!(pages.table_of("s/1/1/1"), Some(7));
        assert!(pages.close());
        assert_eq!(pages.table_of("s/1/1/1"), None);
        assert!(!pages.close());
    }

    fn filled(pages: &Pages) -> oneshot::Receiver<Outcome> {
        let told = pages.open("s/1/1/1", 7);
        let relation = Relation {
            id: 7,
            schema: "public".into(),
            name: "orders".into(),
            identity: ReplicaIdentity::Default,
            columns: Box::default(),
        };
        pages.fill(Page {
            job: 1,
            webhook: "crm".into(),
            relation: Arc::new(relation),
            rows: Vec::new(),
            running: HashSet::new(),
            held: Arc::default(),
        });
        told
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_page_that_was_taken_is_waited_for_however_long_its_rows_take() {
        let pages = Pages::default();
        let told = filled(&pages);
        let (_page, tell) = pages.take("s/1/1/1").expect("it is open");
        let taking = async {
            tokio::time::sleep(PATIENCE * 10).await;
            tell.send(Outcome::Spoiled).expect("somebody waits");
        };
        let (outcome, ()) = tokio::join!(pages.outcome(told, PATIENCE), taking);
        assert!(matches!(outcome, Some(Outcome::Spoiled)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_nobody_takes_is_given_up_and_cannot_be_taken_afterwards() {
        let pages = Pages::default();
        let told = filled(&pages);
        assert!(pages.outcome(told, PATIENCE).await.is_none());
        assert!(pages.take("s/1/1/1").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_whose_taker_has_ended_is_given_up_at_once() {
        let pages = Pages::default();
        let told = filled(&pages);
        drop(pages.take("s/1/1/1"));
        assert!(pages.outcome(told, PATIENCE).await.is_none());
    }

    #[test]
    fn marks_read_as_they_are_written_and_nothing_else_does() {
        for mark in [Mark::Low("a/1"), Mark::High("a/1")] {
            assert_eq!(Mark::parse(mark.content().as_bytes()), Some(mark));
        }
        for other in [&b"lowa"[..], b"", b"\xff", b"middle a"] {
            assert_eq!(Mark::parse(other), None);
        }
    }
}
