//! `/templates`: bodies of the operator's making, kept in versions, and what one makes of an event.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::deliveries::{Bytes, Header};
use super::door::{May, Read, Write};
use super::input::{Document, Fields, In, Parameters, next};
use super::problem::{Problem, Wrong};
use super::webhooks::{expected, named, repetition, tagged};
use crate::control::preview::Shape;
use crate::control::templates::{self, Home, KeptText, Text};
use crate::control::webhooks::Expected;
use crate::control::{ControlError, Given};
use crate::domain::Format;
use crate::ledger::templates::{NewTemplate, StoredTemplate};

const PLACE: &str = "template";
/// What makes the body: one of these.
const SHAPES: &str = "expected one of template, text, format, webhook";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(render))
        .routes(routes!(get, remove))
        .routes(routes!(get_version, remove_version))
}

/// A template's text.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateText {
    /// The media type of what it makes.
    content_type: String,
    /// The text: handlebars.
    text: String,
    /// Of one of the database: the version that it is.
    version: Option<String>,
    /// Of one of the database: for people.
    description: Option<String>,
    /// Of one of the database: since when it is there.
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp>,
    /// Why it cannot be used, where it came into the database by other means than this.
    problem: Option<String>,
}

/// A template with its versions.
#[derive(Debug, Serialize, ToSchema)]
pub struct Template {
    /// Its name, as in `template: "slack"`.
    name: String,
    /// Where it is declared: `file`, and then it is read-only here, or `database`.
    source: &'static str,
    /// What the name means now; null: there are versions alone.
    latest: Option<TemplateText>,
    /// Its versions by name, as in `template: "slack@v1"`.
    versions: BTreeMap<String, TemplateText>,
    /// The webhooks whose bodies it makes, under whichever version, the first hundred.
    webhooks: Vec<String>,
}

/// One version of a template.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateVersion {
    /// The template's name.
    name: String,
    /// Where it is declared: `file` or `database`.
    source: &'static str,
    #[serde(flatten)]
    text: TemplateText,
}

/// A template, or a new version of one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateToMake {
    /// Its name; that of one of the database makes a new version of it.
    #[schema(example = "slack", min_length = 1, max_length = 100)]
    name: String,
    /// The version's name; where it is absent, the next of v1, v2, ….
    #[schema(example = "v2", min_length = 1, max_length = 100)]
    version: Option<String>,
    /// The media type of what it makes; `application/json` where it is absent.
    content_type: Option<String>,
    /// The text: handlebars over the fields of the standard body, at most 16 KiB.
    #[schema(example = "{\"text\": \"Order {{data.record.id}}\"}", max_length = 16384)]
    text: String,
    /// For people.
    #[schema(max_length = 1000)]
    description: Option<String>,
}

/// A page of templates.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplatePage {
    /// In the order of names.
    data: Vec<Template>,
    /// Where the next page begins; null: there is no more.
    next_cursor: Option<String>,
}

/// What is to be made. One of `template`, `text`, `format` and `webhook` says by what.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rendering {
    /// A template's name, or `NAME@VERSION`.
    #[schema(example = "slack")]
    template: Option<String>,
    /// A template's text.
    #[schema(example = "{\"text\": \"Order {{data.record.id}}\"}")]
    text: Option<String>,
    /// The media type of what `text` makes; `application/json` where it is absent.
    content_type: Option<String>,
    /// A format's name.
    #[schema(example = "cloudevents")]
    format: Option<String>,
    /// A webhook's name: as its bodies are made.
    webhook: Option<String>,
    /// The event's type; without `data` a sample of it is taken.
    #[schema(example = "orders.created")]
    event: Option<String>,
    /// `{"record": {…}}`, and `old`, `changed`, … as you like, or a whole body in the format `standard`; where it is absent, a
    /// sample.
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
}

/// What was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct RenderedBody {
    /// Its media type.
    content_type: String,
    /// The headers that its format has beside it.
    headers: Vec<Header>,
    /// The body.
    body: Bytes,
}

fn source(home: Home) -> &'static str {
    match home {
        Home::File => "file",
        Home::Database => "database",
    }
}

impl From<Text> for TemplateText {
    fn from(told: Text) -> Self {
        let Text { content_type, body, kept } = told;
        let (version, description, created_at, problem) = match kept {
            Some(KeptText { version, description, created_at, problem }) => {
                (Some(version), description, Some(created_at), problem)
            }
            None => (None, None, None, None),
        };
        Self { content_type, text: body, version, description, created_at, problem }
    }
}

