//! What webhooks want of one table, resolved once per table and snapshot.

use std::sync::Arc;

use super::condition::Condition;
use super::facts::{Facts, Reads};
use super::tenants::{TenantOwing, Tenants};
use crate::domain::{Change, JsonWriter, Operation, Relation, TableRules};

/// A webhook that wants an event type.
#[derive(Debug, Clone)]
pub(super) struct Subscriber {
    /// Its place in the list the matcher was built from.
    pub(super) webhook: usize,
    pub(super) filter: Option<Arc<Condition>>,
}

/// An event type that a change of the table may make, with who wants it.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) event_type: Arc<str>,
    pub(super) named: bool,
    pub(super) when: Option<Arc<Condition>>,
    pub(super) subscribers: Vec<Subscriber>,
}

/// A delivery that a change owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// The event's type.
    pub event_type: Arc<str>,
    /// Whether it is one of `[[events]]`, and so has an event id of its own.
    pub named: bool,
    /// The webhook's place in the list the matcher was built from.
    pub webhook: usize,
}

/// A condition that could not be answered on a row, and so did not match.
#[derive(Debug, Clone)]
pub struct ConditionFailure {
    /// Which one.
    pub condition: Arc<Condition>,
    /// Why; tells no value of the row.
    pub reason: String,
}

/// Everything a change owes.
#[derive(Debug, Clone, Default)]
pub struct Owing {
    /// The deliveries, by event type and then in the webhooks' order.
    pub deliveries: Vec<Owed>,
    /// The conditions that failed, at most once each.
    pub failures: Vec<ConditionFailure>,
}

/// What webhooks want of one table.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    rules: Arc<TableRules>,
    created: Candidates,
    updated: Candidates,
    deleted: Candidates,
    truncated: Candidates,
    reshaped: Candidates,
    /// What tenants' webhooks want; `None`: nothing.
    tenants: Option<Tenants>,
}

/// The event types of one operation that anybody wants. Conditions are referred to by slot, so that one that many
/// webhooks share is asked once.
#[derive(Debug, Clone, Default)]
struct Candidates {
    types: Vec<Candidate>,
    conditions: Vec<Arc<Condition>>,
    reads: Reads,
}

#[derive(Debug, Clone)]
struct Candidate {
    event_type: Arc<str>,
    named: bool,
    when: Option<usize>,
    subscribers: Vec<(usize, Option<usize>)>,
}

impl Candidates {
    fn new(wanted: Vec<Wanted>, relation: &Relation) -> Self {
        let mut conditions: Vec<Arc<Condition>> = Vec::new();
        let mut slots = rustc_hash::FxHashMap::default();
        let mut slot = |condition: Arc<Condition>| {
            *slots.entry(Arc::as_ptr(&condition).addr()).or_insert_with(|| {
                conditions.push(condition);
                conditions.len() - 1
            })
        };
        let types = wanted
            .into_iter()
            .filter(|wanted| !wanted.subscribers.is_empty())
            .map(|wanted| Candidate {
                event_type: wanted.event_type,
                named: wanted.named,
                when: wanted.when.map(&mut slot),
                subscribers: wanted
                    .subscribers
                    .into_iter()
                    .map(|s| (s.webhook, s.filter.map(&mut slot)))
                    .collect(),
            })
            .collect();
        let reads = Reads::of(conditions.iter().map(AsRef::as_ref), relation);
        Self { types, conditions, reads }
    }
}

impl Interest {
    pub(super) fn new(
        rules: TableRules,
        relation: &Relation,
        mut wanted: impl FnMut(Operation) -> Vec<Wanted>,
    ) -> Self {
        let mut of = |operation| Candidates::new(wanted(operation), relation);
        Self {
            created: of(Operation::Insert),
            updated: of(Operation::Update),
            deleted: of(Operation::Delete),
            truncated: of(Operation::Truncate),
            reshaped: of(Operation::Schema),
            rules: Arc::new(rules),
            tenants: None,
        }
    }

    /// With what tenants' webhooks want of it.
    pub(super) fn with_tenants(self, tenants: Option<Tenants>) -> Self {
        Self { tenants, ..self }
    }

    /// Whether nobody wants anything of the table.
    pub fn is_empty(&self) -> bool {
        self.candidates() == 0 && self.tenants.is_none()
    }

    /// How many pairs of event type and webhook of the operator's there are: the most that one change is compared with.
    pub fn candidates(&self) -> usize {
        let lists = [&self.created, &self.updated, &self.deleted, &self.truncated, &self.reshaped];
        lists.iter().flat_map(|list| &list.types).map(|candidate| candidate.subscribers.len()).sum()
    }

    /// What of the table's rows may leave, and how.
    pub fn rules(&self) -> &TableRules {
        &self.rules
    }

    /// Whether anybody wants changes of this kind, before any condition is asked.
    pub fn wants(&self, operation: Operation) -> bool {
        self.list(operation).is_some_and(|list| !list.types.is_empty())
            || self.tenants.as_ref().is_some_and(|tenants| tenants.wants(operation))
    }

