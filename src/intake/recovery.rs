//! After a restart: what the ledger already holds is not sent again (invariant I3).
//!
//! Ids sort in commit order, so one look at the start tells how far the ledger reaches; up to there each batch is
//! compared with it, beyond there nothing is asked any more. Within one place of the log their order means nothing: of
//! what one change owes, the ledger may hold any part. Memory is a batch's, whatever the ledger holds.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::dispatcher::{Offer, Young};
use crate::domain::{CommitLsn, DeliveryId, limits};
use crate::ledger::claim::open_webhooks;
use crate::ledger::own::Ownership;
use crate::ledger::{Ledger, LedgerError, recorded, within};
use crate::postgres::Session;
use crate::settlement::Settlement;

/// What is known of the ledger at the start.
pub struct Recovery {
    ledger: Ledger,
    /// The furthest delivery the ledger held when this process took over.
    furthest: Option<DeliveryId>,
    session: Option<Session>,
    skipped: u64,
}

impl Offer {
    fn young(&self) -> &Young {
        match self {
            Self::Send(young) | Self::Record(young) | Self::Dead(young, _) => young,
        }
    }

    fn into_young(self) -> Young {
        match self {
            Self::Send(young) | Self::Record(young) | Self::Dead(young, _) => young,
        }
    }
}

impl Recovery {
    /// Asks the ledger how far it reaches. Call after taking over: then nobody else adds to it.
    pub async fn begin(ledger: Ledger, own: &Ownership) -> Result<Self, LedgerError> {
        let session = ledger.session("walhook recovery").await?;
        let furthest = recorded::furthest(&session.client, own, CommitLsn::default()).await?;
        Ok(Self { ledger, furthest, session: Some(session), skipped: 0 })
    }

    /// The webhooks that have open deliveries, before anybody adds to them.
    pub async fn open_webhooks(&self) -> Result<HashSet<Arc<str>>, LedgerError> {
        match &self.session {
            Some(session) => Ok(open_webhooks(&session.client).await?.into_iter().collect()),
            None => Ok(HashSet::new()),
        }
    }

    /// Leaves what the ledger does not hold; the debts of what it does are settled. `None` when asked to stop.
    pub(super) async fn filter(
        &mut self,
        batch: Vec<Offer>,
        settlement: &Settlement,
        stop: &CancellationToken,
    ) -> Result<Option<Vec<Offer>>, LedgerError> {
        let Some(furthest) = &self.furthest else { return Ok(Some(batch)) };
        if batch.iter().all(|offer| is_beyond(&offer.young().delivery.id, furthest)) {
            tracing::info!(skipped = self.skipped, "caught up with the ledger");
            (self.furthest, self.session) = (None, None);
            return Ok(Some(batch));
        }
        let known = loop {
            match within(limits::ANSWER_WITHIN, self.known(&batch)).await {
                Ok(known) => break known,
                Err(error) if error.is_transient() => {
                    self.session = None;
                    tracing::debug!(reason = crate::telemetry::chain(&error), "the ledger cannot be read");
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        };
        self.skipped += u64::try_from(known.len()).unwrap_or(0);
        let (held, new): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|offer| known.contains(offer.young().delivery.id.as_str()));
        settlement.settle(held.into_iter().map(|offer| offer.into_young().owed));
        Ok(Some(new))
    }

    async fn known(&mut self, batch: &[Offer]) -> Result<HashSet<String>, LedgerError> {
        let session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => self.ledger.session("walhook recovery").await?,
        };
        let ids: Vec<&str> = batch.iter().map(|offer| offer.young().delivery.id.as_str()).collect();
        let known = recorded::among(&session.client, &ids).await;
        self.session = Some(session);
        known
    }
}

/// Whether a delivery stands at a later place than the furthest that the ledger holds.
fn is_beyond(id: &DeliveryId, furthest: &DeliveryId) -> bool {
    DeliveryId::place_of(id.as_str()) > DeliveryId::place_of(furthest.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Lsn, Origin, Place};

    fn at(generation: u32, commit: u64, sequence: u32) -> Place {
        let origin = Origin { system: 7, generation };
        Place { origin, commit: CommitLsn(Lsn(commit)), sequence }
    }

    #[test]
    fn i3_what_one_change_owes_is_asked_for_whichever_part_of_it_the_ledger_holds() {
        let owed = ["crm", "billing", "audit"].map(|webhook| DeliveryId::of(&at(2, 5, 3), "", webhook));
        for furthest in &owed {
            assert!(owed.iter().all(|id| !is_beyond(id, furthest)));
        }
    }

    #[test]
    fn what_stands_at_a_later_place_is_not_asked_for() {
        let furthest = DeliveryId::of(&at(2, 5, 3), "", "crm");
        for later in [at(2, 5, 4), at(2, 6, 1), at(3, 1, 1)] {
            assert!(is_beyond(&DeliveryId::of(&later, "", "crm"), &furthest));
        }
        for earlier in [at(2, 5, 2), at(2, 4, 9), at(1, 9, 9)] {
            assert!(!is_beyond(&DeliveryId::of(&earlier, "", "crm"), &furthest));
        }
    }
}
