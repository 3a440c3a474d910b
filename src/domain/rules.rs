//! What of a row may leave, and in which form: `exclude` and `mask` resolved for one table.
//!
//! Conditions and bodies must agree on what a row shows, so both read rows through [`TableRules`]: an excluded
//! column is absent everywhere, a masked one is masked everywhere, and a value that was not sent is absent, never
//! null.

use super::mask::masked;
use super::{
    Cell, Change, Int8, Mask, MaskKey, OldRow, Operation, Relation, ReplicaIdentity, TableRule, Tuple,
    ValueKind,
};

/// Appends a value in Postgres text form as JSON. Handed in by the caller; it never fails.
pub type JsonWriter = fn(&ValueKind, &[u8], &mut Vec<u8>);

/// What happens to a column before it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Treatment {
    /// It leaves as it is.
    #[default]
    Keep,
    /// It never leaves.
    Exclude,
    /// It leaves changed; a null stays one.
    Mask(Mask),
}

/// The treatments of a table's columns, by position. A column that is not named is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableRules {
    by_position: Box<[Treatment]>,
    /// The names of the excluded columns, those that are no longer or not yet there too.
    hidden: Box<[String]>,
    fold_moves: Box<[usize]>,
    mask_key: Option<MaskKey>,
    /// How values go out that do not go out as what they are, by position; empty where all do.
    instead: Box<[Option<ValueKind>]>,
}

/// A value as conditions and bodies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<'a> {
    /// Excluded, or not sent.
    Absent,
    /// SQL null.
    Null,
    /// The value in Postgres text form.
    Plain(&'a [u8]),
    /// What stands for a masked value.
    Masked(String),
}

impl TableRules {
    /// The rules of a table as it is described at this place in the log; `int8` where it says nothing of that.
    pub fn resolve(rule: Option<&TableRule>, int8: Int8, relation: &Relation) -> Self {
        let instead = match rule.and_then(|rule| rule.int8).unwrap_or(int8) {
            Int8::Number => Box::default(),
            Int8::String => relation.columns.iter().map(|column| without_digits_lost(&column.kind)).collect(),
        };
        let Some(rule) = rule else { return Self { instead, ..Self::default() } };
        let treat = |name: &str| {
            if rule.exclude.iter().any(|column| column == name) {
                return Treatment::Exclude;
            }
            let mask = rule.mask.iter().find(|(column, _)| column == name);
            mask.map_or(Treatment::Keep, |(_, mask)| Treatment::Mask(*mask))
        };
        Self {
            by_position: relation.columns.iter().map(|column| treat(&column.name)).collect(),
            hidden: rule.exclude.as_slice().into(),
            fold_moves: sent_of_old(&rule.fold_moves, relation).unwrap_or_default(),
            mask_key: rule.mask_key.clone(),
            instead,
        }
    }

    /// As what the value of a column goes out, which is of this kind itself. Conditions see what it is.
    pub fn kind<'a>(&'a self, position: usize, own: &'a ValueKind) -> &'a ValueKind {
        self.instead.get(position).and_then(Option::as_ref).unwrap_or(own)
    }

    /// The columns that identify a row in whichever partition it stands; empty where moves are not folded, or the table
    /// as it is described here does not send all of them with a delete.
    pub fn fold_moves(&self) -> &[usize] {
        &self.fold_moves
    }

    /// Whether a column of this name never leaves.
    pub fn hides(&self, column: &str) -> bool {
        self.hidden.iter().any(|hidden| hidden == column)
    }

    /// What happens to the column at a position.
    pub fn of(&self, position: usize) -> Treatment {
        self.by_position.get(position).copied().unwrap_or_default()
    }

    /// The value of a column after the change. An unchanged large value is taken from the full old row.
    pub fn after<'a>(&self, change: &'a Change, position: usize) -> Seen<'a> {
        change.new_cell(position).map_or(Seen::Absent, |cell| self.seen(position, cell))
    }

    /// The value of a column before the change, as far as Postgres sent it.
    pub fn before<'a>(&self, change: &'a Change, position: usize) -> Seen<'a> {
        match &change.old {
            None => Seen::Absent,
            Some(OldRow::Full(old)) => self.seen(position, old.cell(position)),
            Some(OldRow::Key(key)) => match change.relation.columns.get(position) {
                Some(column) if column.in_identity => self.seen(position, key.cell(position)),
                _ => Seen::Absent,
            },
        }
    }

    /// The columns that differ, known only for updates with the full old row. Excluded ones are left out.
    pub fn changed(&self, change: &Change) -> Option<Vec<usize>> {
        let (Operation::Update, Some(new), Some(old)) =
            (change.operation, change.new.as_ref(), change.old_full())
        else {
            return None;
        };
        let differs = |position: &usize| differs(new, old, *position);
        Some(self.kept(change).filter(differs).collect())
    }

    /// The columns whose large value did not change and was not sent. Excluded ones are left out.
    pub fn unavailable<'a>(&'a self, change: &'a Change) -> impl Iterator<Item = usize> + 'a {
        self.kept(change).filter(|position| matches!(change.new_cell(*position), Some(Cell::Unchanged)))
    }

    fn kept<'a>(&'a self, change: &'a Change) -> impl Iterator<Item = usize> + 'a {
        (0..change.relation.columns.len()).filter(|position| self.of(*position) != Treatment::Exclude)
    }

    fn seen<'a>(&self, position: usize, cell: &'a Cell) -> Seen<'a> {
        match (self.of(position), cell) {
            (Treatment::Exclude, _) | (_, Cell::Unchanged) => Seen::Absent,
            (_, Cell::Null) => Seen::Null,
            (Treatment::Keep, Cell::Text(text)) => Seen::Plain(text),
            (Treatment::Mask(mask), Cell::Text(text)) => {
                masked(mask, self.mask_key.as_ref(), text).map_or(Seen::Null, Seen::Masked)
            }
        }
    }
}

