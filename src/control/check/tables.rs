//! The tables that webhooks want: patterns, identities, the publications.

use std::collections::BTreeMap;

use serde::Serialize;

use super::templates::Templates;
use super::traps::{self, Wanted};
use super::{CheckReport, Finding, Severity, in_short, moves, notices, setup, strangers, tenants};
use crate::catalog::Snapshot;
use crate::chores::upkeep;
use crate::config::Config;
use crate::control::conditions::{Looked, qualified};
use crate::control::{fit, manage};
use crate::postgres::Session;
use crate::source::{
    self, PublicationNames, RowIdentity, SetupError, Shape, TableInfo, TableWanted, Unowned,
};

/// Tables for which a statement is shown.
const SHOWN: usize = 5;

/// A table that webhooks want, and what its events tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// What of the old row its events have: `full`, `key`, or `nothing` (then only inserts are published).
    pub old: &'static str,
    /// Whether its events tell which columns changed.
    pub changed: bool,
    /// Whether it is partitioned.
    pub partitioned: bool,
    /// Columns whose large values an update that leaves them alone does not send (`unavailable`).
    pub unavailable: Vec<String>,
}

/// Patterns, identities, traps, the publications, conditions, templates.
pub(super) async fn tables(
    config: &Config,
    session: &Session,
    snapshot: &Snapshot,
    report: &mut CheckReport,
) -> Result<(), SetupError> {
    let known = source::tables(session, &config.database.schema).await?;
    let lonely = fit::lonely_patterns(snapshot, config, &known);
    report.findings.extend(strangers::findings(config, session, snapshot, &known, &lonely).await?);
    report.findings.extend(notices::two_meanings(snapshot, &known));
    report.findings.extend(tenants::findings(config, session, &known).await?);
    let meant = upkeep::meant(snapshot, &known);
    let oids: Vec<u32> = known.iter().filter(|t| wanted_as(&meant, t).is_some()).map(|t| t.oid).collect();
    let shapes = source::shapes(session, &oids).await?;
    let wanted: Vec<Wanted<'_>> = known
        .iter()
        .filter_map(|table| {
            let shape = shapes.get(&table.oid)?;
            Some(Wanted { table, shape, wish: wanted_as(&meant, table)? })
        })
        .collect();
    for Wanted { table, shape, wish } in &wanted {
        if !table.identity_usable() && wish.updates_or_deletes() {
            report.findings.push(no_identity(table, shape, wish.explicit));
        }
    }
    report.findings.extend(traps::findings(config, snapshot, &wanted));
    publication(config, session, snapshot, &known, report).await?;
    let columns = source::columns(session, &oids).await?;
    let templates = Templates::of(config, snapshot);
    for one in &wanted {
        let table = one.table;
        let columns = columns.get(&table.oid).map_or(&[][..], Vec::as_slice);
        let looked = Looked { snapshot, config, table, columns };
        report.findings.extend(looked.findings());
        report.findings.extend(templates.findings(&looked));
        report.findings.extend(moves::findings(config, one, columns));
    }
    summary(&wanted, report);
    Ok(())
}

fn wanted_as<'a>(meant: &'a [TableWanted], table: &TableInfo) -> Option<&'a TableWanted> {
    meant.iter().find(|m| (&m.schema, &m.table) == (&table.schema, &table.table))
}

