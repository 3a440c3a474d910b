//! Taking what is due out of the ledger, under a lease.
//!
//! Only the earliest open delivery of a lane has a due time, so a claim never takes two of one lane. A claimed row's
//! `due_at` moves to the lease's end: whoever finds it due again may claim it, and the old lease writes nothing. Of a batch
//! that was handed over in flight, several of a lane are leased; when their leases have run out they go one by one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::record::Lease;
use super::row::{DELIVERY, delivery_of, time_of};
use super::{LedgerError, doing};
use crate::domain::Delivery;

/// A delivery with the right to finish it.
#[derive(Debug)]
pub struct Claimed {
    /// The delivery.
    pub delivery: Delivery,
    /// Attempts made so far.
    pub attempts: u32,
    /// How many of them count for the retry schedule (it begins anew when a delivery is sent again by hand).
    pub on_schedule: u32,
    /// When it was last sent again by hand.
    pub sent_again_at: Option<Timestamp>,
    /// The right to finish it.
    pub lease: Lease,
}

/// How much of a webhook's backlog is wanted.
#[derive(Debug, Clone)]
pub struct Room {
    /// The webhook.
    pub webhook: Arc<str>,
    /// How many deliveries.
    pub count: usize,
    /// How long the lease of each must last.
    pub lease: Duration,
}

/// What a claim found.
#[derive(Debug, Default)]
pub struct Claims {
    /// The deliveries, now leased.
    pub claimed: Vec<Claimed>,
    /// When each webhook asked for has something due next; `None` where nothing is open and due.
    pub next_due: Vec<(Arc<str>, Option<Timestamp>)>,
}

/// How far below what was due next the next claim begins to look: a row may be written a little after its due time was
/// set, and by another clock.
const FLOOR_MARGIN: Duration = Duration::from_secs(5);

/// `$4` is the lease's token, whose upper half is the epoch: who has been succeeded claims nothing. `$5`
/// bounds the sum of the bodies. The ids go into an array so that each is looked up in the index, and by nothing else: the
/// planner cannot know how few they are, and would read the whole table, or all of the webhook's index.
const CLAIM: &str = "
with room as (
    select * from unnest($1::text[], $2::integer[], $3::double precision[], $6::timestamptz[])
        as r(webhook, count, lease, floor)
    where exists (select from sources where epoch = $4::bigint >> 32)),
due as (
    select d.id, d.bytes
    from room r cross join lateral (
        select o.id, octet_length(o.body) as bytes, o.due_at
        from deliveries_open o
        where o.webhook = r.webhook and o.due_at >= coalesce(r.floor, '-infinity') and o.due_at <= now()
            and (o.lease is null or not exists (
                select from deliveries_open e
                where e.webhook = o.webhook and e.lane = o.lane and e.id < o.id))
        order by o.due_at, o.id
        limit r.count
        for update skip locked) d),
fitting as (
    select id from (
        select id, bytes, sum(bytes) over (order by id rows unbounded preceding) as total from due) summed
    where total - bytes <= $5::bigint)
update deliveries_open d
set lease = $4,
    due_at = now() + make_interval(secs => (select r.lease from room r where r.webhook = d.webhook))
where d.id = any(array(select id from fitting))
returning ";

const NEXT_DUE: &str = "
select r.webhook, (
    select o.due_at from deliveries_open o
    where o.webhook = r.webhook and o.due_at >= coalesce(r.floor, '-infinity')
    order by o.due_at limit 1), now()
from unnest($1::text[], $2::timestamptz[]) as r(webhook, floor)";

/// The webhooks that have open deliveries: a walk that takes one index probe a webhook, however many rows there are.
const OPEN_WEBHOOKS: &str = "
with recursive walk as (
    (select webhook from deliveries_open order by webhook limit 1)
    union all
    select (select o.webhook from deliveries_open o where o.webhook > w.webhook order by o.webhook limit 1)
    from walk w where w.webhook is not null)
select webhook from walk where webhook is not null";

