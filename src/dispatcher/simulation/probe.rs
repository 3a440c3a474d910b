//! What goes out as the probe of a receiver that fails.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::claims::Answer;
use super::super::queue::{Queue, Sending, Start};
use super::{World, delivery, name, published};
use crate::domain::{Attempt, Outcome};
use crate::ledger::claim::{Claimed, Claims};
use crate::ledger::record::Lease;

/// The ledger's answer to a claim may come when the receiver has just been found to fail.
#[tokio::test(start_paused = true)]
async fn what_was_claimed_before_a_receiver_failed_is_its_next_probe() {
    let mut state = World::new(published()).state;
    let (webhook, at, now) = (name(0), Instant::now(), state.with.clock.now());
    let outcome = Outcome::Responded { status: 503, retry_after: None, body: Bytes::new() };
    let attempt = Attempt { number: 1, started_at: now, took: Duration::from_millis(5), outcome };
    let slot = state.slots.get_mut(&webhook).expect("it is declared");
    for _ in 0..30 {
        slot.pace.end(&attempt, (false, false), 1, at, || 0.5);
    }
    assert!(slot.pace.is_open());
    state.with_queue(&webhook, Queue::divert);
    let delivery = delivery(0, 1, now);
    let claimed =
        Claimed { delivery, attempts: 1, on_schedule: 1, sent_again_at: None, lease: Lease::with_token(1) };
    state.answered(Answer::Claims(Claims { claimed: vec![claimed], ..Claims::default() }));
    state.turn();
    assert!(state.launched.as_ref().is_some_and(Vec::is_empty), "a probe before its time");
    assert!(state.wake_at() <= at + Duration::from_secs(10));
    tokio::time::advance(Duration::from_secs(10)).await;
    state.turn();
    let launched = state.launched.take().unwrap_or_default();
    assert!(
        matches!(launched.as_slice(), [(_, Sending::One(Start::Claimed(_)), true)]),
        "no probe when its time has come"
    );
}
