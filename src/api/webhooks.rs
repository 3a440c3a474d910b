//! `/webhooks`: listed, made, changed, removed, switched, tried.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::door::{May, Read, Tenants, Write};
use super::input::{Document, Fields, In, Parameters, cursor};
use super::problem::{Problem, Wrong};
use super::schema::{self, WebhookPage};
use crate::control::Repetition;
use crate::control::states::{Wish, set};
use crate::control::webhooks::{self, Change, Expected, View};
use crate::control::{Actor, Given, trigger};
use crate::domain::limits;
use crate::ledger::audit::Actor as Who;

const PLACE: &str = "webhook";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, replace, merge, remove))
        .routes(routes!(enable))
        .routes(routes!(resume))
        .routes(routes!(disable))
        .routes(routes!(pause))
        .routes(routes!(test))
}

fn answer(status: StatusCode, view: View) -> Response {
    tagged(status, view.document, view.version)
}

/// An answer with its version as an entity tag.
pub(super) fn tagged(status: StatusCode, body: impl Serialize, version: Option<i64>) -> Response {
    let mut response = (status, Json(body)).into_response();
    let tag = version.and_then(|version| format!("\"{version}\"").parse().ok());
    response.headers_mut().extend(tag.map(|tag| (header::ETAG, tag)));
    response
}

/// What `If-Match` says (RFC 9110, 13.1.1). A tag that we never gave is the version of nothing.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<Expected>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(Some(Expected::Any));
    }
    let refused = || {
        Problem::parameters(vec![Wrong::parameter("If-Match", "expected the one ETag that was read, or *")])
    };
    let tag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let tag = tag.filter(|tag| !tag.contains('"')).ok_or_else(refused)?;
    Ok(Some(Expected::Version(tag.parse().unwrap_or(-1))))
}

/// What an `Idempotency-Key` makes of a request.
pub(super) fn repetition(
    headers: &HeaderMap,
    actor: &Actor,
    document: &Map<String, Value>,
) -> Result<Option<Repetition>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok();
    let key = key.filter(|key| (1..=limits::API_IDEMPOTENCY_BYTES).contains(&key.len()));
    let expected = format!("expected 1 to {} characters of ASCII", limits::API_IDEMPOTENCY_BYTES);
    let refused = || Problem::parameters(vec![Wrong::parameter("Idempotency-Key", expected)]);
    let key = key.ok_or_else(refused)?;
    let whose = match &actor.who {
        Who::Key { name, .. } => name.as_str(),
        Who::Admin { .. } | Who::Command | Who::Walhook | Who::Unknown { .. } => "",
    };
    Ok(Some(Repetition::of(whose, key, document)))
}

fn must_expect(headers: &HeaderMap) -> Result<Expected, Problem> {
    expected(headers)?.ok_or_else(|| {
        let detail = "If-Match is needed, so that no change of somebody else's is lost";
        let title = "A precondition is needed";
        Problem::new(StatusCode::PRECONDITION_REQUIRED, "if-match", title, detail)
            .hint("Send the ETag that GET gave, or If-Match: * for whatever is there.")
    })
}

/// Lists webhooks, those of the file too, in the order of names. Needs webhook:read.
#[utoipa::path(get, operation_id = "list_webhooks", path = "/webhooks", tag = "webhooks",
    params(
        ("limit" = Option<u32>, Query, description = "how many; 1 to 200, 50 where it is absent", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses((status = OK, body = WebhookPage)))]
async fn list(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(query.as_deref());
    let (limit, behind) = parameters.page(PLACE);
    parameters.finish()?;
    let mut views = webhooks::list(&api.desk, &may.actor, behind.as_deref(), limit + 1).await?;
    let more = views.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    if more {
        views.pop();
    }
    let last = views.last().and_then(|view| view.document.get("name")?.as_str());
    let next = last.filter(|_| more).map(|name| cursor(PLACE, name));
    let data: Vec<_> = views.iter().map(|view| &view.document).collect();
    Ok(Json(json!({ "data": data, "next_cursor": next })).into_response())
}

