//! The slot is ours; now the ledger becomes it.
//!
//! From the takeover on nobody else's writes are accepted, so that what is read of the ledger afterwards is final. A ledger that cannot
//! be reached just then is waited for, as it is at any other time: for as long as the slot is ours.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::prepare::Ready;
use super::{AppError, Patience, catalog, renewal, standby};
use crate::domain::limits;
use crate::intake::Recovery;
use crate::ledger::own::{Identity, Ownership};
use crate::ledger::{LedgerError, health};

/// What is found there.
pub(super) struct Found {
    pub own: Ownership,
    pub recovery: Recovery,
    /// Webhooks with open deliveries.
    pub open: HashSet<Arc<str>>,
    /// Those that fail.
    pub ill: HashMap<Arc<str>, health::Health>,
    /// The webhooks of the database. Standing by may have taken long: what is declared now counts, from the first change on.
    pub rows: catalog::Rows,
}

/// Takes the ledger over, in the generation of the slot that is read.
pub(super) async fn take_over(ready: &Ready, slot: &str) -> Result<Found, AppError> {
    let mut patience = Patience::new("the ledger cannot be taken over yet; trying again");
    loop {
        let tried = tokio::time::timeout(limits::TAKEOVER_WITHIN, attempt(ready, slot)).await;
        let silent = LedgerError::Silent { seconds: limits::TAKEOVER_WITHIN.as_secs() };
        match tried.unwrap_or_else(|_| Err(silent.into())) {
            Err(error) => patience.pass_over(error).await?,
            found => return found,
        }
    }
}

async fn attempt(ready: &Ready, slot: &str) -> Result<Found, AppError> {
    let identity = Identity {
        system: ready.identity.system,
        timeline: i32::try_from(ready.identity.timeline).unwrap_or(i32::MAX),
        confirmed: ready.prepared.slot.confirmed.0,
        fork: ready.fork,
    };
    let ledger = &ready.places.ledger;
    let renewals = renewal::finish(&ready.places, slot).await?;
    let own = ledger.take_over(slot, &identity, &standby::instance()).await?;
    drop(renewals);
    let recovery = Recovery::begin(ledger.clone(), &own).await?;
    let open = recovery.open_webhooks().await?;
    let session = ledger.session("walhook start").await?;
    let rows = catalog::load(&session.client).await?;
    let ill = health::load(&session.client).await?;
    Ok(Found { own, recovery, open, ill, rows })
}
