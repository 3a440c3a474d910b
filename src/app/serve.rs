//! One server: `/healthz`, `/readyz`, `/metrics`, which are open to everybody, and the API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower::Service as _;

use super::AppError;
use crate::api::{self, Api};
use crate::domain::limits;
use crate::ledger::overview::Gap;
use crate::ledger::writer::Health;
use crate::source::SourceState;
use crate::tasks::{Role, Tasks};
use crate::telemetry;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// The numbers; `None` where they could not be started.
    pub metrics: Option<PrometheusHandle>,
    /// What the source is doing.
    pub source: watch::Receiver<SourceState>,
    /// Whether the ledger can be written.
    pub ledger: watch::Receiver<Health>,
    /// What keeps changes from being taken in, if anything does.
    pub intake: watch::Receiver<Option<String>>,
    /// The gaps that are recorded, newest first.
    pub gaps: watch::Receiver<Vec<Gap>>,
}

/// How long to wait where no connection could be accepted.
const BEFORE_ACCEPTING_AGAIN: Duration = Duration::from_millis(200);
/// How often measured durations are summed up.
const SUM_UP_EVERY: Duration = Duration::from_secs(2);

/// The port, which stays open from one life to the next.
pub struct Door {
    address: SocketAddr,
    socket: std::net::TcpListener,
}

impl Door {
    /// Opens the port and says which.
    pub async fn open(address: SocketAddr) -> Result<Self, AppError> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            tracing::info!(address = %listener.local_addr()?, "listening");
            listener.into_std()
        };
        let socket = bound.await.map_err(|source| AppError::Listen { address, source })?;
        Ok(Self { address, socket })
    }

    /// A listener at it.
    pub(super) fn listener(&self) -> Result<TcpListener, AppError> {
        let cloned = self.socket.try_clone().and_then(TcpListener::from_std);
        cloned.map_err(|source| AppError::Listen { address: self.address, source })
    }
}

/// Serves until asked to stop; then whoever is being answered is answered.
pub async fn serve(listener: TcpListener, pages: Pages, api: Api, tasks: Tasks) {
    let metrics = pages.metrics.clone();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(numbers))
        .with_state(pages)
        .merge(api::router(api));
    let graceful = GracefulShutdown::new();
    tokio::select! {
        () = accept(listener, &router, &graceful, &tasks) => {},
        () = sum_up(metrics) => {}
    }
    graceful.shutdown().await;
}

/// Takes connections, so many at a time. One that is slow with a request's head is closed: it would keep its place for
/// nothing.
async fn accept(listener: TcpListener, router: &Router, graceful: &GracefulShutdown, tasks: &Tasks) {
    let (room, stop) = (Arc::new(Semaphore::new(limits::CONNECTIONS)), tasks.stopping());
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits::HEAD_WITHIN);
    loop {
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            place = Arc::clone(&room).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that went away again; or there are too many open files, which passes.
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(BEFORE_ACCEPTING_AGAIN).await;
                continue;
            }
        };
        let router = router.clone();
        let answer = move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().call(request)
        };
        let connection = server.serve_connection(TokioIo::new(stream), service_fn(answer));
        let watched = graceful.watch(connection);
        tasks.spawn("connection", Role::Passing, async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "a connection broke off");
            }
            drop(place);
        });
    }
}

/// Every measured duration is kept by itself until somebody reads the page or asks for the sums: where nobody ever reads it,
/// memory would grow with each delivery.
async fn sum_up(metrics: Option<PrometheusHandle>) {
    let Some(metrics) = metrics else { return std::future::pending().await };
    loop {
        tokio::time::sleep(SUM_UP_EVERY).await;
        metrics.run_upkeep();
    }
}

/// 200 once streaming with a ledger that can be written; else 503 and the reason.
async fn ready(State(pages): State<Pages>) -> Response {
    let source = pages.source.borrow().clone();
    let ledger = pages.ledger.borrow().clone();
    let trouble = pages.intake.borrow().clone();
    match (source, ledger) {
        (SourceState::Streaming { .. }, Health::Writing) if trouble.is_some() => {
            let trouble = trouble.unwrap_or_default();
            (StatusCode::SERVICE_UNAVAILABLE, format!("intake: {trouble}\n"))
        }
        (SourceState::Streaming { .. }, Health::Writing) => {
            (StatusCode::OK, format!("streaming\n{}", lost(&pages.gaps.borrow())))
        }
        (_, Health::Failing(reason)) => (StatusCode::SERVICE_UNAVAILABLE, format!("ledger: {reason}\n")),
        (SourceState::Connecting, _) | (SourceState::Streaming { .. }, Health::Starting) => {
            (StatusCode::SERVICE_UNAVAILABLE, "connecting\n".to_owned())
        }
        (SourceState::Standby { since, pid }, _) => {
            let holder = pid.map(|pid| format!(" of server process {pid}")).unwrap_or_default();
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("standby since {since}: the slot is in the hands{holder}\n"),
            )
        }
        (SourceState::Waiting { error, .. }, _) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("waiting: {error}\n"))
        }
    }
    .into_response()
}

/// A line for each gap.
fn lost(gaps: &[Gap]) -> String {
    let line = |gap: &Gap| format!("gap: {gap}\n");
    gaps.iter().map(line).collect()
}

async fn numbers(State(pages): State<Pages>) -> Response {
    match pages.metrics {
        Some(metrics) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, telemetry::page(&metrics)).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
