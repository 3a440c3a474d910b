//! The dispatcher's loop: each turn takes one piece of news, lets the queues decide, and acts.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::attempt::attempt;
use super::claims::{self, Answer, Ask};
use super::queue::{Mode, Queue, Start};
use super::slot::{Slot, Slots, rules_of};
use super::turn::{Load, Tokens, Turn};
use super::{Dispatcher, Doors, Offer, tell};
use crate::catalog::{Compiled, Published};
use crate::clock::since;
use crate::domain::{Attempt, Lane, Verdict, judge, limits};
use crate::ledger::claim::{Claimed, Claims, Room};
use crate::ledger::writer::{Ack, Command};
use crate::tasks::Role;

/// How often what is young is looked through for what has waited too long.
const TICK: Duration = Duration::from_millis(100);
/// How often the ledger is surveyed for work that nobody told of.
const SURVEY_EVERY: Duration = Duration::from_secs(5);
/// Bytes of claimed bodies in memory, beyond which nothing more is claimed.
const CLAIMED_BYTES: usize = limits::YOUNG_BYTES / 2;
/// How long to wait where the ledger said that something is due and gave nothing: its clock may be behind ours, or
/// somebody else be at the rows.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// How an attempt ended, and whose it was.
#[derive(Debug)]
pub(super) struct Ended {
    whose: Whose,
    attempt: Attempt,
    verdict: Verdict,
}

#[derive(Debug)]
enum Whose {
    Young { webhook: Arc<str>, lane: Lane },
    Claimed(Claimed),
}

/// Everything the loop remembers.
pub(super) struct State {
    pub with: Dispatcher,
    pub slots: Slots,
    pub commands: Vec<Command>,
    pub tokens: Tokens,
    /// Offers taken from intake and not yet accepted.
    pub offered: VecDeque<Offer>,
    catalog: Published,
    out: mpsc::UnboundedSender<Command>,
    ended: mpsc::UnboundedSender<Ended>,
    asks: mpsc::Sender<Ask>,
    asking: bool,
    survey_at: Instant,
    tick_at: Instant,
    /// Whether anything waits that a tick must look at.
    restless: bool,
    /// Whether somebody else has put work into the ledger since the last survey was asked for.
    poked: bool,
    /// Whether the survey under way was asked for because of that.
    surveying_poke: bool,
    in_flight: usize,
    /// The claimed deliveries in memory.
    load: Load,
    /// Webhooks that may have something to start.
    touched: Vec<Arc<str>>,
    /// When to leave what is in flight to its lease; set while stopping.
    give_up_at: Option<Instant>,
}

impl Dispatcher {
    /// Runs until intake has stopped, everything in memory has a row and nothing is in flight.
    pub async fn run(self, doors: Doors) {
        let Doors { mut offers, commands, mut acks, catalog: mut news, mut pokes, stop } = doors;
        let (ended, mut endings) = mpsc::unbounded_channel();
        let (asks, asked) = mpsc::channel(1);
        let (answering, mut answers) = mpsc::channel(1);
        self.tasks.spawn("claims", Role::Essential, claims::serve(self.ledger.clone(), asked, answering));
        let catalog = news.borrow_and_update().clone();
        let mut state = State::new(self, catalog, commands, ended, asks);
        state.take_catalog();
        loop {
            state.turn();
            if state.has_ended() {
                break;
            }
            let wake = state.wake_at();
            let may_take = state.offered.is_empty() && !state.is_stopping();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !state.is_stopping() => state.put_away(),
                Some(ended) = endings.recv() => {
                    state.end(ended);
                    while let Ok(more) = endings.try_recv() {
                        state.end(more);
                    }
                }
                Some(acks) = acks.recv() => state.acknowledge(acks),
                Some(answer) = answers.recv() => state.answered(answer),
                Some(batch) = offers.recv(), if may_take => state.offered.extend(batch),
                Ok(()) = news.changed(), if !state.is_stopping() => {
                    state.catalog = news.borrow_and_update().clone();
                    state.take_catalog();
                }
                Ok(()) = pokes.changed(), if !state.is_stopping() => state.poke(),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        // What intake had offered and nobody had taken still gets its row.
        while let Some(batch) = offers.recv().await {
            state.offered.extend(batch);
            state.turn();
        }
    }
}

impl State {
    fn new(
        with: Dispatcher,
        catalog: Published,
        out: mpsc::UnboundedSender<Command>,
        ended: mpsc::UnboundedSender<Ended>,
        asks: mpsc::Sender<Ask>,
    ) -> Self {
        let tokens = Tokens::of_epoch(with.epoch);
        Self {
            with,
            slots: Slots::default(),
            commands: Vec::new(),
            tokens,
            offered: VecDeque::new(),
            catalog,
            out,
            ended,
            asks,
            asking: false,
            survey_at: Instant::now(),
            tick_at: Instant::now(),
            restless: true,
            poked: false,
            surveying_poke: false,
            in_flight: 0,
            load: Load::default(),
            touched: Vec::new(),
            give_up_at: None,
        }
    }