impl From<templates::Template> for Template {
    fn from(template: templates::Template) -> Self {
        Self {
            name: template.name,
            source: source(template.home),
            latest: template.latest.map(TemplateText::from),
            versions: template.versions.into_iter().map(|(name, text)| (name, text.into())).collect(),
            webhooks: template.webhooks,
        }
    }
}

impl From<StoredTemplate> for TemplateVersion {
    fn from(row: StoredTemplate) -> Self {
        let StoredTemplate { name, version, content_type, body, description, created_at, .. } = row;
        let (version, created_at) = (Some(version), Some(created_at));
        let text = TemplateText { content_type, text: body, version, description, created_at, problem: None };
        Self { name, source: source(Home::Database), text }
    }
}

/// Lists the templates of file and database with their versions. Needs webhook:read.
#[utoipa::path(get, operation_id = "list_templates", path = "/templates", tag = "templates",
    params(
        ("limit" = Option<u32>, Query, description = "how many; 1 to 200, 50 where it is absent", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses((status = OK, body = TemplatePage)))]
async fn list(
    may: May<Read>,
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<TemplatePage>, Problem> {
    let mut parameters = Parameters::of(query.as_deref());
    let (limit, behind) = parameters.page(PLACE);
    parameters.finish()?;
    let mut found = templates::list(&api.desk, &may.actor, behind.as_deref(), limit + 1).await?;
    let next_cursor = next(&mut found, limit, PLACE, |template| template.name.clone());
    Ok(Json(TemplatePage { data: found.into_iter().map(Template::from).collect(), next_cursor }))
}

/// One template with its versions. Its `ETag` is that of the latest. Needs webhook:read.
#[utoipa::path(get, operation_id = "get_template", path = "/templates/{name}", tag = "templates",
    params(("name" = String, Path, description = "the template's name")),
    responses((status = OK, body = Template, headers(("ETag" = String)))))]
async fn get(may: May<Read>, State(api): State<Api>, In(name): In<String>) -> Result<Response, Problem> {
    let found = templates::get(&api.desk, &may.actor, named(&name)?).await?;
    let number = found.number;
    Ok(tagged(StatusCode::OK, Template::from(found), number))
}

/// One version of a template. Needs webhook:read.
#[utoipa::path(get, operation_id = "get_template_version", path = "/templates/{name}/versions/{version}", tag = "templates",
    params(
        ("name" = String, Path, description = "the template's name"),
        ("version" = String, Path, description = "the version's name"),
    ),
    responses((status = OK, body = TemplateVersion)))]
async fn get_version(
    may: May<Read>,
    State(api): State<Api>,
    In((name, version)): In<(String, String)>,
) -> Result<Json<TemplateVersion>, Problem> {
    let whose = (named(&name)?, named(&version)?);
    let (home, text) = templates::get_version(&api.desk, &may.actor, whose).await?;
    let text = TemplateText { version: Some(version), ..text.into() };
    Ok(Json(TemplateVersion { name, source: source(home), text }))
}

/// Keeps a template in the database, or a new version of one that is there: webhooks that name no version follow it within a
/// second, and what is pinned to a version stays as it is, because no version ever changes. Under an `Idempotency-Key` a
/// repetition within a day is answered as the first was, and keeps nothing. Needs webhook:write.
#[utoipa::path(post, operation_id = "create_template", path = "/templates", tag = "templates", request_body = TemplateToMake,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "tells a repetition from another create", max_length = 255),
        ("If-Match" = Option<String>, Header, description = "the ETag of the template that was read, or * for one that is there"),
    ),
    responses(
        (status = CREATED, body = TemplateVersion, headers(("ETag" = String))),
        (status = CONFLICT, description = "the file declares a template of this name, the version is there already, or there are too many"),
        (status = PRECONDITION_FAILED, description = "it has another version since it was read"),
    ))]
async fn create(
    may: May<Write>,
    State(api): State<Api>,
    headers: HeaderMap,
    Document(document): Document,
) -> Result<Response, Problem> {
    let expected = expected(&headers)?;
    let repetition = repetition(&headers, &may.actor, &document)?;
    let mut fields = Fields::of(Document(document));
    let name = fields.required("name", "expected the template's name, as a string");
    let body = fields.required("text", "expected the template's text, as a string");
    let (version, content_type) = (fields.text("version"), fields.text("content_type"));
    let description = fields.text("description");
    fields.finish()?;
    let (name, body) = (name.unwrap_or_default(), body.unwrap_or_default());
    let new = NewTemplate { name, version, content_type, body, description };
    let made = templates::create(&api.desk, &may.actor, new, (expected, repetition.as_ref())).await?;
    let location = format!("/api/templates/{}/versions/{}", made.name, made.version);
    let number = made.number;
    let mut response = tagged(StatusCode::CREATED, TemplateVersion::from(made), Some(number));
    response.headers_mut().extend(location.parse().ok().map(|location| (header::LOCATION, location)));
    Ok(response)
}

