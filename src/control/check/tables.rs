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
use crate::source::{self, Manage, PublicationNames, RowIdentity, SetupError, Shape, TableInfo, TableWanted};

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
        if !table.identity_usable() && wish.updates_or_deletes {
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
            "Its partitions decide: add a primary key, or run: ALTER TABLE {name} REPLICA IDENTITY FULL; {}",
            traps::full_identity(lacking)
        )
    } else {
        format!("Add a primary key, or run: ALTER TABLE {name} REPLICA IDENTITY FULL;")
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

/// What would be changed, and whether our role may.
async fn publication(
    config: &Config,
    session: &Session,
    snapshot: &Snapshot,
    known: &[TableInfo],
    report: &mut CheckReport,
) -> Result<(), SetupError> {
    let names = PublicationNames::of(&config.database.publication);
    let wanted = upkeep::wanted(snapshot, known);
    let statements = source::planned(session, &names, &wanted, known, manage(config)).await?;
    if statements.is_empty() {
        report.ok("publication", format!("{} holds what webhooks need", names.all));
        return Ok(());
    }
    let sql = statements.join(" ");
    let not_owned: Vec<String> = known
        .iter()
        .filter(|t| !t.owned && sql.contains(&qualified(&t.schema, &t.table)))
        .map(|t| qualified(&t.schema, &t.table))
        .collect();
    let may = not_owned.is_empty() && source::may_publish(session, &names).await?;
    if manage(config) == Manage::Look || !may {
        let needs = SetupError::NeedsOwner { publication: names.all.clone(), sql: statements };
        let (message, _, hint) = setup(&needs);
        let detail =
            (!not_owned.is_empty()).then(|| format!("The role does not own {}.", in_short(&not_owned)));
        report.error("publication", (message, detail, hint));
    } else {
        report.ok("publication", format!("{} will be changed: {sql}", names.all));
    }
    Ok(())
}
