//! What follows from how webhooks fare: breakers open and close, and who fails for too long is disabled.

use std::sync::Arc;

use super::pace::{Heard, News, Note};
use super::queue::Queue;
use super::run::State;
use crate::ledger::writer::Command;

impl State {
    /// Follows what a webhook's pace made of an attempt. Nothing, as a rule.
    pub(super) fn follow_pace(&mut self, webhook: &Arc<str>, heard: Heard) {
        let Some(slot) = self.slots.get_mut(webhook) else { return };
        let (class, own) = (slot.pace.class(), slot.queue.in_flight());
        if class != slot.queue.class() {
            self.share.reclass(own, class);
            self.with_queue(webhook, |queue, turn| queue.set_class(class, turn));
        }
        match heard.news {
            Some(News::Opened) => {
                self.count_open(self.open + 1);
                metrics::counter!("walhook_breakers_opened_total").increment(1);
                tracing::info!(webhook = &**webhook, "the webhook fails; its deliveries wait in the ledger");
                self.with_queue(webhook, Queue::divert);
                self.look_again(webhook);
            }
            Some(News::StaysOpen) => self.look_again(webhook),
            Some(News::Closed) => {
                tracing::info!(webhook = &**webhook, "the webhook takes deliveries again");
                self.close(webhook);
            }
            None => {}
        }
        if let Some(note) = heard.note {
            self.note(webhook, note);
        }
        if let Some(after) = heard.disable {
            let days = after.as_secs_f64() / 86_400.0;
            let reason = format!("nothing but failures for {days:.1} days (disable_after)");
            tracing::warn!(webhook = &**webhook, reason, "the webhook is disabled");
            self.with_queue(webhook, |queue, turn| queue.disable(reason, turn));
        }
    }

    /// A webhook's breaker is open no more.
    pub(super) fn close(&mut self, webhook: &Arc<str>) {
        self.count_open(self.open.saturating_sub(1));
        self.with_queue(webhook, |queue, _| queue.undivert());
        self.look_again(webhook);
        self.touch(webhook);
    }

    pub(super) fn count_open(&mut self, open: usize) {
        self.open = open;
        #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
        metrics::gauge!("walhook_webhooks_failing").set(open as f64);
    }

    /// Has the ledger asked for what is due, as soon as that makes sense.
    fn look_again(&mut self, webhook: &Arc<str>) {
        let now = self.with.clock.now();
        if let Some(slot) = self.slots.get_mut(webhook) {
            slot.more_due = false;
        }
        self.slots.due_by(webhook, now);
    }

    pub(super) fn note(&mut self, webhook: &Arc<str>, note: Note) {
        let health = match note {
            Note::Keep(health) => Some(health),
            Note::Forget => None,
        };
        self.commands.push(Command::Health { webhook: Arc::clone(webhook), health });
    }
}
