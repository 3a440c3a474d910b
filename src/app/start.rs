//! The order in which things begin.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::prepare::Ready;
use super::takeover::{Found, take_over};
use super::workers::{Flow, Workers};
use super::{
    AppError, Config, Health, Item, Published, Running, Settlement, SourceState, Tasks, Watcher, catalog,
    limits, standby,
};
use crate::catalog::Compiler;
use crate::chores::lag::Reading;
use crate::control::ControlError;
use crate::ledger::overview::Gap;
use crate::ledger::own::Ownership;
use crate::ledger::pokes::Pokes;
use crate::live::Live;
use crate::source::{self, SourceOptions};
use crate::tasks::Role;

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
pub(super) async fn report<T, E: Into<AppError>>(
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
        let Self { live, config, ready, tasks, settlement, items, config_out, health, trouble, .. } = self;
        let Self { gaps, owned, end, .. } = self;
        let ledger = ready.places.ledger.clone();
        let found = loop {
            tokio::select! {
                ours = states.wait_for(streaming) => if ours.is_err() { return Ok(()) },
                () = stop.cancelled() => {
                    drained.cancel();
                    return Ok(());
                }
            }
            tokio::select! {
                found = take_over(&ready, &config.database.slot) => break found?,
                // Somebody else may have it by now, and the ledger goes with the slot.
                gone = states.wait_for(|state| !streaming(state)) => if gone.is_err() { return Ok(()) },
                () = stop.cancelled() => {
                    drained.cancel();
                    return Ok(());
                }
            }
        };
        let Found { own, recovery, open, ill, rows } = found;
        owned.send_replace(Some(own.clone()));
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
            open_at_start: open,
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