fn without_digits_lost(kind: &ValueKind) -> Option<ValueKind> {
    match kind {
        ValueKind::LongInteger => Some(ValueKind::Text),
        ValueKind::Array(element, delimiter) => {
            Some(ValueKind::Array(Box::new(without_digits_lost(element)?), *delimiter))
        }
        _ => None,
    }
}

/// The positions of columns, where every one of them is sent with a deleted row.
fn sent_of_old(names: &[String], relation: &Relation) -> Option<Box<[usize]>> {
    let position = |name: &String| {
        let position = relation.position(name)?;
        let column = relation.columns.get(position)?;
        (column.in_identity || relation.identity == ReplicaIdentity::Full).then_some(position)
    };
    names.iter().map(position).collect()
}

fn differs(new: &Tuple, old: &Tuple, position: usize) -> bool {
    match new.cell(position) {
        Cell::Unchanged => false,
        cell => cell != old.cell(position),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::Column;
    use super::*;

    fn column(name: &str, in_identity: bool) -> Column {
        Column {
            name: name.into(),
            type_oid: 25,
            type_name: None,
            type_modifier: -1,
            in_identity,
            kind: ValueKind::Text,
        }
    }

    fn text(value: &'static str) -> Cell {
        Cell::Text(Bytes::from_static(value.as_bytes()))
    }

    fn change(old: Option<OldRow>) -> Change {
        let relation = Relation {
            id: 1,
            schema: "public".into(),
            name: "people".into(),
            identity: ReplicaIdentity::Default,
            columns: vec![
                column("id", true),
                column("mail", false),
                column("note", false),
                column("big", false),
            ]
            .into(),
        };
        let new = Some(Tuple(vec![text("1"), text("a@b"), text("x"), Cell::Unchanged]));
        Change { relation: Arc::new(relation), operation: Operation::Update, new, old, sequence: 1 }
    }

    fn rules(change: &Change) -> TableRules {
        let rule = TableRule {
            exclude: vec!["note".to_owned()],
            mask: vec![("mail".to_owned(), Mask::Hash), ("id".to_owned(), Mask::Redact)],
            ..TableRule::default()
        };
        TableRules::resolve(Some(&rule), Int8::Number, &change.relation)
    }

    #[test]
    fn an_excluded_column_is_absent_and_a_masked_one_is_masked() {
        let change = change(None);
        let rules = rules(&change);
        assert_eq!(rules.after(&change, 0), Seen::Masked("[redacted]".to_owned()));
        let hash = "7508d8b5018ea640b85269861a101203f0c26900555268e930025dac844b0f35";
        assert_eq!(rules.after(&change, 1), Seen::Masked(hash.to_owned()));
        assert_eq!(rules.after(&change, 2), Seen::Absent);
        assert_eq!(rules.after(&change, 3), Seen::Absent);
        assert_eq!(rules.unavailable(&change).collect::<Vec<_>>(), [3]);
        assert_eq!(TableRules::default().after(&change, 2), Seen::Plain(b"x"));
    }

    #[test]
    fn moves_are_folded_only_by_columns_that_a_delete_carries() {
        let relation = |identity| {
            let change = change(None);
            Relation { identity, ..(*change.relation).clone() }
        };
        let fold = |columns: &[&str], identity| {
            let fold_moves = columns.iter().map(ToString::to_string).collect();
            let rule = TableRule { fold_moves, ..TableRule::default() };
            TableRules::resolve(Some(&rule), Int8::Number, &relation(identity)).fold_moves().to_vec()
        };
        assert_eq!(fold(&["id"], ReplicaIdentity::Default), [0]);
        assert!(fold(&["id", "mail"], ReplicaIdentity::Default).is_empty());
        assert_eq!(fold(&["mail", "id"], ReplicaIdentity::Full), [1, 0]);
        assert!(fold(&["id", "gone"], ReplicaIdentity::Full).is_empty());
        assert!(fold(&[], ReplicaIdentity::Full).is_empty());
    }

    #[test]
    fn a_key_only_old_row_shows_only_its_key() {
        let change = change(Some(OldRow::Key(Tuple(vec![text("0"), Cell::Null, Cell::Null, Cell::Null]))));
        let rules = TableRules::default();
        assert_eq!(rules.before(&change, 0), Seen::Plain(b"0"));
        assert_eq!(rules.before(&change, 1), Seen::Absent);
        assert_eq!(rules.changed(&change), None);
    }

    #[test]
    fn with_the_full_old_row_changed_names_what_differs_and_nothing_is_unavailable() {
        let old = Tuple(vec![text("1"), text("a@c"), text("y"), text("large")]);
        let change = change(Some(OldRow::Full(old)));
        assert_eq!(TableRules::default().changed(&change), Some(vec![1, 2]));
        assert_eq!(rules(&change).changed(&change), Some(vec![1]));
        assert_eq!(TableRules::default().after(&change, 3), Seen::Plain(b"large"));
        assert_eq!(TableRules::default().unavailable(&change).count(), 0);
    }
}
