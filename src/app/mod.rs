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

/// Runs the sidecar until a signal or a fault ends it. A slot that is lost on the way is no end where the operator has
/// chosen to go on.
pub async fn run(sources: Sources) -> Result<(), AppError> {
    let metrics = crate::telemetry::start_metrics();
    let mut lost = None;
    loop {
        let config = Arc::new(load_config(&sources)?);
        let goes_on = config.database.on_slot_lost == OnSlotLost::Recreate;
        match one_life(config, sources.clone(), metrics.clone(), lost.take()).await {
            Err(error) if goes_on && error.loss().is_some() => {
                lost = error.loss();
                tracing::error!(reason = lost, "the slot is lost; going on with a new one");
                tokio::time::sleep(BEFORE_ANOTHER).await;
            }
            ended => return ended,
        }
    }
}

/// From a configuration to the end; `lost` says why an earlier life ended, where it could not go on with its slot.
async fn one_life(
    config: Arc<Config>,
    sources: Sources,
    metrics: Option<PrometheusHandle>,
    lost: Option<&'static str>,
) -> Result<(), AppError> {
    let (tasks, deaths) = Tasks::new();
    let listener = serve::bind(config.server.listen).await?;
    let prepared = start::prepare(&config, lost).await?;
    let (state_in, states) = watch::channel(SourceState::Connecting);
    let (health_in, health) = watch::channel(Health::Starting);
    let (gaps_in, gaps) = watch::channel(Vec::new());
    let page = serve::Pages { metrics, source: states.clone(), ledger: health, gaps };
    tasks.spawn("server", Role::Essential, serve::serve(listener, page, tasks.stopping()));
    let running = start::begin(config, prepared, &tasks, state_in, (health_in, gaps_in));
    stop::until_the_end(running, sources, tasks, deaths, states).await
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
