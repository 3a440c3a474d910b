//! The attempt of a batch: one request, one answer, an end for each of its deliveries.
//!
//! To [`attempt`] a batch is a delivery like others: its name, its type (`batch`), the array as its body, and a header that says
//! how many there are. Who is in it and when it goes is the queue's decision ([`super::queue`]).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::attempt::attempt;
use super::begin::{Back, Ended, Judge, opened, panicked};
use super::queue::Start;
use super::run::State;
use super::tell;
use crate::catalog::Compiled;
use crate::domain::{Attempt, Delivery, DeliveryId, array_bytes, array_of, array_type};

impl State {
    /// Sends an array of these, which are in commit order.
    pub(super) fn spawn_batch(&mut self, target: Arc<Compiled>, members: Vec<Start>, is_probe: bool) {
        let sum = members.iter().map(|member| member.delivery().body.len()).sum();
        let bytes = array_bytes(members.len(), sum);
        self.share.begin_batch(bytes);
        let (transport, clock) = (self.with.transport.clone(), self.with.clock.clone());
        let (ended, meters) = (self.ended.clone(), Arc::clone(&self.meters));
        self.with.tasks.spawn_brief(async move {
            let (started_at, begun) = (clock.now(), Instant::now());
            let members: Vec<_> = members.into_iter().map(opened).collect();
            let number = members.iter().map(|(_, _, number, _)| *number).max().unwrap_or(1);
            let tried = async {
                let whole = whole(members.iter().map(|(delivery, ..)| delivery))?;
                tell::batch(&whole, members.len(), number);
                Some(attempt(&target, &whole, number, &transport, &clock, &meters).await)
            };
            let tried = AssertUnwindSafe(tried).catch_unwind().await.ok().flatten();
            let tried = tried.unwrap_or_else(|| panicked(&target.webhook.name, number, started_at, begun));
            let judge = Judge { retry: &target.webhook.retry, clock: &clock, meters: &meters, is_probe };
            let members = members.into_iter().map(|(delivery, whose, number, on_schedule)| {
                let attempt = Attempt { number, ..tried.clone() };
                let verdict = judge.of(&delivery, &whose, &attempt, on_schedule);
                Ended { whose, attempt, verdict, is_probe }
            });
            if ended.send(Back::Batch(members.collect(), bytes)).is_err() {
                tracing::debug!("an attempt ended after the dispatcher");
            }
        });
    }

    /// The attempt of a batch of so many bytes has ended.
    pub(super) fn end_batch(&mut self, members: Vec<Ended>, bytes: usize) {
        self.share.end_batch(bytes);
        let Some(first) = members.first() else { return };
        let (webhook, at) = (Arc::clone(first.whose.webhook().0), Instant::now());
        let heard = self.heard(&members, at);
        self.with_queue(&webhook, |queue, turn| queue.batch_ended(members, turn));
        self.follow_end(&webhook, heard, at);
        for waiting in std::mem::take(&mut self.roomless) {
            self.touch(&waiting);
        }
    }
}

/// A batch as one delivery.
fn whole<'d>(members: impl ExactSizeIterator<Item = &'d Delivery> + Clone) -> Option<Delivery> {
    let first = members.clone().next()?;
    Some(Delivery {
        id: DeliveryId::of_batch(members.clone().map(|member| &member.id)),
        event_type: "batch".into(),
        content_type: array_type(&first.content_type).unwrap_or(&first.content_type).into(),
        headers: Some(format!("x-webhook-batch: {}", members.len()).into()),
        body: array_of(members.map(|member| &member.body)),
        ..first.clone()
    })
}
