//! Builds everything once, owns every task, and stops them in order.
//!
//! Starting: configuration → sessions → ledger's schema → publications, then slot → the link. As long as another
//! process holds the slot this one stands by. When the slot is ours, the ledger is *taken over* (its fence raised),
//! and only then do intake, dispatcher and the ledger's writer begin ([`start`]).
//!
//! Stopping: intake takes no more; the dispatcher gives everything that is in memory a row and waits for what is in
//! flight; the writer writes; the source confirms what that settled and says goodbye. All within the grace.

mod error;
mod refresh;
pub mod serve;
mod start;
mod stop;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use error::AppError;

use crate::catalog::{self, Published, Watcher};
use crate::config::{Config, OnSlotLost, Sources};
use crate::control::{Places, load_config, transport};
use crate::dispatcher::{self, Dispatcher, Doors};
use crate::domain::limits;
use crate::ledger::LedgerError;
use crate::ledger::writer::{Health, Writer};
use crate::settlement::Settlement;
use crate::source::{Item, SourceState};
use crate::tasks::{Role, Tasks};

/// How long to wait before a new slot is made.
const BEFORE_ANOTHER: Duration = Duration::from_secs(1);

/// Runs the sidecar until a signal or a fault ends it. Two faults are no end, but the beginning of another life: a server
/// on another timeline (what was in memory belongs to the log as it was), and a slot that is lost, where the operator has
/// chosen to go on.
pub async fn run(sources: Sources) -> Result<(), AppError> {
    let mut config = Arc::new(load_config(&sources)?);
    let metrics = crate::telemetry::start_metrics();
    let door = serve::Door::open(config.server.listen).await?;
    let (mut signals, mut lost) = (None, None);
    loop {
        let prepared = match &mut signals {
            None => start::prepare(&config, lost.take()).await,
            // Nobody else hears them any more.
            Some(signals) => tokio::select! {
                prepared = start::prepare(&config, lost.take()) => prepared,
                () = stop::asked(signals) => return Ok(()),
            },
        };
        let result = match prepared {
            Ok(prepared) => {
                let heard = match signals.take() {
                    Some(signals) => signals,
                    None => stop::signals()?,
                };
                let ended = live(&sources, &config, prepared, metrics.clone(), &door, heard).await;
                (signals, config) = (Some(ended.signals), ended.config);
                ended.result
            }
            Err(error) => Err(error),
        };
        let goes_on = config.database.on_slot_lost == OnSlotLost::Recreate;
        match result {
            Err(error) if error.is_another_timeline() => {
                tracing::warn!(reason = error.tell(), "the log has forked: beginning anew");
            }
            Err(error) if goes_on && error.loss().is_some() => {
                lost = error.loss();
                tracing::error!(reason = lost, "the slot is lost; going on with a new one");
                tokio::time::sleep(BEFORE_ANOTHER).await;
            }
            result => return result,
        }
    }
}

/// One life: from the link's beginning to everybody's end.
async fn live(
    sources: &Sources,
    config: &Arc<Config>,
    prepared: start::Ready,
    metrics: Option<PrometheusHandle>,
    door: &serve::Door,
    signals: stop::Signals,
) -> stop::Ended {
    let (tasks, deaths) = Tasks::new();
    let (state_in, states) = watch::channel(SourceState::Connecting);
    let (health_in, health) = watch::channel(Health::Starting);
    let (gaps_in, gaps) = watch::channel(Vec::new());
    let page = serve::Pages { metrics, source: states.clone(), ledger: health, gaps };
    match door.listener() {
        Ok(listener) => {
            tasks.spawn("server", Role::Essential, serve::serve(listener, page, tasks.stopping()));
        }
        Err(error) => return stop::Ended { result: Err(error), config: Arc::clone(config), signals },
    }
    let running = start::begin(Arc::clone(config), prepared, &tasks, state_in, (health_in, gaps_in));
    stop::until_the_end(running, sources, tasks, deaths, states, signals).await
}

/// What [`start`] leaves for the rest of the process's life.
struct Running {
    /// Ends the source, last of all.
    end_source: CancellationToken,
    /// Sent anew when the file has been read again.
    config: watch::Sender<Arc<Config>>,
    /// Why a worker ended, where that was a fault.
    faults: mpsc::UnboundedReceiver<AppError>,
    /// Done when the dispatcher's and the writer's work is.
    drained: CancellationToken,
    /// Kept so that the position to confirm is published to the last.
    _settlement: Settlement,
}
