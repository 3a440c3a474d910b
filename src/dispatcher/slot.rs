//! What the dispatcher keeps of one webhook beside its queue: where it sends, when the ledger has something due.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::queue::{Mode, Queue, Rules};
use super::tell::Told;
use crate::catalog::Compiled;
use crate::domain::Ordering;

/// The longest wait between two counts of a webhook's lanes.
const RECOUNT_MAX: Duration = Duration::from_secs(16);

/// One webhook.
#[derive(Debug)]
pub(super) struct Slot {
    pub queue: Queue,
    /// `None` once it is no longer declared: its deliveries wait in the ledger.
    pub target: Option<Arc<Compiled>>,
    /// Whether the catalog said that it is suspended, when it last spoke.
    pub catalog_suspended: bool,
    /// What has been told of it.
    pub told: Told,
    /// When the ledger has something due, as far as known.
    due: Option<Timestamp>,
    /// Whether the ledger has something due that there was no room for.
    pub more_due: bool,
    /// Whether it is among those that may have something to start.
    pub touched: bool,
    /// When to count its lanes next, and how long after that.
    recount: Option<(Instant, Duration)>,
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
        },
        None => Rules { ordering: Ordering::Row, concurrency: 0, timeout: Duration::ZERO },
    }
}

impl Slot {
    pub fn new(name: &Arc<str>, target: Option<Arc<Compiled>>, rules: Rules, mode: Mode) -> Self {
        let queue = Queue::new(Arc::clone(name), rules, mode);
        Self {
            queue,
            target,
            catalog_suspended: false,
            told: Told::default(),
            due: None,
            more_due: false,
            touched: false,
            recount: None,
        }
    }

    /// Whether it must be looked at soon.
    pub fn is_restless(&self) -> bool {
        let recounts =
            self.queue.mode() == Mode::Ledger && !self.queue.is_suspended() && self.target.is_some();
        !self.queue.is_empty() || recounts
    }

    /// Whether it is time to count the lanes; asks again later and later.
    pub fn wants_recount(&mut self, at: Instant) -> bool {
        if self.queue.mode() == Mode::Memory || self.queue.is_suspended() || self.target.is_none() {
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

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.by_name.values_mut()
    }

    pub fn names(&self) -> Vec<Arc<str>> {
        self.by_name.keys().cloned().collect()
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