    /// Accepts, starts, asks and writes whatever can be.
    fn turn(&mut self) {
        if Instant::now() >= self.tick_at {
            self.tick();
        }
        self.accept();
        self.start_attempts();
        self.ask();
        for command in self.commands.drain(..) {
            if self.out.send(command).is_err() {
                tracing::debug!("the ledger's writer has ended");
            }
        }
        metrics::gauge!("walhook_deliveries_in_flight")
            .set(f64::from(u32::try_from(self.in_flight).unwrap_or(0)));
    }

    pub(super) fn touch(&mut self, webhook: &Arc<str>) {
        self.restless = true;
        if let Some(slot) = self.slots.get_mut(webhook)
            && !std::mem::replace(&mut slot.touched, true)
        {
            self.touched.push(Arc::clone(webhook));
        }
    }

    /// Lets a queue decide. `None` where the webhook is unknown.
    pub(super) fn with_queue<T>(
        &mut self,
        webhook: &str,
        decide: impl FnOnce(&mut Queue, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let now = self.with.clock.now();
        let (at, tokens, load) = (Instant::now(), &mut self.tokens, &mut self.load);
        let mut turn = Turn { at, now, tokens, load, commands: &mut self.commands };
        let slot = self.slots.get_mut(webhook)?;
        Some(decide(&mut slot.queue, &mut turn))
    }

    /// The webhook's slot, made where there is none; an undeclared one sends nothing. What the ledger held of it when
    /// this process took over has yet to be counted; without any, memory keeps the order from the first.
    pub(super) fn slot(&mut self, webhook: &Arc<str>) -> Option<&mut Slot> {
        if self.slots.get_mut(webhook).is_none() {
            let target = self.catalog.snapshot.by_name(webhook).cloned();
            let rules = rules_of(target.as_deref());
            let mode = if self.with.open_at_start.contains(webhook) { Mode::Ledger } else { Mode::Memory };
            self.slots.insert(Arc::clone(webhook), Slot::new(webhook, target, rules, mode));
        }
        self.slots.get_mut(webhook)
    }

    fn start_attempts(&mut self) {
        let mut waiting = Vec::new();
        for webhook in std::mem::take(&mut self.touched) {
            loop {
                let Some(slot) = self.slots.get_mut(&webhook) else { break };
                slot.touched = self.in_flight >= limits::IN_FLIGHT;
                if slot.touched {
                    waiting.push(webhook);
                    break;
                }
                let Some(target) = slot.target.clone() else { break };
                let Some(start) = slot.queue.start(Instant::now()) else { break };
                self.in_flight += 1;
                self.spawn_attempt(target, start);
            }
        }
        self.touched = waiting;
    }

    fn spawn_attempt(&self, target: Arc<Compiled>, start: Start) {
        let (transport, clock) = (self.with.transport.clone(), self.with.clock.clone());
        let ended = self.ended.clone();
        let (delivery, whose, number, on_schedule) = match start {
            Start::Young(delivery) => {
                let whose = Whose::Young { webhook: Arc::clone(&delivery.webhook), lane: delivery.lane };
                (delivery, whose, 1, 1)
            }
            Start::Claimed(claimed) => {
                let (number, on_schedule) = (claimed.attempts + 1, claimed.on_schedule + 1);
                (claimed.delivery.clone(), Whose::Claimed(claimed), number, on_schedule)
            }
        };
        self.with.tasks.spawn("attempt", Role::Passing, async move {
            let attempt = attempt(&target, &delivery, number, &transport, &clock).await;
            let verdict = judge(&attempt.outcome, on_schedule, &target.webhook.retry, clock.dice());
            tell::attempt(&delivery, &attempt, &verdict, since(clock.now(), delivery.committed_at));
            if ended.send(Ended { whose, attempt, verdict }).is_err() {
                tracing::debug!("an attempt ended after the dispatcher");
            }
        });
    }

    fn end(&mut self, ended: Ended) {
        let Ended { whose, attempt, verdict } = ended;
        self.in_flight = self.in_flight.saturating_sub(1);
        let name = match &whose {
            Whose::Young { webhook, .. } => webhook,
            Whose::Claimed(claimed) => &claimed.delivery.webhook,
        };
        if let Some(slot) = self.slots.get_mut(name) {
            slot.told.of(name, &attempt, &verdict, Instant::now());
        }
        let webhook = match whose {
            Whose::Young { webhook, lane } => {
                self.with_queue(&webhook, |queue, turn| queue.young_ended(lane, attempt, verdict, turn));
                webhook
            }
            Whose::Claimed(claimed) => {
                let webhook = Arc::clone(&claimed.delivery.webhook);
                self.with_queue(&webhook, |queue, turn| queue.claimed_ended(claimed, attempt, verdict, turn));
                webhook
            }
        };
        if let Some(slot) = self.slots.get_mut(&webhook)
            && slot.more_due
            && slot.queue.room() > 0
        {
            slot.more_due = false;
            let now = self.with.clock.now();
            self.slots.due_by(&webhook, now);
        }
        self.touch(&webhook);
    }

    fn acknowledge(&mut self, acks: Vec<Ack>) {
        for ack in acks {
            match ack {
                Ack::Inserted { webhook, lane, open, due } => {
                    let crowded = self.with_queue(&webhook, |queue, _| queue.inserted(lane, open));
                    if crowded == Some(true) {
                        self.with_queue(&webhook, Queue::by_ledger);
                    }
                    if let Some(due) = due {
                        self.slots.due_by(&webhook, due);
                    }
                }
                Ack::Finished { webhook, lane, open, due, lease_lost } => {
                    self.with_queue(&webhook, |queue, turn| {
                        queue.finished(lane, open);
                        if lease_lost {
                            queue.by_ledger(turn);
                        }
                    });
                    if let Some(due) = due {
                        self.slots.due_by(&webhook, due);
                    }
                }
                Ack::Lanes { webhook, lanes } => {
                    self.with_queue(&webhook, |queue, _| queue.counted(lanes));
                }
            }
        }
    }

    /// Asks the ledger for what is due, or for who has anything open; one question at a time.
    fn ask(&mut self) {
        if self.asking || self.is_stopping() {
            return;
        }
        let ask = if Instant::now() >= self.survey_at {
            self.survey_at = Instant::now() + SURVEY_EVERY;
            self.surveying_poke |= std::mem::take(&mut self.poked);
            Some(Ask::Survey)
        } else {
            self.claim()
        };
        if let Some(ask) = ask {
            self.asking = self.asks.try_send(ask).is_ok();
        }
    }

    /// How many claimed deliveries, of how many bytes, there is room for; `None` where there is none.
    fn claimable(&self) -> Option<(usize, usize)> {
        let count = limits::IN_FLIGHT.saturating_sub(self.load.count);
        let bytes = CLAIMED_BYTES.saturating_sub(self.load.bytes);
        (count > 0 && bytes > 0).then_some((count, bytes))
    }

    fn claim(&mut self) -> Option<Ask> {
        let (mut left, bytes) = self.claimable()?;
        let mut rooms = Vec::new();
        for webhook in self.slots.due_at(self.with.clock.now(), limits::CLAIM_BATCH) {
            if left == 0 {
                // The others stay due: their turn comes when this claim has been answered.
                break;
            }
            let Some(slot) = self.slots.get_mut(&webhook) else { continue };
            let count = slot.queue.room().min(left);
            slot.more_due = count == 0;
            if count > 0 {
                left -= count;
                let timeout = slot.queue.rules().timeout;
                rooms.push(Room {
                    webhook: Arc::clone(&webhook),
                    count,
                    lease: timeout * 3 + limits::LEASE_MARGIN,
                });
            }
            self.slots.set_due(&webhook, None);
        }
        (!rooms.is_empty()).then(|| Ask::Claim { rooms, token: self.tokens.take(), bytes })
    }

    fn answered(&mut self, answer: Answer) {
        self.asking = false;
        match answer {
            Answer::Claims(Claims { claimed, next_due }) => {
                let given: HashSet<_> = claimed.iter().map(|c| Arc::clone(&c.delivery.webhook)).collect();
                let soonest = self.with.clock.now() + ASK_AGAIN;
                for claimed in claimed {
                    let webhook = Arc::clone(&claimed.delivery.webhook);
                    self.with_queue(&webhook, |queue, turn| queue.take_claimed(claimed, turn));
                    self.touch(&webhook);
                }
                for (webhook, due) in next_due {
                    if let Some(due) = due {
                        let due = if given.contains(&webhook) { due } else { due.max(soonest) };
                        self.slots.due_by(&webhook, due);
                    }
                }
            }
            Answer::Survey(webhooks) => {
                let now = self.with.clock.now();
                let poked = std::mem::take(&mut self.surveying_poke);
                for webhook in webhooks {
                    self.slot(&webhook);
                    if poked {
                        self.with_queue(&webhook, Queue::by_ledger);
                    }
                    self.slots.due_by(&webhook, now);
                }
            }
            Answer::Failed => self.survey_at = Instant::now() + Duration::from_secs(1),
        }
        if self.is_stopping() {
            self.put_away();
        }
    }

    /// The catalog has changed: targets, rules, suspensions.
    fn take_catalog(&mut self) {
        let Published { snapshot, states } = self.catalog.clone();
        let now = self.with.clock.now();
        for webhook in self.slots.names() {
            let target = snapshot.by_name(&webhook).cloned();
            let rules = rules_of(target.as_deref());
            self.with_queue(&webhook, |queue, turn| queue.set_rules(rules, turn));
            if let Some(slot) = self.slots.get_mut(&webhook) {
                slot.target = target;
            }
        }
        for compiled in snapshot.webhooks() {
            self.slot(&compiled.webhook.name);
        }
        for webhook in self.slots.names() {
            let suspended = states.contains_key(&webhook);
            let Some(slot) = self.slots.get_mut(&webhook) else { continue };
            let before = std::mem::replace(&mut slot.catalog_suspended, suspended);
            if suspended && !before {
                self.with_queue(&webhook, Queue::suspend);
            } else if before && !suspended {
                self.with_queue(&webhook, Queue::resume);
            }
            self.slots.due_by(&webhook, now);
            self.touch(&webhook);
        }
    }

    /// Looks through what waits: hands over what has waited for too long, counts lanes where that is due.
    fn tick(&mut self) {
        let at = Instant::now();
        let now = self.with.clock.now();
        self.tick_at = at + TICK;
        self.restless = false;
        let free = self.with.memory.available_permits();
        metrics::gauge!("walhook_memory_young_bytes")
            .set(f64::from(u32::try_from(self.with.memory_bytes.saturating_sub(free)).unwrap_or(u32::MAX)));
        // When memory runs short, whoever keeps up is spared and the others go to the ledger early.
        let is_short = free < self.with.memory_bytes / 4;
        let limit = if is_short { limits::QUEUE_PATIENCE } else { self.with.handover_after };
        let (tokens, load) = (&mut self.tokens, &mut self.load);
        let mut turn = Turn { at, now, tokens, load, commands: &mut self.commands };
        for slot in self.slots.iter_mut() {
            if !slot.queue.is_empty() {
                slot.queue.hand_over_aged(limit, &mut turn);
            }
            if slot.wants_recount(at) {
                slot.queue.count(&mut turn);
            }
            self.restless |= slot.is_restless();
        }
    }

    fn wake_at(&self) -> Instant {
        let at = Instant::now();
        let busy = self.restless || self.in_flight > 0 || !self.offered.is_empty() || self.is_stopping();
        let tick = if busy { self.tick_at } else { at + SURVEY_EVERY };
        if self.asking || self.is_stopping() {
            return tick;
        }
        // Without room for more there is nothing to do about it: an attempt's end will wake us.
        let next = self.claimable().and_then(|_| self.slots.next_due());
        let due = next.map(|due| at + since(due, self.with.clock.now()));
        tick.min(self.survey_at).min(due.unwrap_or(tick))
    }

    /// Somebody else has put work into the ledger: look at once, and trust no count of lanes.
    fn poke(&mut self) {
        self.poked = true;
        self.survey_at = Instant::now();
    }

    /// The process stops: everything gets a row; what is in flight may still end.
    fn put_away(&mut self) {
        let patience = self.with.shutdown_grace.mul_f64(0.8);
        self.give_up_at.get_or_insert(Instant::now() + patience);
        for webhook in self.slots.names() {
            self.with_queue(&webhook, Queue::put_away);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.give_up_at.is_some()
    }

    fn has_ended(&self) -> bool {
        self.give_up_at.is_some_and(|at| self.in_flight == 0 || Instant::now() >= at)
    }
}
