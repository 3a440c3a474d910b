//! Ten thousand webhooks over a day, in virtual time: the dispatcher as it is, between a model of the ledger and receivers
//! of which one in a hundred is dead, one hangs, five are slow and five flap.
//!
//! Three times a day a change concerns all webhooks at once; besides, each has its own. At three o'clock those that suffer
//! are owed a heap. After the day everybody is well, and everything must come to its end.

mod catalog;
mod day;
mod model;
mod probe;
mod standstill;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use self::model::Model;
use super::begin::{Ended, Whose, opened, spared};
use super::claims::{Answer, Ask};
use super::queue::{Sending, Start};
use super::run::State;
use super::{Dispatcher, Offer, Young};
use crate::catalog::{Compiled, Published, Rows, compile_with};
use crate::clock::{Clock, since};
use crate::config::{Checks, Config, Sources};
use crate::domain::{
    Attempt, CommitLsn, Delivery, DeliveryId, EndLsn, EventId, Lane, Lsn, Operation, Origin, Outcome, Place,
    TimeoutStage, UnreachableBy, Verdict, judge, limits,
};
use crate::ledger::Ledger;
use crate::ledger::writer::{Ack, Command};
use crate::settlement::Settlement;
use crate::tasks::Tasks;
use crate::transport::{Lookups, Policy, Transport, TransportOptions};

const WEBHOOKS: usize = 10_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
const LEDGER_TAKES: Duration = Duration::from_millis(4);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Healthy,
    Dead,
    Hanging,
    Slow,
    Flapping,
}

/// One in a hundred of the first two, five of the others.
fn kind(webhook: usize) -> Kind {
    match webhook % 100 {
        0 => Kind::Dead,
        1 => Kind::Hanging,
        2..7 => Kind::Slow,
        7..12 => Kind::Flapping,
        _ => Kind::Healthy,
    }
}

/// How much those that suffer are owed at three o'clock.
fn heap(kind: Kind) -> usize {
    match kind {
        Kind::Healthy => 0,
        Kind::Slow => 10,
        Kind::Dead | Kind::Hanging | Kind::Flapping => 40,
    }
}

/// When a change concerns all of them.
fn bursts() -> impl Iterator<Item = Duration> {
    (0..3).map(|n| DAY / 3 * n + Duration::from_secs(60))
}

/// How many events of its own a webhook has in a day; more by the environment.
#[expect(clippy::disallowed_methods, reason = "a test's knob is no part of the configuration")]
fn own_events() -> usize {
    std::env::var("WALHOOK_SIMULATION").ok().map_or(1, |text| text.parse().expect("a number"))
}

enum Happening {
    Owed(usize, u64),
    Ends(Box<(Start, Attempt, bool, Arc<Compiled>)>),
    Writes(Vec<Command>),
    Heard(Vec<Ack>),
    Asked(Ask),
    Answered(Answer),
}

struct World {
    state: State,
    commands: mpsc::UnboundedReceiver<Command>,
    asks: mpsc::Receiver<Ask>,
    happenings: BTreeMap<(Instant, u64), Happening>,
    order: u64,
    model: Model,
    start: Instant,
    began: Timestamp,
    settlement: Settlement,
    memory: Arc<Semaphore>,
    /// What the log holds that memory has no room for.
    unread: VecDeque<Delivery>,
    /// What has not ended, by webhook and lane.
    owed: HashMap<(Arc<str>, Lane), BTreeSet<String>>,
    /// When the ledger commits nothing.
    standstill: Option<Range<Duration>>,
    seen: Seen,
}

/// What is looked at in the end.
#[derive(Debug, Default)]
struct Seen {
    owed: usize,
    delivered: usize,
    failed: HashMap<&'static str, usize>,
    /// Ages of the healthy ones' deliveries, in milliseconds: of the first hour, when nobody is known yet; of the later changes
    /// that concern all at once; and of those that are theirs alone.
    first: Vec<u128>,
    ages: Vec<u128>,
    own: Vec<u128>,
    young: usize,
    /// The most that stood in any list of those that wait for something.
    listed: usize,
    unwritten: usize,
    opened: usize,
    attempts: usize,
}

fn name(webhook: usize) -> Arc<str> {
    format!("w{webhook:05}").into()
}

