//! `[templates.NAME]`: bodies of the operator's making, and the versions of them that webhooks may be pinned to.
//!
//! `[templates.slack]` is the latest, which `template = "slack"` follows. `[templates.slack.versions.v1]` is another text
//! under the same name, `template = "slack@v1"`. With `version = "v2"` the latest has a version's name too, for who wants
//! to stay with it when the next comes.

use super::document::{Document, Origin};
use super::names;
use super::node::{Node, Table};
use super::path::Path;
use super::problem::{Fault, Place};
use super::sources::{beside, read_text};
use super::units::show_size;
use crate::domain::{TemplateSource, limits};

const CONTENT_TYPE: &str = "application/json";

/// Reads every template. A template that is refused is still named in the second answer, so that a webhook which
/// names it has no problem of its own.
pub(super) fn read(table: Table<'_>) -> (Vec<TemplateSource>, Vec<String>) {
    let (mut templates, mut named) = (Vec::new(), Vec::new());
    for (name, node) in table.names() {
        if let Err(fault) = names::plain_name(&name) {
            node.refuse(fault);
        }
        let mut family = Family { name: &name, templates: &mut templates, named: &mut named };
        if let Some(table) = node.table() {
            family.read(table);
        }
        family.named.push(name.clone());
    }
    (templates, named)
}

/// A template and its versions.
struct Family<'f> {
    name: &'f str,
    templates: &'f mut Vec<TemplateSource>,
    named: &'f mut Vec<String>,
}

impl Family<'_> {
    fn read(&mut self, mut table: Table<'_>) {
        let version =
            table.get("version", |node| node.parse("a version's name, as a string", names::plain_name));
        let versions = table.section("versions", Table::names).unwrap_or_default();
        let latest = text(&mut table, CONTENT_TYPE);
        if let Some(version) = &version {
            if versions.iter().any(|(other, _)| other == version) {
                table.refuse(format!("the version \"{version}\" is the latest and one of the others too"));
            }
            self.version(version, latest.body.clone(), &latest.content_type);
        }
        table.finish();
        for (version, node) in versions {
            if let Err(fault) = names::plain_name(&version) {
                node.refuse(fault);
            }
            if let Some(mut table) = node.table() {
                let other = text(&mut table, &latest.content_type);
                table.finish();
                self.version(&version, other.body, &other.content_type);
            }
        }
        let (name, content_type) = (self.name.into(), latest.content_type.as_str().into());
        self.templates.extend(latest.body.map(|body| TemplateSource { name, content_type, body }));
    }

    fn version(&mut self, version: &str, body: Option<String>, content_type: &str) {
        let name = format!("{}@{version}", self.name);
        let (key, content_type) = (name.as_str().into(), content_type.into());
        self.templates.extend(body.map(|body| TemplateSource { name: key, content_type, body }));
        self.named.push(name);
    }
}

struct Text {
    content_type: String,
    body: Option<String>,
}

/// One template's text, with the media type that it is by itself or else inherits.
fn text(table: &mut Table<'_>, inherited: &str) -> Text {
    let content_type = table.get("content_type", |node| node.parse("a media type, as a string", media_type));
    let (body, file) = (table.take("body"), table.take("file"));
    let body = match (body, file) {
        (Some(body), None) => inline(body),
        (None, Some(file)) => from_file(file),
        (None, None) => {
            table.refuse(
                Fault::new("a template needs a body")
                    .detail("body is its text; file names a file that holds it."),
            );
            None
        }
        (Some(_), Some(_)) => {
            table.refuse("a template has a body or a file, not both");
            None
        }
    };
    Text { content_type: content_type.unwrap_or_else(|| inherited.to_owned()), body }
}

/// The media type and the text of a row of the database.
pub(super) fn text_of_row(table: &mut Table<'_>) -> Option<(String, String)> {
    let Text { content_type, body } = text(table, CONTENT_TYPE);
    body.map(|body| (content_type, body))
}

fn inline(node: Node<'_>) -> Option<String> {
    let (doc, path) = (node.doc, node.path.clone());
    let text = node.parse("a template, as a string", fitting)?;
    let complaint = (doc.checks.template)(&text).err();
    if let Some(complaint) = &complaint {
        doc.complain(&path, "template", &text, complaint);
    }
    complaint.is_none().then_some(text)
}

fn from_file(node: Node<'_>) -> Option<String> {
    let (doc, path) = (node.doc, node.path.clone());
    let text = node.parse("a file's name, as a string", |name| {
        let Origin::Operator { path: config, .. } = &doc.origin else {
            return Err("a row names no files".into());
        };
        let limit = u64::try_from(limits::TEMPLATE_BYTES).unwrap_or(u64::MAX);
        let text = read_text(&beside(config, name), limit)?;
        Ok((beside(config, name), text))
    });
    let (file, text) = text?;
    let complaint = (doc.checks.template)(&text).err();
    if let Some(complaint) = &complaint {
        let place = Place::File { path: file, at: complaint.line.zip(complaint.column.or(Some(1))) };
        report_in_file(doc, &path, place, &complaint.message);
    }
    complaint.is_none().then_some(text)
}

fn report_in_file(doc: &Document<'_>, path: &Path, place: Place, message: &str) {
    let fault = Fault::new(format!("the template is not valid: {message}"));
    doc.push(fault.at(place, path));
}

fn fitting(text: &str) -> Result<String, Fault> {
    if text.len() > limits::TEMPLATE_BYTES {
        return Err(Fault::new(format!("the template is longer than {}", show_size(limits::TEMPLATE_BYTES))));
    }
    Ok(text.to_owned())
}

/// A value of `content-type`: a type, a slash, a subtype, and what a header may hold.
fn media_type(text: &str) -> Result<String, Fault> {
    let (kind, subtype) = text.split_once('/').unwrap_or_default();
    if kind.is_empty() || subtype.is_empty() || http::HeaderValue::from_str(text).is_err() {
        return Err(Fault::new(format!("expected a media type, found \"{}\"", text.escape_debug()))
            .detail("A media type is written \"application/json\" or \"text/plain; charset=utf-8\"."));
    }
    Ok(text.to_owned())
}
