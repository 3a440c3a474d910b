//! `/webhooks/{id}/retry`: many ended deliveries of a webhook, sent again as a job.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::door::{May, Read, Tenants, Write};
use super::input::{Document, Fields, In, Parameters, next};
use super::problem::Problem;
use super::webhooks::named;
use crate::control::retries::{self, Choice};
use crate::ledger::replay::{Ended, STEP};
use crate::ledger::retries::Retry as Standing;

const PLACE: &str = "retry";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, ask)).routes(routes!(get)).routes(routes!(cancel))
}

/// Which deliveries of a webhook are to be sent again: those for which everything holds that is set.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryToMake {
    /// How they ended: `failed`, `delivered`, `cancelled`, or a list of these; where it is absent, `failed`.
    #[schema(value_type = Option<OneOrSeveral>)]
    status: Option<Value>,
    /// Event types like this, with `*` for any run of characters.
    #[schema(example = "orders.*")]
    event: Option<String>,
    /// Of changes committed then or later.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Of changes committed before.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Whose last attempt went so: `timeout`, `unreachable`, `refused`, a status such as `503`, a class such as `5xx`.
    #[schema(example = "5xx")]
    error: Option<String>,
    /// At most so many a second.
    #[schema(minimum = 1, maximum = 1000)]
    per_second: Option<u32>,
    /// Only count: nothing is sent.
    dry_run: Option<bool>,
}

/// A word, or a list of words.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes, and is never made")]
pub enum OneOrSeveral {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// What a retry would send again.
#[derive(Debug, Serialize, ToSchema)]
pub struct RetryCount {
    /// Always true.
    dry_run: bool,
    /// How many deliveries. Those that could not be rendered are among them where there is an event to render anew: how that
    /// goes is known when it is done.
    count: u64,
    /// How many more it would be that cannot be sent again.
    left_out: u64,
    /// Why: the commonest reasons.
    reasons: Vec<LeftOutFor>,
}

/// Deliveries that cannot be sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeftOutFor {
    /// Why.
    reason: String,
    /// How many.
    count: u64,
}

/// Deliveries of a webhook on their way again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Retry {
    /// Its number.
    id: i64,
    /// The webhook.
    webhook: String,
    /// `pending`, `running`, `done`, `failed`, `cancelled`.
    status: String,
    /// Why it failed; of one that did not, why the last of the unsent ones could not be rendered.
    reason: Option<String>,
    /// How many deliveries there were when it began; null: they are not counted yet.
    found: Option<i64>,
    /// How many are on their way again.
    sent: i64,
    /// How many could not be rendered this time either, and have stayed as they were.
    unsent: i64,
    /// Which ones were asked for.
    #[schema(value_type = Object)]
    asked: Value,
    /// When it was asked for; what ended later is not among them, nor what was sent again a moment before or by a retry that
    /// was not over then.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it last moved.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
}

/// A page of retries.
#[derive(Debug, Serialize, ToSchema)]
pub struct RetryPage {
    /// Newest first.
    data: Vec<Retry>,
    /// Where the next page begins; null: there is no more.
    next_cursor: Option<String>,
}

impl From<Standing> for Retry {
    fn from(standing: Standing) -> Self {
        let Standing {
            id,
            status,
            reason,
            found,
            sent,
            unsent,
            created_at,
            updated_at,
            finished_at,
            asked,
            ..
        } = standing;
        let ended: Vec<&str> = asked.ended.iter().map(|ended| ended.as_str()).collect();
        let told = serde_json::json!({
            "status": ended, "event": asked.event, "since": asked.since, "until": asked.until, "error": asked.cause,
            "per_second": asked.per_second,
        });
        let webhook = asked.webhook;
        Self {
            id,
            webhook,
            status,
            reason,
            found,
            sent,
            unsent,
            asked: told,
            created_at,
            updated_at,
            finished_at,
        }
    }
}

