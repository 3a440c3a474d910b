//! A model of everything around a [`Queue`]: a ledger, a writer that is late, a claimer, receivers, an operator.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::super::super::turn::{Load, Tokens};
use super::super::*;
use crate::domain::limits;
use crate::domain::{
    CommitLsn, DeliveryId, EndLsn, EventId, Lsn, Operation, Origin, Outcome, Place, RefusedBy,
};
use crate::settlement::Settlement;

/// One step of a walk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Offer(i64),
    Start,
    End(usize, Ends),
    /// The writer takes so many commands.
    Write(usize),
    /// So many of its answers arrive.
    Hear(usize),
    Claim,
    TakeClaimed,
    Count,
    Pass(Duration),
    Spill,
    Pause,
    Resume,
    /// The chores hold or release.
    Chores,
    /// Failed deliveries are sent again by hand.
    Replay,
    Redeclare(usize),
    /// The receiver fails: a breaker opens.
    Fail,
    /// It closes.
    Mend,
    Crash,
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ends {
    Well,
    Retry,
    Badly,
    Gone,
}

/// A row of the model's ledger.
#[derive(Debug)]
struct Row {
    delivery: Delivery,
    state: State,
    /// When it is due, in seconds.
    due: Option<Timestamp>,
    lease: Option<i64>,
}

/// What the writer answers.
enum Heard {
    Inserted(Lane, bool),
    Finished(Lane, bool, bool),
    Lanes(Option<Vec<(Lane, u32)>>),
}

enum Flight {
    Young(Lane, DeliveryId),
    Claimed(Claimed),
    Probe(Claimed),
}

pub(super) struct World {
    ordering: Ordering,
    pub queue: Queue,
    tokens: Tokens,
    load: Load,
    epoch: i64,
    at: Instant,
    now: Timestamp,
    pub commands: VecDeque<Command>,
    fresh: Vec<Command>,
    heard: VecDeque<Heard>,
    claimed: VecDeque<Vec<Claimed>>,
    flights: Vec<Flight>,
    rows: BTreeMap<String, Row>,
    suspended: bool,
    settlement: Settlement,
    memory: Arc<Semaphore>,
    /// All that was ever offered, in order, and whether an attempt of it has ended for good.
    offered: Vec<(Delivery, bool)>,
    used: HashSet<String>,
}

const MEMORY: usize = 100_000;
const TIMEOUT: Duration = Duration::from_secs(10);

fn rules(ordering: Ordering, concurrency: usize) -> Rules {
    Rules { ordering, concurrency, timeout: TIMEOUT }
}

fn delivery(number: usize, lane: i64) -> Delivery {
    let commit = CommitLsn(Lsn(number as u64 + 1));
    let place = Place { origin: Origin { system: 1, generation: 1 }, commit, sequence: 1 };
    Delivery {
        id: DeliveryId::of(&place, "", "crm"),
        event_id: EventId::of(&place, ""),
        event_type: "t.created".into(),
        webhook: "crm".into(),
        lane: Lane(lane),
        schema: "public".into(),
        table: "t".into(),
        key: "".into(),
        operation: Operation::Insert,
        committed_at: Timestamp::UNIX_EPOCH,
        content_type: "application/json".into(),
        headers: None,
        body: Bytes::from_static(b"0123456789"),
    }
}

fn attempt() -> Attempt {
    let outcome = Outcome::Refused { by: RefusedBy::Request, reason: String::new() };
    Attempt { number: 1, started_at: Timestamp::UNIX_EPOCH, took: Duration::ZERO, outcome }
}

impl World {
    pub fn new(ordering: Ordering, mode: Mode) -> Self {
        Self {
            ordering,
            queue: Queue::new("crm".into(), rules(ordering, 2), mode),
            tokens: Tokens::of_epoch(1),
            load: Load::default(),
            epoch: 1,
            at: Instant::now(),
            now: Timestamp::UNIX_EPOCH,
            commands: VecDeque::new(),
            fresh: Vec::new(),
            heard: VecDeque::new(),
            claimed: VecDeque::new(),
            flights: Vec::new(),
            rows: BTreeMap::new(),
            suspended: false,
            settlement: Settlement::new(),
            memory: Arc::new(Semaphore::new(MEMORY)),
            offered: Vec::new(),
            used: HashSet::new(),
        }
    }

