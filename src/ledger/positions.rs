//! How far a slot has got and since when something waits, as its owner notes it now and then.
//!
//! A slot that is lost takes its position with it: what is noted here is where its gap begins. And the server tells how many
//! bytes wait, not for how long: that is known only to who has watched.

use std::time::SystemTime;

use jiff::Timestamp;
use tokio_postgres::Client;

use super::own::Ownership;
use super::row::{pg_time, time_of};
use super::{LedgerError, doing};
use crate::domain::EndLsn;

/// What was noted of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// When that was.
    pub at: Option<Timestamp>,
    /// Since when the oldest waits that an instance has seen waiting.
    pub waiting_since: Option<Timestamp>,
}

/// Since when something waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing does.
    Nothing,
    /// Since then.
    Since(Timestamp),
    /// This process has not seen enough yet: what was noted before may be older.
    Unknown(Option<Timestamp>),
}

/// Only the owner notes.
const NOTE: &str = "
update sources
set confirmed_lsn = greatest(confirmed_lsn, $3::text::pg_lsn), confirmed_at = now(),
    waiting_since = case when $5 then least(waiting_since, $4) else $4 end
where slot = $1 and epoch = $2";

const NOTED: &str = "select confirmed_at, waiting_since from sources where slot = $1";

/// Notes a position up to which everything is settled.
pub async fn note(
    client: &Client,
    own: &Ownership,
    confirmed: EndLsn,
    waiting: Waiting,
) -> Result<(), LedgerError> {
    let (since, may_be_older) = match waiting {
        Waiting::Nothing => (None, false),
        Waiting::Since(since) => (Some(since), false),
        Waiting::Unknown(since) => (since, true),
    };
    let (since, confirmed) = (since.map(pg_time), confirmed.to_string());
    let noted = client.execute(NOTE, &[&own.slot, &own.epoch, &confirmed, &since, &may_be_older]).await;
    noted.map(drop).map_err(doing("noting the position"))
}

/// What was noted last; `None` where nobody ever read the slot.
pub async fn noted(client: &Client, slot: &str) -> Result<Option<Noted>, LedgerError> {
    let row = client.query_opt(NOTED, &[&slot]).await.map_err(doing("reading the position"))?;
    let time = |row: &tokio_postgres::Row, at| row.get::<_, Option<SystemTime>>(at).map(time_of);
    Ok(row.map(|row| Noted { at: time(&row, 0), waiting_since: time(&row, 1) }))
}
