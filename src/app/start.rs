//! The order in which things begin.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    AppError, Before, Config, Dispatcher, Doors, Health, Item, LedgerError, Places, Published, Running,
    Settlement, SourceState, Tasks, Watcher, Writer, catalog, dispatcher, first, limits, renewal, standby,
    timeline,
};
use crate::backfill::{Backfills, Pages};
use crate::catalog::Compiler;
use crate::chores::lag::{Lag, Reading, Thresholds};
use crate::chores::notices::Notices;
use crate::chores::retries::Retries;
use crate::chores::standing::Standing;
use crate::chores::{self, upkeep};
use crate::clock::Clock;
use crate::control::{ControlError, fit, manage};
use crate::intake::{Intake, Recovery, Shapes};
use crate::ledger::health;
use crate::ledger::overview::Gap;
use crate::ledger::own::{Fork, Identity, Ownership};
use crate::ledger::pokes::Pokes;
use crate::ledger::prune::Retention;
use crate::ledger::rollups::SlaOf;
use crate::live::Live;
use crate::source::{self, Preparation, Prepared, PublicationNames, SlotHistory, SourceOptions, lock_slot};
use crate::tasks::Role;
use crate::transport::Transport;

/// Everything that was found and made before the link begins.
pub(super) struct Ready {
    places: Places,
    identity: source::Identity,
    prepared: Prepared,
    fork: Option<Fork>,
    /// The generation of the slot.
    pub(super) generation: i32,
    transport: Transport,
    clock: Clock,
}

impl Ready {
    /// The databases and the clock, for who works beside the link.
    pub(super) fn to_work_with(&self) -> (Places, Clock) {
        (self.places.clone(), self.clock.clone())
    }

    /// Takes the ledger over, in the generation of the slot that is read.
    async fn take_over(&self, slot: &str) -> Result<Ownership, AppError> {
        let identity = Identity {
            system: self.identity.system,
            timeline: i32::try_from(self.identity.timeline).unwrap_or(i32::MAX),
            confirmed: self.prepared.slot.confirmed.0,
            fork: self.fork,
        };
        let renewals = renewal::finish(&self.places, slot).await?;
        let own = self.places.ledger.take_over(slot, &identity, &standby::instance()).await?;
        drop(renewals);
        Ok(own)
    }

    /// The highest generation that this life uses.
    pub(super) fn uses(&self) -> i32 {
        self.fork.map_or(self.generation, |fork| fork.begins())
    }
}

/// Checks and makes everything that the link needs, in order: nothing is created before all is found possible.
pub(super) async fn prepare(config: &Config, before: Before) -> Result<Ready, AppError> {
    let clock = Clock::system();
    let places = Places::of(config)?;
    let transport = super::transport(config, &clock)?;
    let mut session = places.database.session("walhook").await?;
    let (facts, problems) = source::check(&session, &config.database.slot).await?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem.into());
    }
    facts.insist_on_failover(config.database.slot_failover)?;
    let known = source::tables(&session, &config.database.schema).await?;
    let of_file = catalog::compile_file(config).map_err(ControlError::Compile)?;
    fit::insist(&of_file, config, &known)?;
    catalog::unverified(&of_file).for_each(|webhook| catalog::tell_unverified(&webhook.name));
    let identity = source::identify(&places.database).await?;
    let mut wish = Preparation {
        slot: config.database.slot.clone(),
        history: SlotHistory::Never,
        failover: config.database.slot_failover,
        names: PublicationNames::of(&config.database.publication),
        manage: manage(config),
        wanted: upkeep::wanted(&of_file, &known),
        insisted: upkeep::meant(&of_file, &known),
        own_schema: config.database.schema.clone(),
    };
    let slot = &config.database.slot;
    lock_slot(&session, slot).await?;
    first::make(&places, &mut session, &wish).await?;
    let ledger = places.ledger.session("walhook start").await?;
    let rows = catalog::load(&ledger.client).await?;
    drop(ledger);
    let snapshot = catalog::compile_with(config, &rows).map_err(ControlError::Compile)?;
    let owned = places.ledger.known(slot).await?;
    let fork = match &owned {
        Some(owned) => timeline::fork(config, &places, (owned, before), &identity, &session).await?,
        None => None,
    };
    wish.wanted = upkeep::wanted(&snapshot, &known);
    if owned.is_some() {
        wish.history = SlotHistory::Made;
    }
    let found = (owned.as_ref(), identity.flushed, before.lost);
    renewal::begin(config, &places, &mut wish, &session, found).await?;
    let prepared = source::prepare(&mut session, &wish).await?;
    let generation = renewal::end(&places, slot, prepared.slot.confirmed, owned.as_ref()).await?;
    Ok(Ready { places, identity, prepared, fork, generation, transport, clock })
}

