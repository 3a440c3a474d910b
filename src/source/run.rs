//! One connection after another, with a state to show.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Carried, Item, SourceError, SourceOptions, Stopped, stream};
use crate::domain::{EndLsn, limits};
use crate::postgres::{Nature, told};

/// The first wait after a loss, and the longest while another process holds the slot.
const WAIT_MIN: Duration = Duration::from_millis(200);
const STANDBY_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the source is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Opening a connection.
    Connecting,
    /// Another process streams from the slot; we take over when it ends.
    Standby {
        /// Since when.
        since: Timestamp,
        /// The server process that holds the slot, where known.
        pid: Option<i32>,
    },
    /// Streaming.
    Streaming {
        /// Since when.
        since: Timestamp,
        /// The cluster.
        system: u64,
        /// Its timeline.
        timeline: u32,
    },
    /// The connection could not be made or was lost.
    Waiting {
        /// Why: primary, detail and hint.
        error: String,
        /// When it is tried again, from the moment of this state.
        retry_in: Duration,
    },
}

/// Streams until the stop, over as many connections as it takes. Returns early only with an error that is
/// [`Nature::Definite`].
pub async fn run(
    options: SourceOptions,
    items: mpsc::Sender<Item>,
    mut confirmed: watch::Receiver<EndLsn>,
    states: watch::Sender<SourceState>,
    stop: CancellationToken,
) -> Result<Stopped, SourceError> {
    let mut wait = WAIT_MIN;
    let mut standby_since = None;
    let mut carried = Carried::default();
    loop {
        let mut began = None;
        let started = |identity: &super::Identity| {
            began = Some(Instant::now());
            let since = options.clock.now();
            metrics::counter!("walhook_source_connections_total").increment(1);
            tracing::info!(slot = %options.slot, system = identity.system, "streaming");
            states.send_replace(SourceState::Streaming {
                since,
                system: identity.system,
                timeline: identity.timeline,
            });
        };
        if standby_since.is_none() {
            states.send_replace(SourceState::Connecting);
        }
        let error = match stream(&options, &items, &mut confirmed, &stop, &mut carried, started).await {
            Ok(stopped) => return Ok(stopped),
            Err(SourceError::Recoded) => {
                tracing::info!("text is made UTF-8 by the server again");
                continue;
            }
            Err(error) if carried.to_recode => error,
            Err(error) if error.nature() == Nature::Definite => return Err(error),
            Err(error) => error,
        };
        if began.is_some() {
            standby_since = None;
        }
        // A connection that held is no reason to wait longer after the next loss.
        if began.is_some_and(|at: Instant| at.elapsed() > limits::RECONNECT_MAX) {
            wait = WAIT_MIN;
        }
        let pause = spread(wait, options.clock.dice());
        if let SourceError::SlotTaken { pid, .. } = error {
            let since = *standby_since.get_or_insert_with(|| {
                tracing::info!(slot = %options.slot, pid, "standby: another process streams from the slot");
                options.clock.now()
            });
            states.send_replace(SourceState::Standby { since, pid });
            wait = (wait * 2).min(STANDBY_WAIT_MAX);
        } else {
            standby_since = None;
            let (detail, hint) = (error.detail(), error.hint());
            tracing::warn!(%error, detail, retry_in_ms = pause.as_millis(), "the replication stream is down");
            let error = told(&error, detail.as_deref(), hint.as_deref());
            states.send_replace(SourceState::Waiting { error, retry_in: pause });
            wait = (wait * 2).min(limits::RECONNECT_MAX);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(Stopped::Asked),
            () = sleep(pause) => {}
        }
    }
}

/// Half to the whole of a wait, so that many do not come back at once.
fn spread(wait: Duration, dice: f64) -> Duration {
    wait.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0)
}