/// Removes a template of the database with all its versions, where no webhook uses one. Needs webhook:write.
#[utoipa::path(delete, operation_id = "delete_template", path = "/templates/{name}", tag = "templates",
    params(
        ("name" = String, Path, description = "the template's name"),
        ("If-Match" = Option<String>, Header, description = "the ETag that was read, or *"),
    ),
    responses(
        (status = NO_CONTENT),
        (status = CONFLICT, description = "the file declares it, or webhooks use it: `detail` names them"),
        (status = PRECONDITION_FAILED, description = "it has another version since it was read"),
    ))]
async fn remove(
    may: May<Write>,
    State(api): State<Api>,
    In(name): In<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let expected = expected(&headers)?.unwrap_or(Expected::Any);
    templates::remove(&api.desk, &may.actor, (named(&name)?, None), expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes one version of a template of the database, which no webhook uses: those that name no version use the latest.
/// Needs webhook:write.
#[utoipa::path(delete, operation_id = "delete_template_version", path = "/templates/{name}/versions/{version}", tag = "templates",
    params(
        ("name" = String, Path, description = "the template's name"),
        ("version" = String, Path, description = "the version's name"),
    ),
    responses(
        (status = NO_CONTENT),
        (status = CONFLICT, description = "the file declares it, or webhooks use it: `detail` names them"),
    ))]
async fn remove_version(
    may: May<Write>,
    State(api): State<Api>,
    In((name, version)): In<(String, String)>,
) -> Result<StatusCode, Problem> {
    let whose = (named(&name)?, Some(named(&version)?));
    templates::remove(&api.desk, &may.actor, whose, Expected::Any).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a body of an event, by a template (one that there is, or a text that is tried), a format, or as a webhook has it.
/// Nothing is sent or kept. Needs webhook:read.
#[utoipa::path(post, operation_id = "render", path = "/templates/render", tag = "templates", request_body = Rendering,
    responses((status = OK, body = RenderedBody)))]
async fn render(
    may: May<Read>,
    State(api): State<Api>,
    document: Document,
) -> Result<Json<RenderedBody>, Problem> {
    let mut fields = Fields::of(document);
    let (template, text) = (fields.text("template"), fields.text("text"));
    let content_type = fields.text("content_type");
    let (format, webhook) = (fields.text("format"), fields.text("webhook"));
    let (event, data) = (fields.text("event"), fields.value("data"));
    let shape = match (template, text, format, webhook) {
        (Some(name), None, None, None) => Some(Shape::Template(name)),
        (None, Some(text), None, None) => {
            let content_type = content_type.clone().unwrap_or_else(|| "application/json".to_owned());
            Some(Shape::Text { text, content_type })
        }
        (None, None, Some(name), None) => {
            let known = Format::VERSIONS.iter().find(|(format, ..)| *format == name).map(|known| known.2);
            let names: Vec<&str> = Format::VERSIONS.iter().map(|(name, ..)| *name).collect();
            if known.is_none() {
                fields.refuse::<()>("format", format!("expected one of {}", names.join(", ")));
            }
            known.map(Shape::Format)
        }
        (None, None, None, Some(name)) => Some(Shape::Webhook(name)),
        _ => fields.refuse("", SHAPES),
    };
    if content_type.is_some() && !matches!(shape, Some(Shape::Text { .. })) {
        fields.refuse::<()>("content_type", "only a text has one of its own");
    }
    fields.finish()?;
    let shape = shape.ok_or_else(|| Problem::invalid(vec![Wrong::field("", SHAPES)]))?;
    let given = data.map(|data| Given::parse(data.to_string().as_bytes())).transpose()?;
    let made = templates::render(&api.desk, &may.actor, &shape, (event.as_deref(), given)).await;
    let made = made.map_err(|error| match &error {
        ControlError::Unknown { what: what @ ("template" | "webhook"), .. } => {
            let wrong = Wrong::field(format!("/{what}"), error.to_string());
            Problem::invalid(vec![Wrong { hint: error.hint(), ..wrong }])
        }
        _ => error.into(),
    })?;
    let header = |line: &String| line.split_once(": ").map(|(name, value)| Header::new(name, value));
    Ok(Json(RenderedBody {
        content_type: made.content_type,
        headers: made.headers.iter().filter_map(header).collect(),
        body: Bytes::of(made.body.to_vec()),
    }))
}
