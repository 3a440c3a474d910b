//! From a COMMIT's return to the receipt of its webhook, at a pace that leaves the machine idle in between.
//!
//! Four connections commit one row each in turn, so that one slow commit does not hold up the pace. The time is that
//! between two looks at one clock: the committer's when its statement has returned, the receiver's when the request
//! is there whole. Beside it the time of a bare request, sent at the same pace to the same receiver, answer included.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_postgres::Client;

use super::figures::{Figure, share};
use super::receiver::{COUNTED, TIMED};
use super::sidecar::Sidecar;
use super::stage::{PLACE, Stage, patience, settled, webhook};
use super::watch::Bare;
use super::{BenchError, Sizes};
use crate::clock::Clock;

const COMMITTERS: u32 = 4;
const WARM_UP_SECONDS: u32 = 3;
const AGAINST: &str = "a bare request";
const SLOT: &str = "latency";
/// One order, and its id.
const PLACE_ONE: &str =
    "insert into orders (customer, status, total) values ('customer', 'placed', 12.5) returning id";

/// p50 and p99, in milliseconds.
pub(super) async fn measure(stage: &Stage, sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    let client = stage.orders("latency").await?;
    let warm = stage.receiver.count().await?;
    let mut counted = sidecar(stage, COUNTED, sizes).await?;
    client.execute(PLACE, &[&100_i32]).await?;
    stage.receiver.until(warm + 100, patience(100)).await?;
    counted.must_live()?;
    counted.stop().await?;
    let bare = Bare::new(&stage.receiver.url(COUNTED), stage.receiver.sample().await?)?;
    let mut alone = paced(&bare, sizes).await?;
    let sidecar = sidecar(stage, TIMED, sizes).await?;
    // What comes right after a start goes through the ledger; that is not what is measured here.
    through(stage, &Sizes { paced: (sizes.paced.0, WARM_UP_SECONDS), ..*sizes }).await?;
    settled(&client, SLOT).await?;
    let ours = through(stage, sizes).await?;
    alone.extend(paced(&bare, sizes).await?);
    let (rate, _) = sizes.paced;
    let peak = sidecar.peak_mib();
    settled(&client, SLOT).await?;
    sidecar.stop().await?;
    client.execute("select pg_drop_replication_slot($1)", &[&SLOT]).await?;
    let figure = |name: &str, part: f64| {
        let what = format!("commit to receipt at {rate} changes/s, {name}");
        Figure::new(what, "ms", share(&ours, part), AGAINST, share(&alone, part)).resident(peak)
    };
    Ok(vec![figure("p50", 0.5), figure("p99", 0.99)])
}

async fn sidecar(stage: &Stage, path: &str, sizes: &Sizes) -> Result<Sidecar, BenchError> {
    let config = stage.database("latency", SLOT) + &webhook(&stage.receiver.url(path), sizes.concurrency);
    let mut sidecar = Sidecar::start(&config).await?;
    sidecar.ready().await?;
    Ok(sidecar)
}

/// Bare requests at the pace, half as long as the commits.
async fn paced(bare: &Bare, sizes: &Sizes) -> Result<Vec<f64>, BenchError> {
    let (rate, seconds) = sizes.paced;
    let mut ticks = interval_at(Instant::now(), Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut took = Vec::new();
    for _ in 0..(rate * seconds).div_ceil(2) {
        ticks.tick().await;
        let begun = Instant::now();
        bare.send().await?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// Commits at the pace. Returns every change's time, in milliseconds.
async fn through(stage: &Stage, sizes: &Sizes) -> Result<Vec<f64>, BenchError> {
    let (rate, seconds) = sizes.paced;
    let total = rate * seconds / COMMITTERS * COMMITTERS;
    let before = stage.receiver.count().await?;
    let (begin, apart) = (Instant::now(), Duration::from_secs(1) / rate);
    let mut committers = JoinSet::new();
    for number in 0..COMMITTERS {
        let client = stage.connect("latency").await?;
        committers.spawn(committer(client, begin + apart * number, apart * COMMITTERS, total / COMMITTERS));
    }
    let mut committed = HashMap::new();
    while let Some(ended) = committers.join_next().await {
        committed.extend(ended??);
    }
    stage.receiver.until(before + u64::from(total), patience(total)).await?;
    let received = stage.receiver.times().await?;
    let took = |(id, at): &(u64, i64)| {
        let micros = at - committed.get(id)?;
        i32::try_from(micros).ok().map(|micros| f64::from(micros) / 1e3)
    };
    Ok(received.iter().filter_map(took).collect())
}

/// Commits a row at every tick; remembers when each commit had returned.
async fn committer(
    client: Client,
    begin: Instant,
    apart: Duration,
    rows: u32,
) -> Result<Vec<(u64, i64)>, BenchError> {
    let clock = Clock::system();
    let place = client.prepare(PLACE_ONE).await?;
    let mut ticks = interval_at(begin, apart);
    let mut committed = Vec::new();
    for _ in 0..rows {
        ticks.tick().await;
        let row = client.query_one(&place, &[]).await?;
        let now = clock.now().as_microsecond();
        committed.extend(u64::try_from(row.get::<_, i64>(0)).ok().map(|id| (id, now)));
    }
    Ok(committed)
}
