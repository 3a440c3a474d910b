//! Beginning attempts and taking in how they ended.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::attempt::attempt;
use super::queue::Start;
use super::run::State;
use super::tell;
use crate::catalog::Compiled;
use crate::clock::since;
use crate::domain::{Attempt, Lane, Outcome, RefusedBy, Verdict, judge, limits};
use crate::ledger::claim::Claimed;
use crate::tasks::Role;

/// How an attempt ended, and whose it was.
#[derive(Debug)]
pub(super) struct Ended {
    whose: Whose,
    attempt: Attempt,
    verdict: Verdict,
}

#[derive(Debug)]
enum Whose {
    Young { webhook: Arc<str>, lane: Lane },
    Claimed(Claimed),
}

impl State {
    /// Begins as many attempts as may be.
    pub(super) fn start_attempts(&mut self) {
        let mut waiting = Vec::new();
        for webhook in std::mem::take(&mut self.touched) {
            while let Some(slot) = self.slots.get_mut(&webhook) {
                slot.touched = self.in_flight >= limits::IN_FLIGHT;
                if slot.touched {
                    waiting.push(webhook);
                    break;
                }
                let Some(target) = slot.target.clone() else { break };
                let Some(start) = slot.queue.start(Instant::now()) else { break };
                self.in_flight += 1;
                self.spawn_attempt(target, start);
            }
        }
        self.touched = waiting;
    }

    fn spawn_attempt(&self, target: Arc<Compiled>, start: Start) {
        let (transport, clock) = (self.with.transport.clone(), self.with.clock.clone());
        let (ended, meters) = (self.ended.clone(), Arc::clone(&self.meters));
        let (delivery, whose, number, on_schedule) = match start {
            Start::Young(delivery) => {
                let whose = Whose::Young { webhook: Arc::clone(&delivery.webhook), lane: delivery.lane };
                (delivery, whose, 1, 1)
            }
            Start::Claimed(claimed) => {
                let (number, on_schedule) = (claimed.attempts + 1, claimed.on_schedule + 1);
                (claimed.delivery.clone(), Whose::Claimed(claimed), number, on_schedule)
            }
        };
        self.with.tasks.spawn("attempt", Role::Passing, async move {
            let (started_at, begun) = (clock.now(), Instant::now());
            let tried = AssertUnwindSafe(attempt(&target, &delivery, number, &transport, &clock, &meters));
            let attempt = tried.catch_unwind().await.unwrap_or_else(|_| {
                // A panic here is walhook's own fault; the delivery and its lane must not pay with silence.
                tracing::error!(delivery.id = delivery.id.as_str(), "an attempt panicked");
                let reason = "a fault in walhook; its log says more".to_owned();
                let outcome = Outcome::Refused { by: RefusedBy::Request, reason };
                Attempt { number, started_at, took: begun.elapsed(), outcome }
            });
            let verdict = judge(&attempt.outcome, on_schedule, &target.webhook.retry, clock.dice());
            meters.verdict(&verdict, since(clock.now(), delivery.committed_at));
            tell::attempt(&delivery, &attempt, &verdict);
            if ended.send(Ended { whose, attempt, verdict }).is_err() {
                tracing::debug!("an attempt ended after the dispatcher");
            }
        });
    }

    /// An attempt has ended.
    pub(super) fn end(&mut self, ended: Ended) {
        let Ended { whose, attempt, verdict } = ended;
        self.in_flight = self.in_flight.saturating_sub(1);
        let name = match &whose {
            Whose::Young { webhook, .. } => webhook,
            Whose::Claimed(claimed) => &claimed.delivery.webhook,
        };
        if let Some(slot) = self.slots.get_mut(name) {
            slot.told.of(name, &attempt, &verdict, Instant::now());
        }
        let webhook = match whose {
            Whose::Young { webhook, lane } => {
                self.with_queue(&webhook, |queue, turn| queue.young_ended(lane, attempt, verdict, turn));
                webhook
            }
            Whose::Claimed(claimed) => {
                let webhook = Arc::clone(&claimed.delivery.webhook);
                self.with_queue(&webhook, |queue, turn| queue.claimed_ended(claimed, attempt, verdict, turn));
                webhook
            }
        };
        if let Some(slot) = self.slots.get_mut(&webhook)
            && slot.more_due
            && slot.queue.room() > 0
        {
            slot.more_due = false;
            let now = self.with.clock.now();
            self.slots.due_by(&webhook, now);
        }
        self.touch(&webhook);
    }
}
