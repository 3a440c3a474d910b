//! Deliveries of paused and disabled webhooks are held, those of active ones released; and what is too old ends.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalog::Published;
use crate::domain::{FailReason, Flow, StoreBodies, limits};
use crate::ledger::claim::open_webhooks;
use crate::ledger::states::End;
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

/// Ends what has been held for longer than `held_for`, or is older than `retry.max_age`.
pub(super) async fn expire(
    ledger: &Ledger,
    published: &Published,
    store: StoreBodies,
    pokes: &watch::Sender<u64>,
    stop: &CancellationToken,
) {
    match expiring(ledger, published, store, stop).await {
        Ok(0) => {}
        Ok(expired) => {
            tracing::warn!(expired, "deliveries were too old to be sent, and have failed");
            metrics::counter!("walhook_deliveries_failed_total").increment(expired);
            pokes.send_modify(|n| *n += 1);
        }
        Err(error) => tracing::warn!(reason = chain(&error), "old deliveries could not be looked after"),
    }
}

async fn expiring(
    ledger: &Ledger,
    published: &Published,
    store: StoreBodies,
    stop: &CancellationToken,
) -> Result<u64, LedgerError> {
    let mut session = within(limits::ANSWER_WITHIN, ledger.session("walhook holds")).await?;
    let too_old = FailReason::TooOld.describe();
    let held = "it was held for longer than held_for allows";
    let mut expired = 0;
    for webhook in within(limits::ANSWER_WITHIN, open_webhooks(&session.client)).await? {
        let declared = published.snapshot.by_name(&webhook).map(|compiled| &compiled.webhook);
        let held_for = declared.map_or_else(|| Flow::default().held_for, |webhook| webhook.flow.held_for);
        let is_held = published.states.contains_key(&webhook);
        let max_age = declared.and_then(|webhook| webhook.retry.max_age);
        let ends = [
            is_held.then_some(End::HeldTooLong(held_for, held)),
            max_age.map(|age| End::TooOld(age, &too_old)),
        ];
        for end in ends.iter().flatten() {
            loop {
                let ending = states::end(&mut session.client, &webhook, end, store);
                let ended = within(limits::ANSWER_WITHIN, ending).await?;
                expired += ended;
                if ended == 0 || stop.is_cancelled() {
                    break;
                }
            }
        }
    }
    Ok(expired)
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
