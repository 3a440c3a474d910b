//! A slot that is lost, and the next one.
//!
//! With `database.on_slot_lost = "recreate"` a process whose slot is gone, invalidated, or of no use because its publication
//! was dropped goes on with a new one. What was lost is recorded first, and gets its end when the new slot is there: only
//! then is it known where reading goes on ([`crate::ledger::gaps`]). All of it is done under a lock, and looks at what is
//! there under that lock: so instances that lose their slot together make one new slot, and one gap; and whoever comes
//! after a crash takes it up where it was broken off. A new slot can be read before its gap has ended, so whoever reads it
//! waits for that before it takes the ledger over ([`finish`]): the end begins the generation that the ids are made of.

use super::{AppError, Config, Places};
use crate::config::OnSlotLost;
use crate::domain::{EndLsn, Lsn};
use crate::ledger::own::Known;
use crate::postgres::Session;
use crate::source::{
    PUBLICATION_DROPPED, Preparation, SlotHistory, WalStatus, drop_lost_slot, lock_slot, slot_state,
};

/// Why an earlier life of this process could not go on with its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    /// In words.
    pub reason: &'static str,
    /// The generation its slot was of: if the ledger is in a later one, somebody has made a new slot since.
    pub generation: i32,
}

/// Records what is lost, and drops what is left of the slot, so that a new one is made.
pub(super) async fn begin(
    config: &Config,
    places: &Places,
    wish: &mut Preparation,
    session: &Session,
    (owned, flushed, lost): (Option<&Known>, Lsn, Option<Loss>),
) -> Result<(), AppError> {
    let Some(owned) = owned.filter(|_| config.database.on_slot_lost == OnSlotLost::Recreate) else {
        return Ok(());
    };
    let slot = &config.database.slot;
    let state = slot_state(session, slot).await?;
    let broken_off = places.ledger.open_gap(slot).await?;
    let publication = lost.filter(|lost| lost.reason == PUBLICATION_DROPPED);
    let reason = match (&state, &broken_off) {
        (None, _) => "the slot is gone",
        (Some(state), _) if state.wal_status == WalStatus::Lost => "the slot was invalidated",
        // A new one would be further than where the gap begins.
        (Some(state), Some(gap)) if gap.from.is_some_and(|from| state.confirmed.0 <= from) => &gap.reason,
        // Its log is there, and yet it cannot be read: only who streamed from it knows.
        (Some(_), None) if publication.is_some_and(|lost| lost.generation == owned.generation) => {
            PUBLICATION_DROPPED
        }
        (Some(_), _) => return Ok(()),
    };
    let from = state.as_ref().map(|state| state.confirmed.0);
    places.ledger.begin_gap(slot, from, flushed, reason).await?;
    fail::fail_point!("after_gap_begins", |_| std::process::abort());
    if state.is_some() {
        drop_lost_slot(session, slot).await?;
    }
    wish.history = SlotHistory::Never;
    Ok(())
}

/// The slot is there, and begins here: what was lost before it has its end. Returns the generation the ledger is in now.
pub(super) async fn end(
    places: &Places,
    slot: &str,
    begins: EndLsn,
    owned: Option<&Known>,
) -> Result<i32, AppError> {
    fail::fail_point!("after_slot_is_made", |_| std::process::abort());
    let Some(owned) = owned else { return Ok(1) };
    let ended = close(places, slot, begins).await?;
    Ok(owned.generation.saturating_add(i32::from(ended)))
}

/// The slot is ours to read, and nobody has confirmed anything of it to the server since it was: a renewal that somebody is at
/// has its end before this returns, and so has one that was broken off. None begins while the session lasts.
pub(super) async fn finish(places: &Places, slot: &str) -> Result<Session, AppError> {
    let session = places.database.session("walhook start").await?;
    lock_slot(&session, slot).await?;
    if places.ledger.open_gap(slot).await?.is_some()
        && let Some(state) = slot_state(&session, slot).await?
    {
        close(places, slot, state.confirmed).await?;
    }
    Ok(session)
}

/// Ends what is open and tells of it. Returns whether anything was.
async fn close(places: &Places, slot: &str, begins: EndLsn) -> Result<bool, AppError> {
    let Some(gap) = places.ledger.end_gap(slot, begins.0).await? else { return Ok(false) };
    let (from, to) = (gap.from.map(|from| from.to_string()), begins.to_string());
    let reason = gap.reason;
    tracing::error!(slot, from, to, reason, "changes between these positions are lost; recorded in gaps");
    Ok(true)
}
