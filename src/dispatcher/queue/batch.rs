//! Several deliveries of one webhook in one request, where it asks for that (`batch`).
//!
//! **Who.** Whatever may begin now. Of a lane, as many as stand there one behind the other: they are in flight together and
//! end together, so nothing overtakes (invariant I7). The array is in commit order over all of it. What comes back from the
//! ledger is the first of its lane alone, as ever: such ones share a request with those of other lanes.
//!
//! **When.** A batch that is full by count or bytes goes at once. Another goes when the one that has been ready for longest is
//! [`BatchPolicy::max_wait`](crate::domain::BatchPolicy::max_wait) old: so nobody waits longer for company, and with enough in
//! flight already nobody has waited for company at all. What was claimed has waited enough. What waits here grows old as
//! everything young does, and goes to the ledger after `handover_after`; a wait is at most half as long, which the configuration
//! sees to.
//!
//! **How it ends.** The answer is everybody's: each delivery has its own row with its own attempt, and after a failure its own
//! turn on the retry schedule (invariant I5), behind the earlier ones of its lane. The batch itself is not remembered: the
//! next try of a delivery may be in other company. That is why each element of the array is byte for byte the same at every
//! attempt (invariant I4), and why the batch goes by a name that is a pure function of its members
//! ([`DeliveryId::of_batch`](crate::domain::DeliveryId::of_batch)): the same ones have the same name, and a receiver that
//! skips names it knows skips nothing else. Remembering batches would chain a hundred deliveries to the one that the
//! receiver cannot take; as it is, whoever fails shares its next request with a quarter as many, and its last with none
//! ([`BatchPolicy::most`](crate::domain::BatchPolicy::most)).
//!
//! **Alone** go test sends; a body that is no JSON, made when the webhook had another format, and then without an array; and
//! one that is larger than a batch may be.

use std::time::Duration;

use tokio::time::Instant;

use super::{Debt, Delivery, Flying, InLane, Lane, Queue, Start, limits};
use crate::dispatcher::begin::{Ended, Whose};
use crate::dispatcher::turn::Turn;
use crate::domain::{BatchPolicy, Operation, array_bytes, array_type};

/// What a queue needs to know to make batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dispatcher) struct Batching {
    pub policy: BatchPolicy,
    /// How many attempts a delivery has at most.
    pub attempts: u32,
}

/// What goes in one request.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and none is kept")]
pub(in crate::dispatcher) enum Sending {
    /// One delivery, as it is.
    One(Start),
    /// An array of one or more, in commit order.
    Batch(Vec<Start>),
}

/// A batch that is being put together.
struct Gathering {
    rules: Batching,
    members: Vec<Start>,
    bytes: usize,
    /// How many there may be, by what is known of those that are here.
    most: usize,
    /// The array's media type; `None` for a body that goes without one. Of the first, and so of all.
    array: Option<&'static str>,
}

impl Gathering {
    fn with(rules: Batching) -> Self {
        Self { rules, members: Vec::new(), bytes: 0, most: rules.policy.max_events, array: None }
    }

    /// Takes notice of one more, `tried` times so far, if it may stand in this batch.
    fn admits(&mut self, delivery: &Delivery, tried: u32) -> bool {
        let array = array_type(&delivery.content_type);
        let alone = array.is_none() || delivery.operation == Operation::Test;
        let most = if alone { 1 } else { self.rules.policy.most(tried, self.rules.attempts) };
        let (count, most) = (self.members.len() + 1, most.min(self.most));
        let bytes = self.bytes + delivery.body.len();
        let fits =
            count <= most && array == self.array && array_bytes(count, bytes) <= self.rules.policy.max_bytes;
        if count > 1 && !fits {
            return false;
        }
        (self.bytes, self.most, self.array) = (bytes, most, array);
        true
    }
}

impl Queue {
    /// How many deliveries a request may have.
    pub(super) fn batch_events(&self) -> usize {
        self.rules.batch.map_or(1, |batch| batch.policy.max_events)
    }

    /// How many claimed deliveries may leave with so many requests.
    pub fn in_requests(&self, requests: usize) -> usize {
        requests.saturating_mul(self.batch_events())
    }

    /// How long the lease of a claimed delivery must last: those before it may all time out. Claimed for large batches,
    /// they may yet have to go one by one.
    pub fn lease(&self) -> Duration {
        let one_by_one = self.batch_events().min(limits::CLAIM_BATCH);
        let timeouts = u32::try_from(one_by_one).unwrap_or(u32::MAX).max(limits::LEASE_TIMEOUTS);
        self.rules.timeout.saturating_mul(timeouts) + limits::LEASE_MARGIN
    }