/// Where it is told how source, ledger and intake are, which gaps there are, and that the ledger is ours.
pub(super) type Told = (
    watch::Sender<SourceState>,
    watch::Sender<Health>,
    watch::Sender<Option<String>>,
    watch::Sender<Vec<Gap>>,
    watch::Sender<Option<Ownership>>,
);

/// Begins the link, and behind it a task that builds the rest when the slot is ours.
pub(super) fn begin(
    live: Live,
    config: Arc<Config>,
    ready: Ready,
    tasks: &Tasks,
    (states, health, trouble, gaps, owned): Told,
) -> Running {
    let (items_in, items) = mpsc::channel(limits::CHUNKS_WAITING);
    let (faults_in, faults) = mpsc::unbounded_channel();
    let (config_in, config_out) = watch::channel(Arc::clone(&config));
    let (end_source, drained) = (CancellationToken::new(), CancellationToken::new());
    let settlement = Settlement::new();
    let timeout = u64::try_from(ready.prepared.facts.wal_sender_timeout_ms).unwrap_or(0);
    let every = Duration::from_millis(timeout / 3);
    let feedback_every =
        if timeout == 0 { limits::FEEDBACK_EVERY } else { every.min(limits::FEEDBACK_EVERY) };
    let options = SourceOptions {
        server: ready.places.database.clone(),
        slot: config.database.slot.clone(),
        publications: ready.prepared.report.publications.clone(),
        feedback_every,
        own_schema: config.database.schema.clone(),
        system: Some(ready.identity.system),
        timeline: Some(ready.identity.timeline),
        failover: ready.prepared.facts.can_failover().then_some(config.database.slot_failover),
        clock: ready.clock.clone(),
    };
    let (slot, server) = (options.slot.clone(), options.server.clone());
    let seen = standby::keep_seen(server, slot, states.subscribe(), tasks.stopping());
    tasks.spawn("standby", Role::Passing, seen);
    let watching = states.subscribe();
    fail::fail_point!("before_streaming");
    let link = source::run(options, items_in, settlement.confirmed(), states, end_source.clone());
    let told = faults_in.clone();
    tasks.spawn("source", Role::Essential, report(told, link));
    let end = end_source.clone();
    let body = Body {
        live,
        config,
        ready,
        tasks: tasks.clone(),
        settlement: settlement.clone(),
        items,
        config_out,
        health,
        trouble,
        gaps,
        owned,
        end,
    };
    let build = body.build(watching, faults_in.clone(), drained.clone());
    tasks.spawn("start", Role::Passing, report(faults_in, build));
    Running { end_source, config: config_in, faults, drained, _settlement: settlement }
}

/// Runs a worker; a fault of it is told before it ends.
async fn report<T, E: Into<AppError>>(
    faults: mpsc::UnboundedSender<AppError>,
    worker: impl Future<Output = Result<T, E>>,
) {
    if let Err(error) = worker.await
        && faults.send(error.into()).is_err()
    {
        tracing::debug!("a fault came after the end");
    }
}

/// Everything behind the link.
struct Body {
    live: Live,
    config: Arc<Config>,
    ready: Ready,
    tasks: Tasks,
    settlement: Settlement,
    items: mpsc::Receiver<Item>,
    config_out: watch::Receiver<Arc<Config>>,
    health: watch::Sender<Health>,
    trouble: watch::Sender<Option<String>>,
    gaps: watch::Sender<Vec<Gap>>,
    owned: watch::Sender<Option<Ownership>>,
    end: CancellationToken,
}

