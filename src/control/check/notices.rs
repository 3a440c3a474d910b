//! Notices: whether anybody is told when a webhook fails, and who may be told more than was meant.

use super::{Finding, Severity};
use crate::catalog::Snapshot;
use crate::domain::Notice;
use crate::matcher::{names_notice, pattern_matches};
use crate::source::TableInfo;

/// Whether nobody is told; one webhook alone has nobody else to tell.
pub(super) fn nobody(snapshot: &Snapshot) -> Option<Finding> {
    let is_told = |notice: &Notice| !snapshot.matcher.notice_interest(*notice).is_empty();
    if snapshot.webhooks().len() < 2 || Notice::ALL.iter().any(is_told) {
        return None;
    }
    let message = "no webhook is told when another one fails or is disabled";
    let hint = "Let one of them ask for it: events = [\"webhook.*\", \"delivery.*\", \"source.*\"].";
    Some(Finding::new(Severity::Hint, "webhooks", message).hint(hint))
}

/// Patterns with a star that mean notices, and the rows of a table of that name too.
pub(super) fn two_meanings(snapshot: &Snapshot, known: &[TableInfo]) -> Vec<Finding> {
    let types: Vec<_> = known.iter().flat_map(|t| snapshot.matcher.types_of(&t.schema, &t.table)).collect();
    let mut found = Vec::new();
    for compiled in snapshot.webhooks() {
        for pattern in compiled.webhook.events.iter().filter(|pattern| pattern.contains('*')) {
            let notice = Notice::ALL.into_iter().find(|notice| names_notice(pattern, *notice));
            let row = types.iter().find(|of| pattern_matches(pattern, &of.event_type));
            if let (Some(notice), Some(row)) = (notice, row) {
                let name = &compiled.webhook.name;
                let message = format!(
                    "{name}: \"{pattern}\" means events of rows ({}) and notices of walhook's own ({notice})",
                    row.event_type
                );
                let hint =
                    "Name the types that are meant; or give the table other ones: [tables.NAME] event.";
                found.push(Finding::new(Severity::Warning, "webhooks", message).hint(hint));
            }
        }
    }
    found
}
