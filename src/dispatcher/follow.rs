//! Following what others say: the ledger's writer, and the catalog.

use tokio::time::Instant;

use super::pace::Note;
use super::queue::Queue;
use super::run::State;
use super::slot::{flow_of, rules_of};
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
                Ack::Lanes { webhook, lanes } => {
                    self.with_queue(&webhook, |queue, _| queue.counted(lanes));
                }
            }
        }
    }

    /// The catalog has changed: targets, rules, suspensions.
    pub(super) fn take_catalog(&mut self) {
        let Published { snapshot, states } = self.catalog.clone();
        let (at, now) = (Instant::now(), self.with.clock.now());
        for webhook in self.slots.names() {
            let target = snapshot.by_name(&webhook).cloned();
            let rules = rules_of(target.as_deref());
            self.with_queue(&webhook, |queue, turn| queue.set_rules(rules, turn));
            let Some(slot) = self.slots.get_mut(&webhook) else { continue };
            let closed = slot.pace.set(flow_of(target.as_deref()), rules.concurrency, at);
            slot.target = target;
            if closed {
                self.close(&webhook);
                self.note(&webhook, Note::Forget);
            }
        }
        for compiled in snapshot.webhooks() {
            self.slot(&compiled.webhook.name);
        }
        for webhook in self.slots.names() {
            let suspended = states.contains_key(&webhook);
            let Some(slot) = self.slots.get_mut(&webhook) else { continue };
            let before = std::mem::replace(&mut slot.catalog_suspended, suspended);
            if suspended && !before {
                self.with_queue(&webhook, Queue::suspend);
            } else if before && !suspended {
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
    }
}
