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
//! decides. Everything here is immutable: a reload builds another matcher. A tenant's webhook is a candidate only for types
//! that are public, and is owed only rows of its tenant ([`tenants`]).
//!
//! A condition that cannot be answered on a row does not match, and is reported with the deliveries (invariant I8).

mod condition;
mod facts;
mod interest;
mod message;
mod pattern;
#[cfg(test)]
mod tenant_tests;
mod tenants;
#[cfg(test)]
mod tests;
mod time;
mod value;
mod walk;

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::domain::{Int8, NamedEvent, Operation, Relation, TableRule, TableRules, Webhook};
pub use condition::{Condition, ConditionError};
pub use interest::{ConditionFailure, Interest, Owed, Owing};
use interest::{Subscriber, Wanted};
pub use message::MessageInterest;
pub use pattern::{names_notice, pattern_matches};
pub use tenants::{Cut, Part, TenantOwing};
use tenants::{TenantSubscriber, TenantWanted, Tenants};

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
    /// Who asks for what, of the operator's webhooks.
    own: Patterns,
    /// The same of tenants'.
    of_tenants: Patterns,
    /// Whose each webhook is.
    owners: Vec<Option<Arc<str>>>,
    filters: Vec<Option<Arc<Condition>>>,
    /// Whether any pattern asks for changes of tables' shapes.
    wants_shapes: bool,
    /// How an `int8` goes out, of a table of which nothing else is declared.
    int8: Int8,
}

/// Webhooks by what they ask for.
#[derive(Debug, Default)]
struct Patterns {
    /// By each pattern without a star, which is an event type.
    exact: FxHashMap<String, Vec<usize>>,
    /// By each pattern with a star.
    starred: Vec<(String, Vec<usize>)>,
}

#[derive(Debug)]
struct CompiledEvent {
    event_type: Arc<str>,
    on: Vec<Operation>,
    when: Option<Arc<Condition>>,
    public: bool,
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
    /// Whether tenants may be told of it.
    pub public: bool,
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

impl Patterns {
    fn subscribers_of(&self, event_type: &str) -> Vec<usize> {
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

    /// Whether anybody asks for an event type.
    fn any(&self, event_type: &str) -> bool {
        self.exact.contains_key(event_type)
            || self.starred.iter().any(|(p, _)| pattern_matches(p, event_type))
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
            of_table.push(CompiledEvent { event_type, on, when, public: event.public });
        }
        let mut starred: [FxHashMap<&str, Vec<usize>>; 2] = Default::default();
        let [own, of_tenants] = &mut starred;
        for (index, webhook) in webhooks.iter().enumerate() {
            let what = || format!("webhooks.{}.filter", webhook.name);
            matcher.filters.push(conditions.compile(what, webhook.filter.as_ref()));
            matcher.owners.push(webhook.tenant.clone());
            let (patterns, starred) = match &webhook.tenant {
                None => (&mut matcher.own, &mut *own),
                Some(_) => (&mut matcher.of_tenants, &mut *of_tenants),
            };
            for pattern in &webhook.events {
                matcher.wants_shapes |= webhook.tenant.is_none() && pattern::names_shapes(pattern);
                if pattern.contains('*') {
                    starred.entry(pattern).or_default().push(index);
                } else {
                    patterns.exact.entry(pattern.clone()).or_default().push(index);
                }
            }
        }
        let listed = |of: FxHashMap<&str, Vec<usize>>| {
            of.into_iter().map(|(pattern, of)| (pattern.to_owned(), of)).collect()
        };
        [matcher.own.starred, matcher.of_tenants.starred] = starred.map(listed);
        if conditions.errors.is_empty() { Ok(matcher) } else { Err(conditions.errors) }
    }

    /// The same, with every `int8` going out like this where its table says nothing else.
    #[must_use]
    pub fn with_int8(self, int8: Int8) -> Self {
        Self { int8, ..self }
    }

    /// Whether anybody wants to know of changes of a table's shape.
    pub fn wants_shapes(&self) -> bool {
        self.wants_shapes
    }

    /// What is wanted of a table as the stream describes it.
    pub fn interest(&self, relation: &Relation) -> Interest {
        let rule = self.rule(&relation.schema, &relation.name);
        let rules = TableRules::resolve(rule, self.int8, relation);
        let (schema, name) = (&relation.schema, &relation.name);
        let tenants = rule.and_then(|rule| {
            let wanted = |operation| self.wanted_by_tenants(schema, name, operation);
            Tenants::new((rule.tenant.as_ref()?, rule.tenant_change), relation, wanted)
        });
        Interest::new(rules, relation, |operation| self.wanted(schema, name, operation)).with_tenants(tenants)
    }

