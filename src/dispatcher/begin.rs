//! Beginning attempts and taking in how they ended.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::time::Instant;

use super::attempt::attempt;
use super::meters::Meters;
use super::pace::Heard;
use super::queue::{Sending, Start};
use super::run::State;
use super::slot::Begin;
use super::tell;
use crate::catalog::Compiled;
use crate::clock::{Clock, since};
use crate::domain::{
    Attempt, Delivery, FailReason, Lane, Operation, Outcome, RefusedBy, RetryPolicy, Verdict, judge,
    judge_test,
};
use crate::ledger::claim::Claimed;

/// What an attempt's task answers.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and a box would cost it an allocation"
)]
pub(super) enum Back {
    /// The attempt of one delivery has ended.
    One(Ended),
    /// That of a batch of so many bytes; its deliveries in the order in which they were sent.
    Batch(Vec<Ended>, usize),
}

/// How an attempt ended, and whose it was.
#[derive(Debug)]
pub(super) struct Ended {
    pub whose: Whose,
    pub attempt: Attempt,
    pub verdict: Verdict,
    pub is_probe: bool,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it stands in an end, which has the size of the large one anyhow"
)]
pub(super) enum Whose {
    Young { webhook: Arc<str>, lane: Lane },
    Claimed(Claimed),
}

impl Whose {
    /// The webhook, and whether it was a test send.
    pub fn webhook(&self) -> (&Arc<str>, bool) {
        match self {
            Self::Young { webhook, .. } => (webhook, false),
            Self::Claimed(claimed) => {
                (&claimed.delivery.webhook, claimed.delivery.operation == Operation::Test)
            }
        }
    }

    /// When it was last sent again by hand.
    pub fn sent_again_at(&self) -> Option<Timestamp> {
        match self {
            Self::Young { .. } => None,
            Self::Claimed(claimed) => claimed.sent_again_at,
        }
    }
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
                Begin::Start(sending, is_probe) => {
                    let Some(target) = slot.target.clone() else { return };
                    self.send(target, sending, is_probe);
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
                Begin::NoRoom => {
                    self.roomless.insert(Arc::clone(webhook));
                    return;
                }
                Begin::Nothing => return,
            }
        }
    }

    fn send(&mut self, target: Arc<Compiled>, sending: Sending, is_probe: bool) {
        #[cfg(test)]
        if let Some(launched) = &mut self.launched {
            launched.push((target, sending, is_probe));
            return;
        }
        match sending {
            Sending::One(start) => self.spawn_attempt(target, start, is_probe),
            Sending::Batch(members) => self.spawn_batch(target, members, is_probe),
        }
    }

    fn spawn_attempt(&mut self, target: Arc<Compiled>, start: Start, is_probe: bool) {
        let (transport, clock) = (self.with.transport.clone(), self.with.clock.clone());
        let (ended, meters) = (self.ended.clone(), Arc::clone(&self.meters));
        let (delivery, whose, number, on_schedule) = opened(start);
        self.with.tasks.spawn_brief(async move {
            let (started_at, begun) = (clock.now(), Instant::now());
            let tried = AssertUnwindSafe(attempt(&target, &delivery, number, &transport, &clock, &meters));
            let attempt = tried.catch_unwind().await;
            let attempt =
                attempt.unwrap_or_else(|_| panicked(delivery.id.as_str(), number, started_at, begun));
            let judge = Judge { retry: &target.webhook.retry, clock: &clock, meters: &meters, is_probe };
            let verdict = judge.of(&delivery, &whose, &attempt, on_schedule);
            if ended.send(Back::One(Ended { whose, attempt, verdict, is_probe })).is_err() {
                tracing::debug!("an attempt ended after the dispatcher");
            }
        });
    }

    /// An attempt's task has answered.
    pub(super) fn take_back(&mut self, back: Back) {
        match back {
            Back::One(ended) => self.end(ended),
            Back::Batch(members, bytes) => self.end_batch(members, bytes),
        }
    }

    /// An attempt has ended.
    pub(super) fn end(&mut self, ended: Ended) {
        let at = Instant::now();
        let heard = self.heard(std::slice::from_ref(&ended), at);
        let Ended { whose, attempt, verdict, is_probe } = ended;
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
        self.follow_end(&webhook, heard, at);
    }

    /// What the end of a request, of one delivery or of several, makes of their webhook's pace.
    pub(super) fn heard(&mut self, ended: &[Ended], at: Instant) -> Heard {
        let Some(first) = ended.first() else { return Heard::default() };
        let (webhook, is_test) = first.whose.webhook();
        if let Outcome::Refused { by: RefusedBy::Address(address), .. } = &first.attempt.outcome
            && self.with.refused.try_send((Arc::clone(webhook), *address)).is_err()
        {
            tracing::debug!(webhook = &**webhook, "too many refused addresses to tell of each");
        }
        let Some(slot) = self.slots.get_mut(webhook) else { return Heard::default() };
        for Ended { attempt, verdict, .. } in ended.iter().filter(|_| !is_test) {
            slot.told.of(webhook, attempt, verdict, at);
        }
        self.share.end(slot.queue.class());
        if slot.target.is_none() {
            // How attempts of one that is declared no more end says nothing of any that may be declared under its name.
            return Heard::default();
        }
        let (kind, dice) = ((first.is_probe, is_test), || self.with.clock.dice());
        slot.pace.end(&first.attempt, kind, slot.queue.in_flight(), at, dice)
    }

    pub(super) fn follow_end(&mut self, webhook: &Arc<str>, heard: Heard, at: Instant) {
        self.follow_pace(webhook, heard);
        self.ask_for_more(webhook, at);
        self.touch(webhook);
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
            if let Some(slot) = self.slots.get_mut(&other) {
                slot.crowded = false;
            }
            self.slots.due_by(&other, now);
        }
    }
}