    pub fn with<T>(&mut self, decide: impl FnOnce(&mut Queue, &mut Turn<'_>) -> T) -> T {
        let (tokens, load) = (&mut self.tokens, &mut self.load);
        let mut turn = Turn { at: self.at, now: self.now, tokens, load, commands: &mut self.fresh };
        let answer = decide(&mut self.queue, &mut turn);
        for command in self.fresh.drain(..) {
            if let Command::Finish(finish) = &command {
                let used = format!("{} {:?}", finish.id, finish.lease);
                assert!(self.used.insert(used), "a lease was used twice");
            }
            self.commands.push_back(command);
        }
        answer
    }

    fn offer(&mut self, delivery: Delivery, number: usize) {
        let owed = self.settlement.owe();
        self.settlement.end(EndLsn(Lsn(number as u64 + 1)));
        let permit = Arc::clone(&self.memory).try_acquire_owned().expect("memory");
        let young = Young { delivery, owed, permit: Some(permit), since: self.at };
        self.with(|queue, turn| queue.offer(young, turn));
    }

    fn start(&mut self) {
        let at = self.at;
        while !(self.queue.is_diverted() && self.probes()) {
            let Some(start) = self.queue.start(at) else { break };
            let delivery = match &start {
                Start::Young(delivery) => delivery,
                Start::Claimed(claimed) => &claimed.delivery,
            };
            self.check_order(delivery);
            self.flights.push(match start {
                Start::Young(delivery) => Flight::Young(delivery.lane, delivery.id),
                Start::Claimed(claimed) if self.queue.is_diverted() => Flight::Probe(claimed),
                Start::Claimed(claimed) => Flight::Claimed(claimed),
            });
            assert!(self.flights.len() <= self.queue.rules.concurrency, "more in flight than may be");
        }
    }

    fn probes(&self) -> bool {
        self.flights.iter().any(|flight| matches!(flight, Flight::Probe(_)))
    }

    fn room(&self) -> usize {
        let probe = usize::from(self.queue.claimed_waiting() == 0 && !self.suspended && !self.probes());
        if self.queue.is_diverted() { probe } else { self.queue.room(usize::MAX) }
    }

    /// Invariant I7: all earlier ones of the lane have ended.
    fn check_order(&self, begins: &Delivery) {
        if self.ordering == Ordering::None {
            return;
        }
        let earlier = self.offered.iter().filter(|(d, _)| d.lane == begins.lane && d.id < begins.id);
        for (delivery, ended) in earlier {
            assert!(ended, "{} begins before {} has ended", begins.id, delivery.id);
        }
    }

    fn end(&mut self, index: usize, ends: Ends) {
        if self.flights.is_empty() {
            return;
        }
        let flight = self.flights.swap_remove(index % self.flights.len());
        let verdict = match ends {
            Ends::Well => Verdict::Delivered,
            Ends::Retry => Verdict::Retry(Duration::from_secs(1)),
            Ends::Badly => Verdict::Failed(FailReason::AttemptsExhausted),
            Ends::Gone => Verdict::Failed(FailReason::Gone),
        };
        let id = match &flight {
            Flight::Young(_, id) => id.clone(),
            Flight::Claimed(claimed) | Flight::Probe(claimed) => claimed.delivery.id.clone(),
        };
        let known = self.offered.iter_mut().find(|(d, _)| d.id == id).expect("it was offered");
        known.1 |= ends != Ends::Retry;
        self.with(|queue, turn| match flight {
            Flight::Young(lane, _) => queue.young_ended(lane, attempt(), verdict, turn),
            Flight::Claimed(claimed) => queue.claimed_ended(claimed, attempt(), verdict, turn),
            Flight::Probe(claimed) => queue.probe_ended(claimed, attempt(), verdict, turn),
        });
    }

    /// The writer takes commands: between two others, inserts before finishes, as one transaction.
    fn write(&mut self, most: usize) {
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
            State::Retrying { due } => (Some(*due), None),
            _ => (None, None),
        };
        self.heard.push_back(Heard::Inserted(lane, !state.is_ended()));
        let before = self.rows.insert(id, Row { delivery, state, due, lease });
        assert!(before.is_none(), "a delivery was recorded twice");
        self.settlement.settle([owed.expect("a young delivery owes")]);
    }

