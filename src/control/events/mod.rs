//! The event types that exist: what makes each, what its body looks like, and who subscribes.
//!
//! Types come from the tables as the database has them now, from `[[events]]`, and from walhook itself. The schema of a
//! body is derived from the table's columns by the same rules that make it, so that what never leaves is in neither.
//!
//! A tenant is told the types that the operator makes public, as if there were no others: of each what its own webhooks could
//! get, and which of them do. Nothing is read of anybody else's webhooks to say so, and samples are made of columns alone.

mod schema;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::{About, Actor, ControlError, Desk, Given, Sight, nearest, sample};
use crate::catalog::{self, Snapshot};
use crate::config::Config;
use crate::domain::{BodyShape, Format, NamedEvent, Notice, Operation, TableRule, limits};
use crate::ledger::pool::Borrowed;
use crate::matcher::{TypeOf, names_notice};
use crate::postgres::Session;
use crate::render::Templates;
use crate::source::{ColumnInfo, TableInfo, columns, tables};

/// An event type.
#[derive(Debug, Clone, PartialEq)]
pub struct EventType {
    /// Its name.
    pub name: Arc<str>,
    /// What it tells.
    pub description: String,
    /// What makes it: `insert`, `update`, `delete`, `truncate`, `schema`, `message`, `notice`.
    pub operations: Vec<&'static str>,
    /// The schema and the name of its table, where it has one.
    pub table: Option<(String, String)>,
    /// The JSON Schema (2020-12) of its body in the format `standard`.
    pub schema: Value,
    /// A body of it.
    pub sample: Value,
    /// The webhooks that subscribe to it, by name, at most [`limits::SUBSCRIBERS_TOLD`].
    pub subscribers: Vec<Arc<str>>,
    /// How many these are in all.
    pub subscriber_count: usize,
}

/// What makes events of a type.
#[derive(Debug, Clone)]
enum Made<'t> {
    /// Changes of a table.
    Table(&'t TableInfo, Vec<Operation>),
    /// Logical messages.
    Message,
    /// walhook.
    Notice(Notice),
}

/// Everything that is known where somebody asks.
struct Known {
    config: Arc<Config>,
    sight: Sight,
    snapshot: Snapshot,
    source: Session,
    tables: Vec<TableInfo>,
    /// Whoever asks for much of this waits for a session of the few that there are for asking.
    _turn: Borrowed,
}

impl Known {
    async fn look(desk: &Desk, actor: &Actor, about: About<'_>) -> Result<Self, ControlError> {
        let (config, sight) = (desk.config(), actor.sight.clone());
        let turn = desk.session(actor, about).await?;
        let rows = match sight.tenant() {
            None => catalog::load(&turn).await?,
            Some(tenant) => catalog::load_of(&turn, tenant).await?,
        };
        let snapshot = catalog::compile_with(&config, &rows).map_err(ControlError::Compile)?;
        let source = desk.places.database.session("walhook events").await?;
        let tables = tables(&source, &config.database.schema).await?;
        Ok(Self { config, sight, snapshot, source, tables, _turn: turn })
    }

    /// The types of a table that there are for whoever asks.
    fn types_of(&self, table: &TableInfo) -> impl Iterator<Item = TypeOf> {
        let all = self.snapshot.matcher.types_of(&table.schema, &table.table).into_iter();
        let is_tenant = self.sight.tenant().is_some();
        all.filter(move |made| made.public || !is_tenant)
    }

