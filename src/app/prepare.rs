//! What is found and made before the link begins.

use super::{AppError, Before, Config, Places, catalog, first, renewal, timeline};
use crate::chores::upkeep;
use crate::clock::Clock;
use crate::control::{ControlError, fit, manage};
use crate::ledger::own::Fork;
use crate::source::{self, Preparation, Prepared, PublicationNames, SlotHistory, lock_slot};
use crate::transport::Transport;

/// Everything that was found and made before the link begins.
pub(super) struct Ready {
    pub(super) places: Places,
    pub(super) identity: source::Identity,
    pub(super) prepared: Prepared,
    pub(super) fork: Option<Fork>,
    /// The generation of the slot.
    pub(super) generation: i32,
    pub(super) transport: Transport,
    pub(super) clock: Clock,
}

impl Ready {
    /// The databases and the clock, for who works beside the link.
    pub(super) fn to_work_with(&self) -> (Places, Clock) {
        (self.places.clone(), self.clock.clone())
    }

    /// The highest generation that this life uses.
    pub(super) fn uses(&self) -> i32 {
        self.fork.map_or(self.generation, |fork| fork.begins())
    }
}

/// Checks and makes everything that the link needs, in order: nothing is created before all is found possible.
pub(super) async fn prepare(config: &Config, before: Before) -> Result<Ready, AppError> {
    let clock = Clock::system();
    let places = Places::of(config)?;
    let transport = super::transport(config, &clock)?;
    let mut session = places.database.session("walhook").await?;
    let (facts, problems) = source::check(&session, &config.database.slot).await?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem.into());
    }
    facts.insist_on_failover(config.database.slot_failover)?;
    let known = source::tables(&session, &config.database.schema).await?;
    let of_file = catalog::compile_file(config).map_err(ControlError::Compile)?;
    fit::insist(&of_file, config, &known)?;
    catalog::unverified(&of_file).for_each(|webhook| catalog::tell_unverified(&webhook.name));
    let identity = source::identify(&places.database).await?;
    let mut wish = Preparation {
        slot: config.database.slot.clone(),
        history: SlotHistory::Never,
        failover: config.database.slot_failover,
        names: PublicationNames::of(&config.database.publication),
        manage: manage(config),
        wanted: upkeep::wanted(&of_file, &known),
        insisted: upkeep::meant(&of_file, &known),
        own_schema: config.database.schema.clone(),
    };
    let slot = &config.database.slot;
    lock_slot(&session, slot).await?;
    first::make(&places, &mut session, &wish).await?;
    let ledger = places.ledger.session("walhook start").await?;
    let rows = catalog::load(&ledger.client).await?;
    drop(ledger);
    let snapshot = catalog::compile_with(config, &rows).map_err(ControlError::Compile)?;
    let owned = places.ledger.known(slot).await?;
    let fork = match &owned {
        Some(owned) => timeline::fork(config, &places, (owned, before), &identity, &session).await?,
        None => None,
    };
    wish.wanted = upkeep::wanted(&snapshot, &known);
    if owned.is_some() {
        wish.history = SlotHistory::Made;
    }
    let found = (owned.as_ref(), identity.flushed, before.lost);
    renewal::begin(config, &places, &mut wish, &session, found).await?;
    let prepared = source::prepare(&mut session, &wish).await?;
    let generation = renewal::end(&places, slot, prepared.slot.confirmed, owned.as_ref()).await?;
    Ok(Ready { places, identity, prepared, fork, generation, transport, clock })
}
