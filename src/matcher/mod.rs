//! Matching: a change meets only its candidates, with ten thousand webhooks as with ten.
//!
//! ```text
//!   [tables.*] ─┐                     once per table and snapshot         once per change
//!   [[events]] ─┼─▶ Matcher::build ─▶ Matcher::interest(relation) ─────▶ Interest::owed(change)
//!   webhooks ───┘   conditions        event types by operation,          conditions asked,
//!                   compiled          each with its subscribers          deliveries listed
//! ```
//!
//! A table's *prefix* is `[tables.NAME] event`, or its name (`schema.table` outside `public`). A change makes
//! `prefix.created`, `.updated`, `.deleted` or `.truncated`, and those `[[events]]` of the table whose `on` has its
//! operation and whose `when` holds; a new shape of the table makes `prefix.schema_changed`. A webhook is a candidate where one of its patterns matches the type; its filter
//! decides. Everything here is immutable: a reload builds another matcher.
//!
//! A condition that cannot be answered on a row does not match, and is reported with the deliveries (invariant I8).

mod condition;
mod facts;
mod interest;
mod message;
mod pattern;
#[cfg(test)]
mod tests;
mod time;
mod value;
mod walk;

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::domain::{NamedEvent, Operation, Relation, TableRule, TableRules, Webhook};
pub use condition::{Condition, ConditionError};
pub use interest::{ConditionFailure, Interest, Owed, Owing};
use interest::{Subscriber, Wanted};
pub use message::MessageInterest;
pub use pattern::{names_notice, pattern_matches};

/// The operations that make events by themselves.
const OPERATIONS: [Operation; 4] =
    [Operation::Insert, Operation::Update, Operation::Delete, Operation::Truncate];

/// Webhooks, named events and table rules, compiled.
#[derive(Debug, Default)]
pub struct Matcher {
    /// By schema and table.
    tables: FxHashMap<(String, String), TableRule>,
    /// By schema and table.
    events: FxHashMap<(String, String), Vec<CompiledEvent>>,
    /// Webhooks by each pattern without a star, which is an event type.
    exact: FxHashMap<String, Vec<usize>>,
    /// Webhooks by each pattern with a star.
    starred: Vec<(String, Vec<usize>)>,
    filters: Vec<Option<Arc<Condition>>>,
    /// Whether any pattern asks for changes of tables' shapes.
    wants_shapes: bool,
}

#[derive(Debug)]
struct CompiledEvent {
    event_type: Arc<str>,
    on: Vec<Operation>,
    when: Option<Arc<Condition>>,
}

/// An event type that a table can make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeOf {
    /// The type.
    pub event_type: Arc<str>,
    /// The operation that makes it.
    pub operation: Operation,
    /// Whether it is one of `[[events]]`.
    pub named: bool,
}

/// Which changes of a table anybody wants, before any condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one answer per operation, as publications know them")]
pub struct Wants {
    /// New rows.
    pub insert: bool,
    /// Changed rows.
    pub update: bool,
    /// Removed rows.
    pub delete: bool,
    /// `TRUNCATE`.
    pub truncate: bool,
    /// Whether a pattern that matches names the type up to its last part without a `*`, so that this table is meant
    /// and not merely any.
    pub explicit: bool,
}

impl Wants {
    /// Whether any change is wanted.
    pub fn any(self) -> bool {
        self.insert || self.update || self.delete || self.truncate
    }
}

/// Compiles conditions; those of equal text are one.
#[derive(Default)]
struct Conditions {
    by_source: FxHashMap<String, Result<Arc<Condition>, ConditionError>>,
    errors: Vec<(String, ConditionError)>,
}

impl Conditions {
    fn compile(&mut self, what: impl FnOnce() -> String, source: Option<&String>) -> Option<Arc<Condition>> {
        let source = source?;
        let compiled =
            self.by_source.entry(source.clone()).or_insert_with(|| Condition::compile(source).map(Arc::new));
        match compiled {
            Ok(condition) => Some(condition.clone()),
            Err(error) => {
                self.errors.push((what(), error.clone()));
                None
            }
        }
    }
}

impl Matcher {
    /// Compiles everything, or tells every condition that cannot be used, by its place (`webhooks.crm.filter`,
    /// `events.phase.completed.when`).
    pub fn build(
        tables: &[TableRule],
        events: &[NamedEvent],
        webhooks: &[Arc<Webhook>],
    ) -> Result<Self, Vec<(String, ConditionError)>> {
        let mut conditions = Conditions::default();
        let mut matcher = Self::default();
        for rule in tables {
            matcher.tables.insert((rule.schema.clone(), rule.table.clone()), rule.clone());
        }
        // A logical message makes its event by itself; its declaration is for those who look for types.
        for event in events.iter().filter(|event| !event.is_message()) {
            let what = || format!("events.{}.when", event.event_type);
            let when = conditions.compile(what, event.when.as_ref());
            let (event_type, on) = (event.event_type.clone(), event.on.clone());
            let of_table = matcher.events.entry((event.schema.clone(), event.table.clone())).or_default();
            of_table.push(CompiledEvent { event_type, on, when });
        }
        let mut starred: FxHashMap<&str, Vec<usize>> = FxHashMap::default();
        for (index, webhook) in webhooks.iter().enumerate() {
            let what = || format!("webhooks.{}.filter", webhook.name);
            matcher.filters.push(conditions.compile(what, webhook.filter.as_ref()));
            for pattern in &webhook.events {
                matcher.wants_shapes |= pattern::names_shapes(pattern);
                if pattern.contains('*') {
                    starred.entry(pattern).or_default().push(index);
                } else {
                    matcher.exact.entry(pattern.clone()).or_default().push(index);
                }
            }
        }
        matcher.starred = starred.into_iter().map(|(pattern, of)| (pattern.to_owned(), of)).collect();
        if conditions.errors.is_empty() { Ok(matcher) } else { Err(conditions.errors) }
    }