fn config() -> Config {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("walhook.toml");
    std::fs::write(&path, "[database]\nurl = 'postgres://walhook@127.0.0.1:9/none'\n").expect("a file");
    let checks = Checks {
        condition: &|_| Ok(()),
        template: &|_| Ok(()),
        connection: &|_| Ok(()),
        reach: &|_| Ok(()),
        stored: crate::config::StoredTemplates::NONE,
    };
    crate::config::load(&Sources { path: Some(path), environment: Vec::new() }, &checks).expect("a file")
}

fn published() -> Published {
    let row = |webhook: usize| {
        let url = "https://receiver.example.com/";
        let row = json!({ "name": &*name(webhook), "url": url, "events": ["orders.*"] });
        Arc::new(row.as_object().expect("one").clone())
    };
    let rows = Rows { webhooks: (0..WEBHOOKS).map(row).collect(), ..Rows::default() };
    let snapshot = compile_with(&config(), &rows).expect("webhooks");
    assert_eq!(snapshot.webhooks().len(), WEBHOOKS);
    Published { snapshot: Arc::new(snapshot), ..Published::default() }
}

fn delivery(webhook: usize, change: u64, now: Timestamp) -> Delivery {
    let origin = Origin { system: 1, generation: 1 };
    let place = Place { origin, commit: CommitLsn(Lsn(change)), sequence: 1 };
    let name = name(webhook);
    Delivery {
        id: DeliveryId::of(&place, "", &name),
        event_id: EventId::of(&place, ""),
        event_type: "orders.updated".into(),
        webhook: name,
        lane: Lane(i64::try_from(change % 20).expect("a small number")),
        schema: "public".into(),
        table: "orders".into(),
        key: "".into(),
        operation: Operation::Update,
        committed_at: now,
        content_type: "application/json".into(),
        headers: None,
        body: Bytes::from_static(&[b'x'; 200]),
    }
}

impl World {
    fn new(published: Published) -> Self {
        let start = Instant::now();
        let clock = Clock::turned(Timestamp::from_second(1_800_000_000).expect("a time"), 7);
        let policy = Policy { allow_http: false, allow_networks: Vec::new(), ..Policy::default() };
        let options = TransportOptions {
            tenants: policy.clone(),
            policy,
            capture_bytes: 0,
            clock: clock.clone(),
            extra_roots: Vec::new(),
            lookups: Lookups::of_the_system(),
            connect_within: limits::CONNECT_TIMEOUT,
        };
        let memory = Arc::new(Semaphore::new(limits::YOUNG_BYTES));
        let server = crate::postgres::Server::parse("postgres://walhook@127.0.0.1:9/none").expect("a url");
        let with = Dispatcher {
            transport: Transport::new(options).expect("a client"),
            clock,
            tasks: Tasks::new().0,
            ledger: Ledger::new(server, "walhook"),
            epoch: 1,
            handover_after: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(10),
            open_at_start: std::collections::HashSet::new(),
            health: HashMap::new(),
            refused: mpsc::channel(1).0,
            memory: Arc::clone(&memory),
            memory_bytes: limits::YOUNG_BYTES,
        };
        let (out, commands) = mpsc::unbounded_channel();
        let (ended, _) = mpsc::unbounded_channel();
        let (asking, asks) = mpsc::channel(1);
        let mut state = State::new(with, published, out, ended, asking);
        let began = state.with.clock.now();
        state.launched = Some(Vec::new());
        state.take_catalog();
        Self {
            state,
            commands,
            asks,
            happenings: BTreeMap::new(),
            order: 0,
            model: Model::default(),
            start,
            began,
            settlement: Settlement::new(),
            memory,
            unread: VecDeque::new(),
            owed: HashMap::new(),
            standstill: None,
            seen: Seen::default(),
        }
    }

    fn at(&mut self, at: Instant, happening: Happening) {
        self.order += 1;
        self.happenings.insert((at, self.order), happening);
    }

    /// The day's changes; of the ones that suffer only where there are any.
    fn plan(&mut self, with_others: bool) {
        let mut change = 0;
        for webhook in 0..WEBHOOKS {
            let suffers = kind(webhook) != Kind::Healthy;
            if suffers && !with_others {
                continue;
            }
            let mut dice = fastrand::Rng::with_seed(u64::try_from(webhook).expect("a number"));
            let mut times: Vec<Duration> = bursts().collect();
            times.extend((0..own_events()).map(|_| DAY.mul_f64(dice.f64())));
            times.extend((0..heap(kind(webhook))).map(|_| Duration::from_secs(3 * 3600)));
            // Ids follow the log.
            times.sort_unstable();
            for time in times {
                change += 1;
                let at = self.start + Duration::from_millis(u64::try_from(time.as_millis()).expect("a day"));
                self.at(at, Happening::Owed(webhook, change));
            }
        }
    }