/// Makes a webhook in the database. Under an `Idempotency-Key` a repetition within a day is answered as the first was, and
/// makes nothing. Needs webhook:write.
#[utoipa::path(post, operation_id = "create_webhook", path = "/webhooks", tag = "webhooks", request_body = schema::Webhook,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "tells a repetition from another create", max_length = 255),
        ("probe" = Option<bool>, Query, description = "refuses a webhook whose receiver cannot be reached now; nothing is sent to it"),
    ),
    responses((status = CREATED, body = schema::Webhook, headers(("ETag" = String)),
        description = "made; `secret` is shown in this answer alone, where it was made here"),
        (status = CONFLICT, description = "the name is taken, or there are too many")))]
async fn create(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Document(document): Document,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(query.as_deref());
    let probes = parameters.read("probe", "expected true or false", |text| text.parse().ok());
    parameters.finish()?;
    let repetition = repetition(&headers, &may.actor, &document)?;
    if probes == Some(true) {
        webhooks::probe(&api.desk, &may.actor, &document).await?;
    }
    let view = webhooks::create(&api.desk, &may.actor, document, repetition.as_ref()).await?;
    let name = view.document.get("name").and_then(|name| name.as_str()).unwrap_or_default();
    let location = format!("/api/webhooks/{name}");
    let mut response = answer(StatusCode::CREATED, view);
    response.headers_mut().extend(location.parse().ok().map(|location| (header::LOCATION, location)));
    Ok(response)
}

/// One webhook. Needs webhook:read.
#[utoipa::path(get, operation_id = "get_webhook", path = "/webhooks/{id}", tag = "webhooks",
    params(("id" = String, Path, description = "the webhook's name")),
    responses((status = OK, body = schema::Webhook, headers(("ETag" = String)))))]
async fn get(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    In(id): In<String>,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, webhooks::get(&api.desk, &may.actor, named(&id)?).await?))
}

/// Declares a webhook anew; only `secret`, where it is absent, stays. Needs webhook:write.
#[utoipa::path(put, operation_id = "replace_webhook", path = "/webhooks/{id}", tag = "webhooks", request_body = schema::Webhook,
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("If-Match" = String, Header, description = "the ETag that was read, or *"),
    ),
    responses(
        (status = OK, body = schema::Webhook, headers(("ETag" = String))),
        (status = CONFLICT, description = "the file declares it"),
        (status = PRECONDITION_FAILED, description = "it was changed since it was read"),
        (status = PRECONDITION_REQUIRED, description = "If-Match is needed"),
    ))]
async fn replace(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In(id): In<String>,
    headers: HeaderMap,
    Document(document): Document,
) -> Result<Response, Problem> {
    let change = (Change::Replace(document), must_expect(&headers)?);
    Ok(answer(StatusCode::OK, webhooks::change(&api.desk, &may.actor, named(&id)?, change).await?))
}

/// Changes what the document names; a null removes (RFC 7396, JSON Merge Patch). Needs webhook:write.
#[utoipa::path(patch, operation_id = "change_webhook", path = "/webhooks/{id}", tag = "webhooks",
    request_body(content = schema::Webhook, content_type = "application/merge-patch+json"),
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("If-Match" = String, Header, description = "the ETag that was read, or *"),
    ),
    responses(
        (status = OK, body = schema::Webhook, headers(("ETag" = String))),
        (status = CONFLICT, description = "the file declares it"),
        (status = PRECONDITION_FAILED, description = "it was changed since it was read"),
        (status = PRECONDITION_REQUIRED, description = "If-Match is needed"),
    ))]
async fn merge(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In(id): In<String>,
    headers: HeaderMap,
    Document(document): Document,
) -> Result<Response, Problem> {
    let change = (Change::Merge(document), must_expect(&headers)?);
    Ok(answer(StatusCode::OK, webhooks::change(&api.desk, &may.actor, named(&id)?, change).await?))
}

