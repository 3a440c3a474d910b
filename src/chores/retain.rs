//! Retention.

use crate::ledger::Ledger;
use crate::ledger::prune::Retention;
use crate::telemetry::chain;

/// Makes the coming days' partitions and drops the old ones.
pub(super) async fn activate(ledger: &Ledger, retention: &Retention) {
    match ledger.prune(retention).await {
        Ok(dropped) if dropped.is_empty() => {}
        Ok(dropped) => tracing::info!(?dropped, "dropped what is past its retention"),
        Err(error) => tracing::warn!(reason = chain(&error), "retention could not be looked after"),
    }
}
