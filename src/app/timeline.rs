//! Is this still the database that the ledger knows?
//!
//! ```text
//!   another system                                        stop: it is another database
//!   same timeline, log ends before what the ledger holds   stop or go on: an older backup
//!   same timeline, log or ledger ends before what we know  go on: an older backup of both, or of the ledger
//!   another timeline, the slot is a synchronized copy      go on: a standby was promoted
//!   another timeline, any other slot                       stop or go on: a backup, or a standby without the copy
//! ```
//!
//! "Stop or go on" is `database.on_timeline_change`. Going on is safe for ids in each case: from the fork on they are in
//! another generation, so none is used twice. What cannot be known here is whether the slot's position is the one the
//! receivers have heard up to; that is why somebody must say so, unless Postgres itself has kept the slot in step.

use super::{AppError, Before, Config, Places};
use crate::config::OnTimelineChange;
use crate::domain::Lsn;
use crate::ledger::own::{Fork, Known};
use crate::postgres::Session;
use crate::source::{Identity, SourceError, slot_state};

/// Where the log has forked since the ledger was last taken over; an error where somebody must decide.
pub(super) async fn fork(
    config: &Config,
    places: &Places,
    (known, before): (&Known, Before),
    identity: &Identity,
    session: &Session,
) -> Result<Option<Fork>, AppError> {
    if known.system != identity.system.to_string() {
        let expected = known.system.parse().unwrap_or_default();
        return Err(SourceError::OtherSystem { expected, found: identity.system }.into());
    }
    let slot = &config.database.slot;
    let goes_on = config.database.on_timeline_change == OnTimelineChange::Continue;
    let here = |from: Lsn, reason: &str| {
        tracing::warn!(slot, %from, timeline = identity.timeline, reason, "the log has forked");
        Ok(Some(Fork { from, found_in: known.generation, used: before.used }))
    };
    let old = u32::try_from(known.timeline).unwrap_or_default();
    if old == identity.timeline {
        // More may have been written since it was found reverted.
        let end = before.reverted_to.map_or(identity.flushed, |end| end.min(identity.flushed));
        let beyond = places.ledger.reaches_beyond(known, end).await?;
        return match (beyond, goes_on) {
            (true, true) => here(end, "the ledger is ahead of the database"),
            (true, false) => Err(SourceError::Restored { end }.into()),
            // Ledger and slot agree, so nobody need choose. But ids beyond the end may be used, and only we know that.
            (false, _) if before.reverted_to.is_some() => {
                here(end, "an older state of the database was put back")
            }
            (false, _) => Ok(None),
        };
    }
    // A slot that is not there is a lost one, and is dealt with as such.
    let Some(state) = slot_state(session, slot).await? else { return Ok(None) };
    let left_at = identity.ancestors.iter().find(|(timeline, _)| *timeline == old).map(|(_, end)| *end);
    match left_at {
        Some(end) if state.synced => here(end, "a standby with a copy of the slot was promoted"),
        _ if goes_on => here(left_at.unwrap_or(state.confirmed.0), "going on, as the configuration says"),
        _ => Err(SourceError::Forked {
            slot: slot.clone(),
            known: old,
            found: identity.timeline,
            fork: left_at,
        }
        .into()),
    }
}
