//! One webhook's deliveries: who may go, who waits, who goes to the ledger (invariant I7). Pure: it is told what
//! happened and answers with what to write and what to send.
//!
//! A *young* delivery waits here, in its lane, for the earlier ones of the same row. It is *handed over* to the
//! ledger when its first attempt fails, when it has waited too long, or when its lane is *blocked*: when an earlier
//! one of it is open in the ledger or on the way there. A handed-over lane is handed over whole, in order, the one
//! in flight first, so that the ledger sees the lane as it is.
//!
//! Two modes. *By memory*: `blocked` counts the open rows of every lane, and lanes without any go straight through.
//! *By ledger*: too many lanes are blocked to remember, or the ledger was changed by somebody else, or this process
//! has just begun; then everything is handed over, the ledger keeps the order, and claims bring it back. Counting
//! the lanes anew leads back to memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::share::Class;
use super::turn::Turn;
use crate::domain::{Attempt, Delivery, FailReason, Lane, Ordering, Verdict, limits};
use crate::ledger::claim::Claimed;
use crate::ledger::record::{Finish, Lease, NewRow, State};
use crate::ledger::writer::Command;
use crate::settlement::Owed;
pub(super) use batch::{Batching, Sending};

/// A delivery that has no row yet.
#[derive(Debug)]
pub struct Young {
    /// The delivery.
    pub delivery: Delivery,
    /// The debt that its row will settle.
    pub owed: Owed,
    /// Its share of the memory.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Since when it waits.
    pub since: Instant,
}

/// An attempt to begin.
#[derive(Debug)]
pub(super) enum Start {
    /// The first attempt of a young delivery, known by its lane.
    Young(Delivery),
    /// An attempt of a claimed one.
    Claimed(Claimed),
}

/// How deliveries find their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Memory,
    Ledger,
}

/// What the queue needs to know of its webhook.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub ordering: Ordering,
    pub concurrency: usize,
    pub timeout: Duration,
    pub batch: Option<Batching>,
}

/// The queue of one webhook.
#[derive(Debug)]
pub(super) struct Queue {
    webhook: Arc<str>,
    rules: Rules,
    mode: Mode,
    suspended: bool,
    lanes: FxHashMap<Lane, InLane>,
    /// Lanes whose first delivery may go.
    ready: VecDeque<Lane>,
    claimed: VecDeque<Claimed>,
    blocked: FxHashMap<Lane, u32>,
    /// Open rows on their way to the ledger, by lane.
    transit: FxHashMap<Lane, u32>,
    waiting: usize,
    /// The bodies of those that wait, in bytes.
    waiting_bytes: usize,
    /// Requests under way; a batch is one.
    in_flight: usize,
    claimed_next: bool,
    /// Claimed deliveries here, waiting or in flight.
    loaded: usize,
    class: Class,
    /// Whether its receiver fails, so that everything goes to the ledger.
    diverted: bool,
    /// A count of the lanes that is under way, and whether its answer will still be true.
    counting: Option<bool>,
}

#[derive(Debug, Default)]
struct InLane {
    flying: Option<Flying>,
    /// Those behind it in the same batch.
    abreast: VecDeque<Flying>,
    waiting: VecDeque<Young>,
}

#[derive(Debug)]
struct Flying {
    delivery: Delivery,
    since: Instant,
    debt: Debt,
}

/// Whether a delivery in flight has its row already.
#[derive(Debug)]
enum Debt {
    Young(Owed, Option<OwnedSemaphorePermit>),
    HandedOver(Lease),
}

fn count(map: &mut FxHashMap<Lane, u32>, lane: Lane) {
    *map.entry(lane).or_default() += 1;
}

fn uncount(map: &mut FxHashMap<Lane, u32>, lane: Lane) {
    if let Some(n) = map.get_mut(&lane) {
        *n = n.saturating_sub(1);
        if *n == 0 {
            map.remove(&lane);
        }
    }
}

impl Queue {
    pub fn new(webhook: Arc<str>, rules: Rules, mode: Mode) -> Self {
        Self {
            webhook,
            rules,
            mode,
            suspended: false,
            lanes: FxHashMap::default(),
            ready: VecDeque::new(),
            claimed: VecDeque::new(),
            blocked: FxHashMap::default(),
            transit: FxHashMap::default(),
            waiting: 0,
            waiting_bytes: 0,
            in_flight: 0,
            claimed_next: false,
            loaded: 0,
            class: Class::default(),
            diverted: false,
            counting: None,
        }
    }

