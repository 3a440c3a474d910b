//! What is lost between a slot and the next one.
//!
//! ```text
//!   slot lost ──▶ begin: a gap, open ──▶ the old slot dropped, a new one made ──▶ end: its bounds, a new generation
//! ```
//!
//! A slot has one open gap at most, however often its renewal is broken off and by whomever it is taken up again. With its
//! end the source is in another generation, once: whoever takes the new slot over finds it so.

use super::{Ledger, LedgerError, doing};
use crate::domain::Lsn;

/// A gap whose end is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenGap {
    /// Up to where everything was delivered, where that is known.
    pub from: Option<Lsn>,
    /// Why.
    pub reason: String,
}

const OPEN: &str = "select from_lsn::text, reason from gaps where slot = $1 and is_open";

/// The slot's own position may be older than what this ledger has seen: it is the server's word as of its last save. A
/// position beyond the end of the log is of another history.
const BEGIN: &str = "
insert into gaps (slot, from_lsn, to_lsn, reason, is_open)
values (
    $1,
    greatest($2::text::pg_lsn, (select confirmed_lsn from sources where slot = $1 and confirmed_lsn <= $3::text::pg_lsn)),
    $3::text::pg_lsn, $4, true)
on conflict (slot) where is_open do nothing";

/// A slot that is not ahead of where the gap begins is not the new one. Who read the old one may have noted its last position
/// only after the gap had begun.
const END: &str = "
with ended as (
    update gaps set to_lsn = $2::text::pg_lsn, is_open = false,
        from_lsn = greatest(from_lsn, (select confirmed_lsn from sources where slot = $1 and confirmed_lsn < $2::text::pg_lsn))
    where slot = $1 and is_open and (from_lsn is null or from_lsn < $2::text::pg_lsn)
    returning from_lsn::text, reason),
forgotten as (delete from forks where slot = $1 and exists (select from ended)),
renewed as (
    update sources set generation = generation + 1, confirmed_lsn = $2::text::pg_lsn, confirmed_at = now(),
        waiting_since = null
    where slot = $1 and exists (select from ended))
select from_lsn, reason from ended";

impl Ledger {
    /// The slot's gap that has begun and not ended.
    pub async fn open_gap(&self, slot: &str) -> Result<Option<OpenGap>, LedgerError> {
        let session = self.session("walhook start").await?;
        let row = session.client.query_opt(OPEN, &[&slot]).await.map_err(doing("looking for a gap"))?;
        Ok(row.map(|row| open(&row)))
    }

    /// Records that log is lost, from the position that the slot had (or, without one, the last that this ledger knows of)
    /// to `to` at least. Does nothing where that has begun already.
    pub async fn begin_gap(
        &self,
        slot: &str,
        from: Option<Lsn>,
        to: Lsn,
        reason: &str,
    ) -> Result<(), LedgerError> {
        let (from, to) = (from.map(|from| from.to_string()), to.to_string());
        let session = self.session("walhook start").await?;
        let begun = session.client.execute(BEGIN, &[&slot, &from, &to, &reason]).await;
        begun.map(drop).map_err(doing("recording a gap"))
    }

    /// A new slot begins here: what is open ends, and the source's next generation begins. Returns what has ended.
    pub async fn end_gap(&self, slot: &str, to: Lsn) -> Result<Option<OpenGap>, LedgerError> {
        let session = self.session("walhook start").await?;
        let row = session.client.query_opt(END, &[&slot, &to.to_string()]).await;
        Ok(row.map_err(doing("ending a gap"))?.map(|row| open(&row)))
    }
}

fn open(row: &tokio_postgres::Row) -> OpenGap {
    let from: Option<&str> = row.get(0);
    OpenGap { from: from.and_then(|from| from.parse().ok()), reason: row.get(1) }
}
