//! What tenants' webhooks want of one table, and which part of a change each tenant may see.
//!
//! A tenant is shown the rows that are its own, as if there were no others: a row that comes to it is created, one that
//! goes away from it is deleted, and of an update it sees the old row only where that was its own too. So a change is cut
//! into [`Part`]s, at most one for the owner before and one for the owner after, and each part is a change of its own:
//! whoever writes bodies or asks conditions has nothing else in hand. An owner that was not sent is nobody.
//!
//! A part meets the webhooks of its tenant by one look into a table of hashes, however many tenants there are.

use std::borrow::Cow;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::condition::Condition;
use super::facts::{Facts, Reads};
use super::interest::{ConditionFailure, Owed, Owing, once_each};
use crate::domain::{Cell, Change, JsonWriter, Operation, Owner, Relation, TableRules, TenantChange};

/// A tenant's webhook that wants an event type.
#[derive(Debug, Clone)]
pub(super) struct TenantSubscriber {
    pub(super) tenant: Arc<str>,
    /// Its place in the list the matcher was built from.
    pub(super) webhook: usize,
    pub(super) filter: Option<Arc<Condition>>,
}

/// An event type that tenants may be told of, with those of their webhooks that want it.
#[derive(Debug)]
pub(super) struct TenantWanted {
    pub(super) event_type: Arc<str>,
    pub(super) named: bool,
    pub(super) when: Option<Arc<Condition>>,
    pub(super) subscribers: Vec<TenantSubscriber>,
}

/// What tenants' webhooks want of one table.
#[derive(Debug, Clone, Default)]
pub(super) struct Tenants {
    /// Where the tenant column stands.
    position: usize,
    on_change: TenantChange,
    created: List,
    updated: List,
    deleted: List,
}

/// What they want of one operation.
#[derive(Debug, Clone, Default)]
struct List {
    types: Vec<Candidate>,
    reads: Reads,
}

#[derive(Debug, Clone)]
struct Candidate {
    event_type: Arc<str>,
    named: bool,
    when: Option<Arc<Condition>>,
    /// By the text of the tenant column.
    by_tenant: FxHashMap<Box<[u8]>, Webhooks>,
}

/// A tenant's webhooks by their places, each with its filter.
type Webhooks = Vec<(usize, Option<Arc<Condition>>)>;

/// Which part of a change a tenant sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All of it: the row was its own and is.
    Whole,
    /// The row after an update alone; whose it was before is not known.
    WithoutOld,
    /// That the row went away from it.
    Former,
    /// That the row came to it.
    New,
}

/// What one tenant sees of a change.
#[derive(Debug, Clone)]
pub struct Part<'c> {
    /// The change as it is to that tenant.
    pub change: Cow<'c, Change>,
    /// How it was cut.
    pub cut: Cut,
    tenant: &'c [u8],
}

impl Part<'_> {
    /// The text of the tenant column: who sees it.
    pub fn tenant(&self) -> &[u8] {
        self.tenant
    }
}

/// What a part of a change owes to the webhooks of its tenant.
#[derive(Debug, Clone)]
pub struct TenantOwing<'c> {
    /// The part.
    pub part: Part<'c>,
    /// The deliveries.
    pub owing: Owing,
}

impl List {
    fn new(wanted: Vec<TenantWanted>, relation: &Relation) -> Self {
        let types: Vec<Candidate> = wanted
            .into_iter()
            .filter(|wanted| !wanted.subscribers.is_empty())
            .map(|wanted| {
                let mut by_tenant: FxHashMap<Box<[u8]>, Webhooks> = FxHashMap::default();
                for subscriber in wanted.subscribers {
                    let of_tenant = by_tenant.entry(subscriber.tenant.as_bytes().into()).or_default();
                    of_tenant.push((subscriber.webhook, subscriber.filter));
                }
                let TenantWanted { event_type, named, when, .. } = wanted;
                Candidate { event_type, named, when, by_tenant }
            })
            .collect();
        let filters = types.iter().flat_map(|t| t.by_tenant.values().flatten());
        let filters = filters.filter_map(|(_, filter)| filter.as_deref());
        let conditions = types.iter().filter_map(|t| t.when.as_deref()).chain(filters);
        let reads = Reads::of(conditions, relation);
        Self { types, reads }
    }

    /// What a part owes; to webhooks that `concerns` says yes to.
    fn owed(
        &self,
        part: &Part<'_>,
        (rules, json): (&TableRules, JsonWriter),
        concerns: &impl Fn(usize) -> bool,
    ) -> Owing {
        let mut owing = Owing::default();
        let change: &Change = &part.change;
        let named_too = change.operation != Operation::Snapshot;
        let mut asker = Asker { facts: None, known: Vec::new() };
        for candidate in self.types.iter().filter(|candidate| named_too || !candidate.named) {
            let Some(webhooks) = candidate.by_tenant.get(part.tenant) else { continue };
            asker.about(&candidate.event_type);
            let facts = || Facts::of(change, rules, &self.reads, json);
            if !asker.holds(candidate, candidate.when.as_ref(), facts, &mut owing) {
                continue;
            }
            for (webhook, filter) in webhooks.iter().filter(|(webhook, _)| concerns(*webhook)) {
                if asker.holds(candidate, filter.as_ref(), facts, &mut owing) {
                    let (event_type, named) = (candidate.event_type.clone(), candidate.named);
                    owing.deliveries.push(Owed { event_type, named, webhook: *webhook });
                }
            }
        }
        once_each(&mut owing.deliveries, &self.types.iter().map(|t| (t.named, &*t.event_type)));
        owing
    }
}

/// Asks conditions on one part, each once an event type.
struct Asker<'a> {
    facts: Option<Facts<'a>>,
    known: Vec<(&'a Arc<Condition>, bool)>,
}

