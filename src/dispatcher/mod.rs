//! Sends what is owed.
//!
//! One task owns the state of all webhooks' queues and decides; others do what takes time: an attempt is a task of
//! its own, claims run in one beside it, the ledger's writer in another. So no receiver, however slow, stands
//! between two others (invariant I8), and the decisions stay a plain state machine ([`queue`]).
//!
//! ```text
//!  intake ──offers──▶ ┌────────────┐ ──attempt──▶ sign, transport ──▶ judge ──┐
//!                     │ one queue  │ ◀───────────────ended───────────────────┘
//!  claims ──leased──▶ │ a webhook  │ ──commands──▶ ledger's writer
//!                     └────────────┘ ◀───acks─────
//! ```
//!
//! How fast a webhook may be sent to is its [`pace`]: a circuit breaker, a rate, a concurrency. Over all webhooks,
//! [`share`] divides what may be in flight, so that none starves another. A webhook that asks for it gets several deliveries
//! in one request: [`batch`].
//!
//! Back-pressure: a full queue lets intake wait only while its webhook is keeping up ([`limits::QUEUE_PATIENCE`]) and
//! the stream is near the present ([`limits::LAG_PATIENCE`]); otherwise its deliveries go to the ledger.

mod accept;
mod attempt;
mod batch;
mod begin;
mod claims;
mod due;
mod fare;
mod follow;
mod meters;
mod pace;
mod queue;
mod run;
mod share;
#[cfg(test)]
mod simulation;
mod slot;
mod tell;
mod turn;
mod unwritten;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use queue::Young;

use crate::catalog::Published;
use crate::clock::Clock;
use crate::domain::{FailReason, limits};
use crate::ledger::Ledger;
use crate::ledger::health::Health;
use crate::ledger::pokes::Pokes;
use crate::ledger::writer::{Ack, Command};
use crate::tasks::Tasks;
use crate::transport::Transport;

/// What intake hands over.
#[derive(Debug)]
pub enum Offer {
    /// A delivery to send.
    Send(Young),
    /// A delivery that is sent from the ledger, after it has its row.
    Record(Young),
    /// A delivery that can never be sent, and why.
    Dead(Young, FailReason),
}

/// What the dispatcher works with.
#[derive(Debug)]
pub struct Dispatcher {
    /// The only HTTP client.
    pub transport: Transport,
    /// Time and dice.
    pub clock: Clock,
    /// Where attempts are spawned.
    pub tasks: Tasks,
    /// For claims.
    pub ledger: Ledger,
    /// The fence; leases are made of it.
    pub epoch: i64,
    /// How long a young delivery may stay without a row.
    pub handover_after: Duration,
    /// How long stopping may take; a part of it is left for the ledger.
    pub shutdown_grace: Duration,
    /// The webhooks that had open deliveries in the ledger when this process took it over.
    pub open_at_start: HashSet<Arc<str>>,
    /// What is known of the webhooks that failed when this process took the ledger over.
    pub health: HashMap<Arc<str>, Health>,
    /// Where it is told that an address was refused; never waited for.
    pub refused: mpsc::Sender<(Arc<str>, IpAddr)>,
    /// Bytes of young deliveries that may still come into memory.
    pub memory: Arc<Semaphore>,
    /// The size of all of it.
    pub memory_bytes: usize,
}

/// The dispatcher's doors.
#[derive(Debug)]
pub struct Doors {
    /// From intake; closed when it has stopped.
    pub offers: mpsc::Receiver<Vec<Offer>>,
    /// To the ledger's writer.
    pub commands: mpsc::UnboundedSender<Command>,
    /// From the ledger's writer.
    pub acks: mpsc::UnboundedReceiver<Vec<Ack>>,
    /// The webhooks and their states.
    pub catalog: watch::Receiver<Published>,
    /// Told when somebody else has put work into the ledger, and whose.
    pub pokes: watch::Receiver<Pokes>,
    /// Asks to put everything away and end.
    pub stop: CancellationToken,
}

/// A channel for offers, of the right size.
pub fn offers() -> (mpsc::Sender<Vec<Offer>>, mpsc::Receiver<Vec<Offer>>) {
    mpsc::channel(limits::CHUNKS_WAITING)
}
