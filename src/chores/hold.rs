//! Deliveries of paused and disabled webhooks are held, those of active ones released; and what is too old ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalog::Published;
use crate::domain::{FailReason, Flow, StoreBodies, limits};
use crate::ledger::claim::open_webhooks;
use crate::ledger::pokes::Pokes;
use crate::ledger::states::End;
use crate::ledger::{Ledger, LedgerError, states, trigger, within};
use crate::telemetry::chain;

/// How many, by webhook.
type Counts = BTreeMap<Arc<str>, u64>;

/// Brings every open delivery to what its webhook's state says.
pub(super) async fn activate(
    ledger: &Ledger,
    published: &Published,
    pokes: &watch::Sender<Pokes>,
    stop: &CancellationToken,
) {
    match round(ledger, published, stop).await {
        Ok(released) if released.is_empty() => {}
        Ok(released) => {
            let (webhooks, released) = (released.keys(), released.values().sum::<u64>());
            tracing::info!(released, "deliveries of webhooks that are active again are on their way");
            pokes.send_modify(|pokes| webhooks.for_each(|webhook| pokes.touch(webhook)));
        }
        Err(error) => tracing::warn!(reason = chain(&error), "held deliveries could not be looked after"),
    }
}

/// Ends what has been held for longer than `held_for`, or is older than `retry.max_age`.
pub(super) async fn expire(
    ledger: &Ledger,
    published: &Published,
    store: StoreBodies,
    pokes: &watch::Sender<Pokes>,
    stop: &CancellationToken,
) {
    match expiring(ledger, published, store, stop).await {
        Ok(expired) if expired.is_empty() => {}
        Ok(expired) => {
            let (webhooks, expired) = (expired.keys(), expired.values().sum::<u64>());
            tracing::warn!(expired, "deliveries were too old to be sent, and have failed");
            metrics::counter!("walhook_deliveries_failed_total").increment(expired);
            pokes.send_modify(|pokes| webhooks.for_each(|webhook| pokes.touch(webhook)));
        }
        Err(error) => tracing::warn!(reason = chain(&error), "old deliveries could not be looked after"),
    }
}

async fn expiring(
    ledger: &Ledger,
    published: &Published,
    store: StoreBodies,
    stop: &CancellationToken,
) -> Result<Counts, LedgerError> {
    let mut session = within(limits::ANSWER_WITHIN, ledger.session("walhook holds")).await?;
    let too_old = FailReason::TooOld.describe();
    let held = "it was held for longer than held_for allows";
    let mut expired = Counts::new();
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
                if ended > 0 {
                    *expired.entry(Arc::clone(&webhook)).or_default() += ended;
                }
                if ended == 0 || stop.is_cancelled() {
                    break;
                }
            }
        }
    }
    Ok(expired)
}

/// Returns how many lanes were released. Tests are not held: nobody waits for them that long.
async fn round(
    ledger: &Ledger,
    published: &Published,
    stop: &CancellationToken,
) -> Result<Counts, LedgerError> {
    let mut session = within(limits::ANSWER_WITHIN, ledger.session("walhook holds")).await?;
    let mut released = Counts::new();
    for webhook in within(limits::ANSWER_WITHIN, open_webhooks(&session.client)).await? {
        if let Some(state) = published.states.get(&webhook) {
            let why = format!("a test is not held, and the webhook is {}", state.suspension.as_str());
            within(limits::ANSWER_WITHIN, trigger::end(&session.client, &webhook, &why)).await?;
            while within(limits::ANSWER_WITHIN, states::hold(&session.client, &webhook)).await? > 0
                && !stop.is_cancelled()
            {}
        } else {
            loop {
                let lanes =
                    within(limits::ANSWER_WITHIN, states::release(&mut session.client, &webhook)).await?;
                if lanes > 0 {
                    let lanes = u64::try_from(lanes).unwrap_or(u64::MAX);
                    *released.entry(Arc::clone(&webhook)).or_default() += lanes;
                }
                if lanes == 0 || stop.is_cancelled() {
                    break;
                }
            }
        }
    }
    Ok(released)
}
