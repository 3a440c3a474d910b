//! The statements that lead from the publications as they are to what webhooks need.
//!
//! A publication of ours holds exactly what is needed ([`exactly`]): whole schemas, row filters and column lists go, for what
//! they leave out nobody would hear of. One of somebody else's, or `FOR ALL TABLES`, may hold more and is only asked for
//! what is missing ([`demanded`]): a table, an operation, the root's name for partitions. What it leaves out on purpose
//! is told ([`narrowed`]) and not asked for.
//!
//! A publication that is younger than the slot does not exist in what the slot has still to read, so both are made
//! before it, even where the second is empty. A publication of all tables needs no second one.

use std::collections::{BTreeMap, BTreeSet};

use super::PublicationNames;
use super::publication::quoted;
use super::published::{EVERY, Existing, Found};
use super::setup::Manage;
use crate::domain::Operation;

/// The first version that publishes stored generated columns, where asked to.
const PUBLISHES_GENERATED: i32 = 180_000;

/// What the second publication publishes.
pub(super) const INSERTS: [Operation; 2] = [Operation::Insert, Operation::Truncate];

/// A table that a publication should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub schema: String,
    pub partitioned: bool,
    /// Who owns it; `None` where our role may publish it.
    pub foreign_owner: Option<String>,
    /// Whether it is insisted on.
    pub explicit: bool,
    /// What webhooks want of it, as far as its publication may publish that.
    pub needs: Vec<Operation>,
}

/// Tables by their quoted names.
pub(super) type Tables = BTreeMap<String, Target>;

/// What the publications should hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Targets {
    pub all: Tables,
    pub inserts: Tables,
    /// Whether the server refuses the application's updates unless generated columns are published.
    pub insist_on_generated: bool,
}

/// A statement, and the publication that it makes or alters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub publication: String,
    pub sql: String,
}

/// The publications to stream from: all of these must exist, and from before the slot.
pub(super) fn asked(names: &PublicationNames, found: &Found) -> Vec<String> {
    let mut asked = vec![names.all.clone()];
    if !found.publications.get(&names.all).is_some_and(|all| all.for_all) {
        asked.push(names.inserts.clone());
    }
    asked
}

/// The statements that lead from what is to what is wanted.
pub(super) fn steps(names: &PublicationNames, found: &Found, targets: &Targets, manage: Manage) -> Vec<Step> {
    let all = found.publications.get(&names.all);
    let is_exact = manage == Manage::Change && !all.is_some_and(|all| all.for_all);
    let mut steps = Vec::new();
    for (name, operations, tables) in parts(names, found, targets) {
        let generated = found.version >= PUBLISHES_GENERATED;
        let sql = match found.publications.get(name) {
            None => vec![create(name, operations, &tables, generated)],
            Some(is) if is_exact => exactly(name, is, operations, &tables, generated),
            Some(is) => {
                let insists = generated && targets.insist_on_generated && name == &names.all;
                demanded(name, is, found, &asked(names, found), &tables, insists)
            }
        };
        steps.extend(sql.into_iter().map(|sql| Step { publication: name.clone(), sql }));
    }
    if !is_exact {
        steps.extend(one_column_list(names, found, targets));
    }
    steps
}

/// Which tables belong where: name, operations, tables.
type Part<'a> = (&'a String, &'static [Operation], Tables);

fn parts<'a>(names: &'a PublicationNames, found: &Found, targets: &Targets) -> Vec<Part<'a>> {
    let (mut all, inserts) = (targets.all.clone(), targets.inserts.clone());
    if found.publications.get(&names.all).is_some_and(|all| all.for_all) {
        all.extend(inserts);
        return vec![(&names.all, &EVERY, all)];
    }
    vec![(&names.all, &EVERY, all), (&names.inserts, &INSERTS, inserts)]
}

fn create(name: &str, operations: &[Operation], tables: &Tables, generated: bool) -> String {
    let list = join(tables.keys());
    let tables = if list.is_empty() { String::new() } else { format!(" for table {list}") };
    let with = if generated { ", publish_generated_columns = stored" } else { "" };
    format!(
        "create publication {}{tables} with (publish = '{}', publish_via_partition_root = true{with});",
        quoted(name),
        words(operations)
    )
}

/// One of ours: it comes to hold these tables, whole, and nothing else.
fn exactly(
    name: &str,
    is: &Existing,
    operations: &[Operation],
    tables: &Tables,
    generated: bool,
) -> Vec<String> {
    let publication = quoted(name);
    let mut sql = Vec::new();
    if !is.via_root {
        sql.push(format!("alter publication {publication} set (publish_via_partition_root = true);"));
    }
    // What breaks the application's updates goes first; what would break them comes last.
    let surplus: Vec<_> = is.listed.keys().filter(|table| !tables.contains_key(*table)).collect();
    if !surplus.is_empty() {
        sql.push(format!("alter publication {publication} drop table {};", join(surplus)));
    }
    // Before tables are added: one whose identity has such a column could not be updated in between.
    if generated && !is.generated {
        sql.push(format!("alter publication {publication} set (publish_generated_columns = stored);"));
    }
    if is.operations != operations {
        sql.push(format!("alter publication {publication} set (publish = '{}');", words(operations)));
    }
    let narrowed: Vec<_> = tables
        .iter()
        .filter(|(_, target)| target.foreign_owner.is_none())
        .filter(|(table, _)| is.listed.get(*table).is_some_and(|n| n.rows || n.columns.is_some()))
        .map(|(table, _)| table)
        .collect();
    if !narrowed.is_empty() {
        sql.push(format!("alter publication {publication} drop table {};", join(narrowed.iter().copied())));
    }
    let missing = tables.keys().filter(|table| !is.listed.contains_key(*table) || narrowed.contains(table));
    let missing = join(missing);
    if !missing.is_empty() {
        sql.push(format!("alter publication {publication} add table {missing};"));
    }
    if !is.schemas.is_empty() {
        let schemas: Vec<_> = is.schemas.iter().map(|schema| quoted(schema)).collect();
        sql.push(format!("alter publication {publication} drop tables in schema {};", schemas.join(", ")));
    }
    sql
}