    /// How an attempt at a webhook ends, and how long it takes.
    fn answer(&self, webhook: usize, dice: f64) -> (Outcome, Duration) {
        let passed = self.start.elapsed();
        let is_well = passed >= DAY;
        let responded = |status| Outcome::Responded { status, retry_after: None, body: Bytes::new() };
        let quick = Duration::from_millis(5) + Duration::from_millis(45).mul_f64(dice);
        match kind(webhook) {
            _ if is_well => (responded(200), quick),
            Kind::Healthy => (responded(200), quick),
            Kind::Dead => {
                let reason = "connection refused".to_owned();
                (Outcome::Unreachable { by: UnreachableBy::Connect, reason }, Duration::from_millis(2))
            }
            Kind::Hanging => (Outcome::TimedOut { stage: TimeoutStage::Response }, Duration::from_secs(15)),
            Kind::Slow => (responded(200), Duration::from_secs(2) + Duration::from_secs(3).mul_f64(dice)),
            Kind::Flapping => {
                let turn = passed.as_secs() / 600 + u64::try_from(webhook).expect("a number");
                (responded(if turn.is_multiple_of(2) { 200 } else { 503 }), quick)
            }
        }
    }

    fn launch(&mut self, target: Arc<Compiled>, start: Start, is_probe: bool) {
        let delivery = match &start {
            Start::Young(delivery) => delivery,
            Start::Claimed(claimed) => &claimed.delivery,
        };
        let first = self.owed.get(&(Arc::clone(&delivery.webhook), delivery.lane)).and_then(BTreeSet::first);
        assert_eq!(first.map(String::as_str), Some(delivery.id.as_str()), "overtaken");
        let webhook = delivery.webhook.get(1..).and_then(|n| n.parse().ok()).expect("a name");
        let (outcome, took) = self.answer(webhook, self.state.with.clock.dice());
        let attempt = Attempt { number: 1, started_at: self.state.with.clock.now(), took, outcome };
        self.seen.attempts += 1;
        self.at(Instant::now() + took, Happening::Ends(Box::new((start, attempt, is_probe, target))));
    }

    fn end(&mut self, start: Start, attempt: Attempt, is_probe: bool, target: &Compiled) {
        let (delivery, whose, number, on_schedule) = opened(start);
        let clock = &self.state.with.clock;
        let age = since(clock.now(), delivery.committed_at);
        let verdict = judge(&attempt.outcome, on_schedule, &target.webhook.retry, age, clock.dice());
        let verdict = if is_probe { spared(verdict) } else { verdict };
        let is_healthy =
            delivery.webhook.get(1..).and_then(|n| n.parse().ok()).map(kind) == Some(Kind::Healthy);
        if !matches!(verdict, Verdict::Retry(_)) {
            let lane = (Arc::clone(&delivery.webhook), delivery.lane);
            let left = self.owed.get_mut(&lane).expect("it was owed");
            assert!(left.remove(delivery.id.as_str()), "ended twice");
            if left.is_empty() {
                self.owed.remove(&lane);
            }
        }
        match &verdict {
            Verdict::Delivered => {
                self.seen.delivered += 1;
                if is_healthy {
                    let committed = since(delivery.committed_at, self.began);
                    let ages = match committed {
                        _ if committed < Duration::from_secs(3600) => &mut self.seen.first,
                        _ if bursts().any(|burst| burst == committed) => &mut self.seen.ages,
                        _ => &mut self.seen.own,
                    };
                    ages.push(age.as_millis());
                }
            }
            Verdict::Failed(_) => {
                let webhook = delivery.webhook.get(1..).and_then(|n| n.parse().ok()).expect("a name");
                let kind = match kind(webhook) {
                    Kind::Healthy => "healthy",
                    Kind::Dead => "dead",
                    Kind::Hanging => "hanging",
                    Kind::Slow => "slow",
                    Kind::Flapping => "flapping",
                };
                *self.seen.failed.entry(kind).or_default() += 1;
            }
            Verdict::Retry(_) => {}
        }
        let attempt = Attempt { number, ..attempt };
        debug_assert!(matches!(&whose, Whose::Young { .. } | Whose::Claimed(_)));
        self.state.end(Ended { whose, attempt, verdict, is_probe });
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.state.with.clock.now();
        match happening {
            Happening::Owed(webhook, change) => {
                let delivery = delivery(webhook, change, now);
                let lane = (Arc::clone(&delivery.webhook), delivery.lane);
                self.owed.entry(lane).or_default().insert(delivery.id.as_str().to_owned());
                self.seen.owed += 1;
                self.unread.push_back(delivery);
            }
            Happening::Ends(ends) => {
                let (start, attempt, is_probe, target) = *ends;
                self.end(start, attempt, is_probe, &target);
            }
            Happening::Writes(commands) => {
                let acks =
                    commands.into_iter().filter_map(|command| self.model.write(command, now)).collect();
                self.at(Instant::now(), Happening::Heard(acks));
            }
            Happening::Heard(acks) => self.state.acknowledge(acks),
            Happening::Asked(Ask::Claim { rooms, token, .. }) => {
                let claims = self.model.claim(&rooms, token, now);
                self.at(Instant::now(), Happening::Answered(Answer::Claims(claims)));
            }
            Happening::Asked(Ask::Survey) => {
                let webhooks = self.model.webhooks();
                self.at(Instant::now(), Happening::Answered(Answer::Survey(webhooks)));
            }
            Happening::Answered(answer) => self.state.answered(answer),
        }
    }

