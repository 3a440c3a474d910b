//! What the dispatcher keeps of one webhook beside its queue: where it sends, when the ledger has something due.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::pace::{Pace, Terms};
use super::queue::{Batching, Mode, Queue, Rules, Sending};
use super::share::{May, Share};
use super::tell::Told;
use super::turn::Load;
use crate::catalog::Compiled;
use crate::domain::{Flow, Ordering, RetryPolicy};
use crate::ledger::health::Health;

/// The longest wait between two counts of a webhook's lanes.
const RECOUNT_MAX: Duration = Duration::from_secs(16);
/// Under a rate limit, as much is claimed as may leave within this time.
const RATE_AHEAD: Duration = Duration::from_secs(1);

/// One webhook.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether it is in a list, and they are independent"
)]
pub(super) struct Slot {
    pub queue: Queue,
    /// How fast it may be sent to, and how it fares.
    pub pace: Pace,
    /// `None` once it is no longer declared: its deliveries wait in the ledger.
    pub target: Option<Arc<Compiled>>,
    /// Whether the catalog said that it is suspended, when it last spoke.
    pub catalog_suspended: bool,
    /// Of one that was disabled from here: the catalog's version since when that is written, where it is.
    pub disabled_at: Option<i64>,
    /// What has been told of it.
    pub told: Told,
    /// When the ledger has something due, as far as known.
    due: Option<Timestamp>,
    /// Whether the ledger has something due that there was no room for.
    pub more_due: bool,
    /// Whether it is among those that may have something to start.
    pub touched: bool,
    /// Whether it stands in line for a request in flight.
    pub standing: bool,
    /// Whether it is among those that are looked through now and then.
    pub watched: bool,
    /// Whether it stands among those that found no room in memory.
    pub crowded: bool,
    /// When to count its lanes next, and how long after that.
    recount: Option<(Instant, Duration)>,
}

/// What a webhook may begin.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is answered and taken apart at once, never kept")]
pub(super) enum Begin {
    /// This attempt; and whether it is a probe of a receiver that fails.
    Start(Sending, bool),
    /// Nothing before this time: its rate is used up, or its batch waits for company.
    Paced(Instant),
    /// Nothing before a batch has ended, of whichever webhook: there is no room for another.
    NoRoom,
    /// Nothing before it is called from the line.
    Stand,
    /// Nothing: there is none, or the end of one of its own attempts asks again.
    Nothing,
}

/// What a webhook wants of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// So many.
    Claim(usize),
    /// Nothing before this time.
    At(Instant),
    /// Nothing before one of its own attempts has ended.
    Later,
    /// Nothing before others have made room.
    Crowded,
}

/// All webhooks, with an index of what is due.
#[derive(Debug, Default)]
pub(super) struct Slots {
    by_name: FxHashMap<Arc<str>, Slot>,
    due: BTreeSet<(Timestamp, Arc<str>)>,
}

/// What a queue needs to know of a webhook; of one that is not declared, that nothing may go.
pub(super) fn rules_of(target: Option<&Compiled>) -> Rules {
    match target {
        Some(compiled) => Rules {
            ordering: compiled.webhook.ordering,
            concurrency: usize::try_from(compiled.webhook.concurrency).unwrap_or(1),
            timeout: compiled.webhook.timeout,
            batch: compiled.webhook.batch.map(|policy| Batching {
                policy,
                attempts: u32::try_from(compiled.webhook.retry.schedule.len())
                    .unwrap_or(u32::MAX)
                    .saturating_add(1),
            }),
        },
        None => Rules { ordering: Ordering::Row, concurrency: 0, timeout: Duration::ZERO, batch: None },
    }
}

/// What is set of a webhook's pace; of one that is not declared, what is usual, and nothing may go.
pub(super) fn terms_of(target: Option<&Compiled>) -> Terms {
    let (flow, longest) = match target {
        Some(compiled) => (compiled.webhook.flow, compiled.webhook.retry.retry_after_max),
        None => (Flow::default(), RetryPolicy::default().retry_after_max),
    };
    Terms { flow, concurrency: rules_of(target).concurrency, retry_after_max: longest }
}

impl Slot {
    pub fn new(
        name: &Arc<str>,
        target: Option<Arc<Compiled>>,
        (rules, mode): (Rules, Mode),
        known: Option<&Health>,
        at: Instant,
    ) -> Self {
        let queue = Queue::new(Arc::clone(name), rules, mode);
        let pace = Pace::new(terms_of(target.as_deref()), known, at);
        Self {
            queue,
            pace,
            target,
            catalog_suspended: false,
            disabled_at: None,
            told: Told::default(),
            due: None,
            more_due: false,
            touched: false,
            standing: false,
            watched: false,
            crowded: false,
            recount: None,
        }
    }

    /// Whether nothing is left of it here: it is not declared any more, and what it was owed is in the ledger alone.
    pub fn is_over(&self) -> bool {
        self.target.is_none() && self.queue.is_at_rest() && !self.standing
    }

    /// Whether it must be looked at soon.
    pub fn is_restless(&self) -> bool {
        self.queue.has_young() || self.recounts()
    }

    /// Whether its lanes are to be counted, sooner or later.
    fn recounts(&self) -> bool {
        self.queue.mode() == Mode::Ledger
            && !self.queue.is_suspended()
            && !self.queue.is_diverted()
            && self.target.is_some()
    }

