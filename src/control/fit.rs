//! Whether webhooks and tables fit each other: asked before a start, and by `check`.

use std::path::Path;
use std::sync::Arc;

use super::ControlError;
use crate::catalog::Snapshot;
use crate::chores::upkeep;
use crate::config::Config;
use crate::domain::{Notice, WebhookSource};
use crate::matcher::{names_notice, pattern_matches};
use crate::source::{self, TableInfo};

/// A pattern of the file that no table's events match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LonelyPattern {
    /// The webhook.
    pub webhook: Arc<str>,
    /// The pattern.
    pub pattern: String,
    /// Whether the webhook is a tenant's, for which there are only public events.
    pub of_tenant: bool,
    /// The event type that is most like it.
    pub nearest: Option<Arc<str>>,
}

impl LonelyPattern {
    /// Whether it may wait for tables to come; without a star it can only be a mistake.
    pub fn may_wait(&self) -> bool {
        self.pattern.contains('*')
    }

    /// What is wrong, and where.
    pub fn message(&self, path: &Path) -> String {
        let what = if self.of_tenant { "no public event is" } else { "no table makes an event" };
        let or = if self.of_tenant { "" } else { ", and no message is declared so" };
        format!("{}: webhooks.{}.events: {what} \"{}\"{or}", path.display(), self.webhook, self.pattern)
    }

    /// What to do.
    pub fn hint(&self) -> String {
        if self.of_tenant {
            return "A tenant's webhook gets what [tables.NAME] public, or [[events]] public, says."
                .to_owned();
        }
        if self.pattern == "schema.changed" {
            return "A table's new shape makes the event TABLE.schema_changed; \"*.schema_changed\" takes those of all \
                    tables."
                .to_owned();
        }
        let message = format!(
            "The type of a logical message is declared: [[events]] type = \"{}\" on = [\"message\"].",
            self.pattern
        );
        match &self.nearest {
            None if self.may_wait() => "The database has no table that could be published.".to_owned(),
            None => format!("The database has no table that could be published. {message}"),
            Some(nearest) if self.may_wait() => {
                format!("It waits for tables to come; the nearest event there is now is \"{nearest}\".")
            }
            Some(nearest) => {
                format!(
                    "The nearest is \"{nearest}\"; a pattern with * may wait for tables to come. {message}"
                )
            }
        }
    }
}

/// The most letters by which a notice may be mistyped, to be told as what was meant.
const MISTYPED: usize = 3;

/// Every event type that the tables and the file's `[[events]]` can make.
pub fn event_types(snapshot: &Snapshot, config: &Config, known: &[TableInfo]) -> Vec<Arc<str>> {
    let named = config.events.iter().map(|event| Arc::clone(&event.event_type));
    let own = known.iter().flat_map(|t| snapshot.matcher.types_of(&t.schema, &t.table));
    named.chain(own.map(|t| t.event_type)).collect()
}

/// Every event type that tenants may be told of.
pub fn public_types(snapshot: &Snapshot, known: &[TableInfo]) -> Vec<Arc<str>> {
    let all = known.iter().flat_map(|t| snapshot.matcher.types_of(&t.schema, &t.table));
    all.filter(|t| t.public).map(|t| t.event_type).collect()
}

/// The patterns of the file that nothing matches.
pub fn lonely_patterns(snapshot: &Snapshot, config: &Config, known: &[TableInfo]) -> Vec<LonelyPattern> {
    let (all, public) = (event_types(snapshot, config, known), public_types(snapshot, known));
    let notices = Notice::ALL.map(|notice| Arc::from(notice.event_type()));
    let mut lonely = Vec::new();
    for compiled in snapshot.webhooks().iter().filter(|c| c.webhook.source == WebhookSource::Toml) {
        let of_tenant = compiled.webhook.tenant.is_some();
        let types = if of_tenant { &public } else { &all };
        for pattern in &compiled.webhook.events {
            let of_notice = Notice::ALL.into_iter().any(|notice| names_notice(pattern, notice));
            if (of_notice && !of_tenant)
                || types.iter().any(|event_type| pattern_matches(pattern, event_type))
            {
                continue;
            }
            let distance = |event_type: &&Arc<str>| strsim::damerau_levenshtein(pattern, event_type);
            // A notice is what was meant only where it was mistyped; a table may be told as what there is.
            let mistyped = notices.iter().filter(|event_type| distance(event_type) <= MISTYPED);
            lonely.push(LonelyPattern {
                webhook: Arc::clone(&compiled.webhook.name),
                pattern: pattern.clone(),
                of_tenant,
                nearest: types.iter().chain(mistyped.filter(|_| !of_tenant)).min_by_key(distance).cloned(),
            });
        }
    }
    lonely
}

/// What must hold before anything is made: patterns of the file that name one type name one that some table can make,
/// and tables that are meant by name for updates or deletes have a replica identity.
pub fn insist(snapshot: &Snapshot, config: &Config, known: &[TableInfo]) -> Result<(), ControlError> {
    let lonely = lonely_patterns(snapshot, config, known);
    let lines: Vec<String> = lonely
        .iter()
        .filter(|lonely| !lonely.may_wait())
        .map(|lonely| format!("{}\n  hint: {}", lonely.message(&config.path), lonely.hint()))
        .collect();
    if !lines.is_empty() {
        return Err(ControlError::Patterns(lines.join("\n")));
    }
    Ok(source::check_identities(&upkeep::meant(snapshot, known), known)?)
}
