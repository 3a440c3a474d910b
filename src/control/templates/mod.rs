//! The templates that there are, in the file and in the database, and what one makes of an event before anything is sent.
//!
//! Those of the file are shown and never written; a name that it has is the file's with all its versions. Those of the database
//! are rows of `walhook.templates`, a row a version, which never changes: a new text is a new version, which those follow at
//! once that name none.

mod keep;

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio_postgres::Client;

use super::preview::{Rendered, Shape, render_with};
use super::{About, Actor, ControlError, Desk, Given, declared, events, nearest, preview};
use crate::catalog::Shelf;
use crate::config::Config;
use crate::domain::{BodyShape, TemplateSource, limits};
use crate::ledger::templates::StoredTemplate;
use crate::ledger::webhooks;
use crate::render::Renderer;

pub use keep::{create, remove};

/// Where a template is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// The operator's file.
    File,
    /// `walhook.templates`.
    Database,
}

/// A text under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The media type of what it makes.
    pub content_type: String,
    /// The template itself.
    pub body: String,
    /// What is known of one of the database.
    pub kept: Option<KeptText>,
}

/// What is known of a text of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptText {
    /// Its version.
    pub version: String,
    /// For people.
    pub description: Option<String>,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

/// A template with its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// Where it is declared.
    pub home: Home,
    /// What `NAME` means now; `None`: there are versions alone.
    pub latest: Option<Text>,
    /// The versions, by name: what `NAME@VERSION` means.
    pub versions: BTreeMap<String, Text>,
    /// The webhooks whose bodies it makes, under whichever version, at most [`limits::SUBSCRIBERS_TOLD`].
    pub webhooks: Vec<String>,
    /// The number of its latest version; one of the file has none.
    pub number: Option<i64>,
}

impl Text {
    fn of_file(source: &TemplateSource) -> Self {
        Self { content_type: source.content_type.to_string(), body: source.body.clone(), kept: None }
    }

    fn of_row(row: &StoredTemplate, problem: Option<&str>) -> Self {
        let kept = KeptText {
            version: row.version.clone(),
            description: row.description.clone(),
            created_at: row.created_at,
            problem: problem.map(str::to_owned),
        };
        Self { content_type: row.content_type.clone(), body: row.body.clone(), kept: Some(kept) }
    }
}

/// Every template, by name, without the webhooks.
fn families(config: &Config, shelf: &Shelf) -> BTreeMap<String, Template> {
    let mut all: BTreeMap<String, Template> = BTreeMap::new();
    let family = |name: &str, home| Template {
        name: name.to_owned(),
        home,
        latest: None,
        versions: BTreeMap::new(),
        webhooks: Vec::new(),
        number: None,
    };
    for source in &config.templates {
        let (name, version) = split(&source.name);
        let template = all.entry(name.to_owned()).or_insert_with(|| family(name, Home::File));
        match version {
            None => template.latest = Some(Text::of_file(source)),
            Some(version) => {
                template.versions.insert(version.to_owned(), Text::of_file(source));
            }
        }
    }
    // The shelf has none of a name that the file has, and each latest behind those before it.
    for (row, problem) in shelf.rows() {
        let template = all.entry(row.name.clone()).or_insert_with(|| family(&row.name, Home::Database));
        let text = Text::of_row(row, problem);
        template.versions.insert(row.version.clone(), text.clone());
        (template.latest, template.number) = (Some(text), Some(row.number));
    }
    all
}

/// Every template, by name.
async fn all(desk: &Desk, actor: &Actor) -> Result<BTreeMap<String, Template>, ControlError> {
    let config = desk.config();
    let session = desk.session(actor, About::Operators).await?;
    let shelf = desk.shelf(&session).await?;
    let mut all = families(&config, &shelf);
    let of_file = config.webhooks.iter().filter_map(|webhook| match &webhook.body {
        BodyShape::Template(template) => Some((webhook.name.to_string(), template.to_string())),
        BodyShape::Format(_) => None,
    });
    for (webhook, template) in of_file.chain(webhooks::with_templates(&*session).await?) {
        if let Some(template) = all.get_mut(split(&template).0)
            && template.webhooks.len() < limits::SUBSCRIBERS_TOLD
        {
            template.webhooks.push(webhook);
        }
    }
    Ok(all)
}

/// `slack@v1` is the version `v1` of `slack`.
pub(super) fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once('@').map_or((name, None), |(name, version)| (name, Some(version)))
}

