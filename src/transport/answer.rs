//! Reading what the receiver answered, and no more of it than there is a use for.
//!
//! A success counts only when its answer came whole, or was longer than anybody wants to read: a receiver that
//! breaks off in the middle of a 200 may not have kept what it got. Any other status counts as soon as it is known,
//! however the rest of that answer ends.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use url::Url;

use super::failure;
use super::progress::Progress;
use super::retry_after::wait_asked;
use crate::domain::{Outcome, TimeoutStage, limits};

/// How the reading of an answer's body ended.
enum Ending {
    /// At its end, or where we stopped reading.
    Read,
    TimedOut,
    Broken(reqwest::Error),
}

/// Reads an answer to its end or its limit within `time_left` and says how the attempt ended.
pub(super) async fn outcome(
    mut response: reqwest::Response,
    capture_bytes: usize,
    time_left: Duration,
    now: Timestamp,
    (url, progress): (&Url, &Progress),
) -> Outcome {
    let status = response.status();
    let retry_after = wait_asked(response.headers(), now);
    let mut captured = BytesMut::new();
    let reading = read(&mut response, &mut captured, capture_bytes);
    let ending = match tokio::time::timeout(time_left, reading).await {
        Ok(Ok(())) => Ending::Read,
        Ok(Err(error)) => Ending::Broken(error),
        Err(_) => Ending::TimedOut,
    };
    match ending {
        Ending::TimedOut if status.is_success() => Outcome::TimedOut { stage: TimeoutStage::Body },
        Ending::Broken(error) if status.is_success() => {
            let (by, reason) = failure::told(&error, false, url, &failure::place(url, progress));
            Outcome::Unreachable { by, reason: format!("HTTP {}, then {reason}", status.as_u16()) }
        }
        _ => Outcome::Responded { status: status.as_u16(), retry_after, body: captured.freeze() },
    }
}

/// Fills `captured` and reads on, so that the connection can carry the next delivery; leaves an answer that is too
/// long, which closes its connection.
async fn read(
    response: &mut reqwest::Response,
    captured: &mut BytesMut,
    capture_bytes: usize,
) -> Result<(), reqwest::Error> {
    let mut seen: usize = 0;
    while seen <= limits::RESPONSE_BYTES {
        let Some(chunk): Option<Bytes> = response.chunk().await? else { return Ok(()) };
        seen = seen.saturating_add(chunk.len());
        let room = capture_bytes.saturating_sub(captured.len());
        captured.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
    }
    Ok(())
}
