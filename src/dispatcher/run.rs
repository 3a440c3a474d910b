//! The dispatcher's loop: each turn takes one piece of news, lets the queues decide, and acts.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::begin::Back;
use super::claims::{self, Ask};
use super::due::{Asking, SURVEY_EVERY};
use super::meters::Meters;
#[cfg(test)]
use super::queue::Sending;
use super::queue::{Mode, Queue};
use super::share::Share;
use super::slot::{Slot, Slots, rules_of};
use super::turn::{Load, Tokens, Turn};
use super::unwritten::Unwritten;
use super::{Dispatcher, Doors, Offer};
#[cfg(test)]
use crate::catalog::Compiled;
use crate::catalog::Published;
use crate::clock::since;
use crate::domain::limits;
use crate::ledger::writer::Command;
use crate::tasks::Role;

/// How often what is young is looked through for what has waited too long.
const TICK: Duration = Duration::from_millis(100);
/// Everything the loop remembers.
pub(super) struct State {
    pub with: Dispatcher,
    pub slots: Slots,
    pub commands: Vec<Command>,
    pub tokens: Tokens,
    /// Offers taken from intake and not yet accepted.
    pub offered: VecDeque<Offer>,
    pub catalog: Published,
    out: mpsc::UnboundedSender<Command>,
    pub ended: mpsc::UnboundedSender<Back>,
    /// The questions to the ledger.
    pub asking: Asking,
    tick_at: Instant,
    /// Webhooks that a tick must look at.
    watched: Vec<Arc<str>>,
    /// Who may have how many requests in flight.
    pub share: Share,
    /// Webhooks whose rate is used up or whose batch waits for company, and until when.
    pub paced: BTreeSet<(Instant, Arc<str>)>,
    /// Webhooks with something due that found no room in memory.
    pub crowd: VecDeque<Arc<str>>,
    /// Webhooks whose batches found no room in memory.
    pub roomless: BTreeSet<Arc<str>>,
    /// How many webhooks' breakers are open.
    pub open: usize,
    pub meters: Arc<Meters>,
    /// The claimed deliveries in memory.
    pub load: Load,
    /// What became of claimed ones and is not yet in the ledger.
    pub unwritten: Unwritten,
    /// Whether the catalog has been taken in once: what the ledger held then is known.
    pub has_begun: bool,
    /// Webhooks that may have something to start.
    pub touched: Vec<Arc<str>>,
    /// When to leave what is in flight to its lease; set while stopping.
    give_up_at: Option<Instant>,
    /// Where attempts go in a simulation, in the place of their receivers.
    #[cfg(test)]
    pub launched: Option<Vec<(Arc<Compiled>, Sending, bool)>>,
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
        let mut heard = 0;
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
                Some(back) = endings.recv() => {
                    state.take_back(back);
                    while let Ok(more) = endings.try_recv() {
                        state.take_back(more);
                    }
                }
                Some(written) = acks.recv() => state.acknowledge(written),
                Some(answer) = answers.recv() => state.answered(answer),
                Some(batch) = offers.recv(), if may_take => state.offered.extend(batch),
                Ok(()) = news.changed(), if !state.is_stopping() => {
                    state.catalog = news.borrow_and_update().clone();
                    state.take_catalog();
                }
                Ok(()) = pokes.changed(), if !state.is_stopping() => {
                    let touched = pokes.borrow_and_update().since(&mut heard);
                    state.poke(touched);
                }
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
    pub(super) fn new(
        with: Dispatcher,
        catalog: Published,
        out: mpsc::UnboundedSender<Command>,
        ended: mpsc::UnboundedSender<Back>,
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
            asking: Asking::by(asks),
            tick_at: Instant::now(),
            watched: Vec::new(),
            share: Share::default(),
            paced: BTreeSet::new(),
            crowd: VecDeque::new(),
            roomless: BTreeSet::new(),
            open: 0,
            meters: Arc::default(),
            load: Load::default(),
            unwritten: Unwritten::default(),
            has_begun: false,
            touched: Vec::new(),
            give_up_at: None,
            #[cfg(test)]
            launched: None,
        }
    }

    /// Accepts, starts, asks and writes whatever can be.
    pub(super) fn turn(&mut self) {
        if Instant::now() >= self.tick_at {
            self.tick();
        }
        self.accept();
        self.start_attempts();
        self.ask();
        let finishes = self.commands.iter().filter(|command| matches!(command, Command::Finish(_))).count();
        self.unwritten.told(finishes, Instant::now());
        for command in self.commands.drain(..) {
            if self.out.send(command).is_err() {
                tracing::debug!("the ledger's writer has ended");
            }
        }
        self.meters.in_flight(self.share.all);
    }

    pub(super) fn touch(&mut self, webhook: &Arc<str>) {
        let Some(slot) = self.slots.get_mut(webhook) else { return };
        if !std::mem::replace(&mut slot.touched, true) {
            self.touched.push(Arc::clone(webhook));
        }
        if !slot.watched && slot.is_restless() {
            slot.watched = true;
            self.watched.push(Arc::clone(webhook));
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
        let decided = decide(&mut slot.queue, &mut turn);
        if !slot.watched && slot.is_restless() {
            slot.watched = true;
            self.watched.push(webhook.into());
        }
        Some(decided)
    }

    /// The webhook's slot, made where there is none; an undeclared one sends nothing. What the ledger holds of it has yet to
    /// be counted; where it held nothing when this process took over, memory keeps the order from the first.
    pub(super) fn slot(&mut self, webhook: &Arc<str>) -> Option<&mut Slot> {
        if self.slots.get_mut(webhook).is_none() {
            let target = self.catalog.snapshot.by_name(webhook).cloned();
            let rules = rules_of(target.as_deref());
            let counts = self.has_begun || self.with.open_at_start.contains(webhook);
            let mode = if counts { Mode::Ledger } else { Mode::Memory };
            let known = self.with.health.remove(webhook);
            let mut slot = Slot::new(webhook, target, (rules, mode), known.as_ref(), Instant::now());
            let is_open = slot.pace.is_open();
            if is_open {
                slot.queue.begin_diverted();
            }
            slot.watched = slot.is_restless();
            self.watched.extend(slot.watched.then(|| Arc::clone(webhook)));
            self.slots.insert(Arc::clone(webhook), slot);
            if is_open {
                self.count_open(self.open + 1);
            }
        }
        self.slots.get_mut(webhook)
    }

    /// Looks through what waits: hands over what has waited for too long, counts lanes where that is due.
    fn tick(&mut self) {
        let at = Instant::now();
        let now = self.with.clock.now();
        self.tick_at = at + TICK;
        let free = self.with.memory.available_permits();
        metrics::gauge!("walhook_memory_young_bytes")
            .set(f64::from(u32::try_from(self.with.memory_bytes.saturating_sub(free)).unwrap_or(u32::MAX)));
        // When memory runs short, whoever keeps up is spared and the others go to the ledger early.
        let is_short = free < self.with.memory_bytes / 4;
        let limit = if is_short { limits::QUEUE_PATIENCE } else { self.with.handover_after };
        let (tokens, load) = (&mut self.tokens, &mut self.load);
        let mut turn = Turn { at, now, tokens, load, commands: &mut self.commands };
        let slots = &mut self.slots;
        self.watched.retain(|webhook| {
            let Some(slot) = slots.get_mut(webhook) else { return false };
            if slot.queue.has_young() {
                slot.queue.hand_over_aged(limit, &mut turn);
            }
            if slot.wants_recount(at) {
                slot.queue.count(&mut turn);
            }
            slot.watched = slot.is_restless();
            slot.watched
        });
    }

    pub(super) fn wake_at(&self) -> Instant {
        let at = Instant::now();
        // What is claimed needs no looking after: its attempt's end will wake us.
        let busy = !self.watched.is_empty() || !self.offered.is_empty() || self.is_stopping();
        let tick = if busy { self.tick_at } else { at + SURVEY_EVERY };
        if self.asking.under_way || self.is_stopping() {
            return tick;
        }
        // Without room for more there is nothing to do about it: an attempt's end will wake us.
        let next = self.claimable().and_then(|_| self.slots.next_due());
        let due = next.map(|due| at + since(due, self.with.clock.now()));
        let paced = self.paced.first().map_or(tick, |(until, _)| *until);
        tick.min(self.asking.survey_at).min(due.unwrap_or(tick)).min(paced)
    }

    /// The process stops: everything gets a row; what is in flight may still end.
    pub(super) fn put_away(&mut self) {
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
        self.give_up_at.is_some_and(|at| self.share.all == 0 || Instant::now() >= at)
    }
}
