//! `[[webhooks]]`: who is told of which events, where and how.

use std::collections::HashSet;
use std::sync::Arc;

use http::HeaderMap;
use url::Url;

use super::auth::{self, Proof};
use super::batch as batches;
use super::connection;
use super::delivery::{Delivery, Manner, manner};
use super::events::condition;
use super::headers;
use super::names;
use super::node::{Node, Table};
use super::problem::Fault;
use super::{StoredTemplates, signature, signing};
use crate::domain::{
    BodyShape, Format, Reach, SignatureScheme, SigningSecret, TENANT_MARK, TemplateSource, Webhook,
    WebhookSource, limits, tenant_of,
};

const EVENTS: usize = 1000;
/// Templates that are told to whoever named none of them.
const TEMPLATES_TOLD: usize = 20;
const URL_BYTES: usize = 2048;
const FORMAT_VERSION_MAX: u32 = 1000;

/// What a webhook refers to.
pub(super) struct Surroundings<'s> {
    pub defaults: &'s Delivery,
    /// The names of the templates.
    pub named: Vec<&'s str>,
    /// The templates, as far as they could be read.
    pub templates: Vec<&'s TemplateSource>,
    /// Whether a webhook that the operator did not write may use plain http.
    pub allow_http: bool,
}

impl Surroundings<'_> {
    /// The template of a name, as far as it could be read.
    pub fn template<'t>(&'t self, name: &str, stored: &'t StoredTemplates) -> Option<&'t TemplateSource> {
        let ours = self.templates.iter().find(|template| *template.name == *name).copied();
        ours.or_else(|| stored.get(name)?.ok().map(AsRef::as_ref))
    }
}

pub(super) fn read(node: Node<'_>, around: &Surroundings<'_>) -> Option<Vec<Webhook>> {
    let mut webhooks = Vec::new();
    let mut names = HashSet::new();
    for item in node.tables(limits::WEBHOOKS)? {
        let (doc, path) = (item.doc, item.path.clone());
        let name = item.value.get("name").and_then(|name| name.as_str()).map(str::to_owned);
        if let Some(name) = name
            && !names.insert(name.clone())
        {
            let fault = Fault::new(format!("another webhook is named \"{}\" too", name.escape_debug()))
                .detail("Ids and the ledger go by a webhook's name.");
            doc.report(&path.key("name"), fault);
        }
        webhooks.extend(item.table().and_then(|mut table| {
            let webhook = webhook(&mut table, around, WebhookSource::Toml);
            table.finish();
            webhook
        }));
    }
    Some(webhooks)
}

/// Reads one webhook; what it does not set is as `[delivery]` says.
pub(super) fn webhook(
    table: &mut Table<'_>,
    around: &Surroundings<'_>,
    source: WebhookSource,
) -> Option<Webhook> {
    let name = table.require("name", "the webhook's name, unique and stable", |node| {
        node.parse("a name, as a string", names::webhook_name)
    });
    let tenant = table.get("tenant", |node| node.parse("a tenant, as a string", names::tenant));
    if let Some(name) = &name {
        check_tenant(table, name, tenant.as_deref());
    }
    let source = match (source, &tenant) {
        (WebhookSource::Database, Some(_)) => WebhookSource::Tenant,
        (source, _) => source,
    };
    let url = table.require("url", "where its deliveries go", url);
    let secrets = table.get("secret", signing::read);
    let events = table.require("events", "the event types it wants, such as [\"orders.*\"]", events);
    let filter = table.get("filter", condition);
    let mut headers = table.get("headers", headers::read).unwrap_or_default();
    let reach = reach(table, around, source, (secrets.as_deref(), &mut headers));
    let body = body(table, around);
    let Manner { timeout, concurrency, ordering, retry, compression, sla, flow, batch } =
        manner(table, around.defaults);
    batches::check_shape(table, batch, &body, around);
    if batch != around.defaults.batch {
        batches::check_wait(table, batch, around.defaults.handover_after);
    }
    Some(Webhook {
        name: name?.into(),
        source,
        tenant: tenant.map(Into::into),
        url: url?,
        secrets: secrets.unwrap_or_default(),
        events: events?,
        filter,
        headers,
        body,
        compression,
        timeout,
        concurrency,
        ordering,
        retry,
        sla,
        reach,
        flow,
        batch,
    })
}

