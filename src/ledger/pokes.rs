//! Hints that somebody else has written to the ledger, and to whose deliveries.
//!
//! They come by `NOTIFY`, whose payload is `ledger` and the webhook's name (`ledger crm`) where somebody waits for the next
//! attempt, so that a receiver that fails is tried at once; `moved crm` where rows were only moved, as by each step of a job;
//! `ledger` alone means all, as an older version sends it, and `jobs` none: there is a backfill or a retry to look at. A
//! hint makes it quick; whoever waits looks now and then all the same.
//!
//! Several wait for them, each at its own pace, behind one watch: what is kept of each hint is its number, and of the last
//! ones whose they were. Who comes too late for those takes them for hints of all.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::replay::Told;

/// Hints that are kept.
const KEPT: usize = 512;

/// The hints so far.
#[derive(Debug, Clone, Default)]
pub struct Pokes {
    count: u64,
    last: VecDeque<Whose>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    All,
    Wanted(Arc<str>),
    Moved(Arc<str>),
    None,
}

/// Whose deliveries were touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Perhaps everybody's.
    pub all: bool,
    /// Those of these webhooks.
    pub webhooks: BTreeSet<Arc<str>>,
    /// Of them, the ones for whose next attempt somebody waits.
    pub wanted: BTreeSet<Arc<str>>,
}

impl Touched {
    /// Whether there was nothing.
    pub fn is_empty(&self) -> bool {
        !self.all && self.webhooks.is_empty()
    }

    /// Whether a webhook's may have been.
    pub fn has(&self, webhook: &str) -> bool {
        self.all || self.webhooks.contains(webhook)
    }

    /// Whether a webhook's receiver is to be tried at once.
    pub fn wants(&self, webhook: &str) -> bool {
        self.all || self.wanted.contains(webhook)
    }

    /// And these.
    pub fn add(&mut self, other: Self) {
        self.all |= other.all;
        self.webhooks.extend(other.webhooks);
        self.wanted.extend(other.wanted);
    }
}

/// The payload that tells of something.
pub(super) fn payload(told: Told<'_>) -> String {
    match told {
        Told::Wanted(webhook) => format!("ledger {webhook}"),
        Told::Moved(webhook) => format!("moved {webhook}"),
        Told::Jobs => "jobs".to_owned(),
    }
}

impl Pokes {
    /// Takes a payload in; answers whether it was a hint.
    pub fn hear(&mut self, payload: &str) -> bool {
        let whose = match payload.split_once(' ') {
            Some(("ledger", webhook)) => Whose::Wanted(webhook.into()),
            Some(("moved", webhook)) => Whose::Moved(webhook.into()),
            None if payload == "ledger" => Whose::All,
            None if payload == "jobs" => Whose::None,
            _ => return false,
        };
        self.push(whose);
        true
    }

    /// The deliveries of a webhook were moved by another part of this process.
    pub fn moved(&mut self, webhook: &Arc<str>) {
        self.push(Whose::Moved(Arc::clone(webhook)));
    }

    /// From here on somebody listens: there may be a backfill or a retry to look at.
    pub fn listening(&mut self) {
        self.push(Whose::None);
    }

    /// For a while nobody listened: the deliveries of any webhook may have been touched.
    pub fn may_have_missed(&mut self) {
        self.push(Whose::All);
    }

    fn push(&mut self, whose: Whose) {
        self.count += 1;
        self.last.push_back(whose);
        if self.last.len() > KEPT {
            self.last.pop_front();
        }
    }

    /// What was touched since the hint of a number, which becomes that of the last one.
    pub fn since(&self, seen: &mut u64) -> Touched {
        let fresh = usize::try_from(self.count - std::mem::replace(seen, self.count)).unwrap_or(usize::MAX);
        let mut touched = Touched { all: fresh > self.last.len(), ..Touched::default() };
        for whose in self.last.iter().rev().take(fresh) {
            match whose {
                Whose::All => touched.all = true,
                Whose::Moved(webhook) => drop(touched.webhooks.insert(Arc::clone(webhook))),
                Whose::Wanted(webhook) => {
                    touched.webhooks.insert(Arc::clone(webhook));
                    touched.wanted.insert(Arc::clone(webhook));
                }
                Whose::None => {}
            }
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_who_waits_hears_whose_deliveries_were_touched_since_it_last_looked() {
        let (mut pokes, mut one, mut other) = (Pokes::default(), 0, 0);
        assert!(pokes.hear("ledger crm") && pokes.hear("jobs"));
        let crm = BTreeSet::from(["crm".into()]);
        let crm = Touched { all: false, webhooks: crm.clone(), wanted: crm };
        assert_eq!(pokes.since(&mut one), crm);
        assert!(pokes.since(&mut one).is_empty());
        pokes.moved(&"erp".into());
        let touched = pokes.since(&mut other);
        assert!(touched.has("crm") && touched.has("erp") && !touched.has("x"), "{touched:?}");
        assert!(touched.wants("crm") && !touched.wants("erp"), "nobody waits for what was only moved");
        assert!(pokes.hear("ledger"));
        assert!(pokes.since(&mut one).has("x"), "an older version tells of all");
        pokes.may_have_missed();
        assert!(pokes.since(&mut one).all, "nobody listened");
        assert!(!pokes.hear("catalog") && !pokes.hear("") && pokes.since(&mut one).is_empty());
    }

    #[test]
    fn who_comes_too_late_takes_it_that_everything_was_touched() {
        let (mut pokes, mut seen) = (Pokes::default(), 0);
        for _ in 0..=KEPT {
            pokes.moved(&"crm".into());
        }
        assert!(pokes.since(&mut seen).all);
        pokes.moved(&"crm".into());
        assert!(!pokes.since(&mut seen).all);
        assert_eq!(pokes.last.len(), KEPT);
    }

    #[test]
    fn a_payload_is_heard_as_it_was_told() {
        let (mut pokes, mut seen) = (Pokes::default(), 0);
        assert!(pokes.hear(&payload(Told::Moved("acme~crm"))));
        let moved = pokes.since(&mut seen);
        assert!(moved.has("acme~crm") && !moved.wants("acme~crm"));
        assert!(pokes.hear(&payload(Told::Wanted("acme~crm"))));
        assert!(pokes.since(&mut seen).wants("acme~crm"));
        assert!(pokes.hear(&payload(Told::Jobs)) && pokes.since(&mut seen).is_empty());
    }
}
