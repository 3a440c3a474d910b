//! What surrounds every request: its id, its time, and how many there are at once.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument as _;

use super::problem::Problem;
use super::rates::Noted;
use crate::domain::limits;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request's id: the caller's own, or one made here.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// How many requests are worked on at once.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

impl Turns {
    /// As many as [`limits::API_AT_ONCE`].
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(limits::API_AT_ONCE)))
    }
}

/// Gives the request an id, a turn, and its time; the answer carries the id.
pub async fn surround(State(turns): State<Turns>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let id =
        given.filter(|id| is_plain(id)).map_or_else(|| format!("{:032x}", fastrand::u128(..)), str::to_owned);
    request.extensions_mut().insert(RequestId(id.clone()));
    let noted = Arc::new(Noted::default());
    request.extensions_mut().insert(Arc::clone(&noted));
    let span = tracing::info_span!("request", id);
    let answered = async {
        // The semaphore is never closed.
        let _turn = turns.0.acquire().await;
        next.run(request).await
    };
    let answered = tokio::time::timeout(limits::API_ANSWER_WITHIN, answered.instrument(span)).await;
    fail::fail_point!("before_answer", |_| std::process::abort());
    let mut response = answered.unwrap_or_else(|_| {
        let seconds = limits::API_ANSWER_WITHIN.as_secs();
        Problem::unavailable(format!("there was no answer within {seconds} s")).into_response()
    });
    if let Some(standing) = noted.0.get() {
        standing.tell(response.headers_mut());
    }
    response.headers_mut().extend(HeaderValue::from_str(&id).ok().map(|id| (REQUEST_ID, id)));
    response
}

/// What lets the web pages of these origins use the API; `None`: none may. Keys go by a header, never by cookies, so no
/// credentials of the browser's are allowed.
pub fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok()))
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            HeaderName::from_static("idempotency-key"),
            REQUEST_ID,
        ])
        .expose_headers([
            header::ETAG,
            header::LOCATION,
            header::RETRY_AFTER,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
            REQUEST_ID,
        ])
        .max_age(limits::CORS_FOR);
    Some(layer)
}

fn is_plain(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !id.is_empty() && id.len() <= limits::API_REQUEST_ID_BYTES && id.bytes().all(plain)
}

/// There is no such route.
pub async fn no_route(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::not_found(format!("there is no {path}")).hint("/api/openapi.json lists what there is.")
}

/// The route has no such method; `Allow` says which it has.
pub async fn no_method(method: Method) -> Problem {
    let detail = format!("this cannot be asked by {method}");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "Another method is needed", detail)
}
