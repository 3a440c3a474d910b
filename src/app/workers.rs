//! Everybody who works while the slot is ours.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::start::report;
use super::{
    AppError, Config, Dispatcher, Doors, Health, Item, LedgerError, Places, Published, Settlement, Tasks,
    Writer, dispatcher,
};
use crate::backfill::{Backfills, Pages};
use crate::chores::lag::{Lag, Reading, Thresholds};
use crate::chores::notices::Notices;
use crate::chores::retries::Retries;
use crate::chores::standing::Standing;
use crate::chores::{self, upkeep};
use crate::clock::Clock;
use crate::intake::{Intake, Recovery, Shapes};
use crate::ledger::health;
use crate::ledger::overview::Gap;
use crate::ledger::own::Ownership;
use crate::ledger::pokes::Pokes;
use crate::ledger::prune::Retention;
use crate::ledger::rollups::SlaOf;
use crate::live::Live;
use crate::source::PublicationNames;
use crate::tasks::Role;
use crate::transport::Transport;

pub(super) struct Workers {
    pub live: Live,
    pub config: Arc<Config>,
    pub places: Places,
    pub transport: Transport,
    pub clock: Clock,
    pub own: Ownership,
    pub settlement: Settlement,
    pub reading: Reading,
}

pub(super) struct Flow {
    pub items: mpsc::Receiver<Item>,
    pub catalog: watch::Receiver<Published>,
    pub pokes: watch::Receiver<Pokes>,
    pub settlement: Settlement,
    pub health: watch::Sender<Health>,
    pub trouble: watch::Sender<Option<String>>,
    pub open_at_start: HashSet<Arc<str>>,
    pub ill: HashMap<Arc<str>, health::Health>,
    pub news: watch::Sender<u64>,
    pub recovery: Recovery,
    /// Done when everything in memory has its row.
    pub drained: CancellationToken,
    /// The source ends too.
    pub end: CancellationToken,
}

impl Workers {
    /// What is promised of each webhook, as it is declared at the time.
    fn sla(&self, catalog: &watch::Receiver<Published>) -> SlaOf {
        let (catalog, usual) = (catalog.clone(), self.config.delivery.sla);
        Arc::new(move |webhook| {
            catalog.borrow().snapshot.by_name(webhook).map_or(usual, |compiled| compiled.webhook.sla)
        })
    }

    fn backfills(
        &self,
        catalog: &watch::Receiver<Published>,
        pages: &Pages,
        settlement: &Settlement,
        pokes: &watch::Receiver<Pokes>,
    ) -> Backfills {
        Backfills {
            server: self.places.database.clone(),
            ledger: self.places.ledger.clone(),
            own: self.own.clone(),
            catalog: catalog.clone(),
            pages: pages.clone(),
            confirmed: settlement.confirmed(),
            pokes: pokes.clone(),
            publications: PublicationNames::of(&self.config.database.publication),
        }
    }

    fn writer(
        &self,
        catalog: &watch::Receiver<Published>,
        settlement: &Settlement,
        health: watch::Sender<Health>,
        news: watch::Sender<u64>,
    ) -> Writer {
        Writer {
            ledger: self.places.ledger.clone(),
            own: self.own.clone(),
            store: self.config.ledger.store_bodies,
            sla: self.sla(catalog),
            settlement: settlement.clone(),
            clock: self.clock.clone(),
            health,
            news,
            live: self.live.clone(),
        }
    }