    /// What it may begin now. `called`: from its place in line.
    pub fn start(&mut self, at: Instant, share: &mut Share, called: bool) -> Begin {
        if !self.queue.may_have_more() || self.target.is_none() {
            return Begin::Nothing;
        }
        let (own, class) = (self.queue.in_flight(), self.queue.class());
        // Attempts from before it failed keep no probe back.
        let others = if self.pace.is_open() { 0 } else { own };
        if others >= self.pace.allows(at) {
            // What was claimed before the receiver failed is the next probe, and nothing else would begin it.
            let probe = self.pace.probe_at().filter(|until| self.pace.is_open() && *until > at);
            return probe.map_or(Begin::Nothing, Begin::Paced);
        }
        if let Some(until) = self.pace.wait(at) {
            return Begin::Paced(until);
        }
        let batch = self.queue.rules().batch;
        if let Some(batching) = batch {
            if let Some(until) = self.queue.ripens(at) {
                return Begin::Paced(until);
            }
            if !share.has_room_for_batch(own, batching.policy.max_bytes) {
                return Begin::NoRoom;
            }
        }
        match share.may(own, class, called) {
            May::Go => {}
            May::Later => return Begin::Nothing,
            May::Stand => return Begin::Stand,
        }
        let sending = match batch {
            None => self.queue.start(at).map(Sending::One),
            Some(batching) => self.queue.start_batch(batching, at),
        };
        match sending {
            Some(sending) => {
                share.begin(class);
                Begin::Start(sending, self.pace.begin(at))
            }
            None => Begin::Nothing,
        }
    }

    /// How many claimed deliveries would be welcome.
    pub fn room(&self, at: Instant) -> usize {
        self.queue.room(self.pace.allows(at))
    }

    /// What it wants of the ledger, where something of it is due; `left` deliveries are left for this claim.
    pub fn wish(&self, at: Instant, load: &Load, left: usize) -> Wish {
        if self.pace.is_open() {
            return match self.pace.probe_at() {
                Some(until) if until > at => Wish::At(until),
                Some(_) if self.queue.claimed_waiting() == 0 && !self.queue.is_suspended() => Wish::Claim(1),
                _ => Wish::Later,
            };
        }
        let mut wanted = self.room(at);
        if let Some(within) = self.pace.within(at, RATE_AHEAD)
            && wanted > 0
        {
            let within = self.queue.in_requests(within);
            wanted = wanted.min(within.saturating_sub(self.queue.claimed_waiting()));
            if wanted == 0 {
                let none_here = self.queue.claimed_waiting() == 0 && self.queue.in_flight() == 0;
                return match self.pace.wait(at) {
                    Some(until) if none_here => Wish::At(until),
                    _ => Wish::Later,
                };
            }
        }
        if wanted == 0 {
            return Wish::Later;
        }
        match load.fair(wanted, self.queue.loaded(), self.queue.class(), left) {
            0 if self.queue.loaded() > 0 => Wish::Later,
            0 => Wish::Crowded,
            count => Wish::Claim(count),
        }
    }

    /// Whether it is time to count the lanes; asks again later and later.
    pub fn wants_recount(&mut self, at: Instant) -> bool {
        if !self.recounts() {
            self.recount = None;
            return false;
        }
        let (next, wait) = self.recount.unwrap_or((at, Duration::from_millis(250)));
        let now = at >= next;
        self.recount = Some(if now { (at + wait, (wait * 2).min(RECOUNT_MAX)) } else { (next, wait) });
        now
    }
}

impl Slots {
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Slot> {
        self.by_name.get_mut(name)
    }

    pub fn insert(&mut self, name: Arc<str>, slot: Slot) {
        self.by_name.insert(name, slot);
    }

    pub fn names(&self) -> Vec<Arc<str>> {
        self.by_name.keys().cloned().collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Slot)> {
        self.by_name.iter()
    }

    /// Forgets what is known of one.
    pub fn remove(&mut self, name: &Arc<str>) {
        if let Some(Slot { due: Some(due), .. }) = self.by_name.remove(name) {
            self.due.remove(&(due, Arc::clone(name)));
        }
    }

    /// The ledger has something for a webhook at this time, perhaps earlier than known.
    pub fn due_by(&mut self, name: &str, due: Timestamp) {
        let Some((name, slot)) = self.by_name.get_key_value(name) else { return };
        if slot.due.is_none_or(|known| due < known) {
            let name = Arc::clone(name);
            self.set_due(&name, Some(due));
        }
    }

    /// Replaces what is known.
    pub fn set_due(&mut self, name: &str, due: Option<Timestamp>) {
        let Some((name, _)) = self.by_name.get_key_value(name) else { return };
        let name = Arc::clone(name);
        let Some(slot) = self.by_name.get_mut(&name) else { return };
        if let Some(old) = std::mem::replace(&mut slot.due, due) {
            self.due.remove(&(old, Arc::clone(&name)));
        }
        if let Some(new) = due {
            self.due.insert((new, name));
        }
    }

    /// The earliest time at which anything is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The webhooks that have something due, the longest waiting first.
    pub fn due_at(&self, now: Timestamp, most: usize) -> Vec<Arc<str>> {
        self.due
            .iter()
            .take_while(|(due, _)| *due <= now)
            .take(most)
            .map(|(_, name)| Arc::clone(name))
            .collect()
    }
}
