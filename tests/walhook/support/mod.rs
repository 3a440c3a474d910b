//! What every test needs: the cast, and how to wait.

mod database;
mod http2;
mod proxy;
mod receiver;
mod sidecar;
pub mod witness;

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::Instant;
use walhook::cluster::{Cluster, Options};

pub use database::{Database, ORDERS, connect, shared};
pub use http2::speaks_http2;
pub use proxy::{Network, Proxy};
pub use receiver::{Answer, Receiver, Request};
pub use sidecar::{Run, Sidecar, get, refused, run_once};

/// How long a test waits for what should take a moment. Long, because the machine may be busy; nobody waits it out
/// unless the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The secret of most webhooks in the tests.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

static TURN: LazyLock<RwLock<()>> = LazyLock::new(RwLock::default);

/// A server that removes log before a slot has read it.
pub fn cluster_of_little_log() -> Cluster {
    let settings = [("max_slot_wal_keep_size", "16MB"), ("min_wal_size", "32MB"), ("max_wal_size", "48MB")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Cluster::create(&Options { settings: settings.to_vec(), ..Options::default() }).expect("a cluster")
}

/// Held by a test that may run beside others. Taken once, first of all.
pub async fn beside_others() -> RwLockReadGuard<'static, ()> {
    TURN.read().await
}

/// Held by a test that measures: nothing else runs meanwhile.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().await
}

/// Runs a future beside the test, to the end of the test at most.
#[expect(clippy::disallowed_methods, reason = "a test's helpers end with its runtime")]
pub fn background<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    tokio::spawn(future)
}

/// Asks until the answer is yes; panics with `what` when `patience` is over. For facts that nobody announces.
pub async fn eventually<F>(what: &str, patience: Duration, mut ask: F)
where
    F: AsyncFnMut() -> bool,
{
    let deadline = Instant::now() + patience;
    while !ask().await {
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the environment may turn. The sidecar does not get to see it: it refuses a variable that it does not know.
pub const KNOBS: [&str; 9] = [
    "WALHOOK_SEED",
    "WALHOOK_SOAK",
    "WALHOOK_KILLS",
    "WALHOOK_MILLION",
    "WALHOOK_FUZZ_SECONDS",
    "WALHOOK_PGBENCH_SECONDS",
    "WALHOOK_SIMULATION",
    "WALHOOK_REGRESS",
    "WALHOOK_CONTRACT_EXAMPLES",
];

/// A number from the environment, or `default`.
#[expect(clippy::disallowed_methods, reason = "a test's knobs are no part of the configuration")]
pub fn knob(name: &str, default: u64) -> u64 {
    assert!(KNOBS.contains(&name), "not one of the knobs: {name}");
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}
