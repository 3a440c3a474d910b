//! Requests a second from the commit to the receiver, against the same client in a bare loop.
//!
//! Two ways to commit, each in transactions of a hundred rows: *closed*, where the next is committed once fewer than
//! [`OUTSTANDING`] rows are on their way, which is what goes through for hours; and *backlog*, where all are
//! committed at once, and most wait in the ledger in between. The bare loop sends the bytes that the sidecar sent
//! first, headers and body, to the same receiver at the same concurrency. Rounds go in turns; what the ledger still
//! has to write after a round is waited for before the next.

use tokio::time::Instant;
use tokio_postgres::Client;

use super::figures::{Figure, median};
use super::receiver::COUNTED;
use super::sidecar::Sidecar;
use super::stage::{PLACE, Stage, patience, settled, webhook};
use super::watch::{Bare, GLANCE};
use super::{BenchError, Sizes, process};

/// Rows in a transaction.
const AT_ONCE: u32 = 100;
/// Rows on their way in the closed loop, at most.
const OUTSTANDING: u32 = 1000;
const AGAINST: &str = "the same client in a bare loop";
const SLOT: &str = "delivery";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Closed,
    Backlog,
}

/// What a round of one sender came to.
#[derive(Debug, Clone, Copy)]
struct Round {
    per_second: f64,
    cpu_per_million: f64,
}

/// Both ways.
pub(super) async fn measure(stage: &Stage, sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    let client = stage.orders("delivery").await?;
    let mut figures = Vec::new();
    for (way, what) in [(Way::Closed, "delivery end to end"), (Way::Backlog, "delivery of a backlog")] {
        let url = stage.receiver.url(COUNTED);
        let config = stage.database("delivery", SLOT) + &webhook(&url, sizes.concurrency);
        let mut sidecar = Sidecar::start(&config).await?;
        sidecar.ready().await?;
        // The first requests open connections, and one of them is the bare loop's model.
        commit(stage, &client, AT_ONCE, Way::Closed).await?;
        let bare = Bare::new(&url, stage.receiver.sample().await?)?;
        bare.burst(sizes.rows / 10, sizes.concurrency).await?;
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..sizes.rounds {
            settled(&client, SLOT).await?;
            theirs.push(alone(&bare, sizes).await?);
            ours.push(through(stage, &client, &mut sidecar, sizes, way).await?);
        }
        let of = |all: &[Round], what: fn(&Round) -> f64| median(&all.iter().map(what).collect::<Vec<_>>());
        let rate = |round: &Round| round.per_second;
        let cpu = |round: &Round| round.cpu_per_million;
        let rates = Figure::new(what, "requests/s", of(&ours, rate), AGAINST, of(&theirs, rate));
        let rates = rates.resident(sidecar.peak_mib());
        figures.push(if way == Way::Closed { rates.wanting(0.6) } else { rates });
        let time = format!("{what}, processor time");
        figures.push(Figure::new(time, "s per million requests", of(&ours, cpu), AGAINST, of(&theirs, cpu)));
        settled(&client, SLOT).await?;
        sidecar.stop().await?;
    }
    client.execute("select pg_drop_replication_slot($1)", &[&SLOT]).await?;
    Ok(figures)
}

async fn alone(bare: &Bare, sizes: &Sizes) -> Result<Round, BenchError> {
    let cpu = || process::cpu_seconds(std::process::id());
    let before = cpu();
    let per_second = bare.burst(sizes.rows, sizes.concurrency).await?;
    Ok(Round { per_second, cpu_per_million: process::per_million(before, cpu(), sizes.rows) })
}

async fn through(
    stage: &Stage,
    client: &Client,
    sidecar: &mut Sidecar,
    sizes: &Sizes,
    way: Way,
) -> Result<Round, BenchError> {
    let (before, begun) = (sidecar.cpu_seconds(), Instant::now());
    tokio::select! {
        ended = commit(stage, client, sizes.rows, way) => ended?,
        failure = sidecar.death() => return Err(failure),
    }
    let per_second = f64::from(sizes.rows) / begun.elapsed().as_secs_f64();
    // What it does for the ledger after the last request is a part of its price.
    settled(client, SLOT).await?;
    let cpu_per_million = process::per_million(before, sidecar.cpu_seconds(), sizes.rows);
    Ok(Round { per_second, cpu_per_million })
}

/// Commits so many rows and waits until the last has come.
async fn commit(stage: &Stage, client: &Client, rows: u32, way: Way) -> Result<(), BenchError> {
    let place = client.prepare(PLACE).await?;
    let before = stage.receiver.count().await?;
    let deadline = Instant::now() + patience(rows);
    let mut committed = 0;
    while committed < rows {
        let now = AT_ONCE.min(rows - committed);
        let count = i32::try_from(now).unwrap_or(1);
        client.execute(&place, &[&count]).await?;
        committed += now;
        while way == Way::Closed
            && stage.receiver.count().await? + u64::from(OUTSTANDING) < before + u64::from(committed)
        {
            if Instant::now() > deadline {
                return Err(BenchError::Late { what: "the delivery of what was committed" });
            }
            tokio::time::sleep(GLANCE).await;
        }
    }
    stage.receiver.until(before + u64::from(rows), patience(rows)).await
}
