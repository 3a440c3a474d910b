//! What happens now, told to whoever listens at this moment.
//!
//! Intake tells of changes as it takes them, the ledger's writer of deliveries once their rows are committed. Nobody waits
//! for a listener: what it has not taken when the buffer is full is lost to it, and it is told how much. While nobody
//! listens nothing is made at all; asking whether somebody does is one read of a number.
//!
//! No values of rows are in it: whoever may see those asks for the delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::domain::{Attempt, CommitLsn, DeliveryStatus, limits};

/// Where news are told. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    listeners: AtomicUsize,
    told: broadcast::Sender<Arc<News>>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// A row was changed, or a table emptied.
    Change(ChangeNews),
    /// A delivery is in another state, or was tried.
    Delivery(DeliveryNews),
}

/// A change as it was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeNews {
    /// When it was committed.
    pub committed_at: Timestamp,
    /// Where its commit stands in the log.
    pub commit: CommitLsn,
    /// Its transaction.
    pub xid: u32,
    /// Its place in it, from 1.
    pub sequence: u32,
    /// The table's schema.
    pub schema: Arc<str>,
    /// The table.
    pub table: Arc<str>,
    /// `insert`, `update`, `delete`, `truncate`.
    pub operation: &'static str,
}

/// A delivery as it has just been written.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryNews {
    /// Its id.
    pub id: Arc<str>,
    /// Its webhook.
    pub webhook: Arc<str>,
    /// Its event's type, where it came from memory; the ledger's own are told without.
    pub event: Option<Arc<str>>,
    /// Its state.
    pub status: DeliveryStatus,
    /// The attempt that led to it, where there was one.
    pub attempt: Option<Tried>,
}

/// An attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// 1, 2, 3, …
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// `responded`, `timed_out`, `unreachable`, `refused`.
    pub outcome: &'static str,
    /// The answer's status.
    pub http_status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
}

impl From<&Attempt> for Tried {
    fn from(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            at: attempt.started_at,
            took_ms: attempt.took.as_secs_f64() * 1e3,
            outcome: attempt.outcome.kind(),
            http_status: attempt.outcome.status(),
            error: (!attempt.outcome.is_success()).then(|| attempt.outcome.describe()),
        }
    }
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// News.
    News(Arc<News>),
    /// It was too slow for so many.
    Missed(u64),
    /// There will be no more.
    Over,
}

/// Somebody who listens; whoever drops it no longer does.
#[derive(Debug)]
pub struct Listener {
    news: broadcast::Receiver<Arc<News>>,
    inner: Arc<Inner>,
}

impl Default for Live {
    fn default() -> Self {
        let told = broadcast::channel(limits::LIVE_WAITING).0;
        Self { inner: Arc::new(Inner { listeners: AtomicUsize::new(0), told }) }
    }
}

impl Live {
    /// Whether anybody listens. What is made only to be told is made only then.
    pub fn is_heard(&self) -> bool {
        self.inner.listeners.load(Ordering::Relaxed) > 0
    }

    /// Tells everybody who listens.
    pub fn tell(&self, news: News) {
        // It fails where the last listener has just gone.
        if self.inner.told.send(Arc::new(news)).is_err() {
            tracing::trace!("nobody listens any more");
        }
    }

    /// Listens from now on; `None` where as many do as may.
    pub fn listen(&self) -> Option<Listener> {
        let more = |listening| (listening < limits::LIVE_LISTENERS).then_some(listening + 1);
        self.inner.listeners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Listener { news: self.inner.told.subscribe(), inner: Arc::clone(&self.inner) })
    }
}

impl Listener {
    /// The next of what happens. May be dropped at any point; nothing is lost by that.
    pub async fn next(&mut self) -> Heard {
        match self.news.recv().await {
            Ok(news) => Heard::News(news),
            Err(RecvError::Lagged(missed)) => Heard::Missed(missed),
            Err(RecvError::Closed) => Heard::Over,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.inner.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(id: &str) -> News {
        let status = DeliveryStatus::Delivered;
        News::Delivery(DeliveryNews {
            id: id.into(),
            webhook: "crm".into(),
            event: None,
            status,
            attempt: None,
        })
    }

    #[tokio::test]
    async fn a_slow_listener_loses_the_oldest_and_is_told_how_many_and_nobody_waits() {
        let live = Live::default();
        assert!(!live.is_heard());
        let mut listener = live.listen().unwrap();
        assert!(live.is_heard());
        for n in 0..limits::LIVE_WAITING + 3 {
            live.tell(delivered(&n.to_string()));
        }
        assert_eq!(listener.next().await, Heard::Missed(3));
        assert_eq!(listener.next().await, Heard::News(Arc::new(delivered("3"))));
        drop(listener);
        assert!(!live.is_heard());
        live.tell(delivered("nobody's"));
    }

    #[test]
    fn as_many_listen_as_may() {
        let live = Live::default();
        let all: Vec<_> = (0..limits::LIVE_LISTENERS).map(|_| live.listen().unwrap()).collect();
        assert!(live.listen().is_none());
        drop(all);
        assert!(live.listen().is_some());
    }
}
