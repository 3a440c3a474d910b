//! Retries of many deliveries, a step of each in turn.
//!
//! Each step is short, because it keeps the ledger's writer out; between two of them the writer has its turn. How far each
//! has come stands in the ledger alone, so a retry outlives the instance that works on it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Published, anew};
use crate::ledger::pokes::Pokes;
use crate::ledger::replay::{self, STEP, Told};
use crate::ledger::retries::{self, Retry, Stepped};
use crate::ledger::unrendered::Unrendered;
use crate::ledger::{Ledger, LedgerError};
use crate::postgres::Session;
use crate::telemetry::chain;

/// How often the ledger is asked without being told.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How soon one that met trouble, or that somebody else is at, is looked at again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long a retry with a rate waits between its steps.
const SECOND: Duration = Duration::from_secs(1);

/// What the worker works with.
pub struct Retries {
    /// Where they stand.
    pub ledger: Ledger,
    /// Whose.
    pub slot: String,
    /// Told when somebody else has written to the ledger.
    pub pokes: watch::Receiver<Pokes>,
    /// The webhooks as they are now: what could not be rendered is rendered anew.
    pub catalog: watch::Receiver<Published>,
    /// The largest body.
    pub max_body: usize,
}

/// Does what is asked for until asked to stop.
pub async fn keep_retrying(mut with: Retries, stop: CancellationToken) {
    let (mut session, mut not_before, mut told) = (None, HashMap::new(), None);
    loop {
        with.pokes.mark_unchanged();
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = round(&with, &mut session, &mut not_before) => next,
        };
        let until = match next {
            Ok(soonest) => {
                told = None;
                soonest.unwrap_or_else(|| Instant::now() + ASK_EVERY)
            }
            Err(error) => {
                session = None;
                let reason = chain(&error);
                if told.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "retries wait for the ledger");
                    told = Some(reason);
                }
                Instant::now() + AGAIN_AFTER
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            poked = with.pokes.changed() => if poked.is_err() { return },
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// A step of each, over and over while there is one to make. Returns when to look again, where that is known.
async fn round(
    with: &Retries,
    kept: &mut Option<Session>,
    not_before: &mut HashMap<i64, Instant>,
) -> Result<Option<Instant>, LedgerError> {
    loop {
        let session = match kept.take().filter(|session| !session.client.is_closed()) {
            Some(session) => session,
            None => with.ledger.session("walhook retries").await?,
        };
        let session = kept.insert(session);
        let open = retries::to_do(&session.client, &with.slot).await?;
        if open.is_empty() {
            not_before.clear();
            return Ok(None);
        }
        not_before.retain(|id, _| open.iter().any(|retry| retry.id == *id));
        let now = Instant::now();
        for retry in &open {
            if not_before.get(&retry.id).is_none_or(|at| *at <= now) {
                let next = step(with, retry, session).await?;
                not_before.insert(retry.id, next);
            }
        }
        let soonest = not_before.values().min().copied();
        if soonest.is_some_and(|at| at > Instant::now()) {
            return Ok(soonest);
        }
    }
}

/// A step of one. Returns when the next one may be made.
async fn step(with: &Retries, retry: &Retry, session: &mut Session) -> Result<Instant, LedgerError> {
    let snapshot = with.catalog.borrow().snapshot.clone();
    let render = |kept: &Unrendered| {
        anew::render(kept, snapshot.by_name(&kept.webhook).map(AsRef::as_ref), with.max_body)
    };
    let webhook = &*retry.asked.webhook;
    // A receiver that fails is tried when the retry begins, and not at each of its steps.
    let told = if retry.found.is_none() { Told::Wanted(webhook) } else { Told::Moved(webhook) };
    let stepped = async {
        if retry.found.is_none() {
            retries::count(&session.client, retry).await?;
        }
        let most = retry.asked.per_second.unwrap_or(STEP);
        retries::step(&mut session.client, retry, most, &render).await
    };
    match stepped.await {
        Ok(Stepped::NotOurs) => Ok(Instant::now() + AGAIN_AFTER),
        Ok(Stepped::Sent(_)) => {
            replay::announce(&session.client, told).await?;
            let pause = if retry.asked.per_second.is_some() { SECOND } else { Duration::ZERO };
            Ok(Instant::now() + pause)
        }
        Ok(Stepped::Done(sent)) => {
            replay::announce(&session.client, told).await?;
            let sent = retry.sent + i64::try_from(sent).unwrap_or(0);
            tracing::info!(webhook, retry = retry.id, sent, "a retry is done");
            Ok(Instant::now())
        }
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            let reason = chain(&error);
            tracing::warn!(webhook, retry = retry.id, reason, "a retry cannot go on");
            retries::fail(&session.client, retry.id, &reason).await?;
            Ok(Instant::now())
        }
    }
}
