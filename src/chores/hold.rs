//! Deliveries of paused and disabled webhooks are held, those of active ones released.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalog::Published;
use crate::domain::limits;
use crate::ledger::claim::open_webhooks;
use crate::ledger::{Ledger, LedgerError, states, within};
use crate::telemetry::chain;

/// Brings every open delivery to what its webhook's state says.
pub(super) async fn activate(
    ledger: &Ledger,
    published: &Published,
    pokes: &watch::Sender<u64>,
    stop: &CancellationToken,
) {
    match round(ledger, published, stop).await {
        Ok(0) => {}
        Ok(released) => {
            tracing::info!(released, "deliveries of webhooks that are active again are on their way");
            pokes.send_modify(|n| *n += 1);
        }
        Err(error) => tracing::warn!(reason = chain(&error), "held deliveries could not be looked after"),
    }
}

/// Returns how many lanes were released.
async fn round(
    ledger: &Ledger,
    published: &Published,
    stop: &CancellationToken,
) -> Result<usize, LedgerError> {
    let mut session = within(limits::ANSWER_WITHIN, ledger.session("walhook holds")).await?;
    let mut released = 0;
    for webhook in within(limits::ANSWER_WITHIN, open_webhooks(&session.client)).await? {
        if published.states.contains_key(&webhook) {
            while within(limits::ANSWER_WITHIN, states::hold(&session.client, &webhook)).await? > 0
                && !stop.is_cancelled()
            {}
        } else {
            loop {
                let lanes =
                    within(limits::ANSWER_WITHIN, states::release(&mut session.client, &webhook)).await?;
                released += lanes;
                if lanes == 0 || stop.is_cancelled() {
                    break;
                }
            }
        }
    }
    Ok(released)
}
