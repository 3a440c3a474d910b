//! How the slot stands: as numbers for whoever watches, and as a warning while its log can still be saved.
//!
//! A slot that nobody reads from makes the server keep its log; beyond `max_slot_wal_keep_size` the server removes it,
//! and what was not delivered is lost. Both are told before they hurt, and a gap that there was stays in view until
//! its row in `gaps` is deleted. The position that is reached, and since when something waits, are noted in the ledger
//! where there was something to do: an idle database is not written to, for that would be something to do.

use tokio::sync::watch;

use std::time::Duration;

use super::lag::{Lag, Marks, Reading, Thresholds};
use super::{LOOK_EVERY, waiting};
use crate::clock::Clock;
use crate::domain::{EndLsn, limits};
use crate::ledger::overview::{self, Gap};
use crate::ledger::own::Ownership;
use crate::ledger::positions::{self, Waiting};
use crate::ledger::{Ledger, LedgerError, within};
use crate::postgres::{Server, Session};
use crate::settlement::Settlement;
use crate::source::{SetupError, SlotState, WalStatus, slot_state};
use crate::telemetry::chain;

/// What is looked at.
#[derive(Debug)]
pub struct Standing {
    /// The application's database.
    pub server: Server,
    /// The ledger.
    pub ledger: Ledger,
    /// The slot.
    pub own: Ownership,
    /// What is settled.
    pub settlement: Settlement,
    /// How old what is read is.
    pub reading: Reading,
    /// The gaps that are recorded, newest first.
    pub gaps: watch::Sender<Vec<Gap>>,
    /// Whether the log lags.
    pub lag: watch::Sender<Lag>,
    /// From where on it does.
    pub thresholds: Thresholds,
    /// The time.
    pub clock: Clock,
}

/// How long the last note may take.
const LEAVING: Duration = Duration::from_secs(1);
/// Log that may go by before its position is noted though nothing of it was delivered.
const NOTED_APART: u64 = 4 * 1024 * 1024;

/// What was noted: how much had been settled, up to where, and since when something waited.
type Noted = (u64, EndLsn, Waiting);

/// What is kept between two looks.
#[derive(Default)]
pub(super) struct Kept {
    database: Option<Session>,
    ledger: Option<Session>,
    told: Option<WalStatus>,
    noted: Option<Noted>,
    marks: Marks,
    waiting: waiting::Labels,
}

/// Looks once; trouble is other parts' to tell.
pub(super) async fn activate(standing: &Standing, kept: &mut Kept) {
    let database = kept.database.take();
    let looked = tokio::time::timeout(limits::ANSWER_WITHIN, slot(standing, database)).await;
    match looked.unwrap_or_else(|_| Err("no answer".to_owned())) {
        Ok((session, state)) => {
            kept.database = Some(session);
            if let Some(state) = state {
                tell(&standing.own.slot, &state, &mut kept.told);
                let lag = kept.marks.look(standing.clock.now(), &state, standing.thresholds);
                tell_lag(standing, lag);
            }
        }
        Err(reason) => tracing::debug!(reason, "the slot's state cannot be read"),
    }
    let waiting = waits(standing, &kept.marks);
    let ledger = kept.ledger.take();
    match within(limits::ANSWER_WITHIN, look(standing, ledger, kept, waiting)).await {
        Ok((session, gaps)) => {
            kept.ledger = Some(session);
            metrics::gauge!("walhook_gaps").set(f64::from(u32::try_from(gaps.len()).unwrap_or(u32::MAX)));
            standing.gaps.send_if_modified(|known| std::mem::replace(known, gaps.clone()) != gaps);
        }
        Err(error) => tracing::debug!(reason = chain(&error), "the ledger cannot be looked at"),
    }
}

async fn slot(standing: &Standing, session: Option<Session>) -> Result<(Session, Option<SlotState>), String> {
    let session = match session.filter(|session| !session.client.is_closed()) {
        Some(session) => session,
        None => standing.server.session("walhook standing").await.map_err(|error| chain(&error))?,
    };
    let state = slot_state(&session, &standing.own.slot).await.map_err(|error: SetupError| chain(&error))?;
    Ok((session, state))
}

/// Tells how old what waits is: by what is being read or by the marks, whichever is older.
fn waits(standing: &Standing, marks: &Marks) -> Waiting {
    let now = standing.clock.now();
    let age = marks.age(now).max(standing.reading.take().unwrap_or_default());
    metrics::gauge!("walhook_source_lag_seconds").set(age.as_secs_f64());
    // A mark is as old as the time between two looks when it is looked at again.
    let since = (age >= LOOK_EVERY.mul_f64(0.9)).then(|| now.checked_sub(age).unwrap_or(now));
    match since {
        _ if !marks.have_been_reached() => Waiting::Unknown(since),
        Some(since) => Waiting::Since(since),
        None => Waiting::Nothing,
    }
}

