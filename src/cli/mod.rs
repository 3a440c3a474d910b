//! What you type.
//!
//! Every command parses its arguments here and calls one verb elsewhere: `run` the [`crate::app`], the operator's
//! verbs [`crate::control`]. Exit codes: 0 done, 1 failed, 2 wrong usage. What a command answers goes to standard
//! output; what goes wrong, and the log, to standard error.

pub mod bench;
pub mod demo;
pub mod listen;
mod operate;
mod paper;
mod print;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::app::{self, AppError};
use crate::config::Sources;
use crate::telemetry::{LogFormat, start_logging};

/// Signed webhooks from the Postgres write-ahead log.
#[derive(Debug, Parser)]
#[command(name = "walhook", version, about, arg_required_else_help = true)]
struct Cli {
    /// The configuration [default: walhook.toml]
    #[arg(long, short, global = true, value_name = "FILE", env = "WALHOOK_CONFIG")]
    config: Option<PathBuf>,
    /// How log lines are written
    #[arg(long, global = true, value_enum, default_value_t, env = "WALHOOK_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged, in tracing's filter syntax
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        default_value = "info",
        env = "WALHOOK_LOG",
        hide = true
    )]
    log: String,
    /// Threads that do the work [default: half of the processors, because the database wants the others]
    #[arg(long, global = true, value_name = "COUNT", env = "WALHOOK_THREADS", hide = true)]
    threads: Option<NonZeroUsize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar
    #[command(after_help = "Example:\n  walhook run --config walhook.toml")]
    Run,
    /// Receive webhooks for local work: verify, print, and fail on purpose
    #[command(after_help = "Example:\n  walhook listen --port 9000 --secret whsec_… --fail-first 2")]
    Listen(listen::ListenArgs),
    /// See it work: a throwaway Postgres with a small shop, the sidecar and receivers, in one terminal
    #[command(after_help = "Example:\n  walhook demo --once")]
    Demo(demo::DemoArgs),
    /// Measure this machine: walhook beside `pg_recvlogical` and a bare HTTP client, in one run
    #[command(after_help = "Example:\n  walhook bench\n  walhook bench --quick --json")]
    Bench(bench::BenchArgs),
    /// Print what completes commands in a shell
    #[command(after_help = "Example:\n  walhook completions bash > /etc/bash_completion.d/walhook\n  \
                            source <(walhook completions zsh)")]
    Completions(paper::CompletionsArgs),
    /// Write pages for man, one a command
    #[command(after_help = "Example:\n  walhook man /usr/local/share/man/man1")]
    Man(paper::ManArgs),
    /// The receiver of `walhook bench`
    #[command(hide = true)]
    BenchReceiver,
    #[command(flatten)]
    Operate(operate::Operate),
}

/// Parses the command line, runs the command, answers the exit code.
pub fn main() -> ExitCode {
    // Reads FAILPOINTS; without the feature there are no points to fail at.
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    let cli = Cli::parse();
    start_logging(cli.log_format, &cli.log);
    let threads = cli.threads.map_or_else(half_of_the_processors, NonZeroUsize::get);
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                print::error(&format!("the asynchronous runtime cannot begin: {error}"));
                return ExitCode::FAILURE;
            }
        };
    let code = runtime.block_on(dispatch(cli.command, Sources::from_process(cli.config)));
    // A name that is still being resolved, say, must not hold up the end.
    runtime.shutdown_background();
    code
}

/// A delivery passes several tasks, each of which does little: handing it from thread to thread costs more than it
/// gains. On two processors that Postgres uses too, one thread took less processor
/// time a delivery than two (a tenth to a third, the more the busier the machine) at about the same rate.
fn half_of_the_processors() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get).div_ceil(2)
}

async fn dispatch(command: Command, sources: Sources) -> ExitCode {
    match command {
        Command::Run => {
            // Not into the log: that is kept, and read by others.
            let tell = |text: &str| {
                print::line(text);
            };
            finish(app::run(sources, tell).await)
        }
        Command::Listen(args) => listen::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Completions(args) => paper::completions(&args, Cli::command()),
        Command::Man(args) => paper::man(&args, Cli::command()),
        Command::BenchReceiver => bench::receiver::run().await,
        Command::Operate(verb) => match operate::operate(verb, sources).await {
            Ok(code) => code,
            Err(error) => finish(Err(error.into())),
        },
    }
}

/// Tells what went wrong, if anything, and answers the exit code.
fn finish(done: Result<(), AppError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(&error.tell());
            ExitCode::FAILURE
        }
    }
}
