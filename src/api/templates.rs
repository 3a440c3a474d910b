//! `/templates`: bodies of the operator's making, and what one makes of an event.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::deliveries::{Bytes, Header};
use super::door::{May, Read};
use super::input::{Document, Fields, In, Parameters, next};
use super::problem::{Problem, Wrong};
use super::webhooks::named;
use crate::control::preview::Shape;
use crate::control::{ControlError, Given, templates};
use crate::domain::{Format, TemplateSource};

const PLACE: &str = "template";
/// What makes the body: one of these.
const SHAPES: &str = "expected one of template, text, format, webhook";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(render)).routes(routes!(get))
}

/// A template's text.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateText {
    /// The media type of what it makes.
    content_type: String,
    /// The text: handlebars.
    text: String,
}

/// A template of the file.
#[derive(Debug, Serialize, ToSchema)]
pub struct Template {
    /// Its name, as in `template = "slack"`.
    name: String,
    /// Where it is declared: `file`.
    source: &'static str,
    /// What the name means now; null: there are versions alone.
    latest: Option<TemplateText>,
    /// Its versions by name, as in `template = "slack@v1"`.
    versions: BTreeMap<String, TemplateText>,
    /// The webhooks whose bodies it makes, under whichever version, the first hundred.
    webhooks: Vec<String>,
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

impl From<TemplateSource> for TemplateText {
    fn from(source: TemplateSource) -> Self {
        Self { content_type: source.content_type.to_string(), text: source.body }
    }
}

impl From<templates::Template> for Template {
    fn from(template: templates::Template) -> Self {
        Self {
            name: template.name,
            source: "file",
            latest: template.latest.map(TemplateText::from),
            versions: template.versions.into_iter().map(|(name, text)| (name, text.into())).collect(),
            webhooks: template.webhooks.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Lists the templates with their versions. Needs webhook:read.
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

/// One template. Needs webhook:read.
#[utoipa::path(get, operation_id = "get_template", path = "/templates/{name}", tag = "templates",
    params(("name" = String, Path, description = "the template's name")),
    responses((status = OK, body = Template)))]
async fn get(
    may: May<Read>,
    State(api): State<Api>,
    In(name): In<String>,
) -> Result<Json<Template>, Problem> {
    Ok(Json(templates::get(&api.desk, &may.actor, named(&name)?).await?.into()))
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