    /// When the next batch goes, where that is not now: until then it waits for company.
    pub fn ripens(&mut self, at: Instant) -> Option<Instant> {
        let policy = self.rules.batch?.policy;
        if !self.claimed.is_empty() {
            return None;
        }
        let oldest = loop {
            let lane = self.ready.front()?;
            match self.lanes.get(lane).and_then(|there| there.waiting.front()) {
                Some(young) => break young.since,
                None => self.ready.pop_front(),
            };
        };
        let ripe = oldest + policy.max_wait;
        (ripe > at && !self.fills(&policy)).then_some(ripe)
    }

    /// Whether what may begin now fills a batch.
    fn fills(&self, policy: &BatchPolicy) -> bool {
        let is_full =
            |count, bytes| count >= policy.max_events || array_bytes(count, bytes) >= policy.max_bytes;
        if !is_full(self.waiting, self.waiting_bytes) {
            // With those that must wait for others; a cheap answer, and mostly this one.
            return false;
        }
        let (mut count, mut bytes) = (0, 0);
        let ready = self.ready.iter().filter_map(|lane| self.lanes.get(lane));
        ready.flat_map(|there| &there.waiting).any(|young| {
            (count, bytes) = (count + 1, bytes + young.delivery.body.len());
            is_full(count, bytes)
        })
    }

    /// The next request of a webhook that has batches, if it may have one more in flight. Young and claimed deliveries take
    /// turns to be the first in it.
    pub fn start_batch(&mut self, batching: Batching, at: Instant) -> Option<Sending> {
        if self.suspended || self.in_flight >= self.rules.concurrency {
            return None;
        }
        let mut gathering = Gathering::with(batching);
        self.claimed_next = !self.claimed_next;
        if self.claimed_next {
            self.gather_claimed(&mut gathering);
            self.gather_young(&mut gathering, at);
        } else {
            self.gather_young(&mut gathering, at);
            self.gather_claimed(&mut gathering);
        }
        let Gathering { mut members, array, .. } = gathering;
        let sending = if array.is_some() {
            members.sort_by(|a, b| a.delivery().id.cmp(&b.delivery().id));
            Sending::Batch(members)
        } else {
            Sending::One(members.pop()?)
        };
        self.in_flight += 1;
        Some(sending)
    }

    fn gather_claimed(&mut self, gathering: &mut Gathering) {
        while let Some(first) = self.claimed.front()
            && gathering.admits(&first.delivery, first.on_schedule)
        {
            gathering.members.extend(self.claimed.pop_front().map(Start::Claimed));
        }
    }

    fn gather_young(&mut self, gathering: &mut Gathering, at: Instant) {
        while let Some(lane) = self.ready.pop_front() {
            let Some(there) = self.lanes.get_mut(&lane) else { continue };
            while let Some(young) = there.waiting.front()
                && gathering.admits(&young.delivery, 0)
                && let Some(young) = there.waiting.pop_front()
            {
                self.waiting -= 1;
                self.waiting_bytes -= young.delivery.body.len();
                let debt = Debt::Young(young.owed, young.permit);
                let flying = Flying { delivery: young.delivery.clone(), since: at, debt };
                match &there.flying {
                    None => there.flying = Some(flying),
                    Some(_) => there.abreast.push_back(flying),
                }
                gathering.members.push(Start::Young(young.delivery));
            }
            there.in_commit_order();
            if !there.waiting.is_empty() {
                if there.flying.is_none() {
                    self.ready.push_front(lane);
                }
                return;
            }
        }
    }

    /// The attempt of a batch has ended: each of its deliveries, in the order in which they were sent.
    pub fn batch_ended(&mut self, members: Vec<Ended>, turn: &mut Turn<'_>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let mut lanes: Vec<(Lane, bool)> = Vec::new();
        for Ended { whose, attempt, verdict, is_probe } in members {
            match whose {
                Whose::Young { lane, .. } => {
                    lanes.extend(self.end_flying(lane, attempt, verdict, turn).map(|open| (lane, open)));
                }
                Whose::Claimed(claimed) if is_probe => self.end_probe(claimed, attempt, verdict, turn),
                Whose::Claimed(claimed) => self.end_tried(claimed, attempt, verdict, turn),
            }
        }
        // Of each lane once, and open if any of it is.
        lanes.sort_unstable_by(|a, b| b.cmp(a));
        lanes.dedup_by_key(|(lane, _)| *lane);
        for (lane, stays_open) in lanes {
            self.go_on(lane, stays_open, turn);
        }
        if self.suspended {
            self.suspend(turn);
        }
    }
}

impl InLane {
    /// Those in flight come to their end in the order of the array; a notice, which no log told, may have come behind others
    /// that it goes before.
    fn in_commit_order(&mut self) {
        if !self.abreast.is_empty() {
            self.abreast.extend(self.flying.take());
            self.abreast.make_contiguous().sort_by(|a, b| a.delivery.id.cmp(&b.delivery.id));
            self.flying = self.abreast.pop_front();
        }
    }
}

impl Start {
    /// What is sent.
    pub fn delivery(&self) -> &Delivery {
        match self {
            Self::Young(delivery) => delivery,
            Self::Claimed(claimed) => &claimed.delivery,
        }
    }
}
