//! Waiting for the end, and ending in order.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant};

use super::{AppError, Running, SourceState, Sources, Tasks, refresh};
use crate::tasks::Death;

/// What is left of the grace for the source's goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Why the process ends.
enum End {
    Asked,
    Fault(AppError),
}

/// Waits for a signal or a fault, then stops everything in order.
pub(super) async fn until_the_end(
    mut running: Running,
    sources: Sources,
    tasks: Tasks,
    mut deaths: mpsc::UnboundedReceiver<Death>,
    states: watch::Receiver<SourceState>,
) -> Result<(), AppError> {
    let end = wait(&mut running, &sources, &mut deaths).await;
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
    match end {
        End::Fault(error) => Err(error),
        // What is in flight at the end of the grace is under a lease and is sent again; that is no fault.
        End::Asked if drained.is_ok() || ended => {
            tracing::info!("stopped");
            Ok(())
        }
        End::Asked => Err(AppError::Grace),
    }
}

async fn wait(running: &mut Running, sources: &Sources, deaths: &mut mpsc::UnboundedReceiver<Death>) -> End {
    let (mut terminate, mut interrupt, mut reread) = match signals() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be received");
            return End::Fault(AppError::Died { task: "signals" });
        }
    };
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

type Signals = (tokio::signal::unix::Signal, tokio::signal::unix::Signal, tokio::signal::unix::Signal);

fn signals() -> std::io::Result<Signals> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?))
}
