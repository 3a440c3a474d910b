//! A change as conditions see it, converted once and only as far as conditions read it.

use std::collections::HashMap;

use cel::Context;
use cel::common::types::{CelList, CelMap, CelMapKey, CelNull, CelString};

use super::condition::{Condition, LANGUAGE};
use super::value::{Boxed, of_column, of_json};
use crate::domain::{Change, JsonWriter, OldRow, Operation, Relation, Seen, TableRules};

/// What the conditions of one list of candidates read together, by position.
#[derive(Debug, Clone, Default)]
pub(super) struct Reads {
    record: Vec<usize>,
    old: Vec<usize>,
    old_named: bool,
    changed: bool,
}

impl Reads {
    pub(super) fn of<'c>(conditions: impl Iterator<Item = &'c Condition>, relation: &Relation) -> Self {
        let mut record = vec![false; relation.columns.len()];
        let mut old = record.clone();
        let mut reads = Self::default();
        for condition in conditions {
            let (of_record, of_old) = condition.reads();
            for (marks, row) in [(&mut record, of_record), (&mut old, of_old)] {
                for (mark, column) in marks.iter_mut().zip(&relation.columns) {
                    *mark |= row.whole || row.columns.contains(&column.name);
                }
            }
            reads.old_named |= of_old.named;
            reads.changed |= condition.needs_changed();
        }
        let positions = |marks: Vec<bool>| {
            marks.into_iter().enumerate().filter_map(|(at, mark)| mark.then_some(at)).collect()
        };
        reads.record = positions(record);
        reads.old = positions(old);
        reads
    }
}

/// The variables of conditions on one change.
pub(super) struct Facts<'a> {
    context: Context<'a, 'a>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(change: &'a Change, rules: &TableRules, reads: &Reads, json: JsonWriter) -> Self {
        let mut context = Context::with_env(LANGUAGE.clone());
        let relation = &*change.relation;
        let row = |positions: &[usize], seen: &dyn Fn(usize) -> Seen<'a>| -> Boxed<'a> {
            let entries = positions.iter().filter_map(|position| {
                let column = relation.columns.get(*position)?;
                let value = of_column(column, seen(*position), json)?;
                Some((CelMapKey::String(CelString::from(&*column.name)), value))
            });
            Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
        };
        let record: Boxed<'a> = match &change.new {
            Some(_) => row(&reads.record, &|position| rules.after(change, position)),
            None => Box::new(CelNull),
        };
        context.add_variable_as_val("record", record);
        if reads.old_named {
            let old: Boxed<'a> = match &change.old {
                Some(OldRow::Key(_) | OldRow::Full(_)) => {
                    row(&reads.old, &|position| rules.before(change, position))
                }
                None => Box::new(CelNull),
            };
            context.add_variable_as_val("old", old);
        }
        if reads.changed {
            context.add_variable_as_val("changed", changed(change, rules));
        }
        for (name, text) in [
            ("operation", change.operation.as_str()),
            ("schema", &*relation.schema),
            ("table", &*relation.name),
        ] {
            context.add_variable_as_val(name, Box::new(CelString::from(text)));
        }
        Self { context }
    }

    /// Those of conditions on a logical message or a notice: its payload is `record`, and there is nothing else. JSON that no
    /// value can hold (a lone surrogate) is its text.
    pub(super) fn of_message(operation: Operation, event_type: &'a str, record: &'a [u8]) -> Self {
        let mut context = Context::with_env(LANGUAGE.clone());
        let record: Boxed<'a> = match serde_json::from_slice(record) {
            Ok(value) => of_json(value),
            Err(_) => Box::new(CelString::from(String::from_utf8_lossy(record).into_owned())),
        };
        context.add_variable_as_val("record", record);
        context.add_variable_as_val("old", Box::new(CelNull));
        context.add_variable_as_val("changed", Box::new(CelNull));
        let named = [("operation", operation.as_str()), ("schema", ""), ("table", "")];
        for (name, text) in named {
            context.add_variable_as_val(name, Box::new(CelString::from(text)));
        }
        let mut facts = Self { context };
        facts.set_type(event_type);
        facts
    }

    /// Sets what `type` says.
    pub(super) fn set_type(&mut self, event_type: &'a str) {
        self.context.add_variable_as_val("type", Box::new(CelString::from(event_type)));
    }

    pub(super) fn ask(&self, condition: &Condition) -> Result<bool, String> {
        condition.holds(&self.context)
    }
}

fn changed<'a>(change: &'a Change, rules: &TableRules) -> Boxed<'a> {
    let Some(positions) = rules.changed(change) else { return Box::new(CelNull) };
    let names = positions.into_iter().filter_map(|position| change.relation.columns.get(position));
    Box::new(CelList::from(
        names.map(|column| Box::new(CelString::from(&*column.name)) as Boxed<'a>).collect::<Vec<_>>(),
    ))
}
