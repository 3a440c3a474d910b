//! Beginning attempts and taking in how they ended.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::attempt::attempt;
use super::pace::Heard;
use super::queue::Start;
use super::run::State;
use super::slot::Begin;
use super::tell;
use crate::catalog::Compiled;
use crate::clock::since;
use crate::domain::{Attempt, Delivery, FailReason, Lane, Operation, Outcome, RefusedBy, Verdict, judge};
use crate::ledger::claim::Claimed;
use crate::tasks::Role;

/// How an attempt ended, and whose it was.
#[derive(Debug)]
pub(super) struct Ended {
    pub whose: Whose,
    pub attempt: Attempt,
    pub verdict: Verdict,
    pub is_probe: bool,
}

#[derive(Debug)]
pub(super) enum Whose {
    Young { webhook: Arc<str>, lane: Lane },
    Claimed(Claimed),
}

impl State {
    /// Begins as many attempts as may be: those of webhooks that something has happened to, and of those in line.
    pub(super) fn start_attempts(&mut self) {
        let at = Instant::now();
        while self.paced.first().is_some_and(|(until, _)| *until <= at)
            && let Some((_, webhook)) = self.paced.pop_first()
        {
            self.touch(&webhook);
        }
        for webhook in std::mem::take(&mut self.touched) {
            if let Some(slot) = self.slots.get_mut(&webhook) {
                slot.touched = false;
            }
            self.start_all(&webhook, at, false);
        }
        while let Some(webhook) = self.share.call() {
            if let Some(slot) = self.slots.get_mut(&webhook) {
                slot.standing = false;
            }
            self.start_all(&webhook, at, true);
        }
    }

    /// Begins as many attempts of a webhook as may be.
    fn start_all(&mut self, webhook: &Arc<str>, at: Instant, mut called: bool) {
        while let Some(slot) = self.slots.get_mut(webhook) {
            match slot.start(at, &mut self.share, std::mem::take(&mut called)) {
                Begin::Start(start, is_probe) => {
                    let Some(target) = slot.target.clone() else { return };
                    self.spawn_attempt(target, start, is_probe);
                }
                Begin::Paced(until) => {
                    self.paced.insert((until, Arc::clone(webhook)));
                    return;
                }
                Begin::Stand => {
                    if !std::mem::replace(&mut slot.standing, true) {
                        self.share.stand(Arc::clone(webhook), slot.queue.class());
                    }
                    return;
                }
                Begin::Nothing => return,
            }
        }
    }

    fn spawn_attempt(&mut self, target: Arc<Compiled>, start: Start, is_probe: bool) {
        #[cfg(test)]
        if let Some(launched) = &mut self.launched {
            launched.push((target, start, is_probe));
            return;
        }
        let (transport, clock) = (self.with.transport.clone(), self.with.clock.clone());
        let (ended, meters) = (self.ended.clone(), Arc::clone(&self.meters));
        let (delivery, whose, number, on_schedule) = opened(start);
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
            let age = since(clock.now(), delivery.committed_at);
            let verdict = judge(&attempt.outcome, on_schedule, &target.webhook.retry, age, clock.dice());
            let verdict = if is_probe { spared(verdict) } else { verdict };
            meters.verdict(&verdict, age);
            tell::attempt(&delivery, &attempt, &verdict);
            if ended.send(Ended { whose, attempt, verdict, is_probe }).is_err() {
                tracing::debug!("an attempt ended after the dispatcher");
            }
        });
    }

    /// An attempt has ended.
    pub(super) fn end(&mut self, ended: Ended) {
        let Ended { whose, attempt, verdict, is_probe } = ended;
        let at = Instant::now();
        let (name, is_test) = match &whose {
            Whose::Young { webhook, .. } => (webhook, false),
            Whose::Claimed(claimed) => {
                (&claimed.delivery.webhook, claimed.delivery.operation == Operation::Test)
            }
        };
        let mut heard = Heard::default();
        if let Some(slot) = self.slots.get_mut(name) {
            slot.told.of(name, &attempt, &verdict, at);
            self.share.end(slot.queue.class());
            let dice = || self.with.clock.dice();
            heard = slot.pace.end(&attempt, (is_probe, is_test), slot.queue.in_flight(), at, dice);
        }
        let webhook = match whose {
            Whose::Young { webhook, lane } => {
                self.with_queue(&webhook, |queue, turn| queue.young_ended(lane, attempt, verdict, turn));
                webhook
            }
            Whose::Claimed(claimed) => {
                let webhook = Arc::clone(&claimed.delivery.webhook);
                self.with_queue(&webhook, |queue, turn| {
                    if is_probe {
                        queue.probe_ended(claimed, attempt, verdict, turn);
                    } else {
                        queue.claimed_ended(claimed, attempt, verdict, turn);
                    }
                });
                webhook
            }
        };
        self.follow_pace(&webhook, heard);
        self.ask_for_more(&webhook, at);
        self.touch(&webhook);
    }

    /// The end of an attempt has made room for what is due.
    fn ask_for_more(&mut self, webhook: &Arc<str>, at: Instant) {
        let others = self.crowd.pop_front();
        if let Some(slot) = self.slots.get_mut(webhook)
            && slot.more_due
            && (slot.pace.is_open() || slot.room(at) > 0)
        {
            slot.more_due = false;
            let now = self.with.clock.now();
            self.slots.due_by(webhook, now);
        }
        if let Some(other) = others {
            let now = self.with.clock.now();
            self.slots.due_by(&other, now);
        }
    }
}

/// What an attempt is of, which of its attempts it is, and which on the retry schedule; both from 1.
pub(super) fn opened(start: Start) -> (Delivery, Whose, u32, u32) {
    match start {
        Start::Young(delivery) => {
            let whose = Whose::Young { webhook: Arc::clone(&delivery.webhook), lane: delivery.lane };
            (delivery, whose, 1, 1)
        }
        Start::Claimed(claimed) => {
            let (number, on_schedule) = (claimed.attempts + 1, claimed.on_schedule + 1);
            (claimed.delivery.clone(), Whose::Claimed(claimed), number, on_schedule)
        }
    }
}

/// A failed probe is none of the retry schedule's: its delivery waits on, behind the others that are due.
pub(super) fn spared(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Retry(_) | Verdict::Failed(FailReason::AttemptsExhausted) => Verdict::Retry(Duration::ZERO),
        other => other,
    }
}