impl<'a> Asker<'a> {
    fn about(&mut self, event_type: &'a str) {
        self.known.clear();
        if let Some(facts) = &mut self.facts {
            facts.set_type(event_type);
        }
    }

    fn holds(
        &mut self,
        candidate: &'a Candidate,
        condition: Option<&'a Arc<Condition>>,
        facts: impl Fn() -> Facts<'a>,
        owing: &mut Owing,
    ) -> bool {
        let Some(condition) = condition else { return true };
        if let Some((_, answer)) = self.known.iter().find(|(known, _)| Arc::ptr_eq(known, condition)) {
            return *answer;
        }
        let facts = self.facts.get_or_insert_with(|| {
            let mut facts = facts();
            facts.set_type(&candidate.event_type);
            facts
        });
        let answer = facts.ask(condition).unwrap_or_else(|reason| {
            if !owing.failures.iter().any(|failure| Arc::ptr_eq(&failure.condition, condition)) {
                owing.failures.push(ConditionFailure { condition: condition.clone(), reason });
            }
            false
        });
        self.known.push((condition, answer));
        answer
    }
}

impl Tenants {
    /// `None` where the table has no such column, or no tenant's webhook wants anything of it.
    pub(super) fn new(
        (column, on_change): (&str, TenantChange),
        relation: &Relation,
        mut wanted: impl FnMut(Operation) -> Vec<TenantWanted>,
    ) -> Option<Self> {
        let position = relation.position(column)?;
        let mut of = |operation| List::new(wanted(operation), relation);
        let (created, updated, deleted) =
            (of(Operation::Insert), of(Operation::Update), of(Operation::Delete));
        let tenants = Self { position, on_change, created, updated, deleted };
        [&tenants.created, &tenants.updated, &tenants.deleted]
            .iter()
            .any(|list| !list.types.is_empty())
            .then_some(tenants)
    }

    /// Whether any tenant wants changes of this kind; an update may be a creation or a deletion to one.
    pub(super) fn wants(&self, operation: Operation) -> bool {
        let (created, deleted) = (!self.created.types.is_empty(), !self.deleted.types.is_empty());
        match operation {
            Operation::Insert | Operation::Snapshot => created,
            Operation::Update => created || deleted || !self.updated.types.is_empty(),
            Operation::Delete => deleted,
            Operation::Truncate
            | Operation::Message
            | Operation::Test
            | Operation::Schema
            | Operation::Notice => false,
        }
    }

    /// What each tenant sees of a change.
    pub(super) fn parts<'c>(&self, change: &'c Change) -> Vec<Part<'c>> {
        let before = || Owner::before(change, self.position);
        let after = || Owner::after(change, self.position);
        let whole = |tenant| Part { change: Cow::Borrowed(change), cut: Cut::Whole, tenant };
        match change.operation {
            Operation::Insert | Operation::Snapshot => match after() {
                Owner::Of(tenant) => vec![whole(tenant)],
                Owner::Nobody | Owner::Unknown => Vec::new(),
            },
            Operation::Delete => match before() {
                Owner::Of(tenant) => vec![whole(tenant)],
                Owner::Nobody | Owner::Unknown => Vec::new(),
            },
            Operation::Update => match (before(), after()) {
                (Owner::Of(before), Owner::Of(after)) if before == after => vec![whole(after)],
                (Owner::Unknown, Owner::Of(tenant)) => {
                    vec![Part { change: Cow::Owned(without_old(change)), cut: Cut::WithoutOld, tenant }]
                }
                (before, after) => {
                    let former = match before {
                        Owner::Of(tenant) if self.on_change == TenantChange::Split => {
                            Some(Part { change: Cow::Owned(gone(change)), cut: Cut::Former, tenant })
                        }
                        _ => None,
                    };
                    let new = match after {
                        Owner::Of(tenant) => {
                            Some(Part { change: Cow::Owned(come(change)), cut: Cut::New, tenant })
                        }
                        Owner::Nobody | Owner::Unknown => None,
                    };
                    former.into_iter().chain(new).collect()
                }
            },
            Operation::Truncate
            | Operation::Message
            | Operation::Test
            | Operation::Schema
            | Operation::Notice => Vec::new(),
        }
    }

    /// What a change owes to tenants' webhooks that `concerns` says yes to.
    pub(super) fn owed<'c>(
        &self,
        change: &'c Change,
        (rules, json): (&TableRules, JsonWriter),
        concerns: impl Fn(usize) -> bool,
    ) -> Vec<TenantOwing<'c>> {
        let owed = |part: Part<'c>| {
            let list = match part.change.operation {
                Operation::Insert | Operation::Snapshot => &self.created,
                Operation::Update => &self.updated,
                _ => &self.deleted,
            };
            let owing = list.owed(&part, (rules, json), &concerns);
            TenantOwing { part, owing }
        };
        self.parts(change).into_iter().map(owed).collect()
    }
}

/// An update whose old row is nobody's business.
fn without_old(change: &Change) -> Change {
    Change { old: None, ..change.clone() }
}

/// The row went away: only what it was.
fn gone(change: &Change) -> Change {
    Change { operation: Operation::Delete, new: None, ..change.clone() }
}

/// The row came: only what it is. A large value that was not sent is taken from before, where it is the same.
fn come(change: &Change) -> Change {
    let new = change.new.clone().map(|mut new| {
        for (position, cell) in new.0.iter_mut().enumerate() {
            if let (Cell::Unchanged, Some(kept)) = (&*cell, change.new_cell(position)) {
                *cell = kept.clone();
            }
        }
        new
    });
    Change { operation: Operation::Insert, new, old: None, ..change.clone() }
}