/// What judges attempts, of a delivery alone or of those in a batch.
pub(super) struct Judge<'a> {
    pub retry: &'a RetryPolicy,
    pub clock: &'a Clock,
    pub meters: &'a Meters,
    pub is_probe: bool,
}

impl Judge<'_> {
    /// What becomes of a delivery, counted and told of. A test counts nowhere and is tried once.
    pub fn of(&self, delivery: &Delivery, whose: &Whose, attempt: &Attempt, on_schedule: u32) -> Verdict {
        let verdict = if delivery.operation == Operation::Test {
            judge_test(&attempt.outcome)
        } else {
            let (now, committed_at) = (self.clock.now(), delivery.committed_at);
            let wanted_at = whose.sent_again_at().map_or(committed_at, |again| again.max(committed_at));
            let age = since(now, wanted_at);
            let judged = judge(&attempt.outcome, on_schedule, self.retry, age, self.clock.dice());
            let verdict = if self.is_probe { spared(judged) } else { judged };
            self.meters.verdict(&verdict, since(now, committed_at));
            verdict
        };
        tell::attempt(delivery, attempt, &verdict);
        verdict
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

/// The attempt that panicked: walhook's own fault, for which the delivery and its lane must not pay with silence.
pub(super) fn panicked(whose: &str, number: u32, started_at: Timestamp, begun: Instant) -> Attempt {
    tracing::error!(whose, "an attempt panicked");
    let reason = "a fault in walhook; its log says more".to_owned();
    let outcome = Outcome::Refused { by: RefusedBy::Request, reason };
    Attempt { number, started_at, took: begun.elapsed(), outcome }
}

/// A failed probe is none of the retry schedule's: its delivery waits on, behind the others that are due.
pub(super) fn spared(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Retry(_) | Verdict::Failed(FailReason::AttemptsExhausted) => Verdict::Retry(Duration::ZERO),
        other => other,
    }
}