    /// Every event type the table can make, whether wanted or not.
    pub fn types_of(&self, schema: &str, table: &str) -> Vec<TypeOf> {
        let prefix = self.prefix(schema, table);
        let own = OPERATIONS.into_iter().chain([Operation::Schema]).map(|operation| TypeOf {
            event_type: format!("{prefix}.{}", operation.type_suffix()).into(),
            operation,
            named: false,
            public: self.is_public(schema, table, operation),
        });
        let named = self.named(schema, table).iter().flat_map(|event| {
            let event_type = &event.event_type;
            event.on.iter().map(|on| TypeOf {
                event_type: event_type.clone(),
                operation: *on,
                named: true,
                public: event.public && *on != Operation::Truncate,
            })
        });
        own.chain(named).collect()
    }

    /// The operator's webhooks that want an event type, by their place in the list the matcher was built from.
    pub fn subscribers_of(&self, event_type: &str) -> Vec<usize> {
        self.own.subscribers_of(event_type)
    }

    /// The webhooks of tenants that want an event type, the same way; they get it only where it is public.
    pub fn tenants_subscribers_of(&self, event_type: &str) -> Vec<usize> {
        self.of_tenants.subscribers_of(event_type)
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
            let starred =
                || self.own.starred.iter().filter(|(p, _)| pattern_matches(p, &candidate.event_type));
            let exact = self.own.exact.contains_key(&*candidate.event_type);
            *wanted |= exact || starred().next().is_some();
            wants.explicit |= exact || starred().any(|(p, _)| !pattern::head(p).contains('*'));
            if candidate.public && self.of_tenants.any(&candidate.event_type) {
                match candidate.operation {
                    Operation::Insert => wants.insert = true,
                    Operation::Delete => wants.delete = true,
                    _ => {}
                }
                // To a tenant an update may be that a row came or went.
                wants.update = true;
            }
        }
        wants
    }

    /// Every condition of the operator's that a table's changes may meet, once: what `check` compares with the table's
    /// columns and its replica identity.
    pub fn conditions_on(&self, schema: &str, table: &str) -> Vec<Arc<Condition>> {
        let mut seen = FxHashSet::default();
        let all = OPERATIONS.into_iter().flat_map(|operation| self.wanted(schema, table, operation));
        let each = all.flat_map(|wanted| {
            wanted.when.into_iter().chain(wanted.subscribers.into_iter().filter_map(|s| s.filter))
        });
        each.filter(|condition| seen.insert(Arc::as_ptr(condition).addr())).collect()
    }

    /// Whether tenants may be told what a table makes of an operation by itself.
    fn is_public(&self, schema: &str, table: &str, operation: Operation) -> bool {
        self.rule(schema, table).is_some_and(|rule| rule.tenant.is_some() && rule.public.contains(&operation))
    }

    /// The public event types of an operation, with those webhooks of tenants that want them.
    fn wanted_by_tenants(&self, schema: &str, table: &str, operation: Operation) -> Vec<TenantWanted> {
        if self.rule(schema, table).is_none_or(|rule| rule.tenant.is_none()) {
            return Vec::new();
        }
        let own: Arc<str> = format!("{}.{}", self.prefix(schema, table), operation.type_suffix()).into();
        let own = self.is_public(schema, table, operation).then_some((own, false, None));
        let named = self.named(schema, table).iter().filter(|e| e.public && e.on.contains(&operation));
        let types = own.into_iter().chain(named.map(|e| (e.event_type.clone(), true, e.when.clone())));
        let subscriber = |webhook: usize| {
            let tenant = self.owners.get(webhook).cloned().flatten()?;
            let filter = self.filters.get(webhook).cloned().flatten();
            Some(TenantSubscriber { tenant, webhook, filter })
        };
        types
            .map(|(event_type, named, when)| {
                let subscribers = self.of_tenants.subscribers_of(&event_type);
                let subscribers = subscribers.into_iter().filter_map(subscriber).collect();
                TenantWanted { event_type, named, when, subscribers }
            })
            .collect()
    }

    /// The column that says whose a table's rows are.
    pub fn tenant_column(&self, schema: &str, table: &str) -> Option<&str> {
        self.rule(schema, table)?.tenant.as_deref()
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
