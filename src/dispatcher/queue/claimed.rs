//! What comes back from the ledger: how much is welcome, how it ends, and what happens while the webhook fails.

use super::{
    Attempt, Claimed, Command, Delivery, FailReason, Finish, Lease, Mode, Queue, State, Verdict, limits,
};
use crate::clock::since;
use crate::dispatcher::share::Class;
use crate::dispatcher::turn::Turn;
use crate::domain::Operation;

impl Queue {
    /// How many claimed deliveries would be welcome where so many may be in flight: enough to keep all attempts busy
    /// while the next claim runs. None where there is room for a few only: a claim costs the same for one delivery as
    /// for many.
    pub fn room(&self, in_flight: usize) -> usize {
        if self.suspended {
            return 0;
        }
        // Those of a slow receiver would only lie here, in the place of others.
        let waves = if self.class == Class::Slow { 2 } else { limits::CLAIM_WAVES };
        let waves = waves.max(self.batch_events());
        let wanted = self.rules.concurrency.min(in_flight).saturating_mul(waves).min(limits::CLAIM_BATCH);
        let room = wanted.saturating_sub(self.in_flight).saturating_sub(self.claimed.len());
        if room >= wanted / 4 { room } else { 0 }
    }

    /// How many attempts are under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many claimed deliveries are here, waiting or in flight.
    pub fn loaded(&self) -> usize {
        self.loaded
    }

    /// How many claimed deliveries wait here.
    pub fn claimed_waiting(&self) -> usize {
        self.claimed.len()
    }

    /// Whether there is anything to start.
    pub fn may_have_more(&self) -> bool {
        !self.ready.is_empty() || !self.claimed.is_empty()
    }

    /// The receiver's class, under which the claimed ones are counted.
    pub fn class(&self) -> Class {
        self.class
    }

    pub fn set_class(&mut self, class: Class, turn: &mut Turn<'_>) {
        if self.class != class {
            self.class = class;
            turn.load.reclass(self.loaded, class);
        }
    }

    /// Claimed deliveries have arrived.
    pub fn take_claimed(&mut self, claimed: Claimed, turn: &mut Turn<'_>) {
        turn.load.add(&claimed, self.class);
        self.loaded += 1;
        // Somebody else has put it there, and memory may not have heard of that yet.
        let is_counted = self.blocked.contains_key(&claimed.delivery.lane) && claimed.sent_again_at.is_none();
        if self.mode == Mode::Memory && self.tracks_lanes() && !is_counted {
            self.by_ledger(turn);
        }
        if claimed.delivery.operation == Operation::Test && self.is_late(&claimed.delivery, turn) {
            self.end_claimed(claimed, State::Failed(FailReason::TestTooLate.describe()), None, turn);
        } else if self.suspended {
            self.end_claimed(claimed, State::Held, None, turn);
        } else if self.rules.concurrency == 0 || (self.diverted && !self.claimed.is_empty()) {
            self.end_claimed(claimed, State::Pending, None, turn);
        } else {
            self.claimed.push_back(claimed);
        }
    }

    /// Whether a test can say nothing any more to who sent it: it waited for too long, or its webhook is not sent to.
    fn is_late(&self, test: &Delivery, turn: &Turn<'_>) -> bool {
        self.suspended || since(turn.now, test.committed_at) > limits::TEST_FOR
    }

    /// What was claimed and not begun goes back as it came; but a test that is to be held ends.
    pub(super) fn give_back(&mut self, state: &State, turn: &mut Turn<'_>) {
        for claimed in std::mem::take(&mut self.claimed) {
            let is_test = claimed.delivery.operation == Operation::Test;
            let state = match state {
                State::Held if is_test => State::Failed(FailReason::TestTooLate.describe()),
                other => other.clone(),
            };
            self.end_claimed(claimed, state, None, turn);
        }
    }

    /// A claimed delivery's attempt has ended.
    pub fn claimed_ended(
        &mut self,
        claimed: Claimed,
        attempt: Attempt,
        verdict: Verdict,
        turn: &mut Turn<'_>,
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.end_tried(claimed, attempt, verdict, turn);
        if self.suspended {
            self.suspend(turn);
        }
    }

    pub(super) fn end_tried(
        &mut self,
        claimed: Claimed,
        attempt: Attempt,
        verdict: Verdict,
        turn: &mut Turn<'_>,
    ) {
        let state = self.state_after(verdict, turn);
        self.end_claimed(claimed, state, Some(attempt), turn);
    }

    /// The same for a probe: an attempt that failed is none of the retry schedule's.
    pub fn probe_ended(&mut self, claimed: Claimed, attempt: Attempt, verdict: Verdict, turn: &mut Turn<'_>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.end_probe(claimed, attempt, verdict, turn);
        if self.suspended {
            self.suspend(turn);
        }
    }

    pub(super) fn end_probe(
        &mut self,
        claimed: Claimed,
        attempt: Attempt,
        verdict: Verdict,
        turn: &mut Turn<'_>,
    ) {
        let state = self.state_after(verdict, turn);
        let off_schedule = !state.is_ended();
        self.let_go(claimed, state, (Some(attempt), off_schedule), turn);
    }

    fn end_claimed(&mut self, claimed: Claimed, state: State, attempt: Option<Attempt>, turn: &mut Turn<'_>) {
        self.let_go(claimed, state, (attempt, false), turn);
    }

    /// It is here no more; the ledger hears what became of it.
    fn let_go(
        &mut self,
        claimed: Claimed,
        state: State,
        tried: (Option<Attempt>, bool),
        turn: &mut Turn<'_>,
    ) {
        turn.load.remove(&claimed, self.class);
        self.loaded = self.loaded.saturating_sub(1);
        Self::finish(claimed.delivery, claimed.lease, state, tried, turn);
    }

    pub(super) fn finish(
        delivery: Delivery,
        lease: Lease,
        state: State,
        (attempt, off_schedule): (Option<Attempt>, bool),
        turn: &mut Turn<'_>,
    ) {
        let Delivery { id, webhook, lane, .. } = delivery;
        let finish = Finish { lease, id, webhook, lane, state, attempt, off_schedule };
        turn.commands.push(Command::Finish(Box::new(finish)));
    }

    /// The webhook's receiver fails: everything goes to the ledger and waits there, but for what is claimed to probe.
    pub fn divert(&mut self, turn: &mut Turn<'_>) {
        self.diverted = true;
        self.by_ledger(turn);
        self.give_back(&State::Pending, turn);
    }

    /// It failed when this process began, and nothing is here yet.
    pub fn begin_diverted(&mut self) {
        (self.diverted, self.mode) = (true, Mode::Ledger);
    }

    /// The receiver works again. What waits comes back by the ledger.
    pub fn undivert(&mut self) {
        self.diverted = false;
        self.mode = Mode::Ledger;
    }

    pub fn is_diverted(&self) -> bool {
        self.diverted
    }

    /// The webhook is not sent to any more, for this reason.
    pub fn disable(&mut self, reason: String, turn: &mut Turn<'_>) {
        if !self.suspended {
            let webhook = self.webhook.clone();
            turn.commands.push(Command::Disable { webhook, reason });
            self.suspend(turn);
        }
    }
}