/// Which tables there are, by what their events tell of the old row.
fn summary(wanted: &[Wanted<'_>], report: &mut CheckReport) {
    if wanted.is_empty() {
        report.findings.push(Finding::new(Severity::Warning, "tables", "no table is wanted by any webhook"));
        return;
    }
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Wanted { table, shape, .. } in wanted {
        let (old, told) = match table.identity {
            RowIdentity::Full => ("full", "events tell the whole old row and what changed"),
            RowIdentity::Key => {
                ("key", "of the old row events tell the key, where it changed or the row is deleted")
            }
            RowIdentity::Unusable | RowIdentity::Virtual => {
                ("nothing", "only inserts and truncates become events")
            }
        };
        let (schema, name) = (table.schema.clone(), table.table.clone());
        groups.entry(told).or_default().push(format!("{schema}.{name}"));
        report.tables.push(TableReport {
            schema,
            table: name,
            old,
            changed: old == "full",
            partitioned: table.partitioned,
            unavailable: if old == "key" { shape.toastable.clone() } else { Vec::new() },
        });
    }
    for (told, names) in groups {
        report.ok("tables", format!("{}: {told}", in_short(&names)));
    }
}

fn no_identity(table: &TableInfo, shape: &Shape, explicit: bool) -> Finding {
    let name = qualified(&table.schema, &table.table);
    let is_virtual = table.identity == RowIdentity::Virtual;
    let usable = if is_virtual { "usable " } else { "" };
    let remedy = if is_virtual {
        format!(
            "It is full, and virtual generated columns cannot be sent: ALTER TABLE {name} REPLICA IDENTITY DEFAULT;"
        )
    } else if table.partitioned {
        let lacking =
            shape.leaves.iter().filter(|leaf| leaf.is_logged() && leaf.gives == source::Gives::Nothing);
        format!(
            "Its partitions decide: add a primary key (one that is not deferrable), or run: ALTER TABLE {name} REPLICA IDENTITY FULL; {}",
            traps::full_identity(lacking)
        )
    } else {
        source::identity_remedy(std::slice::from_ref(&name))
    };
    if explicit {
        Finding::new(Severity::Error, "tables", format!("{name} has no {usable}replica identity"))
            .detail(
                "Publishing its updates and deletes would make the application's own UPDATE and DELETE fail."
                    .to_owned(),
            )
            .hint(format!("{remedy} Or subscribe to its inserts only."))
    } else {
        let message = format!("{name} has no {usable}replica identity: only its inserts can become events");
        Finding::new(Severity::Warning, "tables", message).hint(remedy)
    }
}

/// What would be changed, and whether our role may; what of the tables nobody hears of, and whom it hurts.
async fn publication(
    config: &Config,
    session: &Session,
    snapshot: &Snapshot,
    known: &[TableInfo],
    report: &mut CheckReport,
) -> Result<(), SetupError> {
    let names = PublicationNames::of(&config.database.publication);
    let (wanted, meant) = (upkeep::wanted(snapshot, known), upkeep::meant(snapshot, known));
    let planned = source::planned(session, &names, &wanted, known, manage(config)).await?;
    let found = planned.report;
    match planned.refused {
        Some(needs) => report.error("publication", setup(&needs)),
        None if found.statements.is_empty() => {
            report.ok("publication", format!("{} holds what webhooks need", names.all));
        }
        None => {
            let sql = found.statements.join(" ");
            report.ok("publication", format!("{} will be changed: {sql}", names.all));
        }
    }
    let is_meant = |unowned: &Unowned| {
        meant.iter().any(|m| m.explicit && qualified(&m.schema, &m.table) == unowned.table)
    };
    for unowned in &found.unowned {
        let severity = if is_meant(unowned) { Severity::Error } else { Severity::Warning };
        let message = format!("{} belongs to another role and is not published", unowned.table);
        let finding = Finding::new(severity, "publication", message)
            .detail("Only a table's owner may add it to a publication; the other tables are published.")
            .hint(format!(
                "As a superuser: {} Or let the role act for the owner: {}",
                unowned.sql, unowned.grant
            ));
        report.findings.push(finding);
    }
    if !found.narrowed.is_empty() {
        let message = format!("rows or columns are left out of {}", in_short(&found.narrowed));
        let finding = Finding::new(Severity::Warning, "publication", message)
            .detail("No webhook hears of what the publication leaves out; a row that leaves its filter comes as deleted.");
        report.findings.push(finding.hint(
            "If that is not meant: ALTER PUBLICATION … DROP TABLE …, and ADD TABLE … without filter and list; webhooks have \
             filter, and tables exclude, for themselves.",
        ));
    }
    if !found.hurt.is_empty() {
        let message = format!(
            "publication {} publishes updates of tables without a replica identity: {}",
            names.all,
            in_short(&found.hurt)
        );
        let finding = Finding::new(Severity::Warning, "publication", message)
            .detail("Postgres refuses the application's own UPDATE and DELETE of them.");
        let first = found.hurt.get(..SHOWN).unwrap_or(&found.hurt);
        report.findings.push(finding.hint(source::identity_remedy(first)));
    }
    Ok(())
}
