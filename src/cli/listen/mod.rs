//! `walhook listen`: a receiver for local work.
//!
//! It does what a receiver should: verifies the signature, answers, remembers ids to tell what it has seen. And it
//! can do what receivers do on bad days: answer with errors, now and then or at first, and take its time.
//!
//! [`serve`] is the receiver itself, and hands what it receives to a closure; [`run`] is the command around it.

mod memory;
mod print;
mod serve;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::print::{BodyStyle, Printer};
pub use self::serve::{ListenOptions, Received, Signature, serve};
use crate::clock::Clock;
use crate::tasks::{Role, Tasks};

const EXAMPLE: &str =
    "Example:\n  walhook listen --port 9000 --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw --fail-first 2";

/// A receiver for local work: verifies signatures, prints, and can fail on purpose.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct ListenArgs {
    /// The port; 0 takes a free one and prints it.
    #[arg(long, default_value_t = 9000)]
    pub port: u16,
    /// The address to listen on; 0.0.0.0 for every network.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// A secret that signatures are checked with; may be given several times. Without one, nothing is checked.
    #[arg(long = "secret", env = "WALHOOK_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub secrets: Vec<SecretString>,
    /// The status to answer with; with --fail-rate or --fail-first, the status of the failures (500).
    #[arg(long, value_parser = clap::value_parser!(u16).range(200..600))]
    pub status: Option<u16>,
    /// The share of requests to fail, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share, value_name = "SHARE")]
    pub fail_rate: f64,
    /// Fails the first N requests of each webhook-id.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub fail_first: u32,
    /// How long to wait before each answer, such as 250ms or 2s.
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "DURATION")]
    pub delay: Duration,
    /// Prints one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// How bodies are printed.
    #[arg(long, value_enum, default_value_t = BodyStyle::Compact)]
    pub body: BodyStyle,
    /// Exits after accepting this many requests.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Listens until Ctrl-C, SIGTERM, `--count` or a closed standard output; 1 where it cannot listen.
pub async fn run(args: ListenArgs) -> ExitCode {
    let (host, port) = (args.host, args.port);
    let bound = TcpListener::bind((host, port)).await;
    let listening = bound.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = match listening {
        Ok(listening) => listening,
        Err(error) => return failed(&format!("cannot listen on {host}, port {port}: {error}")),
    };
    let stop = CancellationToken::new();
    let mut printer = Printer::new(io::stdout(), args.json, args.body);
    if printer.listening(address).is_err() {
        return ExitCode::SUCCESS;
    }
    let (printer, unheard) = (Mutex::new(printer), stop.clone());
    let sink = move |received: Received| {
        // A reader that went away, as `head` does, is a way to say stop.
        if printer.lock().unwrap_or_else(PoisonError::into_inner).received(&received).is_err() {
            unheard.cancel();
        }
    };
    let (tasks, _) = Tasks::new();
    tasks.spawn("signals", Role::Passing, stop_on_signal(stop.clone()));
    match serve(listener, args.options(), stop, sink).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("the receiver on {address} ended: {error}")),
    }
}

impl ListenArgs {
    /// What the receiver itself needs to know.
    fn options(self) -> ListenOptions {
        let fails_on_purpose = self.fail_rate > 0.0 || self.fail_first > 0;
        let (status, fail_status) = if fails_on_purpose {
            (200, self.status.unwrap_or(500))
        } else {
            (self.status.unwrap_or(200), 500)
        };
        ListenOptions {
            secrets: self.secrets,
            status,
            fail_status,
            fail_rate: self.fail_rate,
            fail_first: self.fail_first,
            delay: self.delay,
            count: self.count,
            clock: Clock::system(),
        }
    }
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
}

fn failed(reason: &str) -> ExitCode {
    let told = writeln!(io::stderr(), "walhook listen: {reason}");
    drop(told);
    ExitCode::FAILURE
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1, such as 0.3".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    parsed.ok_or_else(|| "expected a duration such as 250ms or 2s".to_owned())
}
