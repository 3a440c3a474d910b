//! Removing all traces: the slot, the publications, the schema.

use serde_json::json;

use super::keys::transaction_failed;
use super::{Actor, ControlError, Places, command_session, manage};
use crate::config::Config;
use crate::ledger::schema::{Contents, contents};
use crate::source::{Manage, PublicationNames, drop_publication, drop_slot, publications, slot_state};

/// Everything that is there and would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traces {
    /// The slot, and how many bytes of log it holds back.
    pub slot: Option<(String, u64)>,
    /// The server process that streams from the slot: while there is one, nothing goes.
    pub streaming_pid: Option<i32>,
    /// The publications that are ours.
    pub publications: Vec<String>,
    /// The publications that are somebody else's (`manage_publication = false`): they stay.
    pub publications_that_stay: Vec<String>,
    /// The ledger's schema, and what it holds where that can be counted.
    pub schema: Option<(String, Option<Contents>)>,
}

impl Traces {
    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.slot.is_none() && self.publications.is_empty() && self.schema.is_none()
    }
}

/// Looks for everything of ours; changes nothing.
pub async fn look(config: &Config, places: &Places) -> Result<Traces, ControlError> {
    let session = places.database.session("walhook uninstall").await?;
    let slot = slot_state(&session, &config.database.slot).await?;
    let names = PublicationNames::of(&config.database.publication);
    let found = publications(&session, &names).await?;
    let (publications, publications_that_stay) = match manage(config) {
        Manage::Change => (found, Vec::new()),
        Manage::Look => (Vec::new(), found),
    };
    let ledger = places.ledger.session("walhook uninstall").await?;
    let there = places.ledger.look(&ledger.client).await?;
    let held = if there.ready { Some(contents(&ledger.client).await?) } else { None };
    Ok(Traces {
        streaming_pid: slot.as_ref().and_then(|slot| slot.active_pid),
        slot: slot.map(|slot| (config.database.slot.clone(), slot.lag_bytes)),
        publications,
        publications_that_stay,
        schema: there.exists.then(|| (places.ledger.schema().to_owned(), held)),
    })
}

/// Removes what [`look`] found: first the slot, which fails while somebody streams from it.
pub async fn remove(
    places: &Places,
    actor: &Actor,
    traces: &Traces,
    mut gone: impl FnMut(&str),
) -> Result<(), ControlError> {
    if let (Some((slot, _)), Some(pid)) = (&traces.slot, traces.streaming_pid) {
        return Err(ControlError::SlotBusy { slot: slot.clone(), pid });
    }
    // It stays where something keeps the schema from going, and else goes with it.
    if let Some((schema, Some(_))) = &traces.schema {
        let mut ledger = command_session(places).await?;
        let transaction = ledger.client.transaction().await.map_err(transaction_failed)?;
        let before =
            json!({ "slot": traces.slot.as_ref().map(|slot| &slot.0), "publications": traces.publications });
        actor.note(&transaction, "uninstall", schema, (Some(before), None)).await?;
        transaction.commit().await.map_err(transaction_failed)?;
    }
    let session = places.database.session("walhook uninstall").await?;
    if let Some((slot, _)) = &traces.slot {
        drop_slot(&session, slot).await?;
        gone(&format!("slot {slot}"));
    }
    for publication in &traces.publications {
        drop_publication(&session, publication).await?;
        gone(&format!("publication {publication}"));
    }
    if let Some((schema, _)) = &traces.schema {
        let ledger = places.ledger.session("walhook uninstall").await?;
        places.ledger.drop_schema(&ledger.client).await?;
        gone(&format!("schema {schema}"));
    }
    Ok(())
}
