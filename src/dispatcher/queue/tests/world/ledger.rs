//! The model's ledger and its writer.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;

use super::super::super::*;
use super::{Heard, TIMEOUT, World};
use crate::domain::{DeliveryId, limits};

/// A row of the model's ledger.
#[derive(Debug)]
pub(super) struct Row {
    pub delivery: Delivery,
    pub state: State,
    /// When it is due, in seconds.
    pub due: Option<Timestamp>,
    pub lease: Option<i64>,
    /// Whether it was sent again by hand.
    pub again: bool,
}

impl World {
    /// The writer takes commands: between two others, inserts before finishes, as one transaction.
    pub(super) fn write(&mut self, most: usize) {
        let mut finishes = Vec::new();
        for command in self.commands.drain(..most.min(self.commands.len())).collect::<Vec<_>>() {
            match command {
                Command::Insert(row, permit) => {
                    drop(permit);
                    self.insert(*row);
                }
                Command::Finish(finish) => finishes.push(*finish),
                control => {
                    finishes.drain(..).for_each(|finish| self.finish(finish));
                    match control {
                        Command::Disable { .. } => self.suspended = true,
                        _ => self.count_lanes(),
                    }
                }
            }
        }
        for finish in finishes {
            self.finish(finish);
        }
    }

    fn insert(&mut self, row: NewRow) {
        let NewRow { delivery, state, owed, .. } = row;
        let (lane, id) = (delivery.lane, delivery.id.as_str().to_owned());
        let earlier = self.rows.range(..id.clone()).map(|(_, row)| row);
        let behind = earlier.filter(|r| !r.state.is_ended()).any(|r| r.delivery.lane == lane);
        let (due, lease) = match &state {
            State::Pending => ((!behind).then_some(self.now), None),
            State::Leased { token, until } => (Some(*until), Some(*token)),
            State::Retrying { due } => ((!behind).then_some(*due), None),
            _ => (None, None),
        };
        self.heard.push_back(Heard::Inserted(lane, !state.is_ended()));
        let before = self.rows.insert(id, Row { delivery, state, due, lease, again: false });
        assert!(before.is_none(), "a delivery was recorded twice");
        self.settlement.settle([owed.expect("a young delivery owes")]);
    }

    fn finish(&mut self, finish: Finish) {
        let before = self.rows.range(..finish.id.as_str().to_owned()).map(|(_, row)| row);
        let behind = before.filter(|r| !r.state.is_ended()).any(|r| r.delivery.lane == finish.lane);
        let row = self.rows.get_mut(finish.id.as_str()).expect("a claimed delivery has its row");
        let holds = row.lease.is_some_and(|token| Lease::with_token(token) == finish.lease);
        let (lane, ended) = (row.delivery.lane, finish.state.is_ended());
        if holds {
            row.lease = None;
            row.due = match &finish.state {
                State::Pending if !behind => Some(self.now),
                State::Retrying { due } if !behind => Some(*due),
                _ => None,
            };
            row.state = finish.state;
        }
        self.heard.push_back(Heard::Finished(lane, !ended, !holds));
        if ended {
            self.wake(lane);
        }
    }

    /// The earliest open one of a lane becomes due.
    fn wake(&mut self, lane: Lane) {
        let now = self.now;
        let head = self.rows.values_mut().find(|r| r.delivery.lane == lane && !r.state.is_ended());
        if let Some(head) = head.filter(|head| head.due.is_none() && head.state != State::Held) {
            head.due = Some(now);
        }
    }

    fn count_lanes(&mut self) {
        let mut lanes = BTreeMap::<Lane, u32>::new();
        for row in self.rows.values().filter(|row| !row.state.is_ended()) {
            *lanes.entry(row.delivery.lane).or_default() += 1;
        }
        let few = lanes.values().sum::<u32>() <= 20;
        self.heard.push_back(Heard::Lanes(few.then(|| lanes.into_iter().collect())));
    }

    pub(super) fn claim(&mut self) {
        let (room, token) = (self.room(), self.tokens.take());
        if !self.claimed.is_empty() || room == 0 {
            return;
        }
        let until = self.now + TIMEOUT * limits::LEASE_TIMEOUTS + limits::LEASE_MARGIN;
        let now = self.now;
        let first = self.first_of_lanes();
        let is_due = |row: &Row| row.due.is_some_and(|due| due <= now);
        let may = |row: &Row| is_due(row) && (row.lease.is_none() || first.contains(&row.delivery.id));
        let due = self.rows.values_mut().filter(|row| may(row)).take(room);
        let claimed = due.map(|row| {
            (row.due, row.lease) = (Some(until), Some(token));
            let (delivery, lease) = (row.delivery.clone(), Lease::with_token(token));
            let tried = u32::from(matches!(row.state, State::Retrying { .. }));
            let sent_again_at = row.again.then_some(now);
            Claimed { delivery, attempts: tried, on_schedule: tried, sent_again_at, lease }
        });
        self.claimed.push_back(claimed.collect());
    }

    pub(super) fn chores(&mut self) {
        let mut lanes = HashSet::new();
        for row in self.rows.values_mut().filter(|row| !row.state.is_ended() && row.lease.is_none()) {
            if self.suspended {
                (row.state, row.due) = (State::Held, None);
            } else if row.state == State::Held {
                row.state = State::Pending;
                lanes.insert(row.delivery.lane);
            }
        }
        for lane in lanes {
            self.wake(lane);
        }
    }

    pub(super) fn replay(&mut self) {
        let mut lanes = HashSet::new();
        for row in self.rows.values_mut().filter(|row| matches!(row.state, State::Failed(_))) {
            (row.state, row.again) = (State::Pending, true);
            lanes.insert(row.delivery.lane);
        }
        for lane in lanes {
            self.wake(lane);
        }
        // Of which the dispatcher hears some time.
        self.heard.push_back(Heard::Moved);
    }

    /// The first open one of each lane.
    fn first_of_lanes(&self) -> HashSet<DeliveryId> {
        let mut seen = HashSet::new();
        let open = self.rows.values().filter(|row| !row.state.is_ended()).map(|row| &row.delivery);
        open.filter(|delivery| seen.insert(delivery.lane)).map(|delivery| delivery.id.clone()).collect()
    }

    /// Another process takes the ledger over: leases mean nothing any more.
    pub(super) fn void_leases(&mut self) {
        let (first, now) = (self.first_of_lanes(), self.now);
        for row in self.rows.values_mut().filter(|row| row.lease.is_some()) {
            row.lease = None;
            row.due = first.contains(&row.delivery.id).then_some(now);
        }
    }
}
