//! Asking the ledger: what is due, and who has anything open at all.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::claims::{Answer, Ask};
use super::queue::Queue;
use super::run::State;
use super::slot::Wish;
use crate::domain::limits;
use crate::ledger::claim::{Claims, Room};
use crate::ledger::pokes::Touched;

/// How often the ledger is surveyed for work that nobody told of.
pub(super) const SURVEY_EVERY: Duration = Duration::from_secs(5);
/// How long to wait where the ledger said that something is due and gave nothing: its clock may be behind ours, or
/// somebody else be at the rows.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Bytes of claimed bodies in memory, beyond which nothing more is claimed.
const CLAIMED_BYTES: usize = limits::YOUNG_BYTES / 2;

/// The questions to the ledger: one at a time.
#[derive(Debug)]
pub(super) struct Asking {
    asks: mpsc::Sender<Ask>,
    /// Whether one is under way.
    pub under_way: bool,
    /// When to survey next.
    pub survey_at: Instant,
    /// What somebody else has put into the ledger since the last survey was asked for.
    poked: Touched,
    /// What of that the survey under way was asked for.
    surveying: Touched,
}

impl Asking {
    /// Asks by this channel.
    pub fn by(asks: mpsc::Sender<Ask>) -> Self {
        let (poked, surveying) = (Touched::default(), Touched::default());
        Self { asks, under_way: false, survey_at: Instant::now(), poked, surveying }
    }
}

impl State {
    /// Asks the ledger for what is due, or for who has anything open; one question at a time.
    pub(super) fn ask(&mut self) {
        if self.asking.under_way || self.is_stopping() {
            return;
        }
        let ask = if Instant::now() >= self.asking.survey_at {
            self.asking.survey_at = Instant::now() + SURVEY_EVERY;
            self.asking.surveying.add(std::mem::take(&mut self.asking.poked));
            Some(Ask::Survey)
        } else {
            self.claim()
        };
        if let Some(ask) = ask {
            self.asking.under_way = self.asking.asks.try_send(ask).is_ok();
        }
    }

    /// How many claimed deliveries, of how many bytes, there is room for; `None` where there is none.
    pub(super) fn claimable(&self) -> Option<(usize, usize)> {
        if self.unwritten.is_behind(Instant::now()) {
            return None;
        }
        let count = limits::IN_FLIGHT.saturating_sub(self.load.count);
        let bytes = CLAIMED_BYTES.saturating_sub(self.load.bytes);
        (count > 0 && bytes > 0).then_some((count, bytes))
    }

    fn claim(&mut self) -> Option<Ask> {
        let (mut left, bytes) = self.claimable()?;
        let (at, now) = (Instant::now(), self.with.clock.now());
        let mut rooms = Vec::new();
        for webhook in self.slots.due_at(now, limits::CLAIM_BATCH) {
            if left == 0 {
                // The others stay due: their turn comes when this claim has been answered.
                break;
            }
            let Some(slot) = self.slots.get_mut(&webhook) else { continue };
            let (wish, lease) = (slot.wish(at, &self.load, left), slot.queue.lease());
            slot.more_due = wish == Wish::Later;
            let mut due = None;
            match wish {
                Wish::Claim(count) => {
                    left = left.saturating_sub(count);
                    rooms.push(Room { webhook: Arc::clone(&webhook), count, lease });
                }
                Wish::At(until) => due = now.checked_add(until.saturating_duration_since(at)).ok(),
                Wish::Crowded if !std::mem::replace(&mut slot.crowded, true) => {
                    self.crowd.push_back(Arc::clone(&webhook));
                }
                Wish::Crowded | Wish::Later => {}
            }
            self.slots.set_due(&webhook, due);
        }
        (!rooms.is_empty()).then(|| Ask::Claim { rooms, token: self.tokens.take(), bytes })
    }

    /// The ledger has answered.
    pub(super) fn answered(&mut self, answer: Answer) {
        self.asking.under_way = false;
        match answer {
            Answer::Claims(Claims { claimed, next_due }) => {
                let given: HashSet<_> = claimed.iter().map(|c| Arc::clone(&c.delivery.webhook)).collect();
                let soonest = self.with.clock.now() + ASK_AGAIN;
                for claimed in claimed {
                    let webhook = Arc::clone(&claimed.delivery.webhook);
                    self.with_queue(&webhook, |queue, turn| queue.take_claimed(claimed, turn));
                    self.touch(&webhook);
                }
                for (webhook, due) in next_due {
                    if let Some(due) = due {
                        let due = if given.contains(&webhook) { due } else { due.max(soonest) };
                        self.slots.due_by(&webhook, due);
                    }
                }
            }
            Answer::Survey(webhooks) => self.surveyed(webhooks),
            Answer::Failed => self.asking.survey_at = Instant::now() + Duration::from_secs(1),
        }
        if self.is_stopping() {
            self.put_away();
        }
    }

    /// These webhooks have open deliveries. Where somebody else has touched some of a webhook, no count of its lanes is
    /// trusted any more; where somebody waits, its receiver's breaker is tried at once, and nobody else's.
    fn surveyed(&mut self, webhooks: Vec<Arc<str>>) {
        let now = self.with.clock.now();
        let touched = std::mem::take(&mut self.asking.surveying);
        for webhook in &webhooks {
            self.slot(webhook);
            if touched.has(webhook) {
                self.with_queue(webhook, Queue::by_ledger);
            }
            if touched.wants(webhook)
                && let Some(slot) = self.slots.get_mut(webhook)
            {
                slot.pace.hurry(Instant::now());
            }
            self.slots.due_by(webhook, now);
            self.touch(webhook);
        }
        if touched.is_empty() {
            return;
        }
        // What went without us was counted as open, and nobody will tell that it is not.
        let open: HashSet<Arc<str>> = webhooks.into_iter().collect();
        for webhook in self.slots.names() {
            if touched.has(&webhook) && !open.contains(&webhook) {
                self.with_queue(&webhook, Queue::recount);
            }
        }
    }

    /// Somebody else has put work into the ledger, or taken some out: look at once.
    pub(super) fn poke(&mut self, touched: Touched) {
        if !touched.is_empty() {
            self.asking.poked.add(touched);
            self.asking.survey_at = Instant::now();
        }
    }
}