    /// Every type, and what makes it. Where two tables make one, the first is told.
    fn types(&self) -> BTreeMap<Arc<str>, Made<'_>> {
        let mut types: BTreeMap<Arc<str>, Made<'_>> = BTreeMap::new();
        if self.sight.tenant().is_none() {
            for notice in Notice::ALL {
                types.insert(notice.event_type().into(), Made::Notice(notice));
            }
            for event in self.config.events.iter().filter(|event| event.is_message()) {
                types.insert(Arc::clone(&event.event_type), Made::Message);
            }
        }
        for table in &self.tables {
            for made in self.types_of(table) {
                let known = types.entry(made.event_type).or_insert_with(|| Made::Table(table, Vec::new()));
                if let Made::Table(first, operations) = known
                    && first.oid == table.oid
                    && !operations.contains(&made.operation)
                {
                    operations.push(made.operation);
                }
            }
        }
        types
    }

    fn rule(&self, table: &TableInfo) -> Option<&TableRule> {
        let is_it = |rule: &&TableRule| (&rule.schema, &rule.table) == (&table.schema, &table.table);
        self.config.tables.iter().find(is_it)
    }

    fn subscribers(&self, name: &str) -> Vec<Arc<str>> {
        let matcher = &self.snapshot.matcher;
        if let Some(notice) = Notice::of_type(name) {
            let wants = |pattern: &String| names_notice(pattern, notice);
            let all = self.snapshot.webhooks().iter().map(|compiled| &compiled.webhook);
            return all.filter(|w| w.events.iter().any(wants)).map(|w| Arc::clone(&w.name)).collect();
        }
        let webhook = |at: usize| self.snapshot.webhook(at).map(|c| Arc::clone(&c.webhook.name));
        let is_public = || {
            self.tables
                .iter()
                .flat_map(|table| self.types_of(table))
                .any(|made| made.public && *made.event_type == *name)
        };
        let of_tenants = if is_public() { matcher.tenants_subscribers_of(name) } else { Vec::new() };
        let all = matcher.subscribers_of(name).into_iter().chain(of_tenants).filter_map(webhook);
        all.filter(|webhook| self.sight.sees(webhook)).collect()
    }

    /// The operator's words where there are any, behind what the type says by itself.
    fn description(&self, name: &str, made: &Made<'_>) -> String {
        let is_it = |event: &&NamedEvent| *event.event_type == *name && self.tells_of(event, made);
        let own = self.config.events.iter().find(is_it).and_then(|event| event.description.clone());
        let (itself, of_table) = match made {
            Made::Notice(notice) => return schema::of_notice(*notice).to_owned(),
            Made::Message => ("A logical message that the application writes into the log.".to_owned(), None),
            Made::Table(table, operations) => {
                let rule = self.rule(table).and_then(|rule| rule.description.clone());
                (schema::of_operations(table, operations), rule)
            }
        };
        own.or(of_table).map_or(itself.clone(), |words| format!("{itself} {words}"))
    }

    /// Whether what the operator says of a named event is for whoever asks: a type of that name may be another table's too.
    fn tells_of(&self, event: &NamedEvent, made: &Made<'_>) -> bool {
        let of_table = |table: &TableInfo| (&event.schema, &event.table) == (&table.schema, &table.table);
        self.sight.tenant().is_none()
            || (event.public && matches!(made, Made::Table(table, _) if of_table(table)))
    }

    fn told(
        &self,
        name: &Arc<str>,
        made: &Made<'_>,
        columns: &[ColumnInfo],
        desk: &Desk,
    ) -> Result<EventType, ControlError> {
        let data = self.data(made, columns)?;
        let event = sample::event(name, desk.places.database.database().unwrap_or_default(), &desk.clock);
        let shape = BodyShape::Format(Format::Standard);
        let sample = match Templates::default().renderer(&shape) {
            Some(renderer) => renderer.render(&event, &data, "sample", self.config.delivery.max_body)?.body,
            None => data.into(),
        };
        let (operations, table, schema) = match made {
            Made::Table(table, operations) => {
                let relation = sample::relation(table, columns);
                let interest = self.snapshot.matcher.interest(&relation);
                let schema = schema::of_table(name, (&relation, interest.rules()), operations);
                (operations.clone(), Some((table.schema.clone(), table.table.clone())), schema)
            }
            Made::Message => (vec![Operation::Message], None, schema::of_no_table(name, Operation::Message)),
            Made::Notice(_) => (vec![Operation::Notice], None, schema::of_no_table(name, Operation::Notice)),
        };
        let mut subscribers = self.subscribers(name);
        let subscriber_count = subscribers.len();
        subscribers.sort_unstable();
        subscribers.truncate(limits::SUBSCRIBERS_TOLD);
        Ok(EventType {
            name: Arc::clone(name),
            description: self.description(name, made),
            operations: operations.iter().map(|operation| operation.as_str()).collect(),
            table,
            schema,
            sample: serde_json::from_slice(&sample).unwrap_or_default(),
            subscribers,
            subscriber_count,
        })
    }

    /// The bytes of a sample's `data`, which says what it is a sample of.
    fn data(&self, made: &Made<'_>, columns: &[ColumnInfo]) -> Result<Vec<u8>, ControlError> {
        match made {
            Made::Notice(notice) => {
                sample::of_no_table(Some(*notice))?.or_of_no_table(Operation::Notice).write()
            }
            Made::Message => sample::of_no_table(None)?.or_of_no_table(Operation::Message).write(),
            Made::Table(table, operations) => {
                let operation = operations.first().copied().unwrap_or(Operation::Insert);
                let rules = |relation: &_| self.snapshot.matcher.interest(relation).rules().clone();
                let data = sample::data(table, columns, operation, rules);
                if matches!(operation, Operation::Truncate) {
                    return Ok(schema::truncated(&table.schema, &table.table));
                }
                let given = Given::parse(&data)?.as_test().or(operation, &table.schema, &table.table);
                given.write()
            }
        }
    }

    async fn columns(&self, made: &[&Made<'_>]) -> Result<BTreeMap<u32, Vec<ColumnInfo>>, ControlError> {
        let oid = |made: &&Made<'_>| match made {
            Made::Table(table, _) => Some(table.oid),
            Made::Message | Made::Notice(_) => None,
        };
        let mut oids: Vec<u32> = made.iter().filter_map(oid).collect();
        oids.sort_unstable();
        oids.dedup();
        Ok(columns(&self.source, &oids).await?)
    }

    async fn all_told(
        &self,
        wanted: &[(&Arc<str>, &Made<'_>)],
        desk: &Desk,
    ) -> Result<Vec<EventType>, ControlError> {
        let made: Vec<&Made<'_>> = wanted.iter().map(|(_, made)| *made).collect();
        let columns = self.columns(&made).await?;
        let of = |made: &Made<'_>| match made {
            Made::Table(table, _) => columns.get(&table.oid).map(Vec::as_slice).unwrap_or_default(),
            Made::Message | Made::Notice(_) => &[],
        };
        wanted.iter().map(|(name, made)| self.told(name, made, of(made), desk)).collect()
    }
}

