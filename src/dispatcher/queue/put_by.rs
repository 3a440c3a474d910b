//! What goes by the ledger from the first, and whether anything is here at all.

use super::{FailReason, Queue, State, Young};
use crate::dispatcher::turn::Turn;

impl Queue {
    /// A delivery is owed that goes by the ledger, behind those of its lane.
    pub fn put_by(&mut self, young: Young, turn: &mut Turn<'_>) {
        self.hand_over(young.delivery.lane, turn);
        self.forget_empty_ready();
        let state = if self.suspended { State::Held } else { State::Pending };
        self.record(young.delivery, state, None, Some((young.owed, young.permit)), turn);
    }

    /// Whether nothing of it is here or on its way to the ledger.
    pub fn is_at_rest(&self) -> bool {
        self.lanes.is_empty()
            && self.transit.is_empty()
            && self.loaded == 0
            && self.in_flight == 0
            && self.counting.is_none()
    }

    /// Nothing is open in the ledger that this process has not put there: where anything was counted, it is counted anew.
    pub fn recount(&mut self, turn: &mut Turn<'_>) {
        if !self.blocked.is_empty() {
            self.by_ledger(turn);
        }
    }

    /// A young delivery that can never be sent.
    pub fn record_dead(&mut self, young: Young, reason: &FailReason, turn: &mut Turn<'_>) {
        let state = State::Failed(reason.describe());
        self.record(young.delivery, state, None, Some((young.owed, young.permit)), turn);
    }
}
