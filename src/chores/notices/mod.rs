//! Notices: webhooks that ask for it are told about the machinery itself, `webhook.failing`, `delivery.failed`,
//! `source.gap` and the like ([`Notice`]).
//!
//! They do not come from the log, for they must go out when the log cannot be read, or has a gap. They are born in the
//! ledger, and are deliveries of it like any other: rendered once, signed, retried, sent again by hand, held, removed.
//!
//! ```text
//!   webhook_states  webhook_health ─┐                                         ┌─▶ deliveries   pending, due at once
//!   failures  gaps                  ├─▶ compared ─▶ who asks ─▶ rendered ─▶ one transaction
//!   how far the log is behind ──────┘      ▲                                  └─▶ notices      what was told, and when
//!                                          └─────────── what was told last ◀──────────┘
//! ```
//!
//! So a notice is not a message that somebody sends at the right moment and a crash may lose. It is the difference
//! between what is so and what was told; whoever runs next finds it, and finds it once.
//!
//! **Ids.** A notice's place is in generation zero, which no log has, at the time at which its fact began, as the fact's own
//! row tells it; its name is its type and what it is about. So the same fact has the same ids (invariant I2), and they sort
//! in the order of the facts.
//!
//! **Order.** Notices about one webhook, or one slot, are a lane of their own: that it recovered never overtakes that it
//! failed. No row waits for a notice, nor a notice for a row, whatever the webhook's `ordering`. The dispatcher finds them at its
//! next survey of the ledger, within seconds: to wake it as a person does would have every failing webhook probed at once.
//!
//! **Bounds** (invariant I11). About one webhook there is one notice in `notices.every`: what fails and recovers more
//! often is told as it stands when the time is over, and of failed deliveries how many there were meanwhile. A webhook
//! for which a thousand notices wait is told nothing more. And nothing is told of what tells: a notice that fails is not
//! counted among the failures, and nobody is told about himself.

mod news;
mod record;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lag::Lag;
use crate::catalog::{Compiled, Published, Snapshot, anew};
use crate::clock::Clock;
use crate::domain::{
    CommitLsn, Delivery, DeliveryId, Event, EventId, FailReason, Lsn, Notice, Operation, Ordering, Origin,
    Place, Topic, Transaction, lane_of, limits,
};
use crate::ledger::notices::{self, Known, Telling};
use crate::ledger::numbers;
use crate::ledger::own::Ownership;
use crate::ledger::query::{Backlog, backlog};
use crate::ledger::{Ledger, LedgerError, within};
use crate::postgres::Session;
use crate::render::{Rendered, write_notice_data};
use crate::telemetry::chain;
use news::{Decision, Fact, News, Rules};
use record::Waiting;

pub use record::sample;

/// How often is looked without being woken.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The least time between two looks: much may happen at once.
const PAUSE: Duration = Duration::from_millis(500);

/// What notices are made of, and how.
pub struct Notices {
    /// Where the facts are, and where the deliveries go.
    pub ledger: Ledger,
    /// The right to write there.
    pub own: Ownership,
    /// Who asks for what.
    pub catalog: watch::Receiver<Published>,
    /// Whether the log lags.
    pub lag: watch::Receiver<Lag>,
    /// Counts the changes of the ledger that may be news.
    pub news: watch::Receiver<u64>,
    /// The least time between two notices about one thing.
    pub every: Duration,
    /// The database's name, for bodies.
    pub database: Arc<str>,
    /// The largest body.
    pub max_body: usize,
    /// The time.
    pub clock: Clock,
}

/// What is kept between two rounds.
#[derive(Default)]
struct Kept {
    session: Option<Session>,
    /// Who is told no more, because too much waits.
    full: Vec<Arc<str>>,
}