/// The types after a name, in the order of names.
pub async fn list(
    desk: &Desk,
    actor: &Actor,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<EventType>, ControlError> {
    let known = Known::look(desk, actor, About::Seen).await?;
    let types = known.types();
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let page = types.range::<str, _>((from, Bound::Unbounded));
    let wanted: Vec<_> = page.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect();
    known.all_told(&wanted, desk).await
}

/// One type.
pub async fn get(desk: &Desk, actor: &Actor, name: &str) -> Result<EventType, ControlError> {
    let known = Known::look(desk, actor, About::Seen).await?;
    let types = known.types();
    let Some((name, made)) = types.get_key_value(name) else {
        let nearest = nearest(name, types.keys().map(AsRef::as_ref));
        return Err(ControlError::Unknown { what: "event type", name: name.to_owned(), nearest });
    };
    let mut told = known.all_told(&[(name, made)], desk).await?;
    told.pop().ok_or_else(|| ControlError::Unknown {
        what: "event type",
        name: name.to_string(),
        nearest: None,
    })
}

/// A sample's `data`, for whoever renders it; an unknown type is an error.
pub(super) async fn given(desk: &Desk, actor: &Actor, name: &str) -> Result<Given, ControlError> {
    let known = Known::look(desk, actor, About::Operators).await?;
    let types = known.types();
    let Some(made) = types.get(name) else {
        let nearest = nearest(name, types.keys().map(AsRef::as_ref));
        return Err(ControlError::Unknown { what: "event", name: name.to_owned(), nearest });
    };
    let columns: HashMap<u32, Vec<ColumnInfo>> = known.columns(&[made]).await?.into_iter().collect();
    let of = match made {
        Made::Table(table, _) => columns.get(&table.oid).map(Vec::as_slice).unwrap_or_default(),
        Made::Message | Made::Notice(_) => &[],
    };
    let given = Given::parse(&known.data(made, of)?)?;
    Ok(match made {
        Made::Table(..) => given,
        Made::Message => given.or_of_no_table(Operation::Message),
        Made::Notice(_) => given.or_of_no_table(Operation::Notice),
    })
}
