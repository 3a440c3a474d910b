//! Who reads the slot: one process at a time, fenced.
//!
//! The slot itself lets only one connection read. Whoever gets it *takes over* here, which raises the epoch;
//! every writing transaction checks its epoch under a share lock. So the update waits for a predecessor's last
//! transaction and refuses all later ones: what the successor then reads of the ledger is final (invariant I3).

use tokio_postgres::Transaction;

use super::{Ledger, LedgerError, doing, ghosts};
use crate::domain::{CommitLsn, DeliveryId, Lineage, Lsn, Origin};

/// The right to write to the ledger for a slot.
#[derive(Debug, Clone)]
pub struct Ownership {
    /// The slot.
    pub slot: String,
    /// Which log its positions belong to.
    pub lineage: Lineage,
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
    /// What the slot has confirmed at least.
    pub confirmed: Lsn,
    /// Where its log has forked since the ledger was last taken over.
    pub fork: Option<Fork>,
}

/// A fork that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// From where on the positions are other ones.
    pub from: Lsn,
    /// The generation the ledger was in when it was found: whoever finds it in another one by now leaves it.
    pub found_in: i32,
    /// The highest generation that is known to be used. A ledger that was restored together with its database may have
    /// forgotten it.
    pub used: i32,
}

impl Fork {
    /// The generation that begins there.
    pub fn begins(&self) -> i32 {
        self.found_in.max(self.used).saturating_add(1)
    }
}

/// What the ledger knows of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// `system_identifier`.
    pub system: String,
    /// The timeline.
    pub timeline: i32,
    /// The generation.
    pub generation: i32,
}

/// Waits for a predecessor's last transaction, as the takeover itself does.
const GENERATION: &str = "select generation from sources where slot = $1 for no key update";

const TAKE_OVER: &str = "
insert into sources as s (slot, system_identifier, timeline, generation, epoch, holder, confirmed_lsn, confirmed_at)
values ($1, $2, $3, 1, 1, $4, $6::text::pg_lsn, now())
on conflict (slot) do update
    set epoch = s.epoch + 1,
        generation = coalesce($5, s.generation),
        timeline = excluded.timeline,
        holder = excluded.holder,
        held_since = now(),
        confirmed_lsn = case
            when $5 is not null then excluded.confirmed_lsn
            else greatest(s.confirmed_lsn, excluded.confirmed_lsn) end
    where s.system_identifier = excluded.system_identifier
returning generation, epoch";

/// With the generations that are passed over, so that each follows the one before.
const ADD_FORK: &str = "
insert into forks (slot, generation, from_lsn, timeline)
select $1, g, $4::text::pg_lsn, $5 from pg_catalog.generate_series($2::int4, $3::int4) g";
const FORKS: &str = "select from_lsn::text, generation from forks where slot = $1 order by generation";

/// Leases of earlier epochs mean nothing any more: their deliveries are due at once, or when the earlier ones of their lane
/// have ended, if they were in one batch.
const RELEASE_LEASES: &str = "
update deliveries_open o set lease = null, due_at = case
    when exists (
        select from deliveries_open e where e.webhook = o.webhook and e.lane = o.lane and e.id < o.id) then null
    else now() end
where o.lease is not null";

impl Ledger {
    /// Takes over the slot's ledger: from here on nobody else's writes are accepted.
    pub async fn take_over(
        &self,
        slot: &str,
        identity: &Identity,
        holder: &str,
    ) -> Result<Ownership, LedgerError> {
        let mut session = self.session("walhook takeover").await?;
        let taking = doing("taking over the slot");
        let transaction = session.client.transaction().await.map_err(&taking)?;
        let take = take(&transaction, slot, identity, holder);
        let taken = Box::pin(ghosts::despite_them(self, transaction.client(), take)).await?;
        let Some(own) = taken else {
            drop(transaction);
            let known = self.known(slot).await?.map(|known| known.system).unwrap_or_default();
            return Err(LedgerError::Foreign { known, met: identity.system.to_string() });
        };
        transaction.commit().await.map_err(&taking)?;
        Ok(own)
    }