/// The states that a document names: a word, or a list of words.
pub(super) fn ended(fields: &mut Fields) -> Vec<Ended> {
    let Some(given) = fields.value("status") else { return Vec::new() };
    let words = match &given {
        Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<Vec<_>>>(),
        Value::String(word) => Some(word.split(',').collect()),
        _ => None,
    };
    let known = words.and_then(|words| words.into_iter().map(Ended::named).collect::<Option<Vec<_>>>());
    known.filter(|known| !known.is_empty() && known.len() <= 3).unwrap_or_else(|| {
        fields.refuse::<()>("status", "expected some of failed, delivered, cancelled, each once");
        Vec::new()
    })
}

/// Lists the retries of a webhook. Needs webhook:read.
#[utoipa::path(get, operation_id = "list_retries", path = "/webhooks/{id}/retry", tag = "deliveries",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("limit" = Option<u32>, Query, description = "how many; 1 to 200, 50 where it is absent", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses((status = OK, body = RetryPage)))]
async fn list(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    In(id): In<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<RetryPage>, Problem> {
    let mut parameters = Parameters::of(query.as_deref());
    let (limit, before) = parameters.numbered_page(PLACE);
    parameters.finish()?;
    let mut found = retries::list(&api.desk, &may.actor, named(&id)?, (before, limit + 1)).await?;
    let next_cursor = next(&mut found, limit, PLACE, |retry| retry.id.to_string());
    Ok(Json(RetryPage { data: found.into_iter().map(Retry::from).collect(), next_cursor }))
}

/// Sends ended deliveries of a webhook again, as a job of the running instance: with the same ids and the same bytes, oldest
/// first. What could not be rendered is rendered anew first, as the webhook is now. Two who ask for the same at once ask once:
/// the second is told of the first's. With `dry_run` it only counts them. Needs webhook:write.
#[utoipa::path(post, operation_id = "retry_deliveries", path = "/webhooks/{id}/retry", tag = "deliveries",
    request_body = Option<RetryToMake>,
    params(("id" = String, Path, description = "the webhook's name")),
    responses(
        (status = ACCEPTED, body = Retry, description = "it will be done; GET says how far it is"),
        (status = OK, body = RetryCount, description = "with dry_run: how many there are"),
        (status = CONFLICT, description = "an equal one is not over, which is named; or too many of this webhook are not"),
    ))]
async fn ask(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In(id): In<String>,
    document: Document,
) -> Result<Response, Problem> {
    let name = named(&id)?;
    let mut fields = Fields::of(document);
    let choice = Choice {
        ended: ended(&mut fields),
        event: fields.text("event"),
        since: fields.time("since"),
        until: fields.time("until"),
        cause: fields.text("error"),
        per_second: fields.number("per_second", 1..=STEP),
    };
    let dry_run = fields.flag("dry_run");
    fields.finish()?;
    if dry_run {
        let (count, left) = retries::count(&api.desk, &may.actor, name, &choice).await?;
        let reasons = left.reasons.into_iter().map(|(reason, count)| LeftOutFor { reason, count }).collect();
        return Ok(Json(RetryCount { dry_run, count, left_out: left.count, reasons }).into_response());
    }
    let made = retries::ask(&api.desk, &may.actor, name, &choice).await?;
    Ok((StatusCode::ACCEPTED, Json(Retry::from(made))).into_response())
}

/// How far a retry is. Needs webhook:read.
#[utoipa::path(get, operation_id = "get_retry", path = "/webhooks/{id}/retry/{job}", tag = "deliveries",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("job" = i64, Path, description = "the retry's number"),
    ),
    responses((status = OK, body = Retry)))]
async fn get(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    In((id, job)): In<(String, i64)>,
) -> Result<Json<Retry>, Problem> {
    Ok(Json(retries::get(&api.desk, &may.actor, named(&id)?, job).await?.into()))
}

/// Ends a retry; what of it is on its way goes on. Needs webhook:write.
#[utoipa::path(post, operation_id = "cancel_retry", path = "/webhooks/{id}/retry/{job}/cancel", tag = "deliveries",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("job" = i64, Path, description = "the retry's number"),
    ),
    responses((status = OK, body = Retry), (status = CONFLICT, description = "it is over already")))]
async fn cancel(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In((id, job)): In<(String, i64)>,
) -> Result<Json<Retry>, Problem> {
    Ok(Json(retries::cancel(&api.desk, &may.actor, named(&id)?, job).await?.into()))
}
