//! Taking offers in: who waits, and when intake must.

use tokio::time::Instant;

use super::Offer;
use super::run::State;
use crate::clock::since;
use crate::domain::limits;

impl State {
    /// Accepts offers until there is none left or one must wait for its webhook.
    pub(super) fn accept(&mut self) {
        while let Some(offer) = self.offered.pop_front() {
            let young = match &offer {
                Offer::Send(young) | Offer::Record(young) | Offer::Dead(young, _) => young,
            };
            let webhook = young.delivery.webhook.clone();
            let lag = since(self.with.clock.now(), young.delivery.committed_at);
            if self.slot(&webhook).is_none() {
                continue;
            }
            let must_wait = self.with_queue(&webhook, |queue, turn| {
                if !queue.is_full() {
                    return false;
                }
                let patient = lag <= limits::LAG_PATIENCE
                    && queue.oldest_wait(Instant::now()) <= limits::QUEUE_PATIENCE;
                if !patient {
                    queue.spill(turn);
                }
                patient
            });
            if must_wait == Some(true) && !self.is_stopping() {
                self.offered.push_front(offer);
                return;
            }
            let stopping = self.is_stopping();
            self.with_queue(&webhook, |queue, turn| match offer {
                Offer::Send(young) => {
                    queue.offer(young, turn);
                    if stopping {
                        queue.put_away(turn);
                    }
                }
                Offer::Record(young) => queue.put_by(young, turn),
                Offer::Dead(young, reason) => queue.record_dead(young, &reason, turn),
            });
            self.touch(&webhook);
        }
    }
}
