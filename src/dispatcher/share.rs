//! Who may have one more request in flight, over all webhooks: fair, and pure.
//!
//! Two rules keep a slow or busy webhook from starving others:
//!
//! - Webhooks whose receivers are *slow* ([`limits::SLOW`]) share [`limits::IN_FLIGHT_SLOW`]; [`limits::IN_FLIGHT`] are
//!   for those that are quick, however many are slow or hang.
//! - While less than half is in use, everybody has all they may have. Beyond, a webhook may have one more only as long as
//!   it has less than a quarter of what is free: the more crowded, the more alike.
//!
//! Batches take memory beside, for as long as they are in flight ([`limits::BATCHED_BYTES`]): who has one under way may have
//! another only while half of that is free.
//!
//! A webhook without any in flight that finds no room stands in line, one line for each class, and is called in turn. One
//! that has some comes again at the end of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::limits;

/// Whether one more may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    /// Yes.
    Go,
    /// Not now; the end of one of its own asks again.
    Later,
    /// Not now, and it has none of its own: it must stand in line.
    Stand,
}

/// Which of two classes a receiver belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Class {
    #[default]
    Quick,
    Slow,
}

/// What is in use, and who stands in line.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// In use, over all.
    pub all: usize,
    slow: usize,
    /// Bytes of the batches in flight.
    batched: usize,
    quick_line: VecDeque<Arc<str>>,
    slow_line: VecDeque<Arc<str>>,
}

impl Share {
    fn line(&self, class: Class) -> &VecDeque<Arc<str>> {
        if class == Class::Slow { &self.slow_line } else { &self.quick_line }
    }

    fn free(&self, class: Class) -> usize {
        // A receiver that turns out to be slow takes what it has in flight along, beyond what is there for the slow.
        let free = (limits::IN_FLIGHT + limits::IN_FLIGHT_SLOW).saturating_sub(self.all);
        free.min(match class {
            Class::Quick => limits::IN_FLIGHT.saturating_sub(self.quick()),
            Class::Slow => limits::IN_FLIGHT_SLOW.saturating_sub(self.slow),
        })
    }

    fn quick(&self) -> usize {
        self.all.saturating_sub(self.slow)
    }

    /// Whether a webhook that has `own` may have one more; `called` from its place in line.
    pub fn may(&self, own: usize, class: Class, called: bool) -> May {
        let (free, in_line) = (self.free(class), !called && !self.line(class).is_empty());
        if own == 0 {
            return if free == 0 || in_line { May::Stand } else { May::Go };
        }
        let (used, half) = match class {
            Class::Quick => (self.quick(), limits::IN_FLIGHT / 2),
            Class::Slow => (self.slow, limits::IN_FLIGHT_SLOW / 2),
        };
        let is_fair = used < half || own.saturating_mul(4) < free;
        if free > 0 && !in_line && is_fair { May::Go } else { May::Later }
    }

    /// One begins.
    pub fn begin(&mut self, class: Class) {
        self.all += 1;
        self.slow += usize::from(class == Class::Slow);
    }

    /// One has ended.
    pub fn end(&mut self, class: Class) {
        self.all = self.all.saturating_sub(1);
        self.slow = self.slow.saturating_sub(usize::from(class == Class::Slow));
    }

    /// Whether a webhook that has `own` requests in flight may have a batch of so many bytes too. One delivery that is larger
    /// by itself may make them a little more.
    pub fn has_room_for_batch(&self, own: usize, bytes: usize) -> bool {
        let most = if own == 0 { limits::BATCHED_BYTES } else { limits::BATCHED_BYTES / 2 };
        self.batched.saturating_add(bytes) <= most
    }

    /// A batch of so many bytes begins.
    pub fn begin_batch(&mut self, bytes: usize) {
        self.batched += bytes;
    }

    /// It has ended.
    pub fn end_batch(&mut self, bytes: usize) {
        self.batched = self.batched.saturating_sub(bytes);
    }

    /// A webhook with `own` in flight has changed its class.
    pub fn reclass(&mut self, own: usize, to: Class) {
        self.slow = match to {
            Class::Slow => self.slow + own,
            Class::Quick => self.slow.saturating_sub(own),
        };
    }

    /// A webhook stands in line; once, for all that its caller keeps.
    pub fn stand(&mut self, webhook: Arc<str>, class: Class) {
        if class == Class::Slow {
            self.slow_line.push_back(webhook);
        } else {
            self.quick_line.push_back(webhook);
        }
    }

