//! What goes by the ledger from the first.

use super::{Queue, State, Young};
use crate::dispatcher::turn::Turn;

impl Queue {
    /// A delivery is owed that goes by the ledger, behind those of its lane.
    pub fn put_by(&mut self, young: Young, turn: &mut Turn<'_>) {
        self.hand_over(young.delivery.lane, turn);
        self.forget_empty_ready();
        let state = if self.suspended { State::Held } else { State::Pending };
        self.record(young.delivery, state, None, Some((young.owed, young.permit)), turn);
    }
}