    /// Intake → dispatcher → writer.
    pub(super) fn flow(&self, flow: Flow, tasks: &Tasks, faults: &mpsc::UnboundedSender<AppError>) {
        let Flow { items, catalog, pokes, settlement, health, trouble, .. } = flow;
        let Flow { open_at_start, ill, news, recovery, drained, end, .. } = flow;
        let pages = Pages::default();
        let backfills = self.backfills(&catalog, &pages, &settlement, &pokes);
        tasks.spawn("backfills", Role::Essential, backfills.run(tasks.stopping()));
        let (offers_in, offers) = dispatcher::offers();
        let (commands, written) = mpsc::unbounded_channel();
        let (acks_in, acks) = mpsc::unbounded_channel();
        let memory = Arc::new(Semaphore::new(self.config.delivery.memory));
        let (refused_in, refused) = chores::refused::queue();
        let telling = chores::refused::keep_telling(self.places.ledger.clone(), refused, tasks.stopping());
        tasks.spawn("refused addresses", Role::Essential, telling);
        let writer = self.writer(&catalog, &settlement, health, news);
        let writing = async move {
            let written = writer.run(written, acks_in).await;
            drained.cancel();
            written
        };
        tasks.spawn("ledger writer", Role::Essential, report(faults.clone(), writing));
        let dispatcher = Dispatcher {
            transport: self.transport.clone(),
            clock: self.clock.clone(),
            tasks: tasks.clone(),
            ledger: self.places.ledger.clone(),
            epoch: self.own.epoch,
            open_at_start,
            health: ill,
            handover_after: self.config.delivery.handover_after,
            shutdown_grace: self.config.delivery.shutdown_grace,
            refused: refused_in,
            memory: Arc::clone(&memory),
            memory_bytes: self.config.delivery.memory,
        };
        let doors = Doors { offers, commands, acks, catalog: catalog.clone(), pokes, stop: tasks.stopping() };
        tasks.spawn("dispatcher", Role::Essential, dispatcher.run(doors));
        let intake = Intake {
            items,
            offers: offers_in,
            catalog,
            settlement,
            memory,
            memory_bytes: self.config.delivery.memory,
            max_body: self.config.delivery.max_body,
            lineage: self.own.lineage.clone(),
            database: self.places.database.database().unwrap_or_default().into(),
            server: self.places.database.clone(),
            pages: pages.clone(),
            recovery,
            shapes: Shapes::new(self.places.ledger.clone(), self.own.clone()),
            live: self.live.clone(),
            reading: self.reading.clone(),
            trouble,
            clock: self.clock.clone(),
        };
        tasks.spawn(
            "intake",
            Role::Essential,
            report::<_, LedgerError>(faults.clone(), intake.run(tasks.stopping(), end)),
        );
    }

    /// Looks at slot and gaps, and tells whoever asks for it how it all stands.
    pub(super) fn look(
        &self,
        gaps: watch::Sender<Vec<Gap>>,
        catalog: watch::Receiver<Published>,
        news: watch::Receiver<u64>,
        tasks: &Tasks,
    ) {
        let (lag_in, lag) = watch::channel(Lag::Unknown);
        let config = &self.config.notices;
        let notices = Notices {
            ledger: self.places.ledger.clone(),
            own: self.own.clone(),
            catalog,
            lag,
            news,
            every: config.every,
            database: self.places.database.database().unwrap_or_default().into(),
            max_body: self.config.delivery.max_body,
            clock: self.clock.clone(),
        };
        let telling = chores::notices::keep_telling(notices, tasks.stopping());
        tasks.spawn("notices", Role::Essential, telling);
        let bytes = u64::try_from(config.lag_bytes).unwrap_or(u64::MAX);
        let standing = Standing {
            server: self.places.database.clone(),
            ledger: self.places.ledger.clone(),
            own: self.own.clone(),
            settlement: self.settlement.clone(),
            reading: self.reading.clone(),
            gaps,
            lag: lag_in,
            thresholds: Thresholds { lag: config.lag, bytes },
            clock: self.clock.clone(),
        };
        tasks.spawn("standing", Role::Essential, chores::keep_looking(standing, tasks.stopping()));
    }

    pub(super) fn chores(
        &self,
        upkeep: upkeep::Upkeep,
        catalog: &watch::Receiver<Published>,
        pokes: watch::Sender<Pokes>,
        tasks: &Tasks,
    ) {
        let (ledger, stop) = (&self.places.ledger, tasks.stopping());
        let config = &self.config.ledger;
        let retention = Retention {
            delivered: config.retention,
            failed: config.failed_retention,
            audit: config.audit_retention,
        };
        let retain = chores::keep_retention(ledger.clone(), retention, stop.clone());
        tasks.spawn("retention", Role::Essential, retain);
        let heard = pokes.subscribe();
        let until = (self.clock.clone(), stop.clone());
        let holds = chores::keep_holds(ledger.clone(), catalog.clone(), pokes, config.store_bodies, until);
        tasks.spawn("holds", Role::Essential, holds);
        let retries = Retries {
            ledger: ledger.clone(),
            slot: self.own.slot.clone(),
            pokes: heard,
            catalog: catalog.clone(),
            max_body: self.config.delivery.max_body,
        };
        tasks.spawn("retries", Role::Essential, chores::retries::keep_retrying(retries, stop.clone()));
        tasks.spawn("upkeep", Role::Essential, chores::keep_publications(upkeep, catalog.clone(), stop));
    }
}
