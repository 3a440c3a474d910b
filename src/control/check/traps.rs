//! What a table's shape does to its events without a word: partitions, children by inheritance, large values.

use super::{Finding, Severity, in_short};
use crate::catalog::Snapshot;
use crate::config::Config;
use crate::control::conditions::qualified;
use crate::domain::TableRule;
use crate::source::{Gives, Leaf, RowIdentity, Shape, TableInfo, TableWanted};

/// Statements that are shown in full.
const STATEMENTS: usize = 5;

/// A table, its shape, and what is wanted of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub table: &'a TableInfo,
    pub shape: &'a Shape,
    pub wish: &'a TableWanted,
}

/// Everything about the shapes of these tables; what many share is told once.
pub(super) fn findings(config: &Config, snapshot: &Snapshot, wanted: &[Wanted<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for one in wanted {
        found.extend(one.identities());
        found.extend(one.strange_leaves());
        found.extend(one.children(snapshot));
    }
    found.extend(partitioned(config, wanted));
    found.extend(large_values(wanted));
    found
}

/// `ALTER TABLE … REPLICA IDENTITY FULL;` for each, the first few in full.
pub(super) fn full_identity<'a>(leaves: impl Iterator<Item = &'a Leaf>) -> String {
    let mut all: Vec<String> = leaves
        .map(|leaf| format!("ALTER TABLE {} REPLICA IDENTITY FULL;", qualified(&leaf.schema, &leaf.table)))
        .collect();
    let more = all.len().saturating_sub(STATEMENTS);
    all.truncate(STATEMENTS);
    if more > 0 {
        all.push(format!("And so for {more} more."));
    }
    all.join(" ")
}

impl Wanted<'_> {
    /// What the file says of folding its moves.
    pub fn rule<'c>(&self, config: &'c Config) -> Option<&'c TableRule> {
        let is_ours =
            |rule: &&TableRule| (&rule.schema, &rule.table) == (&self.table.schema, &self.table.table);
        config.tables.iter().find(is_ours).filter(|rule| !rule.fold_moves.is_empty())
    }

    fn name(&self) -> String {
        qualified(&self.table.schema, &self.table.table)
    }

    /// Rows are announced with the root's identity, and sent with their partition's.
    fn identities(&self) -> Option<Finding> {
        let (name, shape) = (self.name(), self.shape);
        if !self.table.identity_usable() || !self.wish.updates_or_deletes() {
            return None;
        }
        let logged = || shape.leaves.iter().filter(|leaf| leaf.is_logged());
        let key_only: Vec<&Leaf> = logged().filter(|leaf| leaf.gives != Gives::Row).collect();
        if shape.gives == Gives::Row && !key_only.is_empty() {
            let message = format!("{name} has a full replica identity, and not all of its partitions have");
            let finding = Finding::new(Severity::Warning, "tables", message).detail(
                "Postgres announces the whole old row and sends the partition's key: what is beside it reads as null.",
            );
            return Some(finding.hint(full_identity(key_only.into_iter())));
        }
        let full = logged().any(|leaf| leaf.gives == Gives::Row);
        if full && shape.gives != Gives::Row {
            let message = format!("{name} has partitions with a full replica identity, and none itself");
            let finding = Finding::new(Severity::Hint, "tables", message)
                .detail("Events have its own: of the old row they tell the key.");
            return Some(finding.hint(format!("ALTER TABLE {name} REPLICA IDENTITY FULL;")));
        }
        None
    }

    /// Partitions whose changes are in no log of this server.
    fn strange_leaves(&self) -> Vec<Finding> {
        let names = |of: fn(&Leaf) -> bool| -> Vec<String> {
            let found = self.shape.leaves.iter().filter(|leaf| of(leaf));
            found.map(|leaf| qualified(&leaf.schema, &leaf.table)).collect()
        };
        let mut found = Vec::new();
        let foreign = names(|leaf| leaf.foreign);
        if !foreign.is_empty() {
            let message = format!("partitions of {} are foreign tables: {}", self.name(), in_short(&foreign));
            let finding = Finding::new(Severity::Warning, "tables", message);
            found.push(
                finding.hint("Their changes are in the log of their own server: have a walhook there."),
            );
        }
        let unlogged = names(|leaf| leaf.unlogged);
        if !unlogged.is_empty() {
            let statements: Vec<String> = unlogged
                .iter()
                .take(STATEMENTS)
                .map(|name| format!("ALTER TABLE {name} SET LOGGED;"))
                .collect();
            let message = format!("partitions of {} are unlogged: {}", self.name(), in_short(&unlogged));
            let finding = Finding::new(Severity::Warning, "tables", message);
            found.push(finding.detail("Their changes make no events.").hint(statements.join(" ")));
        }
        found
    }

    /// Children by inheritance are tables of their own.
    fn children(&self, snapshot: &Snapshot) -> Option<Finding> {
        let unheard = self.shape.children.iter().filter(|(schema, table)| {
            let wants = snapshot.matcher.wants(schema, table);
            !wants.any()
        });
        let names: Vec<String> = unheard.map(|(schema, table)| qualified(schema, table)).collect();
        let first = self.shape.children.iter().find(|(s, t)| !snapshot.matcher.wants(s, t).any())?;
        let types = snapshot.matcher.types_of(&first.0, &first.1);
        let example = types.first().map(|t| t.event_type.to_string()).unwrap_or_default();
        let example = example.rsplit_once('.').map_or(example.clone(), |(head, _)| format!("{head}.*"));
        let message = format!("{} has children that no webhook wants: {}", self.name(), in_short(&names));
        let finding = Finding::new(Severity::Warning, "tables", message)
            .detail("A query of it reads their rows too, but their changes are events of their own.");
        Some(finding.hint(format!("Add \"{example}\" to the events of who should hear of them.")))
    }
}

