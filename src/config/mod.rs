//! The configuration: text and environment → checked [`Config`], or all problems at once.
//!
//! The life of a configuration:
//!
//! 1. [`Sources`] name a file and hold the environment.
//! 2. `toml_file` parses the file into a tree, and keeps where each key stands; `environment` makes a second tree
//!    from variables; figment lays one over the other.
//! 3. A `document` holds what is known of where values came from, and collects problems. `node` has the readers: a
//!    value with its path, and a table that knows which keys it was asked for. They never stop at a problem.
//! 4. One file a section (`database`, `ledger`, `server`, `security`, `delivery` with `retry`, `flow` and `batch`, `tables`, `events`,
//!    `webhooks` with `headers`, `templates`) says what is valid there and what is the default.
//! 5. With no problem reported, the sections are the [`Config`]. There is nothing left to validate behind it.
//!
//! Webhooks and templates in the database go through the same readers, by [`webhook_from_row`] and [`template_from_row`].
//! Conditions, templates' texts and connection strings belong to other modules on this floor or above: who loads a
//! configuration hands their [`Checks`] in.
//!
//! Absent on purpose: defaults from anywhere but the code, a way to set one entry of a list from the environment,
//! and any text of a secret in a problem (invariant I12).

mod auth;
mod batch;
mod connection;
mod database;
mod delivery;
mod document;
mod environment;
mod events;
mod flow;
mod headers;
mod ledger;
mod names;
mod node;
mod notices;
mod path;
mod problem;
mod retry;
mod row;
mod secret;
mod security;
mod server;
mod signature;
mod signing;
mod sources;
mod stored;
mod tables;
mod templates;
mod toml_file;
mod units;
mod webhooks;

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod reach_tests;
#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod shape_tests;
#[cfg(test)]
mod tenant_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;

use figment::Figment;
use figment::providers::Serialized;
use serde_json::{Map, Value};

pub use database::{Database, OnSlotLost, OnTimelineChange};
pub use delivery::Delivery;
pub use ledger::Ledger;
pub use notices::Notices;
pub use problem::{Place, Problem, Problems};
pub use row::{Strangers, row_described, webhook_from_row};
pub use security::{Allowed, Security};
pub use server::Server;
pub use sources::{API_KEY_FILE_VARIABLE, API_KEY_VARIABLE, API_URL_VARIABLE, Sources};
pub use stored::{StoredTemplates, is_of_file, template_from_row};

use crate::domain::{
    Identity, Jwt, NamedEvent, SignatureScheme, SigningSecret, TableRule, TemplateSource, Webhook,
};
use document::{Document, Origin};
use node::Table;
use path::Path;
use problem::Fault;
use webhooks::Surroundings;

/// Everything the operator declared, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[database]`.
    pub database: Database,
    /// `[ledger]`.
    pub ledger: Ledger,
    /// `[server]`.
    pub server: Server,
    /// `[security]`.
    pub security: Security,
    /// `[delivery]`.
    pub delivery: Delivery,
    /// `[notices]`.
    pub notices: Notices,
    /// `[tables.*]`, each table once.
    pub tables: Vec<TableRule>,
    /// `[[events]]`.
    pub events: Vec<NamedEvent>,
    /// `[[webhooks]]`, each name once; their templates are among `templates`.
    pub webhooks: Vec<Webhook>,
    /// `[templates.*]`.
    pub templates: Vec<TemplateSource>,
    /// The file it was read from.
    pub path: PathBuf,
}

/// What other modules know about texts in a configuration.
#[derive(Clone, Copy)]
pub struct Checks<'a> {
    /// Whether a text is a condition that compiles.
    pub condition: &'a dyn Fn(&str) -> Result<(), Complaint>,
    /// Whether a text is a template that compiles.
    pub template: &'a dyn Fn(&str) -> Result<(), Complaint>,
    /// Whether a text is a connection string. Its complaint may not show the text.
    pub connection: &'a dyn Fn(&str) -> Result<(), Complaint>,
    /// Whether keys and certificates are what they should be. Its complaint may not show a secret.
    pub reach: &'a dyn Fn(Part<'_>) -> Result<(), Complaint>,
    /// The templates that a row may name beside the file's; the file itself names none of them.
    pub stored: &'a StoredTemplates,
}

