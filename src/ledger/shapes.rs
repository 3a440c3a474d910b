//! What tables looked like where the log showed a new shape of them.
//!
//! A row is a decision that stays: at this place the table was first seen in this shape, and looked so before. Of what
//! is confirmed only the latest decision is needed; of what is not, all, because it may be read again.

use tokio_postgres::Client;
use tokio_postgres::types::Json;

use super::own::Ownership;
use super::{LedgerError, doing};
use crate::domain::{EndLsn, Place, TableShape, limits};

/// What is known of a table at a place.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// Whether it was decided at this very place.
    pub here: bool,
    /// The shape.
    pub shape: TableShape,
    /// The one before it, where there was one.
    pub previous: Option<TableShape>,
}

/// A decision is part of this log where no fork hides it: the log from a fork's position on is that of a later generation.
const REMEMBERED: &str = "
select (s.generation, s.commit_lsn, s.sequence) = ($4, $5::text::pg_lsn, $6), s.shape, s.previous
from shapes s
where s.slot = $1 and s.relation = $2 and s.generation >= $3
    and (s.generation, s.commit_lsn, s.sequence) <= ($4, $5::text::pg_lsn, $6)
    and not exists (
        select from forks f where f.slot = s.slot and f.generation > s.generation and f.from_lsn <= s.commit_lsn)
order by s.generation desc, s.commit_lsn desc, s.sequence desc
limit 1";

const FENCE: &str = "select 1 from sources where slot = $1 and epoch = $2 for share";

const REMEMBER: &str = "
insert into shapes (slot, relation, generation, commit_lsn, sequence, shape, previous)
values ($1, $2, $3, $4::text::pg_lsn, $5, $6, $7)
on conflict (slot, relation, generation, commit_lsn, sequence) do nothing";

/// Everything before the latest decision that will not be read again.
const FORGET: &str = "
delete from shapes s using (
    select k.generation, k.commit_lsn, k.sequence from shapes k
    where k.slot = $1 and k.relation = $2 and k.commit_lsn < $3::text::pg_lsn
        and not exists (
            select from forks f where f.slot = k.slot and f.generation > k.generation and f.from_lsn <= k.commit_lsn)
    order by k.generation desc, k.commit_lsn desc, k.sequence desc
    limit 1) k
where s.slot = $1 and s.relation = $2
    and (s.generation, s.commit_lsn, s.sequence) < (k.generation, k.commit_lsn, k.sequence)";

/// The oldest beyond the bound. A table that is among them is met like one that was never seen.
const PRUNE: &str = "
delete from shapes where noted_at < (select noted_at from shapes order by noted_at desc offset $1 limit 1)";

/// What was decided of a table (by oid) last, at a place or before it.
pub async fn remembered(
    client: &Client,
    own: &Ownership,
    relation: u32,
    place: Place,
) -> Result<Option<Remembered>, LedgerError> {
    let oldest = i32::try_from(own.lineage.oldest().generation).unwrap_or(i32::MAX);
    let (generation, commit, sequence) = columns(place);
    let row = client
        .query_opt(REMEMBERED, &[&own.slot, &i64::from(relation), &oldest, &generation, &commit, &sequence])
        .await
        .map_err(doing("looking for a table's shape"))?;
    Ok(row.map(|row| {
        let previous: Option<Json<TableShape>> = row.get(2);
        Remembered {
            here: row.get(0),
            shape: row.get::<_, Json<TableShape>>(1).0,
            previous: previous.map(|Json(shape)| shape),
        }
    }))
}

/// Writes a decision, under the fence, and drops those that nobody needs any more: `confirmed` is what will not be read
/// again.
pub async fn remember(
    client: &mut Client,
    own: &Ownership,
    relation: u32,
    place: Place,
    (shape, previous): (&TableShape, Option<&TableShape>),
    confirmed: EndLsn,
) -> Result<(), LedgerError> {
    let remembering = doing("remembering a table's shape");
    let relation = i64::from(relation);
    let (generation, commit, sequence) = columns(place);
    let transaction = client.transaction().await.map_err(&remembering)?;
    let fence = transaction.query_opt(FENCE, &[&own.slot, &own.epoch]).await.map_err(&remembering)?;
    if fence.is_none() {
        return Err(LedgerError::FencedOff);
    }
    let (shape, previous) = (Json(shape), previous.map(Json));
    transaction
        .execute(REMEMBER, &[&own.slot, &relation, &generation, &commit, &sequence, &shape, &previous])
        .await
        .map_err(&remembering)?;
    transaction
        .execute(FORGET, &[&own.slot, &relation, &confirmed.to_string()])
        .await
        .map_err(&remembering)?;
    fail::fail_point!("before_shape_commit", |_| std::process::abort());
    transaction.commit().await.map_err(&remembering)?;
    fail::fail_point!("after_shape_commit", |_| std::process::abort());
    Ok(())
}

/// Keeps the table within its bound.
pub(super) async fn prune(client: &Client) -> Result<(), LedgerError> {
    client.execute(PRUNE, &[&limits::SHAPES]).await.map_err(doing("dropping shapes of tables"))?;
    Ok(())
}

fn columns(place: Place) -> (i32, String, i64) {
    let generation = i32::try_from(place.origin.generation).unwrap_or(i32::MAX);
    (generation, place.commit.to_string(), i64::from(place.sequence))
}