/// A tenant's webhook is named after the tenant, and no other one is.
fn check_tenant(table: &Table<'_>, name: &str, tenant: Option<&str>) {
    let named = tenant_of(name);
    if named == tenant {
        return;
    }
    let (key, fault) = match (tenant, named) {
        (Some(tenant), _) => {
            let own = name.rsplit_once(TENANT_MARK).map_or(name, |(_, own)| own);
            let fault = Fault::new(format!("the webhook of a tenant is named {tenant}{TENANT_MARK}NAME"));
            ("name", fault.hint(format!("\"{tenant}{TENANT_MARK}{own}\" would be valid.")))
        }
        (None, Some(named)) => {
            let fault = Fault::new(format!("a name with a {TENANT_MARK} is that of a tenant's webhook"));
            ("name", fault.hint(format!("Choose another name, or set tenant = \"{named}\".")))
        }
        (None, None) => return,
    };
    table.doc.report(&table.path.key(key), fault);
}

/// A URL, or where to find it: that of a chat's channel is a key.
fn url(node: Node<'_>) -> Option<Url> {
    if !node.value.is_object() {
        return node.parse("a URL, as a string", target);
    }
    let mut url = None;
    node.checked_secret(|text| {
        url = Some(target(text)?);
        Ok(())
    });
    url
}

/// Reads how the receiver is reached, and how walhook proves itself. What it proves itself with at every attempt alike
/// becomes one of the headers.
fn reach(
    table: &mut Table<'_>,
    around: &Surroundings<'_>,
    source: WebhookSource,
    (secrets, headers): (Option<&[SigningSecret]>, &mut HeaderMap),
) -> Reach {
    let signature = table.get("signature", signature::read).unwrap_or_default();
    match secrets {
        Some([]) => {}
        Some(secrets) => auth::check_secrets(table.doc, &table.path.key("secret"), secrets, &signature),
        None if signature != SignatureScheme::Standard => {
            let fault = Fault::new("a signature needs a secret").hint("Set secret beside it.");
            table.doc.report(&table.path.key("signature"), fault);
        }
        None => {}
    }
    let proof = table.get("auth", |node| auth::read(node, source, around.allow_http));
    if let Some(name) = proof.as_ref().map(Proof::header)
        && headers.contains_key(name)
    {
        let fault = Fault::new(format!("headers sets {name} too")).hint("Leave one of them out.");
        table.doc.report(&table.path.key("auth"), fault);
    }
    let auth = match proof {
        Some(Proof::Header(name, value)) => {
            headers.insert(name, value);
            None
        }
        Some(Proof::Made(auth)) => Some(auth),
        None => None,
    };
    if let SignatureScheme::Custom(custom) = &signature
        && let Some(name) = [Some(&custom.header), custom.timestamp_header.as_ref()]
            .into_iter()
            .flatten()
            .find(|name| headers.contains_key(*name))
    {
        let fault = Fault::new(format!("headers or auth sets {name} too"));
        table.doc.report(&table.path.key("signature"), fault);
    }
    Reach { auth, signature, connection: connection::own(table, &around.defaults.connection, source) }
}

/// What is refused says nothing of the URL: receivers put keys into it.
pub(super) fn target(text: &str) -> Result<Url, Fault> {
    let example = "A URL is written \"https://example.com/hooks\".";
    // Whoever parses URLs leaves some of them out and says nothing.
    if text.chars().any(char::is_control) {
        return Err(Fault::new("the URL holds a control character, such as a line end").detail(example));
    }
    let url =
        Url::parse(text).map_err(|error| Fault::new(format!("not a valid URL: {error}")).detail(example))?;
    if text.len() > URL_BYTES {
        return Err(Fault::new(format!("the URL is longer than {URL_BYTES} bytes")));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Fault::new(format!(
            "expected a URL of http or https, found one of \"{}\"",
            url.scheme()
        ))
        .detail(example));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(Fault::new("the URL has no host").detail(example));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::new("the URL holds a user name or a password").hint(
            "Write auth = { kind = \"basic\", username = \"…\", password = { env = \"NAME\" } } beside it.",
        ));
    }
    if url.fragment().is_some() {
        return Err(Fault::new("the URL has a fragment (#…), which is never sent"));
    }
    Ok(url)
}

