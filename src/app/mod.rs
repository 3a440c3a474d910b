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

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use error::AppError;

use crate::catalog::{self, Published, Watcher};
use crate::config::{Config, Sources};
use crate::control::{Places, load_config, transport};
use crate::dispatcher::{self, Dispatcher, Doors};
use crate::domain::limits;
use crate::ledger::LedgerError;
use crate::ledger::writer::{Health, Writer};
use crate::settlement::Settlement;
use crate::source::{Item, SourceState};
use crate::tasks::{Role, Tasks};

/// Runs the sidecar until a signal or a fault ends it.
pub async fn run(sources: Sources) -> Result<(), AppError> {
    let config = Arc::new(load_config(&sources)?);
    let metrics = crate::telemetry::start_metrics();
    let (tasks, deaths) = Tasks::new();
    let listener = serve::bind(config.server.listen).await?;
    let prepared = start::prepare(&config).await?;
    let (state_in, states) = watch::channel(SourceState::Connecting);
    let (health_in, health) = watch::channel(Health::Starting);
    let page = serve::Pages { metrics, source: states.clone(), ledger: health };
    tasks.spawn("server", Role::Essential, serve::serve(listener, page, tasks.stopping()));
    let running = start::begin(config, prepared, &tasks, state_in, health_in);
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