    /// Intake: as much as memory has room for.
    fn read(&mut self) {
        while let Some(delivery) = self.unread.pop_front() {
            let bytes = delivery.body.len() + limits::DELIVERY_OVERHEAD_BYTES;
            let bytes = u32::try_from(bytes).expect("a small number");
            let Ok(permit) = Arc::clone(&self.memory).try_acquire_many_owned(bytes) else {
                self.unread.push_front(delivery);
                return;
            };
            let owed = self.settlement.owe();
            self.settlement.end(EndLsn(Lsn(1)));
            let young = Young { delivery, owed, permit: Some(permit), since: Instant::now() };
            self.state.offered.push_back(Offer::Send(young));
        }
    }

    /// One turn of the dispatcher, and what it sets going.
    fn turn(&mut self) {
        self.read();
        self.state.turn();
        for (target, sending, is_probe) in self.state.launched.replace(Vec::new()).unwrap_or_default() {
            let Sending::One(start) = sending else { panic!("nobody asked for batches") };
            self.launch(target, start, is_probe);
        }
        let mut commands = Vec::new();
        while let Ok(command) = self.commands.try_recv() {
            commands.push(command);
        }
        let soon = Instant::now() + LEDGER_TAKES;
        if !commands.is_empty() {
            let stands = self.standstill.as_ref().filter(|stands| stands.contains(&self.start.elapsed()));
            let written = stands.map_or(soon, |stands| self.start + stands.end);
            self.at(written, Happening::Writes(commands));
        }
        self.seen.unwritten = self.seen.unwritten.max(self.state.unwritten.count());
        while let Ok(ask) = self.asks.try_recv() {
            self.at(soon, Happening::Asked(ask));
        }
        let most = limits::IN_FLIGHT + limits::IN_FLIGHT_SLOW;
        assert!(self.state.share.all <= most, "too much in flight");
        assert!(self.state.load.count <= limits::IN_FLIGHT, "too much claimed");
        self.seen.young = self.seen.young.max(limits::YOUNG_BYTES - self.memory.available_permits());
        self.seen.opened = self.seen.opened.max(self.state.open);
        let State { crowd, paced, roomless, touched, .. } = &self.state;
        let listed = [crowd.len(), paced.len(), roomless.len(), touched.len()].into_iter().max();
        self.seen.listed = self.seen.listed.max(listed.unwrap_or_default());
    }

    async fn run(mut self) -> Seen {
        let last = self.start + DAY + DAY / 4;
        loop {
            let wake = self.state.wake_at();
            let next = self.happenings.first_key_value().map_or(wake, |((at, _), _)| wake.min(*at));
            assert!(next <= last, "not everything came to its end: {} lanes are left", self.owed.len());
            let now = Instant::now();
            if next > now {
                tokio::time::advance(next - now).await;
            }
            while self.happenings.first_key_value().is_some_and(|((at, _), _)| *at <= Instant::now())
                && let Some((_, happening)) = self.happenings.pop_first()
            {
                self.happen(happening);
            }
            self.turn();
            let is_over = self.start.elapsed() > DAY && self.happenings.is_empty();
            if is_over && self.owed.is_empty() && self.model.is_empty() {
                assert_eq!(self.state.open, 0, "a breaker is open, though everybody is well");
                assert!(self.model.failing.values().all(|open| !open), "the ledger holds another for open");
                return self.seen;
            }
        }
    }
}
