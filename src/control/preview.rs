//! What a format or a template makes of an event: the real rendering, without a database.

use std::sync::Arc;

use bytes::Bytes;

use super::sample::{self, BUILT_IN};
use super::{ControlError, Given, nearest};
use crate::catalog;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::{BodyShape, Format, Notice, Operation, TemplateSource, limits};
use crate::render::{Renderer, TemplateError, Templates};

/// What makes the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// As this webhook of the file has it.
    Webhook(String),
    /// A template of the file.
    Template(String),
    /// A template that is tried.
    Text {
        /// Its text.
        text: String,
        /// The media type of what it makes.
        content_type: String,
    },
    /// A built-in format.
    Format(Format),
}

/// A rendered body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Its media type.
    pub content_type: String,
    /// The headers that its format has beside it, each `name: value`.
    pub headers: Vec<String>,
    /// Its bytes.
    pub body: Bytes,
}

/// Renders an event, given or built in. A format needs no configuration. `event_type` is by default the given event's,
/// and else the one that the data make.
pub fn preview(
    config: Option<&Config>,
    shape: &Shape,
    event_type: Option<&str>,
    given: Option<Given>,
    clock: &Clock,
) -> Result<Rendered, ControlError> {
    let (renderer, webhook) = renderer(config, shape)?;
    let max_bytes = config.map_or(limits::BODY_BYTES, |config| config.delivery.max_body);
    // What is no webhook's takes the name that the data tell.
    let told = given.as_ref().and_then(Given::webhook).filter(|_| !matches!(shape, Shape::Webhook(_)));
    let webhook = told.map_or(webhook, str::to_owned);
    render_with(&renderer, (event_type, given), (&webhook, max_bytes), clock)
}

/// Renders an event, given or built in, in at most so many bytes, for a webhook of this name.
pub(super) fn render_with(
    renderer: &Renderer,
    (event_type, given): (Option<&str>, Option<Given>),
    (webhook, max_bytes): (&str, usize),
    clock: &Clock,
) -> Result<Rendered, ControlError> {
    let given = match given {
        Some(given) => given,
        None => match event_type.and_then(Notice::of_type) {
            Some(notice) => sample::of_no_table(Some(notice))?.or_of_no_table(Operation::Notice),
            None => Given::parse(BUILT_IN.as_bytes())?,
        },
    };
    let (schema, table) = given.table();
    let prefix = if schema == "public" { table.to_owned() } else { format!("{schema}.{table}") };
    let of_data = format!("{prefix}.{}", given.operation().type_suffix());
    let event = given.event(event_type, &of_data, clock)?;
    let made = renderer.render(&event, &given.write()?, webhook, max_bytes)?;
    let headers = made.headers.iter().flat_map(|lines| lines.lines()).map(str::to_owned).collect();
    Ok(Rendered { content_type: renderer.content_type().to_owned(), headers, body: made.body })
}

/// What renders, and the webhook's name that bodies tell.
fn renderer(config: Option<&Config>, shape: &Shape) -> Result<(Renderer, String), ControlError> {
    let none =
        || ControlError::Unknown { what: "configuration", name: "walhook.toml".to_owned(), nearest: None };
    match shape {
        Shape::Format(format) => {
            let renderer = Templates::default().renderer(&BodyShape::Format(*format)).ok_or_else(none)?;
            Ok((renderer, "sample".to_owned()))
        }
        Shape::Text { text, content_type } => {
            let refused = |problem| ControlError::Value { key: "text", problem };
            if text.len() > limits::TEMPLATE_BYTES {
                return Err(refused(format!("the template is longer than {} bytes", limits::TEMPLATE_BYTES)));
            }
            let (name, content_type) = (Arc::from("text"), content_type.as_str().into());
            let source = TemplateSource { name: Arc::clone(&name), content_type, body: text.clone() };
            let first = |errors: Vec<(_, TemplateError)>| {
                errors.into_iter().next().map(|(_, error)| error.to_string())
            };
            let templates = Templates::compile_all(&[source])
                .map_err(|errors| refused(first(errors).unwrap_or_default()))?;
            let renderer = templates.renderer(&BodyShape::Template(name)).ok_or_else(none)?;
            Ok((renderer, "sample".to_owned()))
        }
        Shape::Template(name) => {
            let config = config.ok_or_else(none)?;
            let templates = Templates::compile_all(&config.templates).map_err(|errors| {
                let lines: Vec<String> =
                    errors.iter().map(|(name, error)| format!("templates.{name}: {error}")).collect();
                ControlError::Compile(lines.join("\n"))
            })?;
            let unknown = || ControlError::Unknown {
                what: "template",
                name: name.clone(),
                nearest: nearest(name, config.templates.iter().map(|template| &*template.name)),
            };
            let shape = BodyShape::Template(name.as_str().into());
            Ok((templates.renderer(&shape).ok_or_else(unknown)?, "sample".to_owned()))
        }
        Shape::Webhook(name) => {
            let config = config.ok_or_else(none)?;
            let snapshot = catalog::compile_file(config).map_err(ControlError::Compile)?;
            let unknown = || ControlError::Unknown {
                what: "webhook",
                name: name.clone(),
                nearest: nearest(name, config.webhooks.iter().map(|webhook| &*webhook.name)),
            };
            let compiled = snapshot.by_name(name).ok_or_else(unknown)?;
            Ok((compiled.renderer.clone(), name.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notice_has_a_sample_with_what_to_type_next() {
        let clock = Clock::system();
        for notice in Notice::ALL {
            let shape = Shape::Format(Format::Standard);
            let made = preview(None, &shape, Some(notice.event_type()), None, &clock).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&made.body).unwrap();
            let data = &json["data"];
            assert_eq!((&json["type"], &data["operation"]), (&notice.event_type().into(), &"notice".into()));
            assert!(data["table"].is_null() && data["record"]["next"].is_string(), "{json}");
            assert!(data["record"]["since"].is_string(), "{json}");
        }
    }

    #[test]
    fn a_format_needs_no_configuration_and_shows_the_built_in_sample() {
        let clock = Clock::system();
        let made = preview(None, &Shape::Format(Format::Supabase), None, None, &clock).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&made.body).unwrap();
        assert_eq!(json["type"], "UPDATE");
        assert_eq!(json["record"]["status"], "shipped");
        let made = preview(None, &Shape::Format(Format::Standard), None, None, &clock).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&made.body).unwrap();
        assert_eq!(
            (&json["type"], &json["data"]["changed"][0]),
            (&"orders.updated".into(), &"status".into())
        );
    }
}
