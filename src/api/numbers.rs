//! `/webhooks/{id}/stats`: how a webhook fares; and `/webhooks/{id}/rotate-secret`.

use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::door::{May, Read, Tenants, Write};
use super::input::{Document, Fields, In, Parameters, span};
use super::problem::Problem;
use super::webhooks::named;
use crate::control::secrets::rotate;
use crate::control::stats::{Wanted, WebhookStats, stats, usual};

/// How long the secret before goes on signing, where nothing is said.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// The longest that it may.
const OVERLAP_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Windows of one answer.
const WINDOWS: usize = 10;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get)).routes(routes!(rotate_secret))
}

/// The numbers of a webhook over windows of time that end now. Needs webhook:read.
#[utoipa::path(get, operation_id = "get_webhook_stats", path = "/webhooks/{id}/stats", tag = "webhooks",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("window" = Option<String>, Query,
            description = "how far back: up to ten durations such as 5m, 24h or 3d, with commas between them; where it is absent, 5m, 1h, 24h and 7d"),
    ),
    responses((status = OK, body = WebhookStats)))]
async fn get(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    In(id): In<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<WebhookStats>, Problem> {
    let name = named(&id)?;
    let now = api.desk.clock.now();
    let mut parameters = Parameters::of(query.as_deref());
    let since = |text: &str| Some(now.checked_sub(span(text)?).unwrap_or(Timestamp::UNIX_EPOCH));
    let windows = parameters.read("window", "expected up to ten durations, such as 24h or 5m,7d", |text| {
        let wanted = |text: &str| Some(Wanted { name: text.to_owned(), since: since(text)? });
        let all = text.split(',').map(wanted).collect::<Option<Vec<_>>>()?;
        (all.len() <= WINDOWS).then_some(all)
    });
    parameters.finish()?;
    let windows = windows.unwrap_or_else(|| usual(now));
    let found = stats(&api.desk, &may.actor, Some(name), &windows).await?.into_iter().next();
    found.map(Json).ok_or_else(|| Problem::not_found("there are no numbers of this webhook"))
}

/// How a secret is replaced.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// How long the secret before signs too; 24h where it is absent, at most a year, `0s` for not at all.
    #[schema(example = "24h")]
    overlap: Option<String>,
}

/// A webhook's new secret.
#[derive(Serialize, ToSchema)]
pub struct NewSecret {
    /// The webhook.
    webhook: String,
    /// The secret, in this answer alone.
    secret: String,
    /// The half of it that the receiver gets, where it is a key pair.
    public: Option<String>,
    /// Until when the one before it signs too; null: it does not.
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_until: Option<Timestamp>,
    /// How many secrets sign from now on, this one included.
    signing: usize,
    /// How many older ones that still signed had to make room.
    dropped: usize,
}

/// Makes a new secret for a webhook of the database, which this answer alone shows. The one before it signs too, for as long
/// as `overlap`. Needs webhook:write.
#[utoipa::path(post, operation_id = "rotate_secret", path = "/webhooks/{id}/rotate-secret", tag = "webhooks",
    request_body = Option<Rotation>,
    params(("id" = String, Path, description = "the webhook's name")),
    responses(
        (status = OK, body = NewSecret),
        (status = CONFLICT, description = "the file declares it, or it has too many secrets"),
    ))]
async fn rotate_secret(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In(id): In<String>,
    document: Document,
) -> Result<Json<NewSecret>, Problem> {
    let name = named(&id)?;
    let mut fields = Fields::of(document);
    let overlap = fields.span("overlap", OVERLAP_MAX).unwrap_or(OVERLAP);
    fields.finish()?;
    let made = rotate(&api.desk, &may.actor, name, overlap).await?;
    Ok(Json(NewSecret {
        webhook: name.to_owned(),
        secret: made.secret.expose_secret().to_owned(),
        public: made.public,
        previous_until: made.until,
        signing: made.signing,
        dropped: made.dropped,
    }))
}
