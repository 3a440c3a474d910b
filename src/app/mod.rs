//! Builds everything once, owns every task, and stops them in order.
//!
//! Starting: configuration → sessions → ledger's schema → publications, then slot → the link (the very first time the
//! schema comes last: [`first`]). As long as another
//! process holds the slot this one stands by. When the slot is ours, the ledger is *taken over* (its fence raised),
//! and only then do intake, dispatcher and the ledger's writer begin: [`prepare`], [`start`], [`takeover`], [`workers`].
//!
//! Stopping: intake takes no more; the dispatcher gives everything that is in memory a row and waits for what is in
//! flight; the writer writes; the source confirms what that settled and says goodbye. All within the grace.

mod error;
mod first;
mod prepare;
mod refresh;
mod renewal;
pub mod serve;
mod standby;
mod start;
mod stop;
mod takeover;
mod timeline;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use error::AppError;

use crate::api::Api;
use crate::catalog::{self, Published, Watcher};
use crate::config::{Config, OnSlotLost, Sources};
use crate::control::keys::one_time_token;
use crate::control::{Desk, Places, load_config, transport};
use crate::dispatcher::{self, Dispatcher, Doors};
use crate::domain::{Lsn, limits};
use crate::ledger::writer::{Health, Writer};
use crate::ledger::{LedgerError, within};
use crate::live::Live;
use crate::settlement::Settlement;
use crate::source::{Item, SourceState};
use crate::tasks::{Role, Tasks};

/// How long to wait before a new slot is made.
const BEFORE_ANOTHER: Duration = Duration::from_secs(1);

/// Runs the sidecar until a signal or a fault ends it. Two faults are no end, but the beginning of another life: a server
/// whose log is another one (what was in memory belongs to the log as it was), and a slot that is lost, where the operator
/// has chosen to go on.
///
/// `tell` says a line to whoever started it, outside of the log: the token of this run, where the operator has set none and
/// only this machine can reach the API.
pub async fn run(sources: Sources, tell: fn(&str)) -> Result<(), AppError> {
    let mut config = Arc::new(load_config(&sources)?);
    let metrics = crate::telemetry::start_metrics();
    let door = serve::Door::open(config.server.listen).await?;
    let token = token_of_this_run(&config, tell)?;
    let served = Served { metrics, door, token };
    let (mut signals, mut before) = (None, Before::default());
    loop {
        let prepared = match &mut signals {
            None => prepare::prepare(&config, before).await,
            // Nobody else hears them any more.
            Some(signals) => tokio::select! {
                prepared = prepare_anew(&config, before) => prepared,
                () = stop::asked(signals) => return Ok(()),
            },
        };
        before = Before { used: before.used, ..Before::default() };
        let mut generation = 0;
        let result = match prepared {
            Ok(prepared) => {
                generation = prepared.generation;
                before.used = before.used.max(prepared.uses());
                let heard = match signals.take() {
                    Some(signals) => signals,
                    None => stop::signals()?,
                };
                let ended = live(&sources, &config, prepared, &served, heard).await;
                (signals, config) = (Some(ended.signals), ended.config);
                ended.result
            }
            Err(error) => Err(error),
        };
        let goes_on = config.database.on_slot_lost == OnSlotLost::Recreate;
        match result {
            Err(error) if error.is_another_log() => {
                before.reverted_to = error.reverted_to();
                tracing::warn!(reason = error.tell(), "the log has forked: beginning anew");
            }
            Err(error) => match error.loss().filter(|_| goes_on) {
                Some(reason) => {
                    before.lost = Some(renewal::Loss { reason, generation });
                    tracing::error!(reason, "the slot is lost; going on with a new one");
                    tokio::time::sleep(BEFORE_ANOTHER).await;
                }
                None => return Err(error),
            },
            result => return result,
        }
    }
}