/// The prepared statements of a session that claims.
///
/// What was claimed leaves its entry in the index of due times behind until the server cleans up. So a claim looks no
/// further back than a little before what was due next the last time; in a long backlog it would else pass all that
/// is done already, each time anew. What was written further back is found after the next [`Self::survey`].
pub struct Claimer {
    claim: Statement,
    next_due: Statement,
    floors: FxHashMap<Arc<str>, SystemTime>,
}

impl Claimer {
    /// Prepares them.
    pub async fn prepare(client: &Client) -> Result<Self, LedgerError> {
        let columns: Vec<String> = DELIVERY.split(", ").map(|column| format!("d.{column}")).collect();
        let claim = format!(
            "{CLAIM}{}, d.attempts, d.attempts - d.retried_from, d.sent_again_at",
            columns.join(", ")
        );
        let claim = client.prepare(&claim).await.map_err(doing("preparing to claim"))?;
        let next_due = client.prepare(NEXT_DUE).await.map_err(doing("preparing to claim"))?;
        Ok(Self { claim, next_due, floors: FxHashMap::default() })
    }

    /// Leases what is due of these webhooks, oldest first, up to `bytes` of bodies (and one delivery at least).
    pub async fn claim(
        &mut self,
        client: &Client,
        rooms: &[Room],
        token: i64,
        bytes: usize,
    ) -> Result<Claims, LedgerError> {
        let webhooks: Vec<&str> = rooms.iter().map(|room| &*room.webhook).collect();
        let counts: Vec<i32> =
            rooms.iter().map(|room| i32::try_from(room.count).unwrap_or(i32::MAX)).collect();
        let leases: Vec<f64> = rooms.iter().map(|room| room.lease.as_secs_f64()).collect();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let floors: Vec<_> = rooms.iter().map(|room| self.floors.get(&room.webhook).copied()).collect();
        let (wanted, asked): ([&(dyn ToSql + Sync); 6], [&(dyn ToSql + Sync); 2]) =
            ([&webhooks, &counts, &leases, &token, &bytes, &floors], [&webhooks, &floors]);
        let claimed = client.query(&self.claim, &wanted);
        let next = client.query(&self.next_due, &asked);
        // Sent together, answered in order: the second sees what the first has leased.
        let (claimed, next) = futures_util::future::join(claimed, next).await;
        let mut claimed: Vec<_> = claimed
            .map_err(doing("claiming deliveries"))?
            .iter()
            .map(|row| Claimed {
                delivery: delivery_of(row),
                attempts: u32::try_from(row.get::<_, i32>(13)).unwrap_or(0),
                on_schedule: u32::try_from(row.get::<_, i32>(14)).unwrap_or(0),
                sent_again_at: row.get::<_, Option<_>>(15).map(time_of),
                lease: Lease { token },
            })
            .collect();
        claimed.sort_by(|a, b| a.delivery.id.cmp(&b.delivery.id));
        let mut next_due = Vec::with_capacity(rooms.len());
        for row in next.map_err(doing("looking for what is due next"))? {
            let (webhook, due, now) = (Arc::from(row.get::<_, &str>(0)), row.get(1), row.get(2));
            self.look_from(&webhook, due, now);
            next_due.push((webhook, due.map(time_of)));
        }
        Ok(Claims { claimed, next_due })
    }

    /// The names of the webhooks that have open deliveries. The next claims look at all of them.
    pub async fn survey(&mut self, client: &Client) -> Result<Vec<Arc<str>>, LedgerError> {
        self.floors.clear();
        open_webhooks(client).await
    }

    fn look_from(&mut self, webhook: &Arc<str>, due: Option<SystemTime>, now: SystemTime) {
        match due.and_then(|due| due.min(now).checked_sub(FLOOR_MARGIN)) {
            Some(floor) => self.floors.insert(Arc::clone(webhook), floor),
            None => self.floors.remove(webhook),
        };
    }
}

/// The names of the webhooks that have open deliveries.
pub async fn open_webhooks(client: &Client) -> Result<Vec<Arc<str>>, LedgerError> {
    let rows =
        client.query(OPEN_WEBHOOKS, &[]).await.map_err(doing("listing webhooks with open deliveries"))?;
    Ok(rows.iter().map(|row| row.get::<_, &str>(0).into()).collect())
}
