//! `walhook bench-receiver`: the other end of a measurement, in a process of its own.
//!
//! An ordinary HTTP server that answers 200 and counts. What comes to `/timed` is noted with the id of its row and
//! the moment it was there whole. Over a second port it tells what it knows: one byte asks, see [`Ask`]. It prints
//! both addresses on one line, and ends with its standard input.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::serve::ListenerExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::print;
use super::{BenchError, io};
use crate::clock::Clock;
use crate::tasks::{Role, Tasks};

/// Where requests are only counted.
pub(super) const COUNTED: &str = "/hooks";
/// Where their moments are noted too.
pub(super) const TIMED: &str = "/timed";
/// Moments that are kept.
const TIMES_KEPT: usize = 1_000_000;

/// What may be asked, by its byte. All numbers are big-endian; lists begin with their length in bytes (u32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// How many requests have come: u64.
    Count = b'c' as isize,
    /// Ids and microseconds since 1970, u64 and i64 in turn; those told are forgotten.
    Times = b't' as isize,
    /// The first request: a list of `name: value` lines, and a list of the body's bytes.
    First = b'f' as isize,
}

#[derive(Debug)]
struct Counts {
    taken: AtomicU64,
    times: Mutex<Vec<(u64, i64)>>,
    first: OnceLock<(HeaderMap, Bytes)>,
    clock: Clock,
}

/// Serves until its standard input ends.
pub async fn run() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(&crate::telemetry::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), BenchError> {
    let counts = Arc::new(Counts {
        taken: AtomicU64::new(0),
        times: Mutex::default(),
        first: OnceLock::new(),
        clock: Clock::system(),
    });
    let open = || TcpListener::bind("127.0.0.1:0");
    let requests = open().await.map_err(io("open a port for requests"))?;
    let questions = open().await.map_err(io("open a port for questions"))?;
    let address = |listener: &TcpListener| listener.local_addr().map_err(io("learn a port"));
    print::line(&format!("{} {}", address(&requests)?, address(&questions)?));
    let (tasks, _deaths) = Tasks::new();
    let router = Router::new()
        .route(COUNTED, post(take))
        .route(TIMED, post(take_timed))
        .with_state(Arc::clone(&counts));
    let requests = requests.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "answers may be held back");
        }
    });
    tasks.spawn("requests", Role::Passing, async move {
        if let Err(error) = axum::serve(requests, router).await {
            tracing::error!(%error, "no more requests can be taken");
        }
    });
    let answering = tasks.clone();
    tasks.spawn("questions", Role::Passing, async move {
        while let Ok((stream, _)) = questions.accept().await {
            answering.spawn("answers", Role::Passing, answer(stream, Arc::clone(&counts)));
        }
    });
    let rest = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await?;
    rest.map(drop).map_err(io("wait for the end"))
}

async fn take(State(counts): State<Arc<Counts>>, headers: HeaderMap, body: Bytes) {
    if counts.first.get().is_none() {
        // Whoever comes second at the same moment is as good.
        let set = counts.first.set((headers, body));
        drop(set);
    }
    counts.taken.fetch_add(1, Ordering::Relaxed);
}

async fn take_timed(State(counts): State<Arc<Counts>>, body: Bytes) {
    let now = counts.clock.now().as_microsecond();
    if let Some(id) = row_id(&body) {
        let mut times = counts.times.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() < TIMES_KEPT {
            times.push((id, now));
        }
    }
    counts.taken.fetch_add(1, Ordering::Relaxed);
}

/// The id of the row that a body of the standard format tells of.
fn row_id(body: &[u8]) -> Option<u64> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body.get("data")?.get("record")?.get("id")?.as_u64()
}

async fn answer(mut stream: TcpStream, counts: Arc<Counts>) {
    while let Ok(asked) = stream.read_u8().await {
        let told = match asked {
            b'c' => counts.taken.load(Ordering::Relaxed).to_be_bytes().to_vec(),
            b't' => {
                let mut times = counts.times.lock().unwrap_or_else(PoisonError::into_inner);
                let pairs = times.drain(..).flat_map(|(id, at)| [id.to_be_bytes(), at.to_be_bytes()]);
                list(&pairs.flatten().collect::<Vec<u8>>())
            }
            b'f' => {
                let (headers, body) = counts.first.get().cloned().unwrap_or_default();
                let mut lines = Vec::new();
                for (name, value) in &headers {
                    lines.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
                }
                [list(&lines), list(&body)].concat()
            }
            _ => break,
        };
        if stream.write_all(&told).await.is_err() {
            break;
        }
    }
}

fn list(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}