    /// Whether anybody wants to know of changes of a table's shape.
    pub fn wants_shapes(&self) -> bool {
        self.wants_shapes
    }

    /// What is wanted of a table as the stream describes it.
    pub fn interest(&self, relation: &Relation) -> Interest {
        let rules = TableRules::resolve(self.rule(&relation.schema, &relation.name), relation);
        Interest::new(rules, relation, |operation| self.wanted(&relation.schema, &relation.name, operation))
    }

    /// Every event type the table can make, whether wanted or not.
    pub fn types_of(&self, schema: &str, table: &str) -> Vec<TypeOf> {
        let prefix = self.prefix(schema, table);
        let own = OPERATIONS.into_iter().chain([Operation::Schema]).map(|operation| TypeOf {
            event_type: format!("{prefix}.{}", operation.type_suffix()).into(),
            operation,
            named: false,
        });
        let named = self.named(schema, table).iter().flat_map(|event| {
            let event_type = &event.event_type;
            event.on.iter().map(|on| TypeOf { event_type: event_type.clone(), operation: *on, named: true })
        });
        own.chain(named).collect()
    }

    /// The webhooks that want an event type, by their place in the list the matcher was built from.
    pub fn subscribers_of(&self, event_type: &str) -> Vec<usize> {
        let mut webhooks = self.exact.get(event_type).cloned().unwrap_or_default();
        for (pattern, of) in &self.starred {
            if pattern_matches(pattern, event_type) {
                webhooks.extend(of);
            }
        }
        webhooks.sort_unstable();
        webhooks.dedup();
        webhooks
    }

    /// Which changes of a table anybody wants: what the publication must carry.
    pub fn wants(&self, schema: &str, table: &str) -> Wants {
        let mut wants = Wants::default();
        for candidate in self.types_of(schema, table) {
            let wanted = match candidate.operation {
                // The first row after a new shape shows it: one that comes from every table.
                Operation::Insert | Operation::Schema => &mut wants.insert,
                Operation::Update => &mut wants.update,
                Operation::Delete => &mut wants.delete,
                Operation::Truncate => &mut wants.truncate,
                Operation::Snapshot | Operation::Message | Operation::Test | Operation::Notice => continue,
            };
            let starred = || self.starred.iter().filter(|(p, _)| pattern_matches(p, &candidate.event_type));
            let exact = self.exact.contains_key(&*candidate.event_type);
            *wanted |= exact || starred().next().is_some();
            wants.explicit |= exact || starred().any(|(p, _)| !pattern::head(p).contains('*'));
        }
        wants
    }

    /// Every condition that a table's changes may meet, once: what `check` compares with the table's columns and its
    /// replica identity.
    pub fn conditions_on(&self, schema: &str, table: &str) -> Vec<Arc<Condition>> {
        let mut seen = FxHashSet::default();
        let all = OPERATIONS.into_iter().flat_map(|operation| self.wanted(schema, table, operation));
        let each = all.flat_map(|wanted| {
            wanted.when.into_iter().chain(wanted.subscribers.into_iter().filter_map(|s| s.filter))
        });
        each.filter(|condition| seen.insert(Arc::as_ptr(condition).addr())).collect()
    }

    fn rule(&self, schema: &str, table: &str) -> Option<&TableRule> {
        self.tables.get(&(schema.to_owned(), table.to_owned()))
    }

    fn named(&self, schema: &str, table: &str) -> &[CompiledEvent] {
        self.events.get(&(schema.to_owned(), table.to_owned())).map_or(&[], Vec::as_slice)
    }

    fn prefix(&self, schema: &str, table: &str) -> String {
        if let Some(event) = self.rule(schema, table).and_then(|rule| rule.event.as_ref()) {
            return event.clone();
        }
        if schema == "public" { table.to_owned() } else { format!("{schema}.{table}") }
    }

    fn wanted(&self, schema: &str, table: &str, operation: Operation) -> Vec<Wanted> {
        let own: Arc<str> = format!("{}.{}", self.prefix(schema, table), operation.type_suffix()).into();
        let named = self.named(schema, table).iter().filter(|event| event.on.contains(&operation));
        let types = std::iter::once((own, false, None))
            .chain(named.map(|event| (event.event_type.clone(), true, event.when.clone())));
        types
            .map(|(event_type, named, when)| Wanted {
                subscribers: self.subscribers(&event_type),
                event_type,
                named,
                when,
            })
            .collect()
    }

    fn subscribers(&self, event_type: &str) -> Vec<Subscriber> {
        self.with_filters(self.subscribers_of(event_type))
    }

    fn with_filters(&self, webhooks: Vec<usize>) -> Vec<Subscriber> {
        let filter = |webhook: &usize| self.filters.get(*webhook).cloned().flatten();
        let with_filter = |webhook| Subscriber { filter: filter(&webhook), webhook };
        webhooks.into_iter().map(with_filter).collect()
    }
}