/// At the gaps, and at what waits; notes the position.
async fn look(
    standing: &Standing,
    session: Option<Session>,
    kept: &mut Kept,
    waiting: Waiting,
) -> Result<(Session, Vec<Gap>), LedgerError> {
    let session = match session.filter(|session| !session.client.is_closed()) {
        Some(session) => session,
        None => standing.ledger.session("walhook standing").await?,
    };
    let gaps = overview::gaps(&session.client, &standing.own.slot).await?;
    waiting::activate(&session.client, &mut kept.waiting, standing.clock.now()).await?;
    note(standing, &session, &mut kept.noted, waiting).await?;
    Ok((session, gaps))
}

/// Notes the position where something has been settled, where a lot of log went by, or where what waits has changed.
async fn note(
    standing: &Standing,
    session: &Session,
    noted: &mut Option<Noted>,
    waiting: Waiting,
) -> Result<(), LedgerError> {
    let (settled, confirmed) = (standing.settlement.settled(), *standing.settlement.confirmed().borrow());
    let is_news = noted.is_none_or(|(settled_then, reached, waited)| {
        settled != settled_then || waiting != waited || confirmed.0.bytes_since(reached.0) >= NOTED_APART
    });
    if is_news {
        positions::note(&session.client, &standing.own, confirmed, waiting).await?;
        *noted = Some((settled, confirmed, waiting));
    }
    Ok(())
}

/// Notes the position a last time.
pub(super) async fn leave(standing: &Standing, kept: &mut Kept) {
    let Some(session) = kept.ledger.take() else { return };
    let waiting = waits(standing, &kept.marks);
    let noting = async {
        let confirmed = *standing.settlement.confirmed().borrow();
        positions::note(&session.client, &standing.own, confirmed, waiting).await
    };
    if let Err(error) = within(LEAVING, noting).await {
        tracing::debug!(reason = chain(&error), "the last position cannot be noted");
    }
}

/// Tells that the log lags, or does no more; whoever follows is woken by that alone.
fn tell_lag(standing: &Standing, lag: Lag) {
    standing.lag.send_if_modified(|before| {
        let slot = &standing.own.slot;
        let is_news = std::mem::discriminant(before) != std::mem::discriminant(&lag);
        match (&*before, &lag) {
            (Lag::Unknown | Lag::Fine(_), Lag::Behind(behind)) => {
                let (lag_bytes, seconds) = (behind.bytes, behind.age.as_secs());
                tracing::info!(slot, lag_bytes, seconds, "the log lags behind");
            }
            (Lag::Behind(_), Lag::Fine(lag_bytes)) => {
                tracing::info!(slot, lag_bytes, "the log lags behind no more");
            }
            _ => {}
        }
        *before = lag;
        is_news
    });
}

/// Sets the numbers, and warns where the log is in more danger than when it was last told.
fn tell(slot: &str, state: &SlotState, told: &mut Option<WalStatus>) {
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float; bytes beyond 2^53 do not matter")]
    let bytes = |bytes: u64| bytes as f64;
    metrics::gauge!("walhook_slot_lag_bytes").set(bytes(state.lag_bytes));
    metrics::gauge!("walhook_slot_retained_bytes").set(bytes(state.retained_bytes));
    let safe = state.safe_wal_bytes.map_or(f64::INFINITY, |left| bytes(u64::try_from(left).unwrap_or(0)));
    metrics::gauge!("walhook_slot_safe_bytes").set(safe);
    for status in WalStatus::ALL {
        let here = f64::from(u8::from(status == state.wal_status));
        metrics::gauge!("walhook_slot_wal_status", "status" => status.as_str()).set(here);
    }
    if *told == Some(state.wal_status) {
        return;
    }
    let (lag_bytes, safe_bytes, status) = (state.lag_bytes, state.safe_wal_bytes, state.wal_status.as_str());
    match state.wal_status {
        WalStatus::Reserved if told.is_some() => {
            tracing::info!(slot, lag_bytes, "the slot's log is safe again");
        }
        WalStatus::Reserved => {}
        // Kept beyond max_wal_size, which is what a slot is for; it costs disk, not data.
        WalStatus::Extended => tracing::info!(
            slot,
            status,
            lag_bytes,
            safe_bytes,
            "the server keeps more log for the slot than max_wal_size"
        ),
        WalStatus::Unreserved | WalStatus::Lost => tracing::warn!(
            slot,
            status,
            lag_bytes,
            "the server is about to remove log that the slot needs; raise max_slot_wal_keep_size"
        ),
    }
    *told = Some(state.wal_status);
}
