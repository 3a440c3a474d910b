//! Who reads the slot: one process at a time, fenced.
//!
//! The slot itself lets only one connection read. Whoever gets it *takes over* here, which raises the epoch;
//! every writing transaction checks its epoch under a share lock. So the update waits for a predecessor's last
//! transaction and refuses all later ones: what the successor then reads of the ledger is final (invariant I3).

use super::{Ledger, LedgerError, doing};
use crate::domain::Origin;

/// The right to write to the ledger for a slot.
#[derive(Debug, Clone)]
pub struct Ownership {
    /// The slot.
    pub slot: String,
    /// Which log its positions belong to.
    pub origin: Origin,
    /// The fence.
    pub epoch: i64,
}

/// What is known of the database that the slot reads.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `system_identifier`.
    pub system: u64,
    /// The timeline.
    pub timeline: i32,
    /// Whether the slot has just been made: its positions begin anew.
    pub slot_is_new: bool,
}

const TAKE_OVER: &str = "
insert into sources as s (slot, system_identifier, timeline, generation, epoch, holder)
values ($1, $2, $3, 1, 1, $5)
on conflict (slot) do update
    set epoch = s.epoch + 1,
        generation = s.generation + case when $4 then 1 else 0 end,
        timeline = excluded.timeline,
        holder = excluded.holder,
        held_since = now()
    where s.system_identifier = excluded.system_identifier
returning generation, epoch";

/// Leases of earlier epochs mean nothing any more: their deliveries are due at once.
const RELEASE_LEASES: &str = "
update deliveries_open set lease = null, due_at = now()
where lease is not null";

impl Ledger {
    /// Takes over the slot's ledger: from here on nobody else's writes are accepted.
    pub async fn take_over(
        &self,
        slot: &str,
        identity: &Identity,
        holder: &str,
    ) -> Result<Ownership, LedgerError> {
        let session = self.session("walhook takeover").await?;
        let met = identity.system.to_string();
        let row = session
            .client
            .query_opt(TAKE_OVER, &[&slot, &met, &identity.timeline, &identity.slot_is_new, &holder])
            .await
            .map_err(doing("taking over the slot"))?;
        let Some(row) = row else {
            let known = session
                .client
                .query_one("select system_identifier from sources where slot = $1", &[&slot])
                .await
                .map_err(doing("reading the slot's owner"))?;
            return Err(LedgerError::Foreign { known: known.get(0), met });
        };
        session.client.execute(RELEASE_LEASES, &[]).await.map_err(doing("voiding old leases"))?;
        let generation: i32 = row.get(0);
        let origin = Origin { system: identity.system, generation: u32::try_from(generation).unwrap_or(1) };
        Ok(Ownership { slot: slot.to_owned(), origin, epoch: row.get(1) })
    }

    /// Whether this ledger has ever owned the slot: then a missing slot is a lost one.
    pub async fn knows_slot(&self, slot: &str) -> Result<bool, LedgerError> {
        let session = self.session("walhook takeover").await?;
        let row = session.client.query_opt("select 1 from sources where slot = $1", &[&slot]).await;
        Ok(row.map_err(doing("looking for the slot's owner"))?.is_some())
    }

    /// Records that log was lost between two positions.
    pub async fn record_gap(
        &self,
        slot: &str,
        from: Option<&str>,
        to: &str,
        reason: &str,
    ) -> Result<(), LedgerError> {
        const GAP: &str = "insert into gaps (slot, from_lsn, to_lsn, reason)
            values ($1, $2::text::pg_lsn, $3::text::pg_lsn, $4)";
        let session = self.session("walhook takeover").await?;
        session.client.execute(GAP, &[&slot, &from, &to, &reason]).await.map_err(doing("recording a gap"))?;
        Ok(())
    }
}