fn events(node: Node<'_>) -> Option<Vec<String>> {
    let (doc, path) = (node.doc, node.path.clone());
    let items = node.list(EVENTS)?;
    if items.is_empty() {
        doc.report(
            &path,
            Fault::new("expected at least one event type, found none").hint("[\"*\"] takes every event."),
        );
    }
    Some(
        items
            .into_iter()
            .filter_map(|item| item.parse("an event type, as a string", names::event_pattern))
            .collect(),
    )
}

fn body(table: &mut Table<'_>, around: &Surroundings<'_>) -> BodyShape {
    let format = table.take("format");
    let version = table.take("format_version");
    let template = table.take("template");
    if let (Some(version), Some(_)) = (&version, &template) {
        let fault = Fault::new("a template has versions of its own, not a format_version");
        version.refuse(fault.hint("Name one of them in template: \"slack@v1\"."));
    }
    if let (Some(_), Some(template)) = (&format, &template) {
        template.refuse("a webhook has a format or a template, not both");
    }
    let template = template.and_then(|node| {
        let (stored, is_row) = (node.doc.checks.stored, node.doc.is_row());
        node.parse("the name of a template, as a string", |name| {
            if around.named.contains(&name) {
                return Ok(Arc::from(name));
            }
            match stored.get(name) {
                Some(Ok(_)) => Ok(Arc::from(name)),
                Some(Err(reason)) => {
                    Err(Fault::new(format!("the template \"{name}\" cannot be used: {reason}")))
                }
                None => Err(no_template(name, around.named.iter().copied().chain(stored.names()), is_row)),
            }
        })
    });
    let mut words: Vec<_> = Format::VERSIONS.iter().map(|(name, ..)| (*name, *name)).collect();
    words.dedup();
    let format = format.map_or(Some("standard"), |node| node.word(&words));
    let format = format.and_then(|name| match version {
        Some(version) => version_of(version, name),
        None => Format::named(name, 1),
    });
    template.map_or_else(|| BodyShape::Format(format.unwrap_or_default()), BodyShape::Template)
}

fn no_template<'n>(name: &str, all: impl Iterator<Item = &'n str>, is_row: bool) -> Fault {
    let fault = Fault::new(format!("there is no template named \"{}\"", name.escape_debug()));
    let all: Vec<&str> = all.collect();
    let told = all.get(..TEMPLATES_TOLD).unwrap_or(&all).join(", ");
    let fault = match all.len().saturating_sub(TEMPLATES_TOLD) {
        _ if all.is_empty() && is_row => {
            fault.detail("Templates are declared in the file, as [templates.NAME], or kept in the database; there are none.")
        }
        _ if all.is_empty() => fault.detail("Templates are declared as [templates.NAME]; there are none."),
        0 => fault.detail(format!("The templates are {told}.")),
        more => fault.detail(format!("The templates are {told} and {more} more.")),
    };
    fault.nearest(name, all)
}

/// A version of a format that there is.
fn version_of(node: Node<'_>, name: &str) -> Option<Format> {
    let (doc, path) = (node.doc, node.path.clone());
    let version = node.integer(1..=FORMAT_VERSION_MAX)?;
    let format = Format::named(name, version);
    if format.is_none() {
        let there: Vec<_> = Format::versions(name).iter().map(u32::to_string).collect();
        let fault = Fault::new(format!("the format \"{name}\" has no version {version}"));
        doc.report(&path, fault.detail(format!("Its versions are {}.", there.join(", "))));
    }
    format
}
