//! The ids a receiver has seen, as many as fit.

use std::collections::{HashMap, VecDeque};

/// Ids that are remembered; with more, the oldest is forgotten.
const IDS: usize = 10_000;
/// The longest id that is remembered, in bytes.
const ID_BYTES: usize = 256;

/// What is known of one id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// How often it came.
    pub(super) times: u32,
    /// Whether it was answered with a 2xx.
    pub(super) accepted: bool,
}

/// Ids in the order they first came.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: HashMap<String, Known>,
    order: VecDeque<String>,
}

impl Memory {
    /// Counts one more coming of `id` and tells what is known of it now.
    pub(super) fn came(&mut self, id: &str) -> Known {
        if id.is_empty() || id.len() > ID_BYTES {
            return Known { times: 1, accepted: false };
        }
        if let Some(known) = self.known.get_mut(id) {
            known.times = known.times.saturating_add(1);
            return *known;
        }
        if self.order.len() >= IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        let known = Known { times: 1, accepted: false };
        self.order.push_back(id.to_owned());
        self.known.insert(id.to_owned(), known);
        known
    }

    /// Notes that `id` was taken.
    pub(super) fn accepted(&mut self, id: &str) {
        if let Some(known) = self.known.get_mut(id) {
            known.accepted = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comings_are_counted_and_acceptance_is_remembered() {
        let mut memory = Memory::default();
        assert_eq!(memory.came("a"), Known { times: 1, accepted: false });
        assert_eq!(memory.came("a"), Known { times: 2, accepted: false });
        memory.accepted("a");
        assert_eq!(memory.came("a"), Known { times: 3, accepted: true });
        assert_eq!(memory.came("b"), Known { times: 1, accepted: false });
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let mut memory = Memory::default();
        for n in 0..=IDS {
            memory.came(&n.to_string());
        }
        memory.came(&"x".repeat(ID_BYTES + 1));
        assert_eq!((memory.known.len(), memory.order.len()), (IDS, IDS));
        assert_eq!(memory.came("1").times, 2);
        assert_eq!(memory.came("0").times, 1);
    }
}
