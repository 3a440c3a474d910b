//! A model of everything around a [`Queue`]: a ledger, a writer that is late, a claimer, receivers, an operator.

mod ledger;

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use tokio::sync::Semaphore;

use self::ledger::Row;
use super::super::super::begin::{Ended, Whose};
use super::super::super::turn::{Load, Tokens};
use super::super::*;
use crate::domain::{
    CommitLsn, DeliveryId, EndLsn, EventId, Lsn, Operation, Origin, Outcome, Place, RefusedBy, array_bytes,
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

/// What the writer answers.
enum Heard {
    Inserted(Lane, bool),
    Finished(Lane, bool, bool),
    Lanes(Option<Vec<(Lane, u32)>>),
    /// Somebody else has moved rows.
    Moved,
}

/// A request under way.
#[expect(clippy::large_enum_variant, reason = "there are few at once")]
enum Flight {
    One(Member),
    Batch(Vec<Member>),
}

enum Member {
    Young(Lane, DeliveryId),
    Claimed(Claimed),
    Probe(Claimed),
}

impl Flight {
    fn is_probe(&self) -> bool {
        match self {
            Self::One(member) => matches!(member, Member::Probe(_)),
            Self::Batch(members) => members.iter().any(|member| matches!(member, Member::Probe(_))),
        }
    }
}

impl Member {
    fn of(start: Start, is_probe: bool) -> Self {
        match start {
            Start::Young(delivery) => Self::Young(delivery.lane, delivery.id),
            Start::Claimed(claimed) if is_probe => Self::Probe(claimed),
            Start::Claimed(claimed) => Self::Claimed(claimed),
        }
    }

    fn id(&self) -> &DeliveryId {
        match self {
            Self::Young(_, id) => id,
            Self::Claimed(claimed) | Self::Probe(claimed) => &claimed.delivery.id,
        }
    }
}

pub(super) struct World {
    ordering: Ordering,
    batch: Option<Batching>,
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

fn rules(ordering: Ordering, concurrency: usize, batch: Option<Batching>) -> Rules {
    Rules { ordering, concurrency, timeout: TIMEOUT, batch }
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
    pub fn new(ordering: Ordering, mode: Mode, batch: Option<Batching>) -> Self {
        Self {
            ordering,
            batch,
            queue: Queue::new("crm".into(), rules(ordering, 2, batch), mode),
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
            let is_probe = self.queue.is_diverted();
            let flight = match self.queue.rules.batch {
                None => self.queue.start(at).map(|start| self.launch_one(start, is_probe)),
                Some(batching) => self.start_batch(batching, is_probe),
            };
            let Some(flight) = flight else { break };
            self.flights.push(flight);
            assert!(self.flights.len() <= self.queue.rules.concurrency, "more in flight than may be");
        }
    }

    /// Offers a delivery that differs from the usual ones, in a lane of its own.
    pub fn offer_changed(&mut self, number: usize, change: fn(&mut Delivery)) {
        let mut delivery = delivery(number, 100 + i64::try_from(number).expect("few"));
        change(&mut delivery);
        self.offer(delivery, number);
    }

    fn launch_one(&self, start: Start, is_probe: bool) -> Flight {
        self.check_order(start.delivery(), &[]);
        Flight::One(Member::of(start, is_probe))
    }

    fn start_batch(&mut self, batching: Batching, is_probe: bool) -> Option<Flight> {
        let Batching { policy, attempts } = batching;
        if let Some(until) = self.queue.ripens(self.at) {
            assert!(!is_probe && until > self.at && until <= self.at + policy.max_wait, "it waits too long");
            let ready = self.queue.ready.iter().map(|lane| self.queue.lanes[lane].waiting.len());
            assert!(ready.sum::<usize>() < policy.max_events, "a full batch waits");
            return None;
        }
        let members = match self.queue.start_batch(batching, self.at)? {
            Sending::One(start) => panic!("no array of {}", start.delivery().id),
            Sending::Batch(members) => members,
        };
        let ids: Vec<DeliveryId> = members.iter().map(|member| member.delivery().id.clone()).collect();
        assert!(ids.is_sorted(), "not in commit order");
        for (place, member) in members.iter().enumerate() {
            self.check_order(member.delivery(), &ids[..place]);
            let tried = match member {
                Start::Young(_) => 0,
                Start::Claimed(claimed) => claimed.on_schedule,
            };
            assert!(members.len() <= policy.most(tried, attempts), "too many");
        }
        let bytes = members.iter().map(|member| member.delivery().body.len()).sum();
        assert!(members.len() == 1 || array_bytes(members.len(), bytes) <= policy.max_bytes, "too large");
        Some(Flight::Batch(members.into_iter().map(|start| Member::of(start, is_probe)).collect()))
    }

    fn probes(&self) -> bool {
        self.flights.iter().any(Flight::is_probe)
    }

    fn room(&self) -> usize {
        let probe = usize::from(self.queue.claimed_waiting() == 0 && !self.suspended && !self.probes());
        if self.queue.is_diverted() { probe } else { self.queue.room(usize::MAX) }
    }

    /// Invariant I7: all earlier ones of the lane have ended, or stand before it in the same batch.
    fn check_order(&self, begins: &Delivery, before: &[DeliveryId]) {
        if self.ordering == Ordering::None {
            return;
        }
        let earlier = self.offered.iter().filter(|(d, _)| d.lane == begins.lane && d.id < begins.id);
        for (delivery, ended) in earlier {
            let ended = *ended || before.contains(&delivery.id);
            assert!(ended, "{} begins before {} has ended", begins.id, delivery.id);
        }
    }

    fn end(&mut self, index: usize, ends: Ends) {
        if self.flights.is_empty() {
            return;
        }
        match self.flights.swap_remove(index % self.flights.len()) {
            Flight::One(member) => {
                let verdict = self.verdict(&member, ends);
                self.with(|queue, turn| match member {
                    Member::Young(lane, _) => queue.young_ended(lane, attempt(), verdict, turn),
                    Member::Claimed(claimed) => queue.claimed_ended(claimed, attempt(), verdict, turn),
                    Member::Probe(claimed) => queue.probe_ended(claimed, attempt(), verdict, turn),
                });
            }
            Flight::Batch(members) => {
                let ended = |(place, member): (usize, Member)| {
                    // One may have used up its schedule and another not.
                    let is_other = ends == Ends::Badly && place % 2 == 1;
                    let verdict = self.verdict(&member, if is_other { Ends::Retry } else { ends });
                    let is_probe = matches!(member, Member::Probe(_));
                    let whose = match member {
                        Member::Young(lane, _) => Whose::Young { webhook: "crm".into(), lane },
                        Member::Claimed(claimed) | Member::Probe(claimed) => Whose::Claimed(claimed),
                    };
                    Ended { whose, attempt: attempt(), verdict, is_probe }
                };
                let members = members.into_iter().enumerate().map(ended).collect();
                self.with(|queue, turn| queue.batch_ended(members, turn));
            }
        }
    }

    fn verdict(&mut self, member: &Member, ends: Ends) -> Verdict {
        let known = self.offered.iter_mut().find(|(d, _)| d.id == *member.id()).expect("it was offered");
        known.1 |= ends != Ends::Retry;
        match ends {
            Ends::Well => Verdict::Delivered,
            Ends::Retry => Verdict::Retry(Duration::from_secs(1)),
            Ends::Badly => Verdict::Failed(FailReason::AttemptsExhausted),
            Ends::Gone => Verdict::Failed(FailReason::Gone),
        }
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
                Heard::Moved => queue.by_ledger(turn),
            });
        }
    }

    /// What somebody else has done is not heard of.
    pub fn lose_hints(&mut self) {
        self.heard.retain(|heard| !matches!(heard, Heard::Moved));
    }

    fn take_claimed(&mut self) {
        for claimed in self.claimed.pop_front().unwrap_or_default() {
            self.with(|queue, turn| queue.take_claimed(claimed, turn));
        }
    }

    /// The process ends; the next one takes over and reads the log from where it was confirmed.
    fn restart(&mut self) {
        let EndLsn(Lsn(confirmed)) = *self.settlement.confirmed().borrow();
        self.epoch += 1;
        let before = std::mem::replace(self, Self::new(self.ordering, Mode::Ledger, self.batch));
        (self.epoch, self.at, self.now) = (before.epoch, before.at, before.now);
        self.tokens = Tokens::of_epoch(before.epoch);
        (self.rows, self.offered, self.used) = (before.rows, before.offered, before.used);
        self.void_leases();
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
                let batch = self.batch.filter(|_| concurrency != 3);
                let rules = rules(self.ordering, concurrency, batch);
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
        assert_eq!(queue.waiting_bytes, 0);
        assert!(queue.lanes.is_empty() && queue.ready.is_empty() && queue.claimed.is_empty());
        assert!(queue.transit.is_empty() && queue.blocked.is_empty(), "{queue:?}");
        assert_eq!(self.load, Load::default());
    }
}
