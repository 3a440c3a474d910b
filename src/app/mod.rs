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
use crate::chores::upkeep::Upkeep;
use crate::config::{Checks, Complaint, Config, Problems, Sources};
use crate::dispatcher::{self, Dispatcher, Doors};
use crate::domain::limits;
use crate::ledger::writer::{Health, Writer};
use crate::ledger::{Ledger, LedgerError};
use crate::postgres::Server;
use crate::settlement::Settlement;
use crate::source::{Item, SourceState};
use crate::tasks::{Role, Tasks};
use crate::transport::{Policy, Transport, TransportOptions};

/// Loads the configuration, with everything that other modules know about its texts.
pub fn load_config(sources: &Sources) -> Result<Config, Problems> {
    let connection = |text: &str| {
        let parsed = Server::parse(text).map(drop);
        parsed.map_err(|error| Complaint { message: error.to_string(), line: None, column: None })
    };
    let checks = Checks {
        condition: &catalog::conditions_complaint,
        template: &catalog::template_complaint,
        connection: &connection,
    };
    crate::config::load(sources, &checks)
}

/// The connections a configuration names.
#[derive(Debug, Clone)]
pub struct Places {
    /// The application's database.
    pub database: Server,
    /// Where the ledger is.
    pub ledger: Ledger,
}

impl Places {
    /// Reads them.
    pub fn of(config: &Config) -> Result<Self, AppError> {
        use secrecy::ExposeSecret as _;
        let database = Server::parse(config.database.url.expose_secret())?;
        let url = config.ledger.url.as_ref();
        let home = match url {
            Some(url) => Server::parse(url.expose_secret())?,
            None => database.clone(),
        };
        Ok(Self { database, ledger: Ledger::new(home, &config.database.schema) })
    }

    /// What looks after the publications.
    pub fn upkeep(&self, config: &Config) -> Upkeep {
        Upkeep::new(
            self.database.clone(),
            crate::source::PublicationNames::of(&config.database.publication),
            start::manage(config),
            config.database.schema.clone(),
        )
    }
}

/// The client for deliveries, as a configuration wants it.
pub fn transport(config: &Config, clock: &crate::clock::Clock) -> Result<Transport, AppError> {
    let policy = Policy {
        allow_http: config.security.allow_http,
        allow_networks: config.security.allow_networks.clone(),
    };
    let options = TransportOptions {
        policy,
        capture_bytes: config.ledger.capture_response,
        clock: clock.clone(),
        extra_roots: Vec::new(),
    };
    Ok(Transport::new(options)?)
}

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