/// What no event tells of partitioned tables.
fn partitioned(config: &Config, wanted: &[Wanted<'_>]) -> Option<Finding> {
    let names: Vec<String> = wanted.iter().filter(|w| w.table.partitioned).map(Wanted::name).collect();
    if names.is_empty() {
        return None;
    }
    let message = format!("partitioned, with the root's name in events: {}", in_short(&names));
    let finding = Finding::new(Severity::Hint, "tables", message);
    let apart = wanted.iter().filter(|w| w.table.partitioned && w.rule(config).is_none());
    let apart: Vec<String> = apart.map(Wanted::name).collect();
    let silent = "TRUNCATE or DROP of one partition, ATTACH and DETACH make no events.";
    Some(if apart.is_empty() {
        finding.detail(silent)
    } else {
        let detail = format!(
            "{silent} A row of {} that moves between partitions is a deleted and a created one.",
            in_short(&apart)
        );
        finding
            .detail(detail)
            .hint("To make a move one updated event, name the row's identity in tables.*.fold_moves.")
    })
}

/// Columns that may be `unavailable`.
fn large_values(wanted: &[Wanted<'_>]) -> Option<Finding> {
    let sparse = wanted.iter().filter(|w| {
        w.table.identity == RowIdentity::Key && w.wish.updates_or_deletes() && !w.shape.toastable.is_empty()
    });
    let sparse: Vec<&Wanted<'_>> = sparse.collect();
    let first = sparse.first()?;
    let columns: Vec<String> = sparse
        .iter()
        .map(|w| format!("{}.{} ({})", w.table.schema, w.table.table, w.shape.toastable.join(", ")))
        .collect();
    let message = format!("large values that an update leaves alone are not sent: {}", in_short(&columns));
    Some(
        Finding::new(Severity::Hint, "tables", message)
            .detail("Values over some 2 KB; such a column is then absent and listed in data.unavailable.")
            .hint(format!("Where receivers need them: ALTER TABLE {} REPLICA IDENTITY FULL;", first.name())),
    )
}
