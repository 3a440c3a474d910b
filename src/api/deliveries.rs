//! `/deliveries` and those of one webhook: searched, shown, sent again, cancelled.

use axum::Json;
use axum::extract::{RawQuery, State};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::door::{May, Read, Tenants, Write};
use super::input::{Document, Fields, In, Parameters, cursor};
use super::problem::Problem;
use super::retries::{OneOrSeveral, ended};
use super::webhooks::named;
use crate::control::deliveries::Known;
use crate::control::webhooks::{self, MASK};
use crate::control::{Actor, deliveries};
use crate::ledger::deliveries::{Listed, STATES, Search, Try, Whole};
use crate::ledger::replay::Cause;

const PLACE: &str = "delivery";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(list_of_webhook))
        .routes(routes!(get))
        .routes(routes!(find))
        .routes(routes!(retry))
        .routes(routes!(cancel))
}

/// A delivery: one event owed to one webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// Its id, which is the `webhook-id` of its requests.
    id: String,
    /// Its event's id.
    event_id: String,
    /// Its event's type.
    event: String,
    /// Its webhook.
    webhook: String,
    /// `pending`, `retrying`, `held`, `delivered`, `failed`, `cancelled`.
    status: String,
    /// Attempts made.
    attempt_count: i32,
    /// When it is tried next, where that is known.
    #[schema(value_type = Option<String>, format = DateTime)]
    due_at: Option<Timestamp>,
    /// When the change was committed.
    #[schema(value_type = String, format = DateTime)]
    committed_at: Timestamp,
    /// When it came to the ledger.
    #[schema(value_type = String, format = DateTime)]
    recorded_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// The schema of the row's table.
    schema: String,
    /// The row's table; empty where the event is of none.
    table: String,
    /// The row's key.
    key: String,
    /// `insert`, `update`, `delete`, `truncate`, `snapshot`, `message`, `test`.
    operation: String,
    /// Why it failed.
    fail_reason: Option<String>,
    /// How the last attempt went.
    last_attempt: Option<Attempt>,
}

/// One try of a delivery.
#[derive(Debug, Serialize, ToSchema)]
pub struct Attempt {
    /// Which one, from 1.
    number: i32,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How long it took, in milliseconds.
    took_ms: f64,
    /// `responded`, `timed_out`, `unreachable`, `refused`.
    outcome: String,
    /// The answer's status.
    http_status: Option<i32>,
    /// What went wrong.
    error: Option<String>,
    /// The beginning of the answer's body, where it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Bytes>,
}

/// Bytes: as text where they are UTF-8, else in base64.
#[derive(Debug, Serialize, ToSchema)]
pub struct Bytes {
    /// `utf-8` or `base64`.
    encoding: &'static str,
    /// The bytes so encoded.
    content: String,
}

/// A delivery with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryInFull {
    #[serde(flatten)]
    delivery: Delivery,
    /// What was sent, or will be.
    request: Request,
    /// The attempts that are still known, oldest first.
    attempts: Vec<Attempt>,
}

/// The part of a request that is the same at each attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct Request {
    /// Its headers in the order of names; those that the webhook sets, as it is declared now, are `***`. Signatures and
    /// times are made anew at each attempt and kept nowhere.
    headers: Vec<Header>,
    /// Its body before compression; null where it was not kept.
    body: Option<Bytes>,
}

/// A header.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct Header {
    /// Its name.
    name: String,
    /// Its value.
    value: String,
}

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryPage {
    /// Newest first. A page may be short, or empty, with more behind it: each looks through so many rows.
    data: Vec<Delivery>,
    /// Where the next page begins; null: there is no more.
    next_cursor: Option<String>,
}

/// What whoever sends a delivery again knows of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryOfOne {
    /// How it ended: `failed`, `delivered`, `cancelled`, or a list of these; where it is absent, `failed` or `cancelled`. What
    /// was delivered is sent again only where this says so.
    #[schema(value_type = Option<OneOrSeveral>)]
    status: Option<Value>,
    /// How many attempts of it were made. With another number nothing is sent; with this one it is, however short a time ago
    /// somebody else has sent it again.
    attempts: Option<u32>,
}

impl From<Try> for Attempt {
    fn from(tried: Try) -> Self {
        let Try { number, at, took_ms, outcome, http_status, error, response } = tried;
        Self { number, at, took_ms, outcome, http_status, error, response: response.map(Bytes::of) }
    }
}

impl Header {
    pub(super) fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned() }
    }
}

impl Bytes {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(content) => Self { encoding: "utf-8", content },
            Err(error) => Self { encoding: "base64", content: BASE64_STANDARD.encode(error.as_bytes()) },
        }
    }
}

