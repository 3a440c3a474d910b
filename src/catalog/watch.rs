//! Keeps the published catalog true: to the database, to the file.
//!
//! `NOTIFY` is a hint that makes it quick; the version, asked every second, is the truth. Whoever changes ten thousand
//! webhooks one by one must not keep a processor busy with each of ten thousand catalogs: after one is published there is a
//! rest, longer the longer it took to make, and short enough that a change is live within a second all the same. It is
//! made on a thread of its own, so that deliveries do not wait for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::compile::{Compiler, unverified};
use super::load::{Reader, Rows, version};
use super::{Published, Snapshot};
use crate::config::Config;
use crate::domain::limits;
use crate::ledger::pokes::Pokes;
use crate::ledger::{Ledger, LedgerError, quote, within};
use crate::postgres::{Heard, Session};
use crate::telemetry::chain;

/// How often the version is asked for.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// Rest after a catalog, as a multiple of what it took; and the longest.
const REST: (u32, Duration) = (2, Duration::from_millis(400));

/// What the watcher works with.
pub struct Watcher {
    /// Where the rows are.
    pub ledger: Ledger,
    /// The file, checked; sent anew when it has been read again.
    pub config: watch::Receiver<Arc<Config>>,
    /// Where the catalog is published.
    pub published: watch::Sender<Published>,
    /// Awaited with a new snapshot before it is published: its tables must be in the publication by then.
    pub before: Before,
    /// The hints that somebody else has put work into the ledger.
    pub pokes: watch::Sender<Pokes>,
}

/// What is done with a snapshot before it is published.
pub type Before = Box<dyn Fn(Arc<Snapshot>) -> BoxFuture<'static, ()> + Send + Sync>;

/// The session that reads and listens.
#[derive(Default)]
struct Link {
    open: Option<Session>,
    reader: Reader,
    has_listened: bool,
}

/// Publishes what there is, and every change until asked to stop. The compiler is the one that has made what is published
/// by now.
pub async fn watch(mut watcher: Watcher, mut compiler: Compiler, stop: CancellationToken) {
    let mut known = 0;
    let mut link = Link::default();
    let mut told = false;
    let mut rest_until = Instant::now();
    loop {
        let begun = Instant::now();
        if begun >= rest_until {
            let outcome = within(limits::ANSWER_WITHIN, step(&watcher, &mut link, known)).await;
            match outcome {
                Ok(Some(rows)) => {
                    known = rows.version;
                    compiler = publish(&watcher, compiler, rows).await;
                    told = false;
                    let (times, most) = REST;
                    rest_until = Instant::now() + (begun.elapsed() * times).min(most);
                }
                Ok(None) => told = false,
                Err(error) => {
                    link.open = None;
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(reason = chain(&error), "the webhooks of the database cannot be read");
                    }
                }
            }
        }
        let now = Instant::now();
        let next_look = if now < rest_until { rest_until } else { now + POLL_EVERY };
        let hint = async {
            match link.open.as_mut() {
                Some(session) => session.hear().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = watcher.config.changed() => {
                if changed.is_err() {
                    return;
                }
                (known, compiler, rest_until) = (0, Compiler::default(), begun);
            }
            hint = hint => match hint {
                Some(Heard::Told(hint)) => {
                    watcher.pokes.send_if_modified(|pokes| pokes.hear(hint.payload()));
                }
                Some(Heard::Missed) => watcher.pokes.send_modify(Pokes::may_have_missed),
                None => link.open = None,
            },
            () = tokio::time::sleep_until(next_look) => {}
        }
    }
}

/// Reads the database's declarations if their version is not the known one.
async fn step(watcher: &Watcher, link: &mut Link, known: i64) -> Result<Option<Rows>, LedgerError> {
    let there = match link.open.take() {
        Some(there) if !there.client.is_closed() => there,
        _ => {
            let there = connect(&watcher.ledger).await?;
            let has_listened = std::mem::replace(&mut link.has_listened, true);
            watcher.pokes.send_modify(if has_listened { Pokes::may_have_missed } else { Pokes::listening });
            there
        }
    };
    let client = &link.open.insert(there).client;
    if version(client).await? == known {
        return Ok(None);
    }
    link.reader.load(client).await.map(Some)
}

async fn connect(ledger: &Ledger) -> Result<Session, LedgerError> {
    let session = ledger.session("walhook catalog").await?;
    let listen = format!("listen {}", quote(ledger.schema()));
    let listening = session.client.batch_execute(&listen).await;
    listening.map_err(|source| LedgerError::Statement { doing: "listening for changes", source })?;
    Ok(session)
}

/// Compiles and publishes. Gives the compiler back, which remembers.
async fn publish(watcher: &Watcher, mut compiler: Compiler, rows: Rows) -> Compiler {
    let (config, version) = (watcher.config.borrow().clone(), rows.version);
    let work = tokio::task::spawn_blocking(move || {
        let outcome = compiler.compile(&config, &rows);
        (compiler, outcome, rows.states)
    });
    let (compiler, outcome, states) = match work.await {
        Ok(done) => done,
        Err(error) => (Compiler::default(), Err(error.to_string()), HashMap::new()),
    };
    match outcome {
        Ok(snapshot) => {
            report(&snapshot, &watcher.published.borrow().snapshot);
            let (snapshot, states) = (Arc::new(snapshot), Arc::new(states));
            (watcher.before)(Arc::clone(&snapshot)).await;
            let webhooks = snapshot.webhooks().len();
            watcher.published.send_replace(Published { snapshot, states, version });
            tracing::info!(webhooks, "the catalog is up to date");
        }
        Err(problem) => {
            tracing::error!(problem, "the webhooks cannot be compiled; those known so far go on");
        }
    }
    compiler
}

/// Says loudly whose receiver's certificate is not checked.
pub fn tell_unverified(webhook: &str) {
    tracing::warn!(
        webhook,
        "tls.insecure_skip_verify is set: the receiver's certificate is not checked, and whoever stands between can read \
         and change every request"
    );
}

/// Tells what is new: which of the database are set aside, and whose certificate is not checked.
fn report(new: &Snapshot, old: &Snapshot) {
    for invalid in &new.invalid {
        if !old.invalid.contains(invalid) {
            let (webhook, reason) = (&invalid.webhook, &invalid.reason);
            tracing::warn!(webhook, reason, "a webhook of the database cannot be used");
        }
    }
    for (template, reason) in new.shelf.set_aside() {
        if !old.shelf.set_aside().iter().any(|known| (&known.0, &known.1) == (template, reason)) {
            tracing::warn!(template, reason, "a template of the database cannot be used");
        }
    }
    for webhook in unverified(new) {
        if !unverified(old).any(|known| known.name == webhook.name) {
            tell_unverified(&webhook.name);
        }
    }
}
