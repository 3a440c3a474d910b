//! Deliveries, their attempts and how those end.
//!
//! How a try ended is data, not an error: a receiver's 500 is an expected fact. The states a delivery can be in:
//!
//! ```text
//!   pending ──▶ delivered
//!      │  ▲
//!      ▼  │ (webhook comes back)          failed ──▶ pending   (sent again by hand)
//!   retrying ──▶ delivered | failed
//!      held  ──▶ pending                  any open one ──▶ cancelled   (by hand)
//! ```

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{DeliveryId, EventId, Operation, Ordering};

/// The state of a delivery in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryStatus {
    /// Not tried yet.
    Pending,
    /// Tried, failed, to be tried again.
    Retrying,
    /// Its webhook is paused or disabled.
    Held,
    /// The receiver answered 2xx.
    Delivered,
    /// Given up: a dead letter.
    Failed,
    /// Ended by hand.
    Cancelled,
}

impl DeliveryStatus {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The queue a delivery stands in: in a lane nothing overtakes (invariant I7). A 63-bit hash; two keys that
/// collide merely wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(pub i64);

/// The lane of a delivery under its webhook's ordering. `key` is the text of the row's identity.
pub fn lane_of(ordering: Ordering, table: (&str, &str), key: &[&[u8]], delivery: &DeliveryId) -> Lane {
    let mut hash = Sha256::new();
    match ordering {
        Ordering::Strict => return Lane(0),
        Ordering::None => hash.update(delivery.as_str()),
        Ordering::Row => {
            for part in [table.0.as_bytes(), table.1.as_bytes()].iter().chain(key) {
                hash.update(part.len().to_be_bytes());
                hash.update(part);
            }
        }
    }
    let mut folded = rustc_hash::FxHasher::default();
    folded.write(&hash.finalize());
    Lane(i64::try_from(folded.finish() >> 1).unwrap_or(0))
}

/// One event owed to one webhook, rendered.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its name, sent as `webhook-id`.
    pub id: DeliveryId,
    /// The event's name.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: Arc<str>,
    /// The webhook's name.
    pub webhook: Arc<str>,
    /// The queue it stands in.
    pub lane: Lane,
    /// The row's schema.
    pub schema: Arc<str>,
    /// The row's table.
    pub table: Arc<str>,
    /// The row's key as text, for people who search; empty where there is none.
    pub key: Arc<str>,
    /// What was done to the row.
    pub operation: Operation,
    /// When the change committed.
    pub committed_at: Timestamp,
    /// The body's media type.
    pub content_type: Arc<str>,
    /// Headers that the body's format makes beside it, a line `name: value` each; rendered once, as the body is.
    pub headers: Option<Arc<str>>,
    /// The body: rendered once, its bytes never change (invariant I4).
    pub body: Bytes,
}

/// A network step that ran out of time or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutStage {
    /// Before a connection stood.
    Connect,
    /// Before the response's head came.
    Response,
    /// While the response's body came.
    Body,
}

/// Why no HTTP answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreachableBy {
    /// The name does not resolve.
    Dns,
    /// The connection was refused or could not be made.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The connection broke or the answer was no HTTP.
    Protocol,
    /// There was no access token to be had, so nothing was sent.
    Token,
}

/// Which rule of ours stopped an attempt before anything was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    /// Plain http is not allowed for this webhook.
    PlainHttp,
    /// The address is private, loopback or otherwise special: this one.
    Address(IpAddr),
    /// A tenant's name gave no address that may be dialled; which of the reasons it was is not told.
    Name,
    /// The delivery cannot be made into a request.
    Request,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered.
    Responded {
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, as a wait from the moment of the answer.
        retry_after: Option<Duration>,
        /// The first bytes of the answer's body, capped by `ledger.capture_response`.
        body: Bytes,
    },
    /// The whole-attempt timeout passed.
    TimedOut {
        /// How far the attempt had come.
        stage: TimeoutStage,
    },
    /// No answer could be had.
    Unreachable {
        /// What failed.
        by: UnreachableBy,
        /// The reason in words, without addresses' secrets (no userinfo, no query).
        reason: String,
    },
    /// A rule of ours forbade the attempt.
    Refused {
        /// Which rule.
        by: RefusedBy,
        /// The reason in words, naming the setting that would allow it.
        reason: String,
    },
}

impl Outcome {
    /// Every word of [`Outcome::kind`].
    pub const KINDS: [&'static str; 4] = ["responded", "timed_out", "unreachable", "refused"];

    /// A word for the ledger: `responded`, `timed_out`, `unreachable`, `refused`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Responded { .. } => "responded",
            Self::TimedOut { .. } => "timed_out",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { .. } => "refused",
        }
    }

    /// The HTTP status, where there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Responded { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the receiver took it.
    pub fn is_success(&self) -> bool {
        self.status().is_some_and(|s| (200..300).contains(&s))
    }

    /// What an operator reads as the reason of a failed attempt.
    pub fn describe(&self) -> String {
        match self {
            Self::Responded { status: status @ 300..400, .. } => {
                format!("HTTP {status} (redirects are not followed)")
            }
            Self::Responded { status, .. } => format!("HTTP {status}"),
            Self::TimedOut { stage: TimeoutStage::Connect } => "timed out while connecting".to_owned(),
            Self::TimedOut { stage: TimeoutStage::Response } => {
                "timed out waiting for the response".to_owned()
            }
            Self::TimedOut { stage: TimeoutStage::Body } => {
                "timed out in the middle of the response".to_owned()
            }
            Self::Unreachable { reason, .. } | Self::Refused { reason, .. } => reason.clone(),
        }
    }
}

/// One try of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1, 2, 3, …
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

impl Attempt {
    /// When it ended; to the microsecond, as the ledger keeps times.
    pub fn ended_at(&self) -> Timestamp {
        let begun = Timestamp::from_microsecond(self.started_at.as_microsecond());
        begun.unwrap_or(self.started_at).checked_add(self.took).unwrap_or(self.started_at)
    }

    /// How long after a moment it ended; zero where that lies ahead by another clock.
    pub fn ended_after(&self, moment: Timestamp) -> Duration {
        Duration::try_from(self.ended_at().duration_since(moment)).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_follow_the_ordering() {
        let (a, b) = (DeliveryId::from_ledger("a"), DeliveryId::from_ledger("b"));
        let lane = |ordering, key: &[u8], id| lane_of(ordering, ("public", "orders"), &[key], id);
        assert_eq!(lane(Ordering::Row, b"1", &a), lane(Ordering::Row, b"1", &b));
        assert_ne!(lane(Ordering::Row, b"1", &a), lane(Ordering::Row, b"2", &a));
        assert_ne!(lane(Ordering::None, b"1", &a), lane(Ordering::None, b"1", &b));
        assert_eq!(lane(Ordering::Strict, b"1", &a), lane(Ordering::Strict, b"2", &b));
        let other = lane_of(Ordering::Row, ("public", "orders"), &[b"1", b""], &a);
        assert_ne!(other, lane(Ordering::Row, b"1", &a));
    }
}
