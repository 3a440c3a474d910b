//! What goes by the ledger from the first.

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

    /// A young delivery that can never be sent.
    pub fn record_dead(&mut self, young: Young, reason: &FailReason, turn: &mut Turn<'_>) {
        let state = State::Failed(reason.describe());
        self.record(young.delivery, state, None, Some((young.owed, young.permit)), turn);
    }
}
