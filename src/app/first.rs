//! The first start: nothing is there yet, and nothing is left behind where it cannot all be made.
//!
//! Publications and slot are made before the ledger's schema: they can be taken back when that fails. A schema could not:
//! another instance that starts at the same moment may be using it.

use super::{AppError, Places};
use crate::postgres::Session;
use crate::source::{self, Preparation};

/// Brings the ledger up to date; where there is none yet, makes publications and slot first.
pub(super) async fn make(places: &Places, session: &mut Session, wish: &Preparation) -> Result<(), AppError> {
    if places.ledger.insist().await? {
        return Ok(places.ledger.migrate().await?);
    }
    let first = source::prepare(session, wish).await?;
    let migrated = places.ledger.migrate().await;
    if migrated.is_err() && first.slot_created {
        source::undo(session, &wish.slot, &first.report).await;
    }
    Ok(migrated?)
}
