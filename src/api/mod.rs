//! The HTTP API: what an operator and a platform's own backend do with walhook, by the verbs of [`crate::control`].
//!
//! ```text
//!  request ─▶ edge (id, turn, time) ─▶ route ─▶ door (who, may they) ─▶ input (document, parameters) ─▶ control ─▶ answer
//!                                        │            │                       │                            │
//!                                       404, 405     401, 403, 429           400, 413, 415, 422           404, 409, 412, …
//! ```
//!
//! Whatever goes wrong is a [`problem`] document. A handler takes what it needs as its arguments, the right first: so
//! nothing is read of a request whose sender may not make it. No handler has a rule of its own about webhooks or
//! deliveries; the command line would have to know it too.
//!
//! The routes are under `/api` and `/api/v1`, beside health and metrics, on one server. They are declared once, with what
//! describes them ([`openapi`]): no route is without its description, and none is described that is not there.
//!
//! Commands ask by the same routes ([`router_by_hand`]), in their own process where no instance is named: so they can do what
//! the API can, and answer with its documents.
//!
//! It keeps no state but the count of wrong keys: every instance beside the same database answers alike. Its sessions with
//! the database are few and its own, so that whoever floods it waits here, and deliveries do not.

mod audit;
mod backfills;
mod deliveries;
mod door;
mod edge;
mod events;
mod guesses;
mod input;
mod keys;
mod live;
mod numbers;
mod openapi;
pub mod problem;
mod rates;
mod reference;
mod retries;
#[expect(dead_code, reason = "what it has is described, and never made")]
mod schema;
mod templates;
mod webhooks;

use std::sync::Arc;

use axum::http::header;
use axum::response::Html;
use axum::routing::get;
use axum::{Extension, Json, Router, middleware};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::control::Desk;
use crate::live::Live;
use door::ByHand;
use edge::Turns;
use guesses::Guesses;
use rates::Rates;

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    desk: Arc<Desk>,
    guesses: Arc<Guesses>,
    /// Opens everything as long as this process runs, where the operator has set no token.
    token: Option<SecretString>,
    rates: Arc<Rates>,
    live: Live,
    /// Ends what would go on for ever.
    stop: CancellationToken,
}

impl Api {
    /// An API on a desk.
    pub fn new(desk: Arc<Desk>, token: Option<SecretString>, live: Live, stop: CancellationToken) -> Self {
        Self { desk, guesses: Arc::default(), token, rates: Arc::default(), live, stop }
    }
}

fn described() -> (Router<Api>, OpenApi) {
    let all = OpenApiRouter::with_openapi(openapi::base())
        .merge(webhooks::routes())
        .merge(numbers::routes())
        .merge(deliveries::routes())
        .merge(retries::routes())
        .merge(backfills::routes())
        .merge(events::routes())
        .merge(templates::routes())
        .merge(live::routes())
        .merge(keys::routes())
        .merge(audit::routes());
    let (router, document) = all.split_for_parts();
    (router, openapi::complete(document))
}

/// The routes, under `/api` and `/api/v1`.
pub fn router(api: Api) -> Router {
    let (router, document) = described();
    let page = Arc::new(reference::page(&document));
    let document = Arc::new(document);
    let shown = move || {
        let page = Arc::clone(&page);
        async move {
            let headers = [
                (header::CONTENT_SECURITY_POLICY, page.policy.clone()),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
                (header::REFERRER_POLICY, "no-referrer".to_owned()),
            ];
            (headers, Html(page.html.clone()))
        }
    };
    let origins = api.desk.config().server.cors_origins.clone();
    let described = move || {
        let document = Arc::clone(&document);
        async move { Json((*document).clone()) }
    };
    let router = router
        .route("/openapi.json", get(described))
        .route("/reference", get(shown))
        .fallback(edge::no_route)
        .method_not_allowed_fallback(edge::no_method)
        .layer(CompressionLayer::new());
    let router = match edge::cors(&origins) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    let router = router.layer(middleware::from_fn_with_state(Turns::new(), edge::surround)).with_state(api);
    Router::new().nest("/api/v1", router.clone()).nest("/api", router)
}

/// The same routes for a command of this process, which has the rights of the database's own role: they ask for no key,
/// and what is done by them is the command line's.
pub fn router_by_hand(desk: Arc<Desk>) -> Router {
    // Nothing happens in this process that could be listened to.
    router(Api::new(desk, None, Live::default(), CancellationToken::new())).layer(Extension(ByHand))
}

/// The description of every route.
pub fn document() -> OpenApi {
    described().1
}