    /// The next in line that there is room for.
    pub fn call(&mut self) -> Option<Arc<str>> {
        let slow = if self.free(Class::Slow) > 0 { self.slow_line.pop_front() } else { None };
        slow.or_else(|| if self.free(Class::Quick) > 0 { self.quick_line.pop_front() } else { None })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Webhooks that always want more, up to `want` each, until nobody may.
    fn greedy(share: &mut Share, hogs: &mut [usize], want: usize, class: Class) {
        loop {
            let mut moved = false;
            for own in hogs.iter_mut().filter(|own| **own < want) {
                if share.may(*own, class, false) == May::Go {
                    share.begin(class);
                    *own += 1;
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    #[test]
    fn one_alone_has_all_that_its_concurrency_allows() {
        let mut share = Share::default();
        let mut one = [0];
        greedy(&mut share, &mut one, 500, Class::Quick);
        assert_eq!(one, [500]);
    }

    #[test]
    fn i11_batches_in_flight_have_a_bound_and_one_webhook_takes_half_of_it_at_most() {
        let mut share = Share::default();
        let mut own = 0;
        while share.has_room_for_batch(own, limits::BATCH_BYTES) {
            share.begin_batch(limits::BATCH_BYTES);
            own += 1;
        }
        assert_eq!(own * limits::BATCH_BYTES, limits::BATCHED_BYTES / 2);
        let mut others = 0;
        while share.has_room_for_batch(0, limits::BATCH_BYTES) {
            share.begin_batch(limits::BATCH_BYTES);
            others += 1;
        }
        assert_eq!(own + others, limits::BATCHED_BYTES / limits::BATCH_BYTES);
        (0..own + others).for_each(|_| share.end_batch(limits::BATCH_BYTES));
        assert!(share.has_room_for_batch(1, limits::BATCHED_BYTES / 2));
    }

    proptest! {
        #[test]
        fn however_many_are_slow_and_greedy_a_quick_one_finds_room(
            slow in 0_usize..2000, want in 1_usize..1000, hanging in 0_usize..200,
        ) {
            let mut share = Share::default();
            let mut hogs = vec![0; slow];
            greedy(&mut share, &mut hogs, want, Class::Slow);
            prop_assert!(hogs.iter().sum::<usize>() <= limits::IN_FLIGHT_SLOW);
            let (least, most) = (hogs.iter().min(), hogs.iter().max());
            if slow > limits::IN_FLIGHT_SLOW / 16 && let (Some(least), Some(most)) = (least, most) {
                prop_assert!(most - least <= 16, "{least} to {most}");
            }
            // As yet nobody knows that these are slow too.
            let mut new = vec![0; hanging];
            greedy(&mut share, &mut new, want.min(16), Class::Quick);
            prop_assert_eq!(share.may(0, Class::Quick, false), May::Go);
            prop_assert!(new.iter().all(|own| *own > 0));
        }

        #[test]
        fn who_stands_in_line_is_called_in_turn_and_the_count_comes_out_even(
            steps in proptest::collection::vec((0_usize..1500, any::<bool>(), any::<bool>()), 1..4000),
        ) {
            let mut share = Share::default();
            let mut own = vec![0_usize; 1500];
            let mut standing = std::collections::HashSet::new();
            let mut line = Vec::new();
            let class = |index: usize| if index.is_multiple_of(2) { Class::Slow } else { Class::Quick };
            for (index, begins, _) in steps {
                if begins {
                    match share.may(own[index], class(index), false) {
                        May::Go => { share.begin(class(index)); own[index] += 1 }
                        May::Stand if standing.insert(index) => {
                            share.stand(index.to_string().into(), class(index));
                            line.push(index);
                        }
                        May::Stand | May::Later => {}
                    }
                } else if own[index] > 0 {
                    share.end(class(index));
                    own[index] -= 1;
                    while let Some(name) = share.call() {
                        let called: usize = name.parse().unwrap();
                        let place = line.iter().position(|other| class(*other) == class(called));
                        prop_assert_eq!(line.remove(place.unwrap()), called, "out of turn");
                        standing.remove(&called);
                        if share.may(own[called], class(called), true) == May::Go {
                            share.begin(class(called));
                            own[called] += 1;
                        }
                    }
                }
                prop_assert!(share.quick() <= limits::IN_FLIGHT && share.slow <= limits::IN_FLIGHT_SLOW);
            }
            prop_assert_eq!(share.all, own.iter().sum::<usize>());
        }
    }
}