    pub fn rules(&self) -> Rules {
        self.rules
    }

    pub fn set_rules(&mut self, rules: Rules, turn: &mut Turn<'_>) {
        if self.rules.ordering != rules.ordering {
            // Lanes of the old ordering say nothing about those of the new one.
            self.by_ledger(turn);
        }
        if rules.concurrency == 0 && self.rules.concurrency > 0 {
            // No longer declared: nothing will start here, so nothing may wait here.
            self.put_away(turn);
        }
        self.rules = rules;
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Whether anything is in memory that may have to be handed over.
    pub fn has_young(&self) -> bool {
        let is_young = |flying: &Flying| matches!(flying.debt, Debt::Young(..));
        self.waiting > 0 || self.lanes.values().any(|lane| lane.flying.as_ref().is_some_and(is_young))
    }

    /// Whether nothing is in memory for this webhook.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.waiting == 0 && self.in_flight == 0 && self.claimed.is_empty()
    }

    /// Whether as many wait here as may.
    pub fn is_full(&self) -> bool {
        self.waiting >= limits::YOUNG_PER_WEBHOOK
    }

    /// How long the first in the queue has waited.
    pub fn oldest_wait(&self, now: Instant) -> Duration {
        let of = |lane: &InLane| lane.waiting.front().map(|young| now.saturating_duration_since(young.since));
        // Lanes become ready in the order in which they have waited, so the first stands for all; without a ready
        // one, everybody waits behind an attempt.
        let first = self.ready.front().and_then(|lane| self.lanes.get(lane)).and_then(of);
        first.or_else(|| self.lanes.values().filter_map(of).max()).unwrap_or_default()
    }

    fn tracks_lanes(&self) -> bool {
        self.rules.ordering != Ordering::None
    }

    /// A delivery is owed.
    pub fn offer(&mut self, young: Young, turn: &mut Turn<'_>) {
        let lane = young.delivery.lane;
        if self.suspended {
            self.record(young.delivery, State::Held, None, Some((young.owed, young.permit)), turn);
        } else if (self.mode == Mode::Ledger && self.tracks_lanes())
            || self.diverted
            || self.blocked.contains_key(&lane)
        {
            self.record(young.delivery, State::Pending, None, Some((young.owed, young.permit)), turn);
        } else {
            let there = self.lanes.entry(lane).or_default();
            if there.flying.is_none() && there.waiting.is_empty() {
                self.ready.push_back(lane);
            }
            self.waiting += 1;
            self.waiting_bytes += young.delivery.body.len();
            there.waiting.push_back(young);
        }
    }

    /// The queue is full and stays so: what waits goes to the ledger, and what comes too.
    pub fn spill(&mut self, turn: &mut Turn<'_>) {
        if self.tracks_lanes() {
            self.by_ledger(turn);
        } else {
            self.hand_over_all(turn);
        }
    }

    /// From here on the ledger keeps the order.
    pub fn by_ledger(&mut self, turn: &mut Turn<'_>) {
        self.hand_over_all(turn);
        self.mode = Mode::Ledger;
        self.blocked = FxHashMap::default();
        self.counting = self.counting.map(|_| false);
    }

    /// Has the ledger's open rows counted, unless that is under way.
    pub fn count(&mut self, turn: &mut Turn<'_>) {
        if self.counting.is_none() {
            self.counting = Some(true);
            let most = limits::BLOCKED_LANES_PER_WEBHOOK / 2;
            turn.commands.push(Command::Lanes { webhook: Arc::clone(&self.webhook), most });
        }
    }

    /// The ledger's open rows have been counted: memory can keep the order again, unless there are too many
    /// (`None`) or the ledger was changed by somebody else meanwhile.
    pub fn counted(&mut self, lanes: Option<Vec<(Lane, u32)>>) {
        if let (Some(true), Some(lanes)) = (self.counting.take(), lanes) {
            self.by_memory(lanes);
        }
    }

    fn by_memory(&mut self, lanes: Vec<(Lane, u32)>) {
        self.blocked = lanes.into_iter().collect();
        for (lane, n) in &self.transit {
            *self.blocked.entry(*lane).or_default() += n;
        }
        self.mode = Mode::Memory;
    }