impl From<Listed> for Delivery {
    fn from(listed: Listed) -> Self {
        Self {
            id: listed.id,
            event_id: listed.event_id,
            event: listed.event_type,
            webhook: listed.webhook,
            status: listed.status,
            attempt_count: listed.attempts,
            due_at: listed.due_at,
            committed_at: listed.committed_at,
            recorded_at: listed.recorded_at,
            finished_at: listed.finished_at,
            schema: listed.schema,
            table: listed.table,
            key: listed.key,
            operation: listed.operation,
            fail_reason: listed.fail_reason,
            last_attempt: listed.last.map(Attempt::from),
        }
    }
}

impl DeliveryInFull {
    /// `masked` are the names of the headers that the webhook sets.
    fn of(whole: Whole, masked: &[String]) -> Self {
        let header = Header::new;
        let mut headers = vec![
            header("content-type", &whole.content_type),
            header("webhook-id", &whole.listed.id),
            header("x-webhook-id", &whole.listed.id),
            header("x-webhook-event", &whole.listed.event_type),
        ];
        let own = whole.headers.as_deref().unwrap_or_default().lines();
        headers.extend(own.filter_map(|line| line.split_once(": ")).map(|(name, value)| header(name, value)));
        headers.extend(masked.iter().map(|name| header(&name.to_ascii_lowercase(), MASK)));
        headers.sort();
        let request = Request { headers, body: whole.body.map(Bytes::of) };
        let attempts = whole.attempts.into_iter().map(Attempt::from).collect();
        Self { delivery: whole.listed.into(), request, attempts }
    }
}

async fn in_full(api: &Api, actor: &Actor, whole: Whole) -> Result<Json<DeliveryInFull>, Problem> {
    // A webhook that is declared nowhere any more sets no header.
    let webhook = webhooks::get(&api.desk, actor, &whole.listed.webhook).await.ok();
    let headers = webhook.as_ref().and_then(|view| view.document.get("headers")?.as_object());
    let masked: Vec<String> = headers.map(|headers| headers.keys().cloned().collect()).unwrap_or_default();
    Ok(Json(DeliveryInFull::of(whole, &masked)))
}

/// What is searched for, as the query says; `webhook` is that of the path.
fn search(query: Option<&str>, webhook: Option<&str>) -> Result<(Search, u32, Option<String>), Problem> {
    let mut parameters = Parameters::of(query);
    let (limit, behind) = parameters.page(PLACE);
    let behind = behind.filter(|place| {
        let is_id =
            place.starts_with("dlv_") && place.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_id {
            parameters.refuse::<()>("cursor", "this is no cursor of this list");
        }
        is_id
    });
    let mut status = Vec::new();
    for word in parameters.all("status").iter().flat_map(|text| text.split(',')) {
        match STATES.iter().find(|state| **state == word) {
            Some(state) => status.push(*state),
            None => {
                parameters.refuse::<()>("status", format!("expected some of {}", STATES.join(", ")));
            }
        }
    }
    let webhook = match webhook {
        Some(webhook) => Some(webhook.to_owned()),
        None => parameters.one("webhook"),
    };
    let when = "expected a time with its zone, such as 2026-01-31T08:00:00Z";
    let error = "expected timeout, unreachable, refused, a status such as 503, or a class such as 5xx";
    let of_table = |text: &str| {
        let (schema, table) = text.split_once('.').unwrap_or(("public", text));
        Some((schema.to_owned(), table.to_owned()))
    };
    let search = Search {
        // Whoever asks says whose; see `deliveries::search`.
        tenant: None,
        webhook,
        status,
        event: parameters.one("event"),
        table: parameters.read("table", "expected a table", of_table),
        key: parameters.one("key"),
        cause: parameters.read("error", error, Cause::named),
        since: parameters.read("since", when, |text| text.parse().ok()),
        until: parameters.read("until", when, |text| text.parse().ok()),
    };
    parameters.finish()?;
    Ok((search, limit, behind))
}

async fn page(
    api: &Api,
    actor: &Actor,
    (search, limit, behind): (Search, u32, Option<String>),
) -> Result<Json<DeliveryPage>, Problem> {
    let page = deliveries::search(&api.desk, actor, &search, behind.as_deref(), limit).await?;
    let next_cursor = page.next.map(|id| cursor(PLACE, &id));
    Ok(Json(DeliveryPage { data: page.found.into_iter().map(Delivery::from).collect(), next_cursor }))
}

/// Searches the deliveries of all webhooks, newest first. Needs webhook:read.
#[utoipa::path(get, operation_id = "list_deliveries", path = "/deliveries", tag = "deliveries",
    params(
        ("webhook" = Option<String>, Query, description = "of this webhook"),
        ("status" = Option<String>, Query, description = "in one of these states, with commas between them"),
        ("event" = Option<String>, Query, description = "of event types like this, with * for any run of characters"),
        ("table" = Option<String>, Query, description = "of this table; schema.table outside public"),
        ("key" = Option<String>, Query, description = "of the row of this key"),
        ("error" = Option<String>, Query, description = "whose last attempt went so: timeout, unreachable, refused, 503, 5xx"),
        ("since" = Option<String>, Query, description = "of changes committed then or later (RFC 3339)"),
        ("until" = Option<String>, Query, description = "of changes committed before (RFC 3339)"),
        ("limit" = Option<u32>, Query, description = "how many; 1 to 200, 50 where it is absent", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses((status = OK, body = DeliveryPage)))]
