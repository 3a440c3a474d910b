//! Requests a second from the commit to the receiver, against the same client in a bare loop.
//!
//! Two ways to commit, each in transactions of a hundred rows: *closed*, where the next is committed once fewer than
//! [`OUTSTANDING`] rows are on their way, which is what goes through for hours; and *backlog*, where all are
//! committed at once, and most wait in the ledger in between. The bare loop sends the bytes that the sidecar sent
//! first, headers and body, to the same receiver at the same concurrency. Rounds go in turns; what the ledger still
//! has to write after a round is waited for before the next.
//!
//! The processors that the bare loop has to itself are Postgres's too as soon as rows are committed, decoded and
//! recorded. So the closed loop stands beside a second limit: the rate that the bare loop would have if what Postgres
//! took for each delivery were taken from it. Nothing that sends with this client and records in this database gets
//! beyond it, however little it does itself.

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
    /// The sender's.
    cpu_per_million: f64,
    receiver_per_million: f64,
    postgres_per_million: f64,
}

/// Whose processor time is looked at.
struct Clocks<'a> {
    stage: &'a Stage,
    postmaster: u32,
    /// Sender, receiver, Postgres.
    before: [f64; 3],
}

impl<'a> Clocks<'a> {
    fn start(stage: &'a Stage, postmaster: u32, sender: f64) -> Self {
        let before = [sender, stage.receiver.cpu_seconds(), process::family_seconds(postmaster)];
        Self { stage, postmaster, before }
    }

    fn stop(&self, sender: f64, per_second: f64, rows: u32) -> Round {
        let [before, receiver, postgres] = self.before;
        Round {
            per_second,
            cpu_per_million: process::per_million(before, sender, rows),
            receiver_per_million: process::per_million(receiver, self.stage.receiver.cpu_seconds(), rows),
            postgres_per_million: process::per_million(
                postgres,
                process::family_seconds(self.postmaster),
                rows,
            ),
        }
    }
}

/// Both ways.
pub(super) async fn measure(stage: &Stage, sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    let client = stage.orders("delivery").await?;
    let backend: i32 = client.query_one("select pg_backend_pid()", &[]).await?.get(0);
    let postmaster = u32::try_from(backend).ok().and_then(process::parent).unwrap_or(0);
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
            theirs.push(alone(stage, postmaster, &bare, sizes).await?);
            ours.push(through((stage, postmaster), &client, &mut sidecar, sizes, way).await?);
        }
        let of = |all: &[Round], what: fn(&Round) -> f64| median(&all.iter().map(what).collect::<Vec<_>>());
        let rate = |round: &Round| round.per_second;
        let cpu = |round: &Round| round.cpu_per_million;
        let (our_rate, their_rate) = (of(&ours, rate), of(&theirs, rate));
        let rates =
            Figure::new(what, "requests/s", our_rate, AGAINST, their_rate).resident(sidecar.peak_mib());
        figures.push(if way == Way::Closed { rates.wanting(0.6) } else { rates });
        let postgres = of(&ours, |round| round.postgres_per_million);
        if way == Way::Closed {
            let bare = of(&theirs, cpu) + of(&theirs, |round| round.receiver_per_million);
            let left = their_rate * bare / (bare + postgres);
            let what = format!("{what}, beside what Postgres takes");
            figures.push(Figure::new(
                what,
                "requests/s",
                our_rate,
                "the bare loop on what Postgres leaves",
                left,
            ));
        }
        let time = format!("{what}, processor time");
        let unit = "s per million requests";
        figures.push(Figure::new(time, unit, of(&ours, cpu), AGAINST, of(&theirs, cpu)));
        let time = format!("{what}, processor time of Postgres");
        figures.push(Figure::new(time, unit, postgres, AGAINST, of(&theirs, cpu)));
        settled(&client, SLOT).await?;
        sidecar.stop().await?;
    }
    client.execute("select pg_drop_replication_slot($1)", &[&SLOT]).await?;
    Ok(figures)
}

async fn alone(stage: &Stage, postmaster: u32, bare: &Bare, sizes: &Sizes) -> Result<Round, BenchError> {
    let cpu = || process::cpu_seconds(std::process::id());
    let clocks = Clocks::start(stage, postmaster, cpu());
    let per_second = bare.burst(sizes.rows, sizes.concurrency).await?;
    Ok(clocks.stop(cpu(), per_second, sizes.rows))
}

async fn through(
    (stage, postmaster): (&Stage, u32),
    client: &Client,
    sidecar: &mut Sidecar,
    sizes: &Sizes,
    way: Way,
) -> Result<Round, BenchError> {
    let (clocks, begun) = (Clocks::start(stage, postmaster, sidecar.cpu_seconds()), Instant::now());
    tokio::select! {
        ended = commit(stage, client, sizes.rows, way) => ended?,
        failure = sidecar.death() => return Err(failure),
    }
    let per_second = f64::from(sizes.rows) / begun.elapsed().as_secs_f64();
    // What is done for the ledger after the last request is a part of its price.
    settled(client, SLOT).await?;
    Ok(clocks.stop(sidecar.cpu_seconds(), per_second, sizes.rows))
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
