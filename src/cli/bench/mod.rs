//! `walhook bench`: measures this machine, and the sidecar against what the machine allows.
//!
//! A figure alone says little about a program and much about the machine it ran on. So every figure stands beside a
//! limit that was measured in the same run, in turns: the log is read by `pg_recvlogical` as well, requests are sent
//! by the same HTTP client in a bare loop as well. What counts is the ratio.
//!
//! The parts are those of an installation: a throwaway Postgres that waits for its disk (`fsync = on`, everything
//! else as it comes, but for `wal_level` and a `max_wal_size` that keeps checkpoints out of the rounds), the sidecar
//! as users run it (this binary as a child process, with a file as users write it, the ledger in the same database)
//! and a receiver in a process of its own ([`receiver`]).
//!
//! [`decode`] is the way from the log to the question who wants a change, with nobody wanting it; [`delivery`] the
//! whole way, as much as goes through; [`latency`] the whole way, at a pace; [`api`] what an operator waits for. Memory is the highest the sidecar's
//! process had resident in that stage, and each stage has a process of its own.

mod api;
mod decode;
mod delivery;
mod figures;
mod latency;
mod process;
pub mod receiver;
mod sidecar;
mod stage;
mod watch;

use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::print;
use crate::cluster::ClusterError;
use crate::transport::TransportError;
use figures::{Figure, json, table};
use stage::Stage;

/// Measure this machine, and walhook on it.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Small sizes: shows that everything works, not how fast
    #[arg(long)]
    quick: bool,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Rows that a round of deliveries commits [default: 30000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rows: Option<u32>,
    /// Requests in flight, of the webhook and of the bare loop
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    concurrency: u32,
    /// Rounds of each, of which the median counts [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: Option<u32>,
    /// Only these parts: decode, delivery, latency, api
    #[arg(long, value_name = "PART", value_enum)]
    only: Vec<Part>,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// From the log to the question who wants a change.
    Decode,
    /// From the commit to the receiver, as much as goes.
    Delivery,
    /// From the commit to the receiver, at a pace.
    Latency,
    /// The HTTP API, beside a full ledger.
    Api,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Transactions of the first load, and rows in each.
    large: (u32, u32),
    /// One-row transactions of the second.
    small: u32,
    /// Rows committed in a round of deliveries.
    rows: u32,
    /// Changes a second, and for how many seconds.
    paced: (u32, u32),
    rounds: u32,
    concurrency: u32,
    /// Webhooks made over the API, and deliveries in the ledger beside its pages.
    api: (u32, u32),
}

/// What ended the measuring before its time.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("a statement of the measurement was refused")]
    Statement(#[from] tokio_postgres::Error),
    #[error("could not {action}")]
    Io {
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("{what} ended or did not get ready; the end of what it said:\n{said}")]
    Child { what: &'static str, said: String },
    #[error("{what} did not come to its end in time")]
    Late { what: &'static str },
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the receiver refused a request of the bare loop: {told}")]
    Refused { told: String },
    #[error("the API refused a request: {told}")]
    Api { told: String },
    #[error("stopped; nothing is left behind")]
    Stopped,
    #[error("a helper thread died")]
    Thread(#[from] tokio::task::JoinError),
}

fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> BenchError {
    move |source| BenchError::Io { action, source }
}

impl Sizes {
    fn of(args: &BenchArgs) -> Self {
        let full = Self {
            large: (1000, 1000),
            small: 200_000,
            rows: args.rows.unwrap_or(30_000),
            paced: (500, 20),
            rounds: args.rounds.unwrap_or(3),
            concurrency: args.concurrency,
            api: (10_000, 5_000_000),
        };
        if !args.quick {
            return full;
        }
        Self {
            large: (20, 100),
            small: 500,
            rows: args.rows.unwrap_or(500),
            paced: (100, 1),
            rounds: args.rounds.unwrap_or(1),
            api: (50, 10_000),
            ..full
        }
    }
}

/// Measures and prints.
pub async fn run(args: BenchArgs) -> ExitCode {
    // Whatever ends it: what is dropped here ends the sidecar, the receiver and the server.
    let measured = tokio::select! {
        measured = measure(&args) => measured,
        stopped = asked_to_stop() => stopped,
    };
    match measured {
        Ok(figures) => {
            print::line(&if args.json { json(&figures) } else { table(&figures) });
            ExitCode::SUCCESS
        }
        Err(error) => {
            print::error(&crate::telemetry::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Waits for Ctrl-C, a closed terminal, or somebody's `kill`.
async fn asked_to_stop() -> Result<Vec<Figure>, BenchError> {
    let on = |kind| signal(kind).map_err(io("listen to signals"));
    let (mut interrupt, mut terminate, mut hangup) =
        (on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Err(BenchError::Stopped)
}

async fn measure(args: &BenchArgs) -> Result<Vec<Figure>, BenchError> {
    let sizes = Sizes::of(args);
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let stage = Stage::set().await?;
    let mut figures = Vec::new();
    if wanted(Part::Decode) {
        figures.extend(decode::measure(&stage, &sizes).await?);
    }
    if wanted(Part::Delivery) {
        figures.extend(delivery::measure(&stage, &sizes).await?);
    }
    if wanted(Part::Latency) {
        figures.extend(latency::measure(&stage, &sizes).await?);
    }
    if wanted(Part::Api) {
        figures.extend(api::measure(&stage, &sizes).await?);
    }
    stage.clear().await?;
    Ok(figures)
}
