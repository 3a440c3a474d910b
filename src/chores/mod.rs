//! What must be done now and then: idempotent, woken or periodic.
//!
//! Each chore looks at how things are and brings them to how they should be; it keeps nothing in between, so doing it
//! twice, or after a crash, does no harm.

pub mod hold;
pub mod lag;
pub mod notices;
pub mod refused;
pub mod retain;
pub mod retries;
pub mod standing;
pub mod upkeep;
mod waiting;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::Published;
use crate::clock::Clock;
use crate::domain::StoreBodies;
use crate::ledger::Ledger;
use crate::ledger::pokes::Pokes;
use crate::ledger::prune::Retention;

/// How often retention is looked after.
const RETAIN_EVERY: Duration = Duration::from_secs(15 * 60);
/// How often held and released deliveries are looked after without being woken.
const ROUND_EVERY: Duration = Duration::from_secs(30);
/// How soon again after trouble; each time later, up to that.
const ROUND_AGAIN: Duration = Duration::from_secs(2);
/// How often what is too old is looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(5 * 60);
/// How soon a new table that a pattern means is published.
const PUBLISH_EVERY: Duration = Duration::from_secs(15);
/// How often the slot and the gaps are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Drops what is past its retention, now and every quarter of an hour.
pub async fn keep_retention(ledger: Ledger, retention: Retention, stop: CancellationToken) {
    loop {
        retain::activate(&ledger, &retention).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETAIN_EVERY) => {}
        }
    }
}

/// Holds and releases deliveries as the webhooks' states say, at each change and every half minute; ends what is too old,
/// now and every five minutes.
pub async fn keep_holds(
    ledger: Ledger,
    mut catalog: watch::Receiver<Published>,
    pokes: watch::Sender<Pokes>,
    store: StoreBodies,
    (clock, stop): (Clock, CancellationToken),
) {
    let (mut expire_at, mut wait) = (Instant::now(), ROUND_EVERY);
    loop {
        let published = catalog.borrow_and_update().clone();
        wait = match hold::activate(&ledger, &published, &pokes, &stop).await {
            true => ROUND_EVERY,
            false if wait == ROUND_EVERY => ROUND_AGAIN,
            false => (wait * 2).min(ROUND_EVERY),
        };
        if Instant::now() >= expire_at {
            expire_at = Instant::now() + EXPIRE_EVERY;
            hold::expire(&ledger, &published, store, &pokes, (&clock, &stop)).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = catalog.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Tells how the slot stands, now and every ten seconds.
pub async fn keep_looking(standing: standing::Standing, stop: CancellationToken) {
    let mut kept = standing::Kept::default();
    loop {
        standing::activate(&standing, &mut kept).await;
        tokio::select! {
            () = stop.cancelled() => return standing::leave(&standing, &mut kept).await,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Keeps the publications at what the webhooks need, now and every quarter of a minute: tables come and go. (A change of the
/// webhooks themselves has been followed before it was published.)
pub async fn keep_publications(
    upkeep: upkeep::Upkeep,
    catalog: watch::Receiver<Published>,
    stop: CancellationToken,
) {
    loop {
        let snapshot = catalog.borrow().snapshot.clone();
        upkeep.activate(&snapshot).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PUBLISH_EVERY) => {}
        }
    }
}
