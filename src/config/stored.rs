//! A template from the database: a row of `walhook.templates`, whose columns are named like the keys of `[templates.NAME]`.
//!
//! The same readers read it. What it is called is settled here too: `NAME@VERSION` is that version for ever, and `NAME` is
//! the latest, as in the file. A name that the file has is the file's, with all its versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::document::{Document, Origin};
use super::names;
use super::node::Table;
use super::path::Path;
use super::problem::Problems;
use super::templates::text_of_row;
use super::{Checks, Config};
use crate::domain::TemplateSource;

/// The templates of the database by the names that webhooks have for them, `slack` and `slack@v1`; of one that cannot be used,
/// why not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredTemplates {
    by_name: BTreeMap<Arc<str>, Result<Arc<TemplateSource>, Arc<str>>>,
}

impl StoredTemplates {
    /// None.
    pub const NONE: &'static Self = &Self { by_name: BTreeMap::new() };

    /// Puts one under a name, instead of what was there.
    pub fn put(&mut self, name: Arc<str>, template: Result<Arc<TemplateSource>, Arc<str>>) {
        self.by_name.insert(name, template);
    }

    /// The one of a name, or why it cannot be used.
    pub fn get(&self, name: &str) -> Option<Result<&Arc<TemplateSource>, &str>> {
        self.by_name.get(name).map(|found| found.as_ref().map_err(AsRef::as_ref))
    }

    /// Every name, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(AsRef::as_ref)
    }
}

/// Whether the file has a template of this name, so that nobody else can; `NAME@VERSION` asks for `NAME`.
pub fn is_of_file(config: &Config, template: &str) -> bool {
    let base = |name: &str| name.split('@').next() == template.split('@').next();
    config.templates.iter().any(|ours| base(&ours.name))
}

/// Reads a row, as `to_jsonb(row)` would give its name, version, media type and body; or every problem that it has.
pub fn template_from_row(
    mut row: Map<String, Value>,
    config: &Config,
    checks: &Checks<'_>,
) -> Result<TemplateSource, Problems> {
    row.retain(|_, value| !value.is_null());
    let told = |key| row.get(key).and_then(Value::as_str).unwrap_or_default().escape_debug().to_string();
    let (name, version) = (told("name"), told("version"));
    let at = if version.is_empty() { "" } else { "@" };
    let described = format!("row \"{name}{at}{version}\" of {}.templates", config.database.schema);
    let document = Document::new(Origin::Row(described), checks, Vec::new());
    let mut table = Table::new(&document, Path::default(), row);
    let plain = |node: super::node::Node<'_>| node.parse("a name, as a string", names::plain_name);
    let name = table.require("name", "the template's name", plain);
    let version = table.get("version", plain);
    let text = text_of_row(&mut table);
    table.finish();
    document.finish()?;
    // A reader that answers nothing has reported why, so this is never empty-handed.
    let (name, (content_type, body)) = name.zip(text).ok_or_else(|| Problems(Vec::new()))?;
    let name = version.map_or_else(|| name.clone(), |version| format!("{name}@{version}"));
    Ok(TemplateSource { name: name.into(), content_type: content_type.into(), body })
}