/// What is looked at with more than the eyes of a reader.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// A webhook's secrets, and the signature that is made with them.
    Secrets(&'a [SigningSecret], &'a SignatureScheme),
    /// What tokens are signed with.
    Jwt(&'a Jwt),
    /// Certificates to trust, in PEM.
    Authorities(&'a str),
    /// A client certificate and its key, in PEM.
    Identity(&'a Identity),
}

/// What a check has against a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong: lower case, without a full stop.
    pub message: String,
    /// The line of the text, from 1.
    pub line: Option<usize>,
    /// The column of the line, from 1, in characters.
    pub column: Option<usize>,
}

/// Loads a configuration: every problem of it, where it has any.
pub fn load(sources: &Sources, checks: &Checks<'_>) -> Result<Config, Problems> {
    load_and_tell(sources, checks).map(|(config, _)| config)
}

/// Loads a configuration, and tells the pattern of every key that was looked for.
fn load_and_tell(sources: &Sources, checks: &Checks<'_>) -> Result<(Config, BTreeSet<String>), Problems> {
    let path = sources.file();
    let alone = |place, fault: Fault| Problems(vec![fault.at(place, &Path::default())]);
    let text = sources.read_file().map_err(|(place, fault)| alone(place, fault))?;
    let file = toml_file::parse(&text).map_err(|error| {
        let at = error.offset.map(|offset| toml_file::line_and_column(&text, offset));
        alone(
            Place::File { path: path.clone(), at },
            Fault::new(format!("not valid TOML: {}", error.message)),
        )
    })?;
    let layer = environment::layer(sources, &file.tree);
    let merged: Map<String, Value> = Figment::from(Serialized::defaults(&file.tree))
        .merge(Serialized::defaults(&layer.tree))
        .extract()
        .map_err(|error| {
            let fault = Fault::new(format!("cannot be laid under the environment: {}", error.kind));
            alone(Place::File { path: path.clone(), at: None }, fault)
        })?;

    let origin = Origin::Operator { path: path.clone(), text, spots: file.spots, sources };
    let document = Document::new(origin, checks, layer.variables);
    layer.problems.into_iter().for_each(|problem| document.push(problem));
    let config = read(Table::new(&document, Path::default(), merged), path);
    let known = document.finish()?;
    // A reader that answers nothing has reported why, so this is never empty-handed.
    config.map(|config| (config, known)).ok_or_else(|| Problems(Vec::new()))
}

fn read(mut root: Table<'_>, path: PathBuf) -> Option<Config> {
    let database = root.section("database", database::read).flatten();
    let ledger = root.section("ledger", ledger::read);
    let server = root.section("server", server::read);
    let security = root.section("security", security::read);
    let delivery = root.section("delivery", delivery::read);
    let notices = root.section("notices", notices::read);
    let mask_key = security.as_ref().and_then(|security| security.mask_key.as_ref());
    let tables = root.section("tables", |section| tables::read(section, mask_key));
    let events = root.get("events", |node| events::read(node, tables.as_deref().unwrap_or_default()));
    let (templates, named) = root.section("templates", templates::read).unwrap_or_default();
    let defaults = delivery.clone().unwrap_or_default();
    let around = Surroundings {
        defaults: &defaults,
        named: named.iter().map(String::as_str).collect(),
        templates: templates.iter().collect(),
        allow_http: true,
    };
    let webhooks = root.get("webhooks", |node| webhooks::read(node, &around));
    root.finish();
    Some(Config {
        database: database?,
        ledger: ledger?,
        server: server?,
        security: security?,
        delivery: delivery?,
        notices: notices?,
        tables: tables?,
        events: events.unwrap_or_default(),
        webhooks: webhooks.unwrap_or_default(),
        templates,
        path,
    })
}