    /// The webhook is no longer sent to: what waits is held.
    pub fn suspend(&mut self, turn: &mut Turn<'_>) {
        self.suspended = true;
        self.hand_over_all(turn);
        self.give_back(&State::Held, turn);
    }

    /// The webhook is sent to again. What was held comes back by the ledger.
    pub fn resume(&mut self, turn: &mut Turn<'_>) {
        self.suspended = false;
        self.by_ledger(turn);
    }

    /// The process stops: everything that has no row gets one, what was claimed and not begun is given back.
    pub fn put_away(&mut self, turn: &mut Turn<'_>) {
        self.by_ledger(turn);
        self.give_back(&State::Pending, turn);
    }

    /// Hands over the lanes that have waited for too long, behind others or in flight.
    pub fn hand_over_aged(&mut self, limit: Duration, turn: &mut Turn<'_>) {
        let is_old = |since: Instant| turn.at.saturating_duration_since(since) >= limit;
        let aged: Vec<Lane> = self
            .lanes
            .iter()
            .filter(|(_, lane)| {
                let flying = lane.flying.as_ref().filter(|f| matches!(f.debt, Debt::Young(..)));
                flying.is_some_and(|f| is_old(f.since))
                    || lane.waiting.front().is_some_and(|y| is_old(y.since))
            })
            .map(|(lane, _)| *lane)
            .collect();
        for lane in aged {
            self.hand_over(lane, turn);
        }
        self.forget_empty_ready();
    }

    fn hand_over_all(&mut self, turn: &mut Turn<'_>) {
        let mut lanes: Vec<Lane> = self.lanes.keys().copied().collect();
        lanes.sort_unstable();
        for lane in lanes {
            self.hand_over(lane, turn);
        }
        self.ready.clear();
    }

    /// Hands over a lane: what is in flight of it under leases, then those behind, in order.
    fn hand_over(&mut self, lane: Lane, turn: &mut Turn<'_>) {
        let Some(there) = self.lanes.remove(&lane) else { return };
        if let Some(flying) = there.flying {
            let flying = Some(self.hand_over_flying(flying, turn));
            let abreast = there.abreast.into_iter().map(|other| self.hand_over_flying(other, turn)).collect();
            self.lanes.insert(lane, InLane { flying, abreast, waiting: VecDeque::new() });
        }
        let state = if self.suspended { State::Held } else { State::Pending };
        for young in there.waiting {
            self.no_longer_waits(&young);
            self.record(young.delivery, state.clone(), None, Some((young.owed, young.permit)), turn);
        }
    }

    fn hand_over_flying(&mut self, flying: Flying, turn: &mut Turn<'_>) -> Flying {
        let Debt::Young(owed, permit) = flying.debt else { return flying };
        let token = turn.tokens.take();
        let lease = self.rules.timeout + limits::LEASE_MARGIN;
        let until = turn.now.checked_add(lease).unwrap_or(turn.now);
        let state = State::Leased { token, until };
        self.record(flying.delivery.clone(), state, None, Some((owed, permit)), turn);
        Flying { debt: Debt::HandedOver(Lease::with_token(token)), ..flying }
    }

    fn no_longer_waits(&mut self, young: &Young) {
        self.waiting -= 1;
        self.waiting_bytes -= young.delivery.body.len();
    }

    fn forget_empty_ready(&mut self) {
        let lanes = &self.lanes;
        self.ready
            .retain(|lane| lanes.get(lane).is_some_and(|l| !l.waiting.is_empty() && l.flying.is_none()));
    }

    /// The next attempt, if the webhook may have one more in flight. Young and claimed ones take turns.
    pub fn start(&mut self, at: Instant) -> Option<Start> {
        if self.suspended || self.in_flight >= self.rules.concurrency {
            return None;
        }
        self.claimed_next = !self.claimed_next;
        let start = if self.claimed_next {
            self.start_claimed().or_else(|| self.start_young(at))
        } else {
            self.start_young(at).or_else(|| self.start_claimed())
        };
        self.in_flight += usize::from(start.is_some());
        start
    }

    fn start_claimed(&mut self) -> Option<Start> {
        self.claimed.pop_front().map(Start::Claimed)
    }