/// Removes a webhook; what it is owed waits for its return. Needs webhook:write.
#[utoipa::path(delete, operation_id = "delete_webhook", path = "/webhooks/{id}", tag = "webhooks",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("If-Match" = Option<String>, Header, description = "the ETag that was read, or *"),
    ),
    responses(
        (status = NO_CONTENT),
        (status = CONFLICT, description = "the file declares it"),
        (status = PRECONDITION_FAILED, description = "it was changed since it was read"),
    ))]
async fn remove(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In(id): In<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let expected = expected(&headers)?.unwrap_or(Expected::Any);
    webhooks::remove(&api.desk, &may.actor, named(&id)?, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why a webhook is suspended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For whoever looks at its status.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

async fn switch(may: &May<Tenants<Write>>, api: &Api, id: &str, wish: Wish) -> Result<Response, Problem> {
    let name = named(id)?;
    set(&api.desk, &may.actor, name, &wish).await?;
    match webhooks::get(&api.desk, &may.actor, name).await {
        Ok(view) => Ok(answer(StatusCode::OK, view)),
        // Its state is known although it is declared nowhere any more.
        Err(error) => Err(error.into()),
    }
}

fn reason(document: Document) -> Result<String, Problem> {
    let mut fields = Fields::of(document);
    let reason = fields.text("reason").unwrap_or_else(|| "by hand".to_owned());
    if reason.chars().count() > limits::DESCRIPTION_CHARS {
        let expected = format!("expected at most {} characters", limits::DESCRIPTION_CHARS);
        fields.refuse::<()>("reason", expected);
    }
    fields.finish()?;
    Ok(reason)
}

/// What becomes of what was held.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resumption {
    /// Cancels what was held, instead of sending it.
    cancel_held: Option<bool>,
}

fn cancels_held(document: Document) -> Result<bool, Problem> {
    let mut fields = Fields::of(document);
    let cancels = fields.flag("cancel_held");
    fields.finish()?;
    Ok(cancels)
}

/// Sends to it again, first what was held (or, with `cancel_held`, cancels that). Needs webhook:write.
#[utoipa::path(post, operation_id = "enable_webhook", path = "/webhooks/{id}/enable", tag = "webhooks",
    request_body = Option<Resumption>,
    params(("id" = String, Path, description = "the webhook's name")),
    responses((status = OK, body = schema::Webhook, headers(("ETag" = String)))))]
async fn enable(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In(id): In<String>,
    document: Document,
) -> Result<Response, Problem> {
    let wish = if cancels_held(document)? { Wish::EnableAnew } else { Wish::Enable };
    switch(&may, &api, &id, wish).await
}

/// Sends to a paused one again, first what was held (or, with `cancel_held`, cancels that); a disabled one stays so. Needs
/// webhook:write.
#[utoipa::path(post, operation_id = "resume_webhook", path = "/webhooks/{id}/resume", tag = "webhooks",
    request_body = Option<Resumption>,
    params(("id" = String, Path, description = "the webhook's name")),
    responses(
        (status = OK, body = schema::Webhook, headers(("ETag" = String))),
        (status = CONFLICT, description = "it is disabled"),
    ))]
async fn resume(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In(id): In<String>,
    document: Document,
) -> Result<Response, Problem> {
    let wish = if cancels_held(document)? { Wish::ResumeAnew } else { Wish::Resume };
    switch(&may, &api, &id, wish).await
}

/// Holds what it is owed until further notice. Needs webhook:write.
#[utoipa::path(post, operation_id = "disable_webhook", path = "/webhooks/{id}/disable", tag = "webhooks", request_body = Option<Reason>,
    params(("id" = String, Path, description = "the webhook's name")),
    responses((status = OK, body = schema::Webhook)))]
