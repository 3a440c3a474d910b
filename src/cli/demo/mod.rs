//! `walhook demo`: the whole way of a change, in one terminal.
//!
//! A throwaway Postgres with a small shop whose tables change by themselves, the sidecar as users run it (this same
//! binary, as a child process, with a file as users write it), and two receivers: the shop's CRM, which verifies and
//! takes everything, and a warehouse that fails twice before it takes a shipment, so that a retry is seen. Every
//! commit and every request is a line. Whatever ends it, Ctrl-C included, nothing stays behind.
//!
//! With `--once` a fixed run of [`shop::ONCE`] and a judgement: every commit delivered, every signature verified, the
//! retry seen, nothing sent of what was rolled back.

mod receiver;
mod report;
mod shop;
mod sidecar;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cluster::{Cluster, ClusterError, Options};
use crate::tasks::Tasks;

use receiver::Receipt;
use report::Report;
use shop::Shop;
use sidecar::Sidecar;

/// Receipts that wait to be printed.
const RECEIPTS_WAITING: usize = 256;
/// How long a fixed run waits for its last delivery.
const ONCE_PATIENCE: Duration = Duration::from_secs(60);

/// See commits become signed webhooks, against a throwaway Postgres.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  walhook demo\n  walhook demo --once")]
pub struct DemoArgs {
    /// Do a fixed run, judge it, and exit 0 (all delivered and verified) or 1.
    #[arg(long)]
    once: bool,
    /// Milliseconds between two commits.
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pace: u64,
}

/// What ended the demo before its time.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the shop's database refused a statement")]
    Shop(#[from] tokio_postgres::Error),
    #[error("could not {action}")]
    Io {
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("the sidecar ended or did not get ready; the end of its log:\n{log}")]
    Sidecar { log: String },
    #[error("a helper thread died")]
    Thread(#[from] tokio::task::JoinError),
}

/// How a demo ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Somebody pressed Ctrl-C.
    Asked,
    /// The fixed run is over.
    Passed,
    /// The fixed run is over, and something of it is missing.
    Missed,
}

/// Runs the demo to its end.
pub async fn run(args: DemoArgs) -> ExitCode {
    let mut report = Report::to_stdout();
    match play(&args, &mut report).await {
        Ok(End::Asked) => {
            report.note("Stopped; nothing is left behind.");
            ExitCode::SUCCESS
        }
        Ok(End::Passed) => ExitCode::SUCCESS,
        Ok(End::Missed) => ExitCode::FAILURE,
        Err(error) => {
            report.failure(&error);
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, a closed terminal, or somebody's `kill`.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> Result<Self, DemoError> {
        let on = |kind| signal(kind).map_err(|source| DemoError::Io { action: "listen to signals", source });
        Ok(Self([on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Everything that stands while the demo runs. Fields end in this order: first the sidecar, then its server.
struct Stage {
    sidecar: Sidecar,
    shop: Shop,
    receipts: mpsc::Receiver<Receipt>,
    tasks: Tasks,
    cluster: Cluster,
}

async fn play(args: &DemoArgs, report: &mut Report) -> Result<End, DemoError> {
    let mut stop = Stop::listen()?;
    report.note(
        "Starting a throwaway Postgres with wal_level = logical, a small shop, and walhook beside it …",
    );
    let mut stage = tokio::select! {
        stage = set() => stage?,
        () = stop.asked() => return Ok(End::Asked),
    };
    report.opening(&stage.cluster.url(shop::DATABASE), stage.sidecar.address());
    let end = if args.once {
        once(&mut stage, &mut stop, report).await
    } else {
        for_ever(&mut stage, &mut stop, report, Duration::from_millis(args.pace)).await
    };
    stage.sidecar.stop().await;
    stage.tasks.finish(Duration::from_secs(1)).await;
    tokio::task::spawn_blocking(move || drop(stage.cluster)).await?;
    end
}

async fn set() -> Result<Stage, DemoError> {
    let cluster = tokio::task::spawn_blocking(|| Cluster::create(&Options::default())).await??;
    let (tasks, _deaths) = Tasks::new();
    cluster.create_database(shop::DATABASE).await?;
    let shop = Shop::open(&cluster.url(shop::DATABASE), &tasks).await?;
    let secret = receiver::draw_secret();
    let (sender, receipts) = mpsc::channel(RECEIPTS_WAITING);
    let receivers = receiver::open(&secret, &sender, &tasks).await?;
    let sidecar = Sidecar::start(&cluster.url(shop::DATABASE), receivers, &secret, &tasks).await?;
    Ok(Stage { sidecar, shop, receipts, tasks, cluster })
}

/// Commits at a pace and prints what happens, until somebody has seen enough.
async fn for_ever(
    stage: &mut Stage,
    stop: &mut Stop,
    report: &mut Report,
    pace: Duration,
) -> Result<End, DemoError> {
    let mut next = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.asked() => return Ok(End::Asked),
            log = stage.sidecar.death() => return Err(DemoError::Sidecar { log }),
            Some(receipt) = stage.receipts.recv() => report.receipt(&receipt),
            () = tokio::time::sleep_until(next) => {
                let happening = stage.shop.pick();
                let done = stage.shop.take(happening).await?;
                report.commit(&done);
                next = Instant::now() + pace;
            }
        }
        if report.is_closed() {
            return Ok(End::Asked);
        }
    }
}

/// The fixed run, and its judgement.
async fn once(stage: &mut Stage, stop: &mut Stop, report: &mut Report) -> Result<End, DemoError> {
    for step in shop::ONCE {
        let done = stage.shop.take(step).await?;
        report.commit(&done);
        // A moment for each to arrive, so that the lines read in the order of what happened.
        let until = Instant::now() + Duration::from_millis(200);
        while let Ok(Some(receipt)) = tokio::time::timeout_at(until, stage.receipts.recv()).await {
            report.receipt(&receipt);
        }
    }
    let deadline = tokio::time::sleep(ONCE_PATIENCE);
    tokio::pin!(deadline);
    while !report.is_complete(&shop::OWED) {
        tokio::select! {
            () = stop.asked() => return Ok(End::Asked),
            log = stage.sidecar.death() => return Err(DemoError::Sidecar { log }),
            Some(receipt) = stage.receipts.recv() => report.receipt(&receipt),
            () = &mut deadline => break,
        }
    }
    Ok(if report.summary(&shop::OWED) { End::Passed } else { End::Missed })
}
