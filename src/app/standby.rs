//! Being seen while standing by (see [`crate::source::stand_by`]), and the name to be seen under.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::SourceState;
use crate::postgres::{Server, Session};
use crate::source::stand_by;
use crate::telemetry::chain;

/// How much of a host's name is told: the server keeps 63 bytes of a session's name.
const HOST_CHARS: usize = 32;

/// What this instance is called where instances are told apart: its host, as far as that is known, and its process.
pub(super) fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(char::is_ascii_graphic).take(HOST_CHARS).collect();
    let gap = if host.is_empty() { "" } else { " " };
    format!("{host}{gap}pid {}", std::process::id())
}

/// Keeps a session open that says so as long as the source stands by.
pub(super) async fn keep_seen(
    server: Server,
    slot: String,
    mut states: watch::Receiver<SourceState>,
    stop: CancellationToken,
) {
    let instance = instance();
    let mut seen: Option<Session> = None;
    loop {
        if !matches!(*states.borrow_and_update(), SourceState::Standby { .. }) {
            seen = None;
        } else if seen.as_ref().is_none_or(|session| session.client.is_closed()) {
            let standing_by = tokio::select! {
                () = stop.cancelled() => return,
                standing_by = stand_by(&server, &slot, &instance) => standing_by,
            };
            // The source finds the slot taken again and again, and so this is tried again.
            seen = standing_by
                .map_err(|error| tracing::debug!(reason = chain(&error), "a standby is not seen yet"))
                .ok();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
    }
}