    fn list(&self, operation: Operation) -> Option<&Candidates> {
        match operation {
            Operation::Insert | Operation::Snapshot | Operation::Test => Some(&self.created),
            Operation::Update => Some(&self.updated),
            Operation::Delete => Some(&self.deleted),
            Operation::Truncate => Some(&self.truncated),
            Operation::Schema => Some(&self.reshaped),
            Operation::Message | Operation::Notice => None,
        }
    }

    /// The deliveries that a change of this table owes to webhooks of the operator's. A row sent again by a backfill, or
    /// as a test, makes no named events. Never panics.
    pub fn owed(&self, change: &Change, json: JsonWriter) -> Owing {
        self.owed_where(change, json, |_| true)
    }

    /// What it owes to the webhooks of tenants: of each part that a tenant may see, in the order of before and after.
    pub fn owed_to_tenants<'c>(&self, change: &'c Change, json: JsonWriter) -> Vec<TenantOwing<'c>> {
        let Some(tenants) = &self.tenants else { return Vec::new() };
        tenants.owed(change, (&self.rules, json), |_| true)
    }

    /// What it owes to one webhook, by its place in the list the matcher was built from. A tenant's is owed rows of its
    /// own alone.
    pub fn owed_to(&self, change: &Change, json: JsonWriter, webhook: usize) -> Owing {
        let mut owing = self.owed_where(change, json, |other| other == webhook);
        if let Some(tenants) = &self.tenants {
            for of_tenant in tenants.owed(change, (&self.rules, json), |other| other == webhook) {
                // A row that exists has one owner, who sees it whole.
                owing.deliveries.extend(of_tenant.owing.deliveries);
                owing.failures.extend(of_tenant.owing.failures);
            }
        }
        owing
    }

    fn owed_where(&self, change: &Change, json: JsonWriter, concerns: impl Fn(usize) -> bool) -> Owing {
        let mut owing = Owing::default();
        let Some(list) = self.list(change.operation) else { return owing };
        let named_too = !matches!(change.operation, Operation::Snapshot | Operation::Test);
        let mut answers = Answers::new(list, change, &self.rules, json);
        for candidate in list.types.iter().filter(|candidate| named_too || !candidate.named) {
            answers.about(candidate);
            if !answers.holds(candidate.when, &mut owing.failures) {
                continue;
            }
            for (webhook, filter) in candidate.subscribers.iter().filter(|(webhook, _)| concerns(*webhook)) {
                if answers.holds(*filter, &mut owing.failures) {
                    let (event_type, named) = (candidate.event_type.clone(), candidate.named);
                    owing.deliveries.push(Owed { event_type, named, webhook: *webhook });
                }
            }
        }
        once_each(&mut owing.deliveries, &list.types.iter().map(|t| (t.named, &*t.event_type)));
        owing
    }
}

/// Two `[[events]]` entries may have one type: a webhook is owed it once, else two deliveries had one id.
pub(super) fn once_each<'t>(
    deliveries: &mut Vec<Owed>,
    types: &(impl Iterator<Item = (bool, &'t str)> + Clone),
) {
    let repeats = types.clone().enumerate().any(|(at, (named, event_type))| {
        named && types.clone().take(at).any(|(other, known)| other && known == event_type)
    });
    if repeats {
        let mut seen = rustc_hash::FxHashSet::default();
        deliveries.retain(|owed| seen.insert((owed.event_type.clone(), owed.named, owed.webhook)));
    }
}

/// The answers of conditions on one change, each asked once; the row is converted when the first is asked.
struct Answers<'a> {
    list: &'a Candidates,
    change: &'a Change,
    rules: &'a TableRules,
    json: JsonWriter,
    event_type: &'a str,
    facts: Option<Facts<'a>>,
    known: Vec<Option<bool>>,
}

impl<'a> Answers<'a> {
    fn new(list: &'a Candidates, change: &'a Change, rules: &'a TableRules, json: JsonWriter) -> Self {
        Self { list, change, rules, json, event_type: "", facts: None, known: Vec::new() }
    }

    /// Turns to another event type; answers that depend on it are forgotten.
    fn about(&mut self, candidate: &'a Candidate) {
        self.event_type = &candidate.event_type;
        if let Some(facts) = &mut self.facts {
            facts.set_type(self.event_type);
        }
        for (answer, condition) in self.known.iter_mut().zip(&self.list.conditions) {
            if condition.reads_type() {
                *answer = None;
            }
        }
    }

    fn holds(&mut self, slot: Option<usize>, failures: &mut Vec<ConditionFailure>) -> bool {
        let Some(slot) = slot else { return true };
        let Some(condition) = self.list.conditions.get(slot) else { return false };
        if self.known.is_empty() {
            self.known.resize(self.list.conditions.len(), None);
        }
        if let Some(Some(answer)) = self.known.get(slot) {
            return *answer;
        }
        let facts = self.facts.get_or_insert_with(|| {
            let mut facts = Facts::of(self.change, self.rules, &self.list.reads, self.json);
            facts.set_type(self.event_type);
            facts
        });
        let answer = facts.ask(condition).unwrap_or_else(|reason| {
            if !failures.iter().any(|failure| Arc::ptr_eq(&failure.condition, condition)) {
                failures.push(ConditionFailure { condition: condition.clone(), reason });
            }
            false
        });
        if let Some(known) = self.known.get_mut(slot) {
            *known = Some(answer);
        }
        answer
    }
}