impl Body {
    /// Waits until the slot is ours, takes the ledger over, and begins the workers.
    async fn build(
        self,
        mut states: watch::Receiver<SourceState>,
        faults: mpsc::UnboundedSender<AppError>,
        drained: CancellationToken,
    ) -> Result<(), AppError> {
        let stop = self.tasks.stopping();
        let streaming = |state: &SourceState| matches!(state, SourceState::Streaming { .. });
        tokio::select! {
            ours = states.wait_for(streaming) => if ours.is_err() { return Ok(()) },
            () = stop.cancelled() => {
                drained.cancel();
                return Ok(());
            }
        }
        let Self { live, config, ready, tasks, settlement, items, config_out, health, trouble, .. } = self;
        let Self { gaps, owned, end, .. } = self;
        let ledger = ready.places.ledger.clone();
        let own = tokio::select! {
            own = ready.take_over(&config.database.slot) => own?,
            () = stop.cancelled() => {
                drained.cancel();
                return Ok(());
            }
        };
        owned.send_replace(Some(own.clone()));
        let recovery = Recovery::begin(ledger.clone(), &own).await?;
        let open_at_start = recovery.open_webhooks().await?;
        // Standing by may have taken long: what is declared now counts, from the first change on.
        let session = ledger.session("walhook start").await?;
        let rows = catalog::load(&session.client).await?;
        let ill = health::load(&session.client).await?;
        drop(session);
        let declared = Arc::clone(&config_out.borrow());
        let mut compiler = Compiler::default();
        let snapshot = Arc::new(compiler.compile(&declared, &rows).map_err(ControlError::Compile)?);
        let (version, states) = (rows.version, Arc::new(rows.states));
        let (published, catalog) = watch::channel(Published { snapshot, states, version });
        let ((pokes_in, pokes), (news_in, news)) = (watch::channel(Pokes::default()), watch::channel(0));
        let Ready { places, transport, clock, .. } = ready;
        let reading = Reading::default();
        let workers =
            Workers { live, config, places, transport, clock, own, settlement: settlement.clone(), reading };
        let flow = Flow {
            items,
            catalog: catalog.clone(),
            pokes,
            settlement,
            health,
            trouble,
            open_at_start,
            ill,
            news: news_in,
            recovery,
            drained,
            end,
        };
        workers.flow(flow, &tasks, &faults);
        let upkeep = workers.places.upkeep(&workers.config);
        let followed = upkeep.clone();
        let before: catalog::Before = Box::new(move |snapshot| {
            let upkeep = followed.clone();
            Box::pin(async move { upkeep.activate(&snapshot).await })
        });
        let watcher = Watcher { ledger, config: config_out, published, before, pokes: pokes_in.clone() };
        tasks.spawn("catalog", Role::Essential, catalog::watch(watcher, compiler, tasks.stopping()));
        workers.chores(upkeep, &catalog, pokes_in, &tasks);
        workers.look(gaps, catalog, news, &tasks);
        Ok(())
    }
}

struct Workers {
    live: Live,
    config: Arc<Config>,
    places: Places,
    transport: Transport,
    clock: Clock,
    own: Ownership,
    settlement: Settlement,
    reading: Reading,
}

struct Flow {
    items: mpsc::Receiver<Item>,
    catalog: watch::Receiver<Published>,
    pokes: watch::Receiver<Pokes>,
    settlement: Settlement,
    health: watch::Sender<Health>,
    trouble: watch::Sender<Option<String>>,
    open_at_start: HashSet<Arc<str>>,
    ill: HashMap<Arc<str>, health::Health>,
    news: watch::Sender<u64>,
    recovery: Recovery,
    /// Done when everything in memory has its row.
    drained: CancellationToken,
    /// The source ends too.
    end: CancellationToken,
}

impl Workers {
    /// What is promised of each webhook, as it is declared at the time.
    fn sla(&self, catalog: &watch::Receiver<Published>) -> SlaOf {
        let (catalog, usual) = (catalog.clone(), self.config.delivery.sla);
        Arc::new(move |webhook| {
            catalog.borrow().snapshot.by_name(webhook).map_or(usual, |compiled| compiled.webhook.sla)
        })
    }

    fn backfills(
        &self,
        catalog: &watch::Receiver<Published>,
        pages: &Pages,
        settlement: &Settlement,
        pokes: &watch::Receiver<Pokes>,
    ) -> Backfills {
        Backfills {
            server: self.places.database.clone(),
            ledger: self.places.ledger.clone(),
            own: self.own.clone(),
            catalog: catalog.clone(),
            pages: pages.clone(),
            confirmed: settlement.confirmed(),
            pokes: pokes.clone(),
            publications: PublicationNames::of(&self.config.database.publication),
        }
    }

    fn writer(
        &self,
        catalog: &watch::Receiver<Published>,
        settlement: &Settlement,
        health: watch::Sender<Health>,
        news: watch::Sender<u64>,
    ) -> Writer {
        Writer {
            ledger: self.places.ledger.clone(),
            own: self.own.clone(),
            store: self.config.ledger.store_bodies,
            sla: self.sla(catalog),
            settlement: settlement.clone(),
            clock: self.clock.clone(),
            health,
            news,
            live: self.live.clone(),
        }
    }