/// Tells what is new, whenever there is news, and every half minute.
pub async fn keep_telling(mut notices: Notices, stop: CancellationToken) {
    let mut kept = Kept::default();
    loop {
        let begun = Instant::now();
        notices.catalog.borrow_and_update();
        notices.lag.borrow_and_update();
        notices.news.borrow_and_update();
        let wait = match within(limits::ANSWER_WITHIN, notices.round(&mut kept)).await {
            Ok(again) => again.unwrap_or(LOOK_EVERY).min(LOOK_EVERY),
            // Another process has the slot, and tells.
            Err(LedgerError::FencedOff) => LOOK_EVERY,
            Err(error) => {
                // The writer meets the same trouble and reports it; here it only delays.
                tracing::debug!(reason = chain(&error), "the notices could not be looked after");
                kept.session = None;
                PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = notices.catalog.changed() => {}
            Ok(()) = notices.lag.changed() => {}
            Ok(()) = notices.news.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(begun + PAUSE) => {}
        }
    }
}

impl Notices {
    /// Looks once and tells what is new. Returns when to look again although nothing wakes us.
    async fn round(&self, kept: &mut Kept) -> Result<Option<Duration>, LedgerError> {
        let mut session = match kept.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => self.ledger.session("walhook notices").await?,
        };
        let known = notices::known(&session.client, &self.own.slot).await?;
        let (snapshot, now) = (Arc::clone(&self.catalog.borrow().snapshot), self.clock.now());
        let decision = self.decide(&known, &snapshot, now);
        if !decision.tell.is_empty() {
            let all = self.tellings(&session, &snapshot, &decision.tell, now, kept).await?;
            notices::tell(&mut session.client, &self.own, &all, now).await?;
            for news in &decision.tell {
                let (notice, about) = (news.notice.event_type(), &*news.name);
                tracing::debug!(notice, about, "told");
            }
        }
        notices::forget(&session.client, &decision.forget, &decision.drop).await?;
        kept.session = Some(session);
        Ok(decision.again)
    }

    fn decide(&self, known: &Known, snapshot: &Snapshot, now: Timestamp) -> Decision {
        let is_declared = |name: &str| {
            snapshot.by_name(name).is_some() || snapshot.invalid.iter().any(|invalid| invalid.webhook == name)
        };
        let slot = self.own.slot.as_str().into();
        let rules = Rules { now, every: self.every, slot: &slot, is_declared: &is_declared };
        Decision::of(known, &self.lag.borrow(), &rules)
    }

    /// Each with the deliveries that it owes.
    async fn tellings(
        &self,
        session: &Session,
        snapshot: &Snapshot,
        all: &[News],
        now: Timestamp,
        kept: &mut Kept,
    ) -> Result<Vec<Telling>, LedgerError> {
        let client = &session.client;
        let mut waiting = notices::waiting(client).await?;
        let about: Vec<&str> = all
            .iter()
            .filter(|news| matches!(news.notice.topic(), Topic::Webhook | Topic::Delivery))
            .map(|news| &*news.name)
            .collect();
        let oldest = numbers::oldest(client, &about).await?;
        let waiting_of = |backlog: &Backlog| {
            let of_it = oldest.iter().filter(|oldest| oldest.webhook == backlog.webhook);
            let oldest = of_it.map(|oldest| oldest.since).min();
            (Arc::clone(&backlog.webhook), Waiting::of(backlog, oldest, now))
        };
        let backlogs: HashMap<Arc<str>, Waiting> =
            backlog(client, &about).await?.iter().map(waiting_of).collect();
        let mut tellings = Vec::with_capacity(all.len());
        for news in all {
            let (mut failures, mut event_type) = (0, None);
            if let Fact::GivenUp(given_up) = &news.fact {
                failures = given_up.failures;
                event_type = notices::type_of(client, &given_up.delivery).await?;
            }
            let of_webhook = backlogs.get(&news.name).copied().unwrap_or_default();
            let record = record::write(news, of_webhook, event_type.as_deref());
            let deliveries = self.deliveries(snapshot, news, &record, &mut waiting, now, kept);
            let (notice, name, since) = (news.notice, Arc::clone(&news.name), news.since);
            tellings.push(Telling { notice, name, since, failures, deliveries });
        }
        Ok(tellings)
    }

    /// The deliveries of a notice: to whoever asks for it, but for whom it is about.
    fn deliveries(
        &self,
        snapshot: &Snapshot,
        news: &News,
        record: &[u8],
        waiting: &mut HashMap<Arc<str>, i64>,
        now: Timestamp,
        kept: &mut Kept,
    ) -> Vec<(Delivery, Option<FailReason>)> {
        let owing = snapshot.matcher.notice_interest(news.notice).owed(Some(record));
        metrics::counter!("walhook_conditions_errors_total")
            .increment(u64::try_from(owing.failures.len()).unwrap_or(0));
        let event = self.event(news, now);
        let mut data = Vec::new();
        write_notice_data(record, &mut data);
        let is_about_webhook = matches!(news.notice.topic(), Topic::Webhook | Topic::Delivery);
        let mut deliveries = Vec::new();
        for compiled in owing.deliveries.iter().filter_map(|owed| snapshot.webhook(owed.webhook)) {
            let name = &compiled.webhook.name;
            if is_about_webhook && *name == news.name {
                continue;
            }
            let open = waiting.entry(Arc::clone(name)).or_default();
            if *open >= limits::NOTICES_WAITING {
                kept.is_full(name, news.notice);
                continue;
            }
            *open += 1;
            kept.full.retain(|full| full != name);
            metrics::counter!("walhook_notices_total").increment(1);
            deliveries.push(self.delivery(compiled, news, &event, &data));
        }
        deliveries
    }

    fn event(&self, news: &News, now: Timestamp) -> Event {
        let origin = Origin { system: self.own.lineage.oldest().system, generation: 0 };
        let micros = u64::try_from(news.since.as_microsecond()).unwrap_or(0);
        // That something is over comes after that it began, and both have the time at which it did.
        let sequence = if news.notice.is_good() { 2 } else { 1 };
        let place = Place { origin, commit: CommitLsn(Lsn(micros << 12)), sequence };
        Event {
            id: EventId::of(&place, &naming(news)),
            event_type: news.notice.event_type().into(),
            place,
            transaction: Transaction { commit: CommitLsn(Lsn(0)), committed_at: now, xid: 0 },
            database: Arc::clone(&self.database),
        }
    }

    fn delivery(
        &self,
        compiled: &Compiled,
        news: &News,
        event: &Event,
        data: &[u8],
    ) -> (Delivery, Option<FailReason>) {
        let webhook = &compiled.webhook;
        let id = DeliveryId::of(&event.place, &naming(news), &webhook.name);
        let rendered = compiled.renderer.render(event, data, &webhook.name, self.max_body);
        let (Rendered { body, headers }, dead) = match rendered {
            Ok(rendered) => (rendered, None),
            Err(error) => {
                let (notice, webhook, reason) = (news.notice.event_type(), &*webhook.name, error.to_string());
                tracing::warn!(notice, webhook, reason, "a notice cannot be rendered");
                let body = anew::keep(event, data, webhook);
                (Rendered { body, headers: None }, Some(error.reason()))
            }
        };
        let ordering = if webhook.ordering == Ordering::None { Ordering::None } else { Ordering::Row };
        let subject = [subject(news.notice).as_bytes(), news.name.as_bytes()];
        let delivery = Delivery {
            lane: lane_of(ordering, ("", ""), &subject, &id),
            id,
            event_id: event.id.clone(),
            event_type: Arc::clone(&event.event_type),
            webhook: Arc::clone(&webhook.name),
            schema: "".into(),
            table: "".into(),
            key: Arc::clone(&news.name),
            operation: Operation::Notice,
            committed_at: event.transaction.committed_at,
            content_type: compiled.renderer.content_type().into(),
            headers,
            body,
        };
        (delivery, dead)
    }
}

/// What tells a notice from others of its time. No event type has a space.
fn naming(news: &News) -> String {
    format!("{} {}", news.notice, news.name)
}

/// Notices about one webhook keep their order, and those about one slot.
fn subject(notice: Notice) -> &'static str {
    match notice.topic() {
        Topic::Webhook | Topic::Delivery => "notices of webhook",
        Topic::Source | Topic::Gap => "notices of source",
    }
}

impl Kept {
    /// Says so, once until there is room again.
    fn is_full(&mut self, webhook: &Arc<str>, notice: Notice) {
        metrics::counter!("walhook_notices_left_out_total").increment(1);
        if !self.full.contains(webhook) {
            self.full.push(Arc::clone(webhook));
            let (notice, most) = (notice.event_type(), limits::NOTICES_WAITING);
            tracing::warn!(
                webhook = &**webhook,
                notice,
                most,
                "too many notices wait for the webhook; it is told no more until it takes some"
            );
        }
    }
}