/// The templates after a name, in the order of names.
pub async fn list(
    desk: &Desk,
    actor: &Actor,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Template>, ControlError> {
    let all = all(desk, actor).await?.into_values();
    let behind = all.filter(|template| after.is_none_or(|after| template.name.as_str() > after));
    Ok(behind.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect())
}

/// One template.
pub async fn get(desk: &Desk, actor: &Actor, name: &str) -> Result<Template, ControlError> {
    let mut all = all(desk, actor).await?;
    all.remove(name).ok_or_else(|| unknown(name, all.keys().map(String::as_str)))
}

/// One version of one.
pub async fn get_version(
    desk: &Desk,
    actor: &Actor,
    (name, version): (&str, &str),
) -> Result<(Home, Text), ControlError> {
    let mut template = get(desk, actor, name).await?;
    let found = template.versions.remove(version);
    let versions = template.versions.keys().map(|version| format!("{name}@{version}")).collect::<Vec<_>>();
    let missing = || unknown(&format!("{name}@{version}"), versions.iter().map(String::as_str));
    found.map(|text| (template.home, text)).ok_or_else(missing)
}

fn unknown<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> ControlError {
    ControlError::Unknown { what: "template", name: name.to_owned(), nearest: nearest(name, valid) }
}

/// Makes a body: of what is given, of a sample of the event type that is named, or of a small sample. Nothing is sent or
/// kept.
pub async fn render(
    desk: &Desk,
    actor: &Actor,
    shape: &Shape,
    (event_type, given): (Option<&str>, Option<Given>),
) -> Result<Rendered, ControlError> {
    let config = desk.config();
    let given = match (given, event_type) {
        (None, Some(event_type)) => Some(events::given(desk, actor, event_type).await?),
        (given, _) => given,
    };
    let made_by = match shape {
        Shape::Webhook(name) => {
            let session = desk.session(actor, About::Operators).await?;
            let (snapshot, _) = declared(&config, &session).await?;
            let names = || snapshot.webhooks().iter().map(|compiled| &*compiled.webhook.name);
            let none = || ControlError::Unknown {
                what: "webhook",
                name: name.clone(),
                nearest: nearest(name, names()),
            };
            Some((snapshot.by_name(name).ok_or_else(none)?.renderer.clone(), name.clone()))
        }
        Shape::Template(name) if config.templates.iter().all(|ours| *ours.name != **name) => {
            let session = desk.session(actor, About::Operators).await?;
            Some((of_shelf(desk, &session, &config, name).await?, "sample".to_owned()))
        }
        Shape::Template(_) | Shape::Text { .. } | Shape::Format(_) => None,
    };
    let (event_type, clock) = (event_type.map(str::to_owned), desk.clock.clone());
    // A template may take a while; deliveries do not wait for it.
    let Some((renderer, webhook)) = made_by else {
        let shape = shape.clone();
        return blocking(move || preview(Some(&config), &shape, event_type.as_deref(), given, &clock)).await;
    };
    let max_bytes = config.delivery.max_body;
    let webhook =
        match given.as_ref().and_then(Given::webhook).filter(|_| matches!(shape, Shape::Template(_))) {
            Some(told) => told.to_owned(),
            None => webhook,
        };
    blocking(move || render_with(&renderer, (event_type.as_deref(), given), (&webhook, max_bytes), &clock))
        .await
}

/// What makes bodies by a template of the database.
async fn of_shelf(
    desk: &Desk,
    client: &Client,
    config: &Config,
    name: &str,
) -> Result<Renderer, ControlError> {
    let shelf = desk.shelf(client).await?;
    if let Some(Err(reason)) = shelf.named().get(name) {
        let problem = format!("the template \"{name}\" cannot be used: {reason}");
        return Err(ControlError::Value { key: "template", problem });
    }
    let names = || config.templates.iter().map(|ours| &*ours.name).chain(shelf.named().names());
    shelf.renderer(name).ok_or_else(|| unknown(name, names()))
}

async fn blocking(
    making: impl FnOnce() -> Result<Rendered, ControlError> + Send + 'static,
) -> Result<Rendered, ControlError> {
    let made = tokio::task::spawn_blocking(making).await;
    made.unwrap_or_else(|_| Err(ControlError::Data { problem: "nothing could be made of it".to_owned() }))
}