    fn finish(&mut self, finish: Finish) {
        let row = self.rows.get_mut(finish.id.as_str()).expect("a claimed delivery has its row");
        let holds = row.lease.is_some_and(|token| Lease::with_token(token) == finish.lease);
        let (lane, ended) = (row.delivery.lane, finish.state.is_ended());
        if holds {
            row.lease = None;
            row.due = match &finish.state {
                State::Pending => Some(self.now),
                State::Retrying { due } => Some(*due),
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

    fn hear(&mut self, most: usize) {
        for heard in self.heard.drain(..most.min(self.heard.len())).collect::<Vec<_>>() {
            self.with(|queue, turn| match heard {
                Heard::Inserted(lane, open) => {
                    if queue.inserted(lane, open) {
                        queue.by_ledger(turn);
                    }
                }
                Heard::Finished(lane, open, lost) => {
                    queue.finished(lane, open);
                    if lost {
                        queue.by_ledger(turn);
                    }
                }
                Heard::Lanes(lanes) => queue.counted(lanes),
            });
        }
    }

    fn claim(&mut self) {
        let (room, token) = (self.room(), self.tokens.take());
        if !self.claimed.is_empty() || room == 0 {
            return;
        }
        let until = self.now + TIMEOUT * limits::LEASE_TIMEOUTS + limits::LEASE_MARGIN;
        let now = self.now;
        let due = self.rows.values_mut().filter(|row| row.due.is_some_and(|due| due <= now)).take(room);
        let claimed = due.map(|row| {
            (row.due, row.lease) = (Some(until), Some(token));
            let (delivery, lease) = (row.delivery.clone(), Lease::with_token(token));
            Claimed { delivery, attempts: 1, on_schedule: 1, lease }
        });
        self.claimed.push_back(claimed.collect());
    }

    fn take_claimed(&mut self) {
        for claimed in self.claimed.pop_front().unwrap_or_default() {
            self.with(|queue, turn| queue.take_claimed(claimed, turn));
        }
    }

    fn chores(&mut self) {
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

    fn replay(&mut self) {
        let mut lanes = HashSet::new();
        for row in self.rows.values_mut().filter(|row| matches!(row.state, State::Failed(_))) {
            row.state = State::Pending;
            lanes.insert(row.delivery.lane);
        }
        for lane in lanes {
            self.wake(lane);
        }
        self.with(Queue::by_ledger);
    }

    /// The process ends; the next one takes over and reads the log from where it was confirmed.
    fn restart(&mut self) {
        let EndLsn(Lsn(confirmed)) = *self.settlement.confirmed().borrow();
        self.epoch += 1;
        let before = std::mem::replace(self, Self::new(self.ordering, Mode::Ledger));
        (self.epoch, self.at, self.now) = (before.epoch, before.at, before.now);
        self.tokens = Tokens::of_epoch(before.epoch);
        (self.rows, self.offered, self.used) = (before.rows, before.offered, before.used);
        for row in self.rows.values_mut().filter(|row| row.lease.is_some()) {
            (row.lease, row.due) = (None, Some(self.now));
        }
        self.settlement.end(EndLsn(Lsn(confirmed)));
        if before.suspended {
            self.suspended = true;
            self.with(Queue::suspend);
        }
        for number in 0..self.offered.len() {
            let delivery = self.offered[number].0.clone();
            if number as u64 + 1 > confirmed && !self.rows.contains_key(delivery.id.as_str()) {
                self.offer(delivery, number);
            }
            self.settlement.end(EndLsn(Lsn(number as u64 + 1)));
        }
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Offer(lane) => {
                let number = self.offered.len();
                let lane = match self.ordering {
                    Ordering::Row => lane,
                    Ordering::Strict => 0,
                    Ordering::None => 100 + i64::try_from(number).expect("few"),
                };
                let delivery = delivery(number, lane);
                self.offered.push((delivery.clone(), false));
                self.offer(delivery, number);
            }
            Step::Start => self.start(),
            Step::End(index, ends) => self.end(index, ends),
            Step::Write(most) => self.write(most),
            Step::Hear(most) => self.hear(most),
            Step::Claim => self.claim(),
            Step::TakeClaimed => self.take_claimed(),
            Step::Count if self.queue.mode() == Mode::Ledger => self.with(Queue::count),
            Step::Mend if self.queue.is_diverted() => self.queue.undivert(),
            Step::Count | Step::Mend => {}
            Step::Pass(time) => {
                (self.at, self.now) = (self.at + time, self.now + time);
                self.with(|queue, turn| queue.hand_over_aged(Duration::from_secs(1), turn));
            }
            Step::Spill => self.with(Queue::spill),
            Step::Pause => {
                self.suspended = true;
                self.with(Queue::suspend);
            }
            Step::Resume => {
                if std::mem::take(&mut self.suspended) {
                    self.with(Queue::resume);
                }
            }
            Step::Chores => self.chores(),
            Step::Replay => self.replay(),
            Step::Redeclare(concurrency) => {
                let rules = rules(self.ordering, concurrency);
                if self.flights.len() <= concurrency {
                    self.with(|queue, turn| queue.set_rules(rules, turn));
                    let claimed = self.queue.claimed.len();
                    assert!(concurrency > 0 || claimed == 0, "claimed for a webhook that is gone");
                }
            }
            Step::Fail => self.with(Queue::divert),
            Step::Crash => self.restart(),
            Step::Stop => {
                self.with(Queue::put_away);
                self.write(usize::MAX);
                assert!(self.settlement.is_settled(), "the stop left a delivery without its row");
                self.restart();
            }
        }
    }

    /// Lets everything come to its end, and looks at what is left.
    pub fn finish_all(&mut self) {
        self.step(Step::Redeclare(2));
        for turn in 0..10_000 {
            for step in [Step::Start, Step::End(0, Ends::Well), Step::Write(500), Step::Hear(500)] {
                self.step(step);
            }
            for step in [Step::Mend, Step::Resume, Step::Chores, Step::Count, Step::Claim, Step::TakeClaimed]
            {
                self.step(step);
            }
            if turn % 5 == 4 {
                self.step(Step::Pass(Duration::from_secs(20)));
            }
            let settled = self.commands.is_empty() && self.heard.is_empty();
            let ended = self.rows.values().all(|row| row.state.is_ended());
            if settled && ended && self.queue.is_empty() && self.queue.mode() == Mode::Memory {
                break;
            }
        }
        for (delivery, _) in &self.offered {
            let row = self.rows.get(delivery.id.as_str()).expect("every delivery has its row");
            assert!(row.state.is_ended(), "{} is left {:?} due {:?}", delivery.id, row.state, row.due);
        }
        assert!(self.settlement.is_settled(), "a debt was never settled");
        assert_eq!(*self.settlement.confirmed().borrow(), EndLsn(Lsn(self.offered.len() as u64)));
        assert_eq!(self.memory.available_permits(), MEMORY);
        let queue = &self.queue;
        assert_eq!((queue.mode, queue.waiting, queue.in_flight), (Mode::Memory, 0, 0));
        assert!(queue.lanes.is_empty() && queue.ready.is_empty() && queue.claimed.is_empty());
        assert!(queue.transit.is_empty() && queue.blocked.is_empty(), "{queue:?}");
        assert_eq!(self.load, Load::default());
    }
}
