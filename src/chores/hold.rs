//! Deliveries of paused and disabled webhooks are held, those of active ones released; and what is too old ends.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalog::Published;
use crate::clock::{Clock, since};
use crate::domain::{FailReason, Flow, StoreBodies, limits};
use crate::ledger::claim::open_webhooks;
use crate::ledger::pokes::Pokes;
use crate::ledger::states::{Expiry, Overdue, Suspension};
use crate::ledger::{Ledger, LedgerError, states, trigger, within};
use crate::postgres::Session;
use crate::telemetry::chain;

/// The reason of a delivery that was held for longer than its webhook allows.
const HELD_TOO_LONG: &str = "it was held for longer than held_for allows";

/// What is done for each webhook that has open deliveries.
struct Round<'r> {
    published: &'r Published,
    stop: &'r CancellationToken,
    chore: Chore,
}

enum Chore {
    /// Hold or release.
    Activate,
    /// End what is overdue at this time.
    Expire(Timestamp, StoreBodies),
}

/// Brings every open delivery to what its webhook's state says. Returns whether all of them are there.
pub(super) async fn activate(
    ledger: &Ledger,
    published: &Published,
    pokes: &watch::Sender<Pokes>,
    stop: &CancellationToken,
) -> bool {
    let round = Round { published, stop, chore: Chore::Activate };
    let (released, trouble) = round.over(ledger, pokes).await;
    if released > 0 {
        tracing::info!(released, "deliveries of webhooks that are active again are on their way");
    }
    if let Some(error) = &trouble {
        tracing::warn!(reason = chain(error), "held deliveries could not be looked after");
    }
    trouble.is_none()
}

/// Ends what has been held for longer than `held_for`, or is older than `retry.max_age`.
pub(super) async fn expire(
    ledger: &Ledger,
    published: &Published,
    store: StoreBodies,
    pokes: &watch::Sender<Pokes>,
    (clock, stop): (&Clock, &CancellationToken),
) {
    let round = Round { published, stop, chore: Chore::Expire(clock.now(), store) };
    let (expired, trouble) = round.over(ledger, pokes).await;
    if expired > 0 {
        tracing::warn!(expired, "deliveries were too old to be sent, and have failed");
        metrics::counter!("walhook_deliveries_failed_total").increment(expired);
    }
    if let Some(error) = trouble {
        tracing::warn!(reason = chain(&error), "old deliveries could not be looked after");
    }
}

impl Round<'_> {
    /// Goes over all webhooks, and tells of those for which there was something to do. What cannot be done for one keeps nobody
    /// else waiting. Returns how much was done, and the first trouble.
    async fn over(&self, ledger: &Ledger, pokes: &watch::Sender<Pokes>) -> (u64, Option<LedgerError>) {
        let (mut done, mut trouble) = (0, None);
        let (mut session, webhooks) = match begin(ledger).await {
            Ok(begun) => begun,
            Err(error) => return (0, Some(error)),
        };
        for webhook in webhooks {
            let mut some = 0;
            let ended = self.of(&mut session, &webhook, &mut some).await;
            // What was done before a fault is done.
            if some > 0 {
                done += some;
                pokes.send_modify(|pokes| pokes.moved(&webhook));
            }
            if let Err(error) = ended {
                trouble.get_or_insert(error);
                // What was asked there may still be under way.
                match within(limits::ANSWER_WITHIN, ledger.session("walhook holds")).await {
                    Ok(fresh) => session = fresh,
                    Err(_) => break,
                }
            }
        }
        (done, trouble)
    }

    /// Counts what it does, step by step.
    async fn of(&self, session: &mut Session, webhook: &str, done: &mut u64) -> Result<(), LedgerError> {
        match (&self.chore, self.published.states.get(webhook)) {
            (Chore::Expire(now, store), _) => self.end(session, webhook, (*now, *store), done).await,
            (Chore::Activate, Some(state)) => self.hold(session, webhook, state.suspension).await,
            (Chore::Activate, None) => self.release(session, webhook, done).await,
        }
    }

    async fn end(
        &self,
        session: &mut Session,
        webhook: &str,
        (now, store): (Timestamp, StoreBodies),
        ended: &mut u64,
    ) -> Result<(), LedgerError> {
        let declared = self.published.snapshot.by_name(webhook).map(|compiled| &compiled.webhook);
        let held_for = declared.map_or_else(|| Flow::default().held_for, |webhook| webhook.flow.held_for);
        // What is held since a little while ago cannot have been held for long.
        let state = self.published.states.get(webhook).filter(|state| since(now, state.since) >= held_for);
        let held = state.map(|_| Overdue::HeldTooLong(held_for, HELD_TOO_LONG));
        let (max_age, too_old) =
            (declared.and_then(|webhook| webhook.retry.max_age), FailReason::TooOld.describe());
        let old = max_age.map(|age| Overdue::TooOld(age, &too_old));
        for overdue in [held, old].into_iter().flatten() {
            let mut expiry = Expiry::new(webhook, overdue);
            while !self.stop.is_cancelled()
                && let Some(some) =
                    within(limits::ANSWER_WITHIN, expiry.step(&mut session.client, store)).await?
            {
                *ended += some;
            }
        }
        Ok(())
    }

    /// Tests are not held: nobody waits for them that long.
    async fn hold(
        &self,
        session: &mut Session,
        webhook: &str,
        suspension: Suspension,
    ) -> Result<(), LedgerError> {
        let why = format!("a test is not held, and the webhook is {}", suspension.as_str());
        within(limits::ANSWER_WITHIN, trigger::end(&session.client, webhook, &why)).await?;
        while within(limits::ANSWER_WITHIN, states::hold(&session.client, webhook)).await? > 0
            && !self.stop.is_cancelled()
        {}
        Ok(())
    }

    /// Counts the lanes.
    async fn release(
        &self,
        session: &mut Session,
        webhook: &str,
        released: &mut u64,
    ) -> Result<(), LedgerError> {
        loop {
            let releasing = states::release(&mut session.client, webhook);
            let lanes = within(limits::ANSWER_WITHIN, releasing).await?;
            *released += u64::try_from(lanes).unwrap_or(u64::MAX);
            if lanes == 0 || self.stop.is_cancelled() {
                return Ok(());
            }
        }
    }
}

async fn begin(ledger: &Ledger) -> Result<(Session, Vec<Arc<str>>), LedgerError> {
    let session = within(limits::ANSWER_WITHIN, ledger.session("walhook holds")).await?;
    let webhooks = within(limits::ANSWER_WITHIN, open_webhooks(&session.client)).await?;
    Ok((session, webhooks))
}