async fn disable(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In(id): In<String>,
    document: Document,
) -> Result<Response, Problem> {
    switch(&may, &api, &id, Wish::Disable(reason(document)?)).await
}

/// Holds what it is owed for a while. Needs webhook:write.
#[utoipa::path(post, operation_id = "pause_webhook", path = "/webhooks/{id}/pause", tag = "webhooks", request_body = Option<Reason>,
    params(("id" = String, Path, description = "the webhook's name")),
    responses((status = OK, body = schema::Webhook)))]
async fn pause(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In(id): In<String>,
    document: Document,
) -> Result<Response, Problem> {
    switch(&may, &api, &id, Wish::Pause(reason(document)?)).await
}

/// A test.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// The event's type; where it is absent, the first that the webhook subscribes to.
    #[schema(example = "orders.created")]
    event: Option<String>,
    /// `{"record": {…}}`, and `old`, `changed`, … as you like; where it is absent, a sample from the table's columns.
    #[schema(value_type = Option<Object>)]
    data: Option<serde_json::Value>,
}

/// What became of a test.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tested {
    /// The delivery that was made for it.
    delivery: String,
    /// Its event's type.
    event: String,
    /// Whether the webhook subscribes to that.
    subscribed: bool,
    /// The delivery's state after the first attempt; null: there was none in time.
    status: Option<String>,
    /// The answer's status.
    http_status: Option<i32>,
    /// What went wrong.
    error: Option<String>,
}

/// Sends a test event through the real path, and answers with how its attempt went. Needs webhook:write.
#[utoipa::path(post, operation_id = "test_webhook", path = "/webhooks/{id}/test", tag = "webhooks", request_body = Option<Test>,
    params(("id" = String, Path, description = "the webhook's name")),
    responses(
        (status = OK, body = Tested, description = "it was tried; `status` says how that went"),
        (status = ACCEPTED, body = Tested, description = "it is on its way, and was not tried in time"),
        (status = CONFLICT, description = "it is paused or disabled, or its row has mistakes"),
    ))]
async fn test(
    may: May<Tenants<Write>>,
    State(api): State<Api>,
    In(id): In<String>,
    document: Document,
) -> Result<Response, Problem> {
    let name = named(&id)?;
    let mut fields = Fields::of(document);
    let (event, data) = (fields.text("event"), fields.value("data"));
    fields.finish()?;
    let given = data.map(|data| Given::parse(data.to_string().as_bytes())).transpose()?;
    let triggered = trigger(&api.desk, &may.actor, name, event.as_deref(), given).await?;
    let outcome = tokio::time::timeout(limits::API_TEST_WITHIN, triggered.outcome()).await;
    let standing = outcome.unwrap_or(Ok(None))?;
    let status = if standing.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let tested = Tested {
        delivery: triggered.id.as_str().to_owned(),
        event: triggered.event_type.clone(),
        subscribed: triggered.subscribed,
        http_status: standing.as_ref().and_then(|standing| standing.http_status),
        error: standing.as_ref().and_then(|standing| standing.error.clone()),
        status: standing.map(|standing| standing.status),
    };
    Ok((status, Json(tested)).into_response())
}

/// A name of a webhook, as a path has it.
pub(super) fn named(id: &str) -> Result<&str, Problem> {
    if id.contains('\0') || id.len() > 400 {
        return Err(Problem::not_found("no webhook has such a name"));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_one_strong_tag_or_a_star() {
        let check = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, text.parse().unwrap());
            expected(&headers)
        };
        assert_eq!(check("*").unwrap(), Some(Expected::Any));
        assert_eq!(check("\"12\"").unwrap(), Some(Expected::Version(12)));
        assert_eq!(check("\"abc\"").unwrap(), Some(Expected::Version(-1)));
        for wrong in ["12", "W/\"12\"", "\"1\", \"2\"", ""] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        assert_eq!(expected(&HeaderMap::new()).unwrap(), None);
    }
}