/// One that may hold more: what it lacks.
fn demanded(
    name: &str,
    is: &Existing,
    found: &Found,
    asked: &[String],
    tables: &Tables,
    insist_on_generated: bool,
) -> Vec<String> {
    let publication = quoted(name);
    let (mut root, mut add, mut operations) = (false, Vec::new(), is.operations.clone());
    for (table, target) in tables {
        let seen = |operation: &Operation| {
            let streams = asked.iter().filter_map(|name| found.publications.get(name));
            streams.into_iter().any(|p| sees(p, table, target) && p.operations.contains(operation))
        };
        if target.needs.iter().all(seen) {
            continue;
        }
        if !is.holds(&target.schema, table) {
            add.push(table);
        }
        root |= target.partitioned && !is.via_root;
        operations.extend(target.needs.iter().filter(|need| !is.operations.contains(need)));
    }
    let mut sql = Vec::new();
    if root {
        sql.push(format!("alter publication {publication} set (publish_via_partition_root = true);"));
    }
    if operations.len() > is.operations.len() {
        let wanted: Vec<_> = EVERY.into_iter().filter(|o| operations.contains(o)).collect();
        sql.push(format!("alter publication {publication} set (publish = '{}');", words(&wanted)));
    }
    if insist_on_generated && !is.generated {
        sql.push(format!("alter publication {publication} set (publish_generated_columns = stored);"));
    }
    if !add.is_empty() {
        sql.push(format!("alter publication {publication} add table {};", join(add)));
    }
    sql
}

/// Whether events of the table come by the publication, under its own name.
fn sees(publication: &Existing, table: &str, target: &Target) -> bool {
    publication.holds(&target.schema, table) && (!target.partitioned || publication.via_root)
}

/// A stream from two publications that list other columns of one table ends with an error: it leaves the one that it is
/// not meant to be in.
fn one_column_list(names: &PublicationNames, found: &Found, targets: &Targets) -> Vec<Step> {
    let both = (found.publications.get(&names.all), found.publications.get(&names.inserts));
    let (Some(all), Some(inserts)) = both else { return Vec::new() };
    if all.for_all {
        return Vec::new();
    }
    let homes = [(&targets.all, &names.inserts, inserts), (&targets.inserts, &names.all, all)];
    let differing = homes.into_iter().filter_map(|(tables, name, other)| {
        let differs = |table: &str, target: &Target| {
            all.holds(&target.schema, table)
                && inserts.holds(&target.schema, table)
                && all.columns(table) != inserts.columns(table)
                && other.listed.contains_key(table)
        };
        let found: Vec<_> = tables.iter().filter(|(t, target)| differs(t, target)).map(|(t, _)| t).collect();
        (!found.is_empty()).then(|| Step {
            publication: name.clone(),
            sql: format!("alter publication {} drop table {};", quoted(name), join(found)),
        })
    });
    differing.collect()
}

/// The wanted tables of which a publication leaves rows or columns out, each with what does so; not those that
/// [`steps`] makes whole.
pub(super) fn narrowed(
    names: &PublicationNames,
    found: &Found,
    targets: &Targets,
    manage: Manage,
) -> Vec<String> {
    let asked = asked(names, found);
    let streams: Vec<(&String, &Existing)> =
        asked.iter().filter_map(|name| Some((name, found.publications.get(name)?))).collect();
    let is_exact = manage == Manage::Change && !streams.iter().any(|(_, p)| p.for_all);
    let mut told = Vec::new();
    for (table, target) in targets.all.iter().chain(&targets.inserts) {
        let seeing: Vec<_> = streams.iter().filter(|(_, p)| sees(p, table, target)).collect();
        let narrow = |by: fn(&Existing, &str) -> bool| {
            let all = !seeing.is_empty() && seeing.iter().all(|(_, p)| by(p, table));
            all.then(|| seeing.first().map(|(name, _)| quoted(name)).unwrap_or_default())
        };
        if is_exact && target.foreign_owner.is_none() {
            continue;
        }
        if let Some(by) = narrow(|p, table| p.listed.get(table).is_some_and(|n| n.rows)) {
            told.push(format!("{table} (row filter of {by})"));
        }
        if let Some(by) = narrow(|p, table| p.columns(table).is_some()) {
            told.push(format!("{table} (column list of {by})"));
        }
    }
    told
}

/// The tables themselves: without `ONLY` their children by inheritance would come too, wanted or not, with a usable
/// identity or without.
fn join<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: BTreeSet<&String> = names.into_iter().collect();
    names.into_iter().map(|name| format!("only {name}")).collect::<Vec<_>>().join(", ")
}

fn words(operations: &[Operation]) -> String {
    operations.iter().map(|operation| operation.as_str()).collect::<Vec<_>>().join(", ")
}