    /// Intake → dispatcher → writer.
    fn flow(&self, flow: Flow, tasks: &Tasks, faults: &mpsc::UnboundedSender<AppError>) {
        let Flow { items, catalog, pokes, settlement, health, trouble, .. } = flow;
        let Flow { open_at_start, ill, news, recovery, drained, end, .. } = flow;
        let pages = Pages::default();
        let backfills = self.backfills(&catalog, &pages, &settlement, &pokes);
        tasks.spawn("backfills", Role::Essential, backfills.run(tasks.stopping()));
        let (offers_in, offers) = dispatcher::offers();
        let (commands, written) = mpsc::unbounded_channel();
        let (acks_in, acks) = mpsc::unbounded_channel();
        let memory = Arc::new(Semaphore::new(self.config.delivery.memory));
        let (refused_in, refused) = chores::refused::queue();
        let telling = chores::refused::keep_telling(self.places.ledger.clone(), refused, tasks.stopping());
        tasks.spawn("refused addresses", Role::Essential, telling);
        let writer = self.writer(&catalog, &settlement, health, news);
        let writing = async move {
            let written = writer.run(written, acks_in).await;
            drained.cancel();
            written
        };
        tasks.spawn("ledger writer", Role::Essential, report(faults.clone(), writing));
        let dispatcher = Dispatcher {
            transport: self.transport.clone(),
            clock: self.clock.clone(),
            tasks: tasks.clone(),
            ledger: self.places.ledger.clone(),
            epoch: self.own.epoch,
            open_at_start,
            health: ill,
            handover_after: self.config.delivery.handover_after,
            shutdown_grace: self.config.delivery.shutdown_grace,
            refused: refused_in,
            memory: Arc::clone(&memory),
            memory_bytes: self.config.delivery.memory,
        };
        let doors = Doors { offers, commands, acks, catalog: catalog.clone(), pokes, stop: tasks.stopping() };
        tasks.spawn("dispatcher", Role::Essential, dispatcher.run(doors));
        let intake = Intake {
            items,
            offers: offers_in,
            catalog,
            settlement,
            memory,
            memory_bytes: self.config.delivery.memory,
            max_body: self.config.delivery.max_body,
            lineage: self.own.lineage.clone(),
            database: self.places.database.database().unwrap_or_default().into(),
            server: self.places.database.clone(),
            pages: pages.clone(),
            recovery,
            shapes: Shapes::new(self.places.ledger.clone(), self.own.clone()),
            live: self.live.clone(),
            reading: self.reading.clone(),
            trouble,
            clock: self.clock.clone(),
        };
        tasks.spawn(
            "intake",
            Role::Essential,
            report::<_, LedgerError>(faults.clone(), intake.run(tasks.stopping(), end)),
        );
    }

    /// Looks at slot and gaps, and tells whoever asks for it how it all stands.
    fn look(
        &self,
        gaps: watch::Sender<Vec<Gap>>,
        catalog: watch::Receiver<Published>,
        news: watch::Receiver<u64>,
        tasks: &Tasks,
    ) {
        let (lag_in, lag) = watch::channel(Lag::Unknown);
        let config = &self.config.notices;
        let notices = Notices {
            ledger: self.places.ledger.clone(),
            own: self.own.clone(),
            catalog,
            lag,
            news,
            every: config.every,
            database: self.places.database.database().unwrap_or_default().into(),
            max_body: self.config.delivery.max_body,
            clock: self.clock.clone(),
        };
        let telling = chores::notices::keep_telling(notices, tasks.stopping());
        tasks.spawn("notices", Role::Essential, telling);
        let bytes = u64::try_from(config.lag_bytes).unwrap_or(u64::MAX);
        let standing = Standing {
            server: self.places.database.clone(),
            ledger: self.places.ledger.clone(),
            own: self.own.clone(),
            settlement: self.settlement.clone(),
            reading: self.reading.clone(),
            gaps,
            lag: lag_in,
            thresholds: Thresholds { lag: config.lag, bytes },
            clock: self.clock.clone(),
        };
        tasks.spawn("standing", Role::Essential, chores::keep_looking(standing, tasks.stopping()));
    }

    fn chores(
        &self,
        upkeep: upkeep::Upkeep,
        catalog: &watch::Receiver<Published>,
        pokes: watch::Sender<Pokes>,
        tasks: &Tasks,
    ) {
        let (ledger, stop) = (&self.places.ledger, tasks.stopping());
        let config = &self.config.ledger;
        let retention = Retention {
            delivered: config.retention,
            failed: config.failed_retention,
            audit: config.audit_retention,
        };
        let retain = chores::keep_retention(ledger.clone(), retention, stop.clone());
        tasks.spawn("retention", Role::Essential, retain);
        let heard = pokes.subscribe();
        let until = (self.clock.clone(), stop.clone());
        let holds = chores::keep_holds(ledger.clone(), catalog.clone(), pokes, config.store_bodies, until);
        tasks.spawn("holds", Role::Essential, holds);
        let retries = Retries {
            ledger: ledger.clone(),
            slot: self.own.slot.clone(),
            pokes: heard,
            catalog: catalog.clone(),
            max_body: self.config.delivery.max_body,
        };
        tasks.spawn("retries", Role::Essential, chores::retries::keep_retrying(retries, stop.clone()));
        tasks.spawn("upkeep", Role::Essential, chores::keep_publications(upkeep, catalog.clone(), stop));
    }
}
