//! The templates that there are, and what one makes of an event before anything is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::preview::{Rendered, Shape, render_with};
use super::{About, Actor, ControlError, Desk, Given, declared, events, nearest, preview};
use crate::domain::{BodyShape, TemplateSource, limits};

/// A template with its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// What `NAME` means now; `None`: there are versions alone.
    pub latest: Option<TemplateSource>,
    /// The versions, by name: what `NAME@VERSION` means.
    pub versions: BTreeMap<String, TemplateSource>,
    /// The webhooks whose bodies it makes, under whichever version, at most [`limits::SUBSCRIBERS_TOLD`].
    pub webhooks: Vec<Arc<str>>,
}

/// Every template, by name.
async fn all(desk: &Desk, actor: &Actor) -> Result<BTreeMap<String, Template>, ControlError> {
    let config = desk.config();
    let mut all: BTreeMap<String, Template> = BTreeMap::new();
    let family = |name: &str| Template {
        name: name.to_owned(),
        latest: None,
        versions: BTreeMap::new(),
        webhooks: Vec::new(),
    };
    for source in &config.templates {
        let (name, version) = split(&source.name);
        let template = all.entry(name.to_owned()).or_insert_with(|| family(name));
        match version {
            None => template.latest = Some(source.clone()),
            Some(version) => {
                template.versions.insert(version.to_owned(), source.clone());
            }
        }
    }
    let session = desk.session(actor, About::Operators).await?;
    let (snapshot, _) = declared(&config, &session).await?;
    for webhook in snapshot.webhooks().iter().map(|compiled| &compiled.webhook) {
        if let BodyShape::Template(name) = &webhook.body
            && let Some(template) = all.get_mut(split(name).0)
            && template.webhooks.len() < limits::SUBSCRIBERS_TOLD
        {
            template.webhooks.push(Arc::clone(&webhook.name));
        }
    }
    Ok(all)
}

/// `slack@v1` is the version `v1` of `slack`.
fn split(name: &str) -> (&str, Option<&str>) {
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
    all.remove(name).ok_or_else(|| {
        let nearest = nearest(name, all.keys().map(String::as_str));
        ControlError::Unknown { what: "template", name: name.to_owned(), nearest }
    })
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
    let Shape::Webhook(name) = shape else {
        // A template may take a while; deliveries do not wait for it.
        let (shape, event_type, clock) = (shape.clone(), event_type.map(str::to_owned), desk.clock.clone());
        let making = move || preview(Some(&config), &shape, event_type.as_deref(), given, &clock);
        return blocking(making).await;
    };
    let session = desk.session(actor, About::Operators).await?;
    let (snapshot, _) = declared(&config, &session).await?;
    let Some(compiled) = snapshot.by_name(name) else {
        let nearest = nearest(name, snapshot.webhooks().iter().map(|compiled| &*compiled.webhook.name));
        return Err(ControlError::Unknown { what: "webhook", name: name.clone(), nearest });
    };
    let (renderer, max_bytes) = (compiled.renderer.clone(), config.delivery.max_body);
    let (name, event_type, clock) = (name.clone(), event_type.map(str::to_owned), desk.clock.clone());
    blocking(move || render_with(&renderer, (event_type.as_deref(), given), (&name, max_bytes), &clock)).await
}

async fn blocking(
    making: impl FnOnce() -> Result<Rendered, ControlError> + Send + 'static,
) -> Result<Rendered, ControlError> {
    let made = tokio::task::spawn_blocking(making).await;
    made.unwrap_or_else(|_| Err(ControlError::Data { problem: "nothing could be made of it".to_owned() }))
}
