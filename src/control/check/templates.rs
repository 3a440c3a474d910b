//! Columns that templates name and no event carries.
//!
//! Templates are strict: what is not there fails the delivery. So a column that Postgres never sends, or that is
//! excluded, fails every delivery of its table.

use crate::catalog::Snapshot;
use crate::config::Config;
use crate::control::conditions::Looked;
use crate::control::sample;
use crate::domain::{BodyShape, Treatment};
use crate::matcher::pattern_matches;

use super::{Finding, Severity};

/// The templates that webhooks use, with what they write between braces.
pub(super) struct Templates<'a> {
    used: Vec<Used<'a>>,
}

struct Used<'a> {
    webhook: &'a str,
    template: &'a str,
    events: &'a [String],
    /// The text between braces, one expression a line.
    inside: String,
}

impl<'a> Templates<'a> {
    pub fn of(config: &'a Config, snapshot: &'a Snapshot) -> Self {
        let used = snapshot.webhooks().iter().filter_map(|compiled| {
            let webhook = &compiled.webhook;
            let BodyShape::Template(name) = &webhook.body else { return None };
            let ours = config.templates.iter().find(|template| template.name == *name);
            let source = ours.or_else(|| Some(snapshot.shelf.named().get(name)?.ok()?.as_ref()))?;
            let inside = inside(&source.body);
            Some(Used { webhook: &webhook.name, template: name, events: &webhook.events, inside })
        });
        Self { used: used.collect() }
    }

    /// What they cannot have of a table.
    pub fn findings(&self, looked: &Looked<'_>) -> Vec<Finding> {
        let (schema, table) = (&looked.table.schema, &looked.table.table);
        let types = looked.snapshot.matcher.types_of(schema, table);
        let concerned = self.used.iter().filter(|used| {
            types.iter().any(|t| used.events.iter().any(|pattern| pattern_matches(pattern, &t.event_type)))
        });
        let concerned: Vec<&Used<'_>> = concerned.collect();
        if concerned.is_empty() {
            return Vec::new();
        }
        let relation = sample::relation(looked.table, looked.columns);
        let interest = looked.snapshot.matcher.interest(&relation);
        let name = relation.config_name();
        let mut found = Vec::new();
        for (position, column) in looked.columns.iter().enumerate() {
            let (problem, hint) = if column.unsent {
                (
                    "generated, and Postgres does not send those",
                    "Write what it is generated from instead.".to_owned(),
                )
            } else if interest.rules().of(position) == Treatment::Exclude {
                ("excluded", format!("Take it out of tables.{name}.exclude, or out of the template."))
            } else {
                continue;
            };
            for used in concerned.iter().filter(|used| names(&used.inside, &column.name)) {
                let message = format!(
                    "templates.{}, which webhook {} uses: column \"{}\" of {name} is {problem}",
                    used.template, used.webhook, column.name
                );
                let finding = Finding::new(Severity::Error, "templates", message)
                    .detail("A template that names what is not there makes its delivery fail.");
                found.push(finding.hint(&hint));
            }
        }
        found
    }
}

/// What stands between `{{` and `}}`.
fn inside(template: &str) -> String {
    let parts = template.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
    parts.map(|(inside, _)| inside).collect::<Vec<_>>().join("\n")
}

/// Whether a text has `record.NAME` or `old.NAME`.
fn names(inside: &str, column: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    ["record", "old"].iter().any(|row| {
        let written = [format!("{row}.{column}"), format!("{row}.[{column}]")];
        written.iter().any(|written| {
            inside.match_indices(written.as_str()).any(|(at, _)| {
                let before = inside.get(..at).and_then(|text| text.chars().next_back());
                let after = inside.get(at + written.len()..).and_then(|text| text.chars().next());
                let is_whole = |c: Option<char>| c.is_none_or(|c| !part_of_name(c) || c == '.');
                is_whole(before) && is_whole(after)
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_named_only_whole_and_only_between_braces() {
        let check =
            |template: &str, expect| assert_eq!(names(&inside(template), "total"), expect, "{template}");
        check("{{data.record.total}}", true);
        check("{{#if data.old.total}}x{{/if}}", true);
        check("{{data.record.[total]}}", true);
        check("{{json data.record.total.sum}}", true);
        check("{{data.record.totals}} {{data.record.subtotal}}", false);
        check("data.record.total", false);
        check("{{broken", false);
    }
}