    /// What this ledger knows of the slot, if it has ever owned it.
    pub async fn known(&self, slot: &str) -> Result<Option<Known>, LedgerError> {
        const KNOWN: &str = "select system_identifier, timeline, generation from sources where slot = $1";
        let session = self.session("walhook takeover").await?;
        let row = session.client.query_opt(KNOWN, &[&slot]).await;
        let row = row.map_err(doing("looking for the slot's owner"))?;
        Ok(row.map(|row| Known { system: row.get(0), timeline: row.get(1), generation: row.get(2) }))
    }

    /// Whether deliveries are recorded of transactions that committed at or after a position, in the generation the
    /// ledger is in.
    pub async fn reaches_beyond(&self, known: &Known, end: Lsn) -> Result<bool, LedgerError> {
        const BEYOND: &str = "select exists (select from deliveries where id > $1 and id < $2)";
        let Ok(generation) = u32::try_from(known.generation) else { return Ok(false) };
        let floor =
            |generation, lsn| DeliveryId::floor_after(Origin { system: 0, generation }, CommitLsn(Lsn(lsn)));
        let (from, to) = (floor(generation, end.0.saturating_sub(1)), floor(generation.saturating_add(1), 0));
        let session = self.session("walhook takeover").await?;
        let row = session.client.query_one(BEYOND, &[&from.as_str(), &to.as_str()]).await;
        Ok(row.map_err(doing("looking for the furthest row"))?.get(0))
    }

    /// Whether this ledger is older than what its owner knows of it: a backup was restored.
    pub async fn is_older_than(&self, own: &Ownership) -> Result<bool, LedgerError> {
        const EPOCH: &str = "select epoch from sources where slot = $1";
        let session = self.session("walhook takeover").await?;
        let row = session.client.query_opt(EPOCH, &[&own.slot]).await;
        let row = row.map_err(doing("looking for the slot's owner"))?;
        Ok(row.is_some_and(|row| row.get::<_, i64>(0) < own.epoch))
    }

    /// Whether this ledger has ever owned the slot: then a missing slot is a lost one.
    pub async fn knows_slot(&self, slot: &str) -> Result<bool, LedgerError> {
        let session = self.session("walhook takeover").await?;
        let row = session.client.query_opt("select 1 from sources where slot = $1", &[&slot]).await;
        Ok(row.map_err(doing("looking for the slot's owner"))?.is_some())
    }
}

/// Takes over in a transaction; `None` where the ledger belongs to another system.
async fn take(
    transaction: &Transaction<'_>,
    slot: &str,
    identity: &Identity,
    holder: &str,
) -> Result<Option<Ownership>, LedgerError> {
    let taking = doing("taking over the slot");
    let met = identity.system.to_string();
    let before = transaction.query_opt(GENERATION, &[&slot]).await.map_err(&taking)?;
    let before: Option<i32> = before.map(|row| row.get(0));
    let fork = identity.fork.filter(|fork| before == Some(fork.found_in));
    let begins = fork.map(|fork| fork.begins());
    let (timeline, confirmed) = (&identity.timeline, identity.confirmed.to_string());
    let row = transaction
        .query_opt(TAKE_OVER, &[&slot, &met, timeline, &holder, &begins, &confirmed])
        .await
        .map_err(&taking)?;
    let Some(row) = row else { return Ok(None) };
    let (generation, epoch): (i32, i64) = (row.get(0), row.get(1));
    if let Some(fork) = fork {
        let (first, from) = (fork.found_in.saturating_add(1), fork.from.to_string());
        let noted = transaction.execute(ADD_FORK, &[&slot, &first, &generation, &from, timeline]).await;
        noted.map_err(&taking)?;
    }
    let rows = transaction.query(FORKS, &[&slot]).await.map_err(&taking)?;
    let forks: Vec<(Lsn, u32)> = rows
        .iter()
        .filter_map(|row| {
            Some((row.get::<_, &str>(0).parse().ok()?, u32::try_from(row.get::<_, i32>(1)).ok()?))
        })
        .collect();
    transaction.execute(RELEASE_LEASES, &[]).await.map_err(doing("voiding old leases"))?;
    let newest = u32::try_from(generation).unwrap_or(1);
    let first = forks.first().map_or(newest, |(_, generation)| generation.saturating_sub(1));
    let lineage = Lineage::new(identity.system, first, forks);
    Ok(Some(Ownership { slot: slot.to_owned(), lineage, epoch }))
}