/// What a life knows of those before.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    /// The slot of the last one was lost.
    lost: Option<renewal::Loss>,
    /// The server's log ended here, before what had been read of it.
    reverted_to: Option<Lsn>,
    /// The highest generation that one of them has used.
    used: i32,
}

/// Prepares a life that is not the first. What ended the one before was an upheaval of the server's, so what passes by
/// itself is waited for.
async fn prepare_anew(config: &Config, before: Before) -> Result<prepare::Ready, AppError> {
    let mut patience = Patience::new("cannot begin anew yet; trying again");
    loop {
        match prepare::prepare(config, before).await {
            Err(error) => patience.pass_over(error).await?,
            prepared => return prepared,
        }
    }
}

/// With what passes by itself. It is told once.
struct Patience {
    telling: Option<&'static str>,
    wait: Duration,
}

impl Patience {
    fn new(telling: &'static str) -> Self {
        Self { telling: Some(telling), wait: BEFORE_ANOTHER }
    }

    /// Waits a while, each time longer; gives back what does not pass.
    async fn pass_over(&mut self, error: AppError) -> Result<(), AppError> {
        if !error.is_transient() {
            return Err(error);
        }
        if let Some(telling) = self.telling.take() {
            tracing::warn!(reason = error.tell(), "{telling}");
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(limits::RECONNECT_MAX);
        Ok(())
    }
}

/// What outlives a life.
struct Served {
    metrics: Option<PrometheusHandle>,
    door: serve::Door,
    /// See [`run`].
    token: Option<SecretString>,
}

/// Without a token of the operator's the API is not open: on a loopback address a token is made and told, elsewhere only
/// keys open it.
fn token_of_this_run(config: &Config, tell: fn(&str)) -> Result<Option<SecretString>, AppError> {
    if config.server.admin_token.is_some() || !config.server.listen.ip().is_loopback() {
        return Ok(None);
    }
    let token = one_time_token()?;
    tell(&format!("The API's token as long as this process runs (server.admin_token is not set): {token}"));
    Ok(Some(token.into()))
}

/// One life: from the link's beginning to everybody's end.
async fn live(
    sources: &Sources,
    config: &Arc<Config>,
    prepared: prepare::Ready,
    served: &Served,
    signals: stop::Signals,
) -> stop::Ended {
    let (tasks, deaths) = Tasks::new();
    let (state_in, states) = watch::channel(SourceState::Connecting);
    let (health_in, health) = watch::channel(Health::Starting);
    let (gaps_in, gaps) = watch::channel(Vec::new());
    let metrics = served.metrics.clone();
    let (trouble_in, intake) = watch::channel(None);
    let (owned_in, owned) = watch::channel(None);
    let page = serve::Pages { metrics, source: states.clone(), ledger: health, intake, gaps };
    let listener = match served.door.listener() {
        Ok(listener) => listener,
        Err(error) => return stop::Ended { result: Err(error), config: Arc::clone(config), signals },
    };
    let (places, clock) = prepared.to_work_with();
    let (live, ledger) = (Live::default(), places.ledger.clone());
    let running = start::begin(
        live.clone(),
        Arc::clone(config),
        prepared,
        &tasks,
        (state_in, health_in, trouble_in, gaps_in, owned_in),
    );
    let desk = Arc::new(Desk::new(running.config.subscribe(), places, clock));
    let api = Api::new(desk, served.token.clone(), live, tasks.stopping());
    tasks.spawn("server", Role::Essential, serve::serve(listener, page, api, tasks.clone()));
    let mut ended = stop::until_the_end(running, sources, tasks, deaths, states, signals).await;
    let own = owned.borrow().clone();
    if let (Err(error), Some(own)) = (&ended.result, own)
        && error.is_of_the_fence()
        && within(limits::ANSWER_WITHIN, ledger.is_older_than(&own)).await.unwrap_or(false)
    {
        ended.result = Err(AppError::LedgerReverted);
    }
    ended
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
