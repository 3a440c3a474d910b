//! `/webhooks/{id}/stats`: how a webhook fares; and what it signs with: `/webhooks/{id}/rotate-secret` and `…/reveal-secret`.
//!
//! Only the operator sees a stored secret, by a key that may do everything, and never without a row in the audit. Whoever has
//! but the right to write can make a new one, of which receivers and the audit tell, and cannot read the one that is there.

use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::IntoResponse;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::door::{Admin, May, Read, Tenants, Write};
use super::input::{Document, Fields, In, Parameters, span};
use super::problem::Problem;
use super::webhooks::named;
use crate::control::secrets::{reveal, rotate};
use crate::control::stats::{Wanted, WebhookStats, stats, usual};
use crate::domain::SigningSecret;

/// How long the secret before goes on signing, where nothing is said.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// The longest that it may.
const OVERLAP_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Windows of one answer.
const WINDOWS: usize = 10;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get)).routes(routes!(rotate_secret)).routes(routes!(reveal_secret))
}

/// The numbers of a webhook over windows of time that end now. Needs webhook:read.
#[utoipa::path(get, operation_id = "get_webhook_stats", path = "/webhooks/{id}/stats", tag = "webhooks",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("window" = Option<String>, Query,
            description = "how far back: up to ten durations such as 5m, 24h or 3d, or times (RFC 3339), with commas between them; where it is absent, 5m, 1h, 24h and 7d"),
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
    let since = |text: &str| match text.parse() {
        Ok(at) => Some(at),
        Err(_) => Some(now.checked_sub(span(text)?).unwrap_or(Timestamp::UNIX_EPOCH)),
    };
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
    /// Whether it stands encrypted in the database.
    encrypted: bool,
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
        encrypted: made.is_encrypted,
    }))
}

/// What a webhook signs with.
#[derive(Serialize, ToSchema)]
pub struct RevealedSecrets {
    /// The webhook.
    webhook: String,
    /// Its secrets, the current one first; none: it does not sign.
    secrets: Vec<RevealedSecret>,
}

/// A secret.
#[derive(Serialize, ToSchema)]
pub struct RevealedSecret {
    /// The secret.
    secret: String,
    /// Until when it signs; null: it has no end.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

/// Shows what a webhook of the database signs with. That it was asked for is in the audit before it is answered. No tenant's
/// key can. Needs admin.
#[utoipa::path(post, operation_id = "reveal_secret", path = "/webhooks/{id}/reveal-secret", tag = "webhooks",
    params(("id" = String, Path, description = "the webhook's name")),
    responses(
        (status = OK, body = RevealedSecrets),
        (status = CONFLICT, description = "the file declares it, or what is stored cannot be opened"),
    ))]
async fn reveal_secret(
    may: May<Admin>,
    State(api): State<Api>,
    In(id): In<String>,
) -> Result<impl IntoResponse, Problem> {
    let name = named(&id)?;
    let found = reveal(&api.desk, &may.actor, name).await?;
    let told = |secret: SigningSecret| RevealedSecret {
        secret: secret.text.expose_secret().to_owned(),
        until: secret.until,
    };
    let secrets = found.into_iter().map(told).collect();
    let told = RevealedSecrets { webhook: name.to_owned(), secrets };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(told)))
}
