//! One server: `/healthz`, `/readyz`, `/metrics`, which are open to everybody, and the API.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::api::{self, Api};
use crate::ledger::overview::Gap;
use crate::ledger::writer::Health;
use crate::source::SourceState;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// The numbers; `None` where they could not be started.
    pub metrics: Option<PrometheusHandle>,
    /// What the source is doing.
    pub source: watch::Receiver<SourceState>,
    /// Whether the ledger can be written.
    pub ledger: watch::Receiver<Health>,
    /// The gaps that are recorded, newest first.
    pub gaps: watch::Receiver<Vec<Gap>>,
}

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

/// Serves until asked to stop.
pub async fn serve(listener: TcpListener, pages: Pages, api: Api, stop: CancellationToken) {
    let metrics = pages.metrics.clone();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(numbers))
        .with_state(pages)
        .merge(api::router(api));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::error!(%error, "the pages can no longer be served");
        },
        () = sum_up(metrics) => {}
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
    match (source, ledger) {
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
            (kind, metrics.render()).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
