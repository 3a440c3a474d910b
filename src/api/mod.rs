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
//! It keeps no state but the count of wrong keys: every instance beside the same database answers alike. Its sessions with
//! the database are few and its own, so that whoever floods it waits here, and deliveries do not.

mod deliveries;
mod door;
mod edge;
mod guesses;
mod input;
mod keys;
mod openapi;
pub mod problem;
#[expect(dead_code, reason = "what it has is described, and never made")]
mod schema;
mod webhooks;

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router, middleware};
use secrecy::SecretString;
use tower_http::compression::CompressionLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::control::Desk;
use edge::Turns;
use guesses::Guesses;

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    desk: Arc<Desk>,
    guesses: Arc<Guesses>,
    /// Opens everything as long as this process runs, where the operator has set no token.
    token: Option<SecretString>,
}

impl Api {
    /// An API on a desk.
    pub fn new(desk: Arc<Desk>, token: Option<SecretString>) -> Self {
        Self { desk, guesses: Arc::default(), token }
    }
}

fn described() -> (Router<Api>, OpenApi) {
    let all = OpenApiRouter::with_openapi(openapi::base())
        .merge(webhooks::routes())
        .merge(deliveries::routes())
        .merge(keys::routes());
    let (router, document) = all.split_for_parts();
    (router, openapi::complete(document))
}

/// The routes, under `/api` and `/api/v1`.
pub fn router(api: Api) -> Router {
    let (router, document) = described();
    let document = Arc::new(document);
    let described = move || {
        let document = Arc::clone(&document);
        async move { Json((*document).clone()) }
    };
    let router = router
        .route("/openapi.json", get(described))
        .fallback(edge::no_route)
        .method_not_allowed_fallback(edge::no_method)
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(Turns::new(), edge::surround))
        .with_state(api);
    Router::new().nest("/api/v1", router.clone()).nest("/api", router)
}

/// The description of every route.
pub fn document() -> OpenApi {
    described().1
}