async fn list(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<DeliveryPage>, Problem> {
    page(&api, &may.actor, search(query.as_deref(), None)?).await
}

/// Searches the deliveries of one webhook, newest first. Needs webhook:read.
#[utoipa::path(get, operation_id = "list_deliveries_of_webhook", path = "/webhooks/{id}/deliveries", tag = "deliveries",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("status" = Option<String>, Query, description = "in one of these states, with commas between them"),
        ("event" = Option<String>, Query, description = "of event types like this, with * for any run of characters"),
        ("table" = Option<String>, Query, description = "of this table; schema.table outside public"),
        ("key" = Option<String>, Query, description = "of the row of this key"),
        ("error" = Option<String>, Query, description = "whose last attempt went so: timeout, unreachable, refused, 503, 5xx"),
        ("since" = Option<String>, Query, description = "of changes committed then or later (RFC 3339)"),
        ("until" = Option<String>, Query, description = "of changes committed before (RFC 3339)"),
        ("limit" = Option<u32>, Query, description = "how many; 1 to 200, 50 where it is absent", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses((status = OK, body = DeliveryPage)))]
async fn list_of_webhook(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    In(id): In<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<DeliveryPage>, Problem> {
    let name = named(&id)?;
    let answer = page(&api, &may.actor, search(query.as_deref(), Some(name))?).await?;
    if answer.0.data.is_empty() {
        // One that is gone may have left deliveries; of one that never was there is nothing to list.
        webhooks::get(&api.desk, &may.actor, name).await?;
    }
    Ok(answer)
}

/// One delivery with its request, its attempts and what was answered. Needs webhook:read.
#[utoipa::path(get, operation_id = "get_delivery", path = "/webhooks/{id}/deliveries/{delivery_id}", tag = "deliveries",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("delivery_id" = String, Path, description = "the delivery's id"),
    ),
    responses((status = OK, body = DeliveryInFull)))]
async fn get(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    In((id, delivery)): In<(String, String)>,
) -> Result<Json<DeliveryInFull>, Problem> {
    let whole = deliveries::get(&api.desk, &may.actor, named(&id)?, named(&delivery)?).await?;
    in_full(&api, &may.actor, whole).await
}

/// One delivery by its id alone, as a receiver knows it (`webhook-id`). Needs webhook:read.
#[utoipa::path(get, operation_id = "find_delivery", path = "/deliveries/{delivery_id}", tag = "deliveries",
    params(("delivery_id" = String, Path, description = "the delivery's id")),
    responses((status = OK, body = DeliveryInFull)))]
async fn find(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    In(delivery): In<String>,
) -> Result<Json<DeliveryInFull>, Problem> {
    let whole = deliveries::find(&api.desk, &may.actor, named(&delivery)?).await?;
    in_full(&api, &may.actor, whole).await
}

/// Sends a delivery that has ended again, with the same id and the same bytes; one that could not be rendered is rendered
/// anew. It is sent once, however many ask at once: one that was sent again a moment ago is not, unless whoever asks says how
/// many attempts they know of. Needs webhook:write.
#[utoipa::path(post, operation_id = "retry_delivery", path = "/webhooks/{id}/deliveries/{delivery_id}/retry", tag = "deliveries",
    request_body = Option<RetryOfOne>,
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("delivery_id" = String, Path, description = "the delivery's id"),
    ),
    responses((status = OK, body = DeliveryInFull), (status = CONFLICT, description = "it cannot be sent again, or was a moment ago")))]
async fn retry(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In((id, delivery)): In<(String, String)>,
    document: Document,
) -> Result<Json<DeliveryInFull>, Problem> {
    let mut fields = Fields::of(document);
    let known = Known { ended: ended(&mut fields), attempts: fields.number("attempts", 0..=u32::MAX) };
    fields.finish()?;
    let whole = deliveries::retry(&api.desk, &may.actor, named(&id)?, named(&delivery)?, &known).await?;
    in_full(&api, &may.actor, whole).await
}

/// Ends a delivery that waits, without another attempt. Needs webhook:write.
#[utoipa::path(post, operation_id = "cancel_delivery", path = "/webhooks/{id}/deliveries/{delivery_id}/cancel", tag = "deliveries",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("delivery_id" = String, Path, description = "the delivery's id"),
    ),
    responses((status = OK, body = DeliveryInFull), (status = CONFLICT, description = "it waits no more")))]
async fn cancel(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In((id, delivery)): In<(String, String)>,
) -> Result<Json<DeliveryInFull>, Problem> {
    let whole = deliveries::cancel(&api.desk, &may.actor, named(&id)?, named(&delivery)?).await?;
    in_full(&api, &may.actor, whole).await
}
