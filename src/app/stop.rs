//! Waiting for the end, and ending in order.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant};

use super::{AppError, Config, Running, SourceState, Sources, Tasks, refresh};
use crate::tasks::Death;

/// What is left of the grace for the source's goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Why the process ends.
enum End {
    Asked,
    Fault(AppError),
}

/// How a life ended, and what the next one begins with.
pub(super) struct Ended {
    /// How.
    pub result: Result<(), AppError>,
    /// The configuration as it was read last.
    pub config: Arc<Config>,
    /// The signals, of which none is lost in between.
    pub signals: Signals,
}

/// Waits for a signal or a fault, then stops everything in order.
pub(super) async fn until_the_end(
    mut running: Running,
    sources: &Sources,
    tasks: Tasks,
    mut deaths: mpsc::UnboundedReceiver<Death>,
    states: watch::Receiver<SourceState>,
    mut signals: Signals,
) -> Ended {
    let end = wait(&mut running, sources, &mut deaths, &mut signals).await;
    let grace = running.config.borrow().delivery.shutdown_grace;
    let deadline = Instant::now() + grace;
    tracing::info!(grace_ms = grace.as_millis(), "stopping");
    tasks.stop();
    let drained =
        tokio::time::timeout_at(deadline - GOODBYE.min(grace / 2), running.drained.cancelled()).await;
    running.end_source.cancel();
    let left = deadline.saturating_duration_since(Instant::now()).max(GOODBYE);
    let ended = tasks.finish(left).await;
    drop(states);
    let config = Arc::clone(&running.config.borrow());
    let result = match end {
        End::Fault(error) => Err(error),
        // What is in flight at the end of the grace is under a lease and is sent again; that is no fault.
        End::Asked if drained.is_ok() || ended => {
            tracing::info!("stopped");
            Ok(())
        }
        End::Asked => Err(AppError::Grace),
    };
    Ended { result, config, signals }
}

async fn wait(
    running: &mut Running,
    sources: &Sources,
    deaths: &mut mpsc::UnboundedReceiver<Death>,
    (terminate, interrupt, reread): &mut Signals,
) -> End {
    loop {
        tokio::select! {
            biased;
            Some(fault) = running.faults.recv() => return End::Fault(fault),
            Some(death) = deaths.recv() => {
                // The fault that killed it says more, if it left one.
                let fault = running.faults.try_recv();
                return End::Fault(fault.unwrap_or(AppError::Died { task: death.task }));
            }
            _ = terminate.recv() => return End::Asked,
            _ = interrupt.recv() => return End::Asked,
            _ = reread.recv() => refresh::reread(sources, &running.config),
        }
    }
}

pub(super) type Signals =
    (tokio::signal::unix::Signal, tokio::signal::unix::Signal, tokio::signal::unix::Signal);

/// Begins to listen to signals.
pub(super) fn signals() -> Result<Signals, AppError> {
    let all = || {
        let hear = |kind| signal(kind);
        Ok((hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?, hear(SignalKind::hangup())?))
    };
    all().map_err(|error: std::io::Error| {
        tracing::error!(%error, "signals cannot be received");
        AppError::Died { task: "signals" }
    })
}

/// Waits until a signal asks for the end.
pub(super) async fn asked((terminate, interrupt, _): &mut Signals) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
