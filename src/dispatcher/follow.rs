//! Following what others say: the ledger's writer, and the catalog.

use std::sync::Arc;

use tokio::time::Instant;

use super::pace::Note;
use super::queue::Queue;
use super::run::State;
use super::slot::{rules_of, terms_of};
use crate::catalog::Published;
use crate::ledger::writer::Ack;

impl State {
    /// The writer has written.
    pub(super) fn acknowledge(&mut self, acks: Vec<Ack>) {
        self.unwritten.written(acks.iter().filter(|ack| matches!(ack, Ack::Finished { .. })).count());
        for ack in acks {
            match ack {
                Ack::Inserted { webhook, lane, open, due } => {
                    let crowded = self.with_queue(&webhook, |queue, _| queue.inserted(lane, open));
                    if crowded == Some(true) {
                        self.with_queue(&webhook, Queue::by_ledger);
                    }
                    if let Some(due) = due {
                        self.slots.due_by(&webhook, due);
                    }
                }
                Ack::Finished { webhook, lane, open, due, lease_lost } => {
                    self.with_queue(&webhook, |queue, turn| {
                        queue.finished(lane, open);
                        if lease_lost {
                            queue.by_ledger(turn);
                        }
                    });
                    if let Some(due) = due {
                        self.slots.due_by(&webhook, due);
                    }
                }
                Ack::Disabled { webhook, version } => {
                    let Some(slot) = self.slots.get_mut(&webhook) else { continue };
                    slot.disabled_at = Some(version);
                    // Somebody has enabled it again, and the catalog has said so sooner than the writer.
                    if self.catalog.version >= version {
                        self.take_catalog();
                    }
                }
                Ack::Lanes { webhook, lanes } => {
                    self.with_queue(&webhook, |queue, _| queue.counted(lanes));
                }
            }
        }
    }

    /// The catalog has changed: targets, rules, suspensions.
    pub(super) fn take_catalog(&mut self) {
        let Published { snapshot, states, version } = self.catalog.clone();
        let (at, now) = (Instant::now(), self.with.clock.now());
        for webhook in self.slots.names() {
            let target = snapshot.by_name(&webhook).cloned();
            let rules = rules_of(target.as_deref());
            self.with_queue(&webhook, |queue, turn| queue.set_rules(rules, turn));
            let Some(slot) = self.slots.get_mut(&webhook) else { continue };
            let closed = slot.pace.set(terms_of(target.as_deref()), at);
            let before = std::mem::replace(&mut slot.target, target);
            match (&before, &slot.target) {
                // Whoever has declared it anew may have mended what made it fail.
                (Some(before), Some(now)) if !Arc::ptr_eq(&before.webhook, &now.webhook) => {
                    slot.pace.hurry(at);
                }
                _ => {}
            }
            let (gone, was_open) = (before.is_some() && slot.target.is_none(), slot.pace.is_open());
            if gone {
                slot.pace.resume(at);
            }
            if closed || gone {
                self.note(&webhook, Note::Forget);
            }
            if closed || (gone && was_open) {
                self.close(&webhook);
            }
        }
        for compiled in snapshot.webhooks() {
            self.slot(&compiled.webhook.name);
        }
        for webhook in self.slots.names() {
            let suspended = states.contains_key(&webhook);
            let Some(slot) = self.slots.get_mut(&webhook) else { continue };
            let before = std::mem::replace(&mut slot.catalog_suspended, suspended);
            // Disabled from here and enabled again before the catalog was read.
            let in_between = slot.disabled_at.is_some_and(|written| written <= version);
            if in_between {
                slot.disabled_at = None;
            }
            if suspended && !before {
                self.with_queue(&webhook, Queue::suspend);
            } else if !suspended && (before || in_between) {
                let was_open = slot.pace.is_open();
                slot.pace.resume(at);
                self.with_queue(&webhook, Queue::resume);
                if was_open {
                    self.close(&webhook);
                }
                self.note(&webhook, Note::Forget);
            }
            self.slots.due_by(&webhook, now);
            self.touch(&webhook);
        }
        self.has_begun = true;
        self.forget_the_gone();
    }

    /// Forgets webhooks that are not declared any more, as soon as nothing of them is here; and what is remembered of how
    /// they fared.
    fn forget_the_gone(&mut self) {
        let gone: Vec<Arc<str>> =
            self.slots.iter().filter(|(_, slot)| slot.is_over()).map(|(name, _)| Arc::clone(name)).collect();
        for webhook in gone {
            self.slots.remove(&webhook);
        }
        for webhook in std::mem::take(&mut self.with.health).into_keys() {
            self.note(&webhook, Note::Forget);
        }
    }
}