    fn start_young(&mut self, at: Instant) -> Option<Start> {
        while let Some(lane) = self.ready.pop_front() {
            let Some(there) = self.lanes.get_mut(&lane) else { continue };
            let Some(young) = there.waiting.pop_front() else { continue };
            self.waiting -= 1;
            self.waiting_bytes -= young.delivery.body.len();
            let debt = Debt::Young(young.owed, young.permit);
            there.flying = Some(Flying { delivery: young.delivery.clone(), since: at, debt });
            return Some(Start::Young(young.delivery));
        }
        None
    }

    /// A young delivery's first attempt has ended.
    pub fn young_ended(&mut self, lane: Lane, attempt: Attempt, verdict: Verdict, turn: &mut Turn<'_>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(stays_open) = self.end_flying(lane, attempt, verdict, turn) {
            self.go_on(lane, stays_open, turn);
        }
    }

    /// The first in flight of a lane has come to its end. Answers whether it stays open.
    fn end_flying(
        &mut self,
        lane: Lane,
        attempt: Attempt,
        verdict: Verdict,
        turn: &mut Turn<'_>,
    ) -> Option<bool> {
        let there = self.lanes.get_mut(&lane)?;
        let flying = there.flying.take()?;
        there.flying = there.abreast.pop_front();
        let state = self.state_after(verdict, turn);
        let stays_open = !state.is_ended();
        match flying.debt {
            Debt::HandedOver(lease) => {
                Self::finish(flying.delivery, lease, state, (Some(attempt), false), turn);
            }
            Debt::Young(owed, permit) => {
                self.record(flying.delivery, state, Some(attempt), Some((owed, permit)), turn);
            }
        }
        Some(stays_open)
    }

    /// Nothing of a lane is in flight any more: those behind go on, or follow into the ledger what stays open.
    fn go_on(&mut self, lane: Lane, stays_open: bool, turn: &mut Turn<'_>) {
        if stays_open || self.mode == Mode::Ledger || self.diverted {
            self.hand_over(lane, turn);
        }
        if self.suspended {
            self.suspend(turn);
        }
        match self.lanes.get(&lane) {
            Some(there) if there.waiting.is_empty() => drop(self.lanes.remove(&lane)),
            Some(_) => self.ready.push_back(lane),
            None => {}
        }
    }

    fn state_after(&mut self, verdict: Verdict, turn: &mut Turn<'_>) -> State {
        match verdict {
            Verdict::Delivered => State::Delivered,
            Verdict::Retry(_) if self.suspended => State::Held,
            Verdict::Retry(wait) => {
                State::Retrying { due: turn.now.checked_add(wait).unwrap_or(Timestamp::MAX) }
            }
            Verdict::Failed(reason) => {
                if reason == FailReason::Gone && !self.suspended {
                    self.suspended = true;
                    let (webhook, reason) =
                        (Arc::clone(&self.webhook), "the receiver answered 410 Gone".to_owned());
                    turn.commands.push(Command::Disable { webhook, reason });
                }
                State::Failed(reason.describe())
            }
        }
    }

    fn record(
        &mut self,
        delivery: Delivery,
        state: State,
        attempt: Option<Attempt>,
        debt: Option<(Owed, Option<OwnedSemaphorePermit>)>,
        turn: &mut Turn<'_>,
    ) {
        if !state.is_ended() {
            metrics::counter!("walhook_deliveries_handed_over_total").increment(1);
            if self.tracks_lanes() {
                count(&mut self.transit, delivery.lane);
                if self.mode == Mode::Memory {
                    count(&mut self.blocked, delivery.lane);
                }
            }
        }
        let (owed, permit) = debt.map_or((None, None), |(owed, permit)| (Some(owed), permit));
        let row = NewRow { delivery, state, attempt, owed };
        turn.commands.push(Command::Insert(Box::new(row), permit));
    }

    /// A young delivery's row is there. Answers whether too many lanes are blocked to remember.
    pub fn inserted(&mut self, lane: Lane, open: bool) -> bool {
        if open {
            uncount(&mut self.transit, lane);
        }
        self.mode == Mode::Memory && self.blocked.len() > limits::BLOCKED_LANES_PER_WEBHOOK
    }

    /// A claimed or handed-over delivery's attempt has been written.
    pub fn finished(&mut self, lane: Lane, open: bool) {
        if !open && self.mode == Mode::Memory {
            uncount(&mut self.blocked, lane);
        }
    }
}

mod batch;
mod claimed;
mod put_by;
#[cfg(test)]
mod tests;
