//! Bringing the publications to what webhooks need, by `ALTER` only.
//!
//! A publication that is dropped and made again does not exist at the positions before, and the stream could never
//! pass them. What is to be done is worked out as SQL first ([`plan`]), so that the same text is run, or printed for
//! the owner.

use std::collections::{BTreeMap, BTreeSet};

use super::publication::{qualified, quoted};
use super::setup::Manage;
use super::{PublicationNames, RowIdentity, SetupError, TableInfo, TableWanted};
use crate::postgres::Session;

/// What was found and done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The publications to stream from.
    pub publications: Vec<String>,
    /// The statements that were run.
    pub statements: Vec<String>,
    /// Wanted tables that do not exist (yet).
    pub missing: Vec<String>,
    /// Tables of which only inserts come, although a pattern wants more.
    pub inserts_only: Vec<String>,
    /// The publication covers all tables (or whole schemas), so the application's UPDATE of a table without
    /// identity fails, and our own tables come too.
    pub for_all_tables: bool,
}

/// A publication as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Existing {
    for_all: bool,
    via_root: bool,
    /// Whether it publishes stored generated columns.
    generated: bool,
    /// What it publishes, schemas and all tables included; quoted names.
    tables: BTreeSet<String>,
    /// What it lists table by table; quoted names.
    listed: BTreeSet<String>,
}

/// What the publications should hold; quoted names.
#[derive(Debug, Default)]
struct Targets {
    all: BTreeSet<String>,
    inserts: BTreeSet<String>,
    /// Whether the server refuses the application's updates unless generated columns are published.
    insist_on_generated: bool,
}

/// What there is.
#[derive(Debug, Default)]
struct Found {
    /// `server_version_num`.
    version: i32,
    publications: BTreeMap<String, Existing>,
}

/// The first version that publishes stored generated columns, where asked to.
const PUBLISHES_GENERATED: i32 = 180_000;

/// Compares the publications with what is wanted and, with [`Manage::Change`], changes them. Nothing is changed before
/// everything has been found possible; all changes are one transaction.
pub async fn reconcile(
    session: &mut Session,
    names: &PublicationNames,
    wanted: &[TableWanted],
    known: &[TableInfo],
    manage: Manage,
) -> Result<Report, SetupError> {
    let mut report = Report::default();
    let targets = targets(wanted, known, &mut report)?;
    let existing = read(session, names).await?;
    let all = existing.publications.get(&names.all);
    report.for_all_tables = all.is_some_and(|p| p.for_all);
    let statements = plan(names, &existing, &targets, manage);
    report.publications = vec![names.all.clone()];
    if manage == Manage::Change || existing.publications.contains_key(&names.inserts) {
        report.publications.push(names.inserts.clone());
    }
    if statements.is_empty() {
        return Ok(report);
    }
    let needs_owner =
        |sql: &[String]| SetupError::NeedsOwner { publication: names.all.clone(), sql: sql.to_vec() };
    if manage == Manage::Look {
        return Err(needs_owner(&statements));
    }
    match run(session, &statements).await {
        Ok(()) => {}
        Err(error) if error.code().is_some_and(|code| code.code() == "42501") => {
            return Err(needs_owner(&statements));
        }
        Err(error) => return Err(SetupError::query("change the publication")(error)),
    }
    report.statements = statements;
    Ok(report)
}

/// The statements that [`reconcile`] would run, or would have the owner run; changes nothing.
pub async fn planned(
    session: &Session,
    names: &PublicationNames,
    wanted: &[TableWanted],
    known: &[TableInfo],
    manage: Manage,
) -> Result<Vec<String>, SetupError> {
    let targets = targets(wanted, known, &mut Report::default())?;
    Ok(plan(names, &read(session, names).await?, &targets, manage))
}

async fn run(session: &mut Session, statements: &[String]) -> Result<(), tokio_postgres::Error> {
    let transaction = session.client.transaction().await?;
    for statement in statements {
        transaction.batch_execute(statement).await?;
    }
    transaction.commit().await
}

/// Whether every table that is meant by name for updates or deletes has a usable identity; changes nothing.
pub fn check_identities(wanted: &[TableWanted], known: &[TableInfo]) -> Result<(), SetupError> {
    targets(wanted, known, &mut Report::default()).map(drop)
}

/// Sorts the wanted tables into the two publications.
fn targets(wanted: &[TableWanted], known: &[TableInfo], report: &mut Report) -> Result<Targets, SetupError> {
    let by_name: BTreeMap<_, _> = known.iter().map(|t| ((&*t.schema, &*t.table), t)).collect();
    let (mut targets, mut refused, mut virtuals) = (Targets::default(), BTreeSet::new(), BTreeSet::new());
    for table in wanted {
        let name = qualified(&table.schema, &table.table);
        match by_name.get(&(&*table.schema, &*table.table)) {
            None => report.missing.push(name),
            Some(info) if info.identity_usable() => {
                targets.insist_on_generated |= info.stored_in_identity;
                targets.all.insert(name);
            }
            Some(info) if table.updates_or_deletes && table.explicit => {
                let of = if info.identity == RowIdentity::Virtual { &mut virtuals } else { &mut refused };
                of.insert(name);
            }
            Some(_) => {
                if table.updates_or_deletes {
                    report.inserts_only.push(name.clone());
                }
                targets.inserts.insert(name);
            }
        }
    }
    if !refused.is_empty() {
        return Err(SetupError::NoIdentity { tables: refused.into_iter().collect() });
    }
    if !virtuals.is_empty() {
        return Err(SetupError::VirtualIdentity { tables: virtuals.into_iter().collect() });
    }
    Ok(targets)
}

/// The statements that lead from what is to what is wanted. With [`Manage::Look`] only what is missing counts: a
/// publication of somebody else's may hold more.
fn plan(names: &PublicationNames, found: &Found, targets: &Targets, manage: Manage) -> Vec<String> {
    let manage = manage == Manage::Change;
    let Found { version, publications: existing } = found;
    let generated = *version >= PUBLISHES_GENERATED;
    let with = if generated { ", publish_generated_columns = stored" } else { "" };
    let mut statements = Vec::new();
    let covered = existing.get(&names.all).map(|p| p.tables.clone()).unwrap_or_default();
    let parts = [
        (&names.all, "insert, update, delete, truncate", &targets.all),
        (&names.inserts, "insert, truncate", &targets.inserts),
    ];
    for (name, operations, target) in parts {
        let publication = quoted(name);
        let Some(found) = existing.get(name) else {
            // Without management, the second one is needed only for tables the first does not cover.
            let target: BTreeSet<_> = target.iter().filter(|t| manage || !covered.contains(*t)).collect();
            if manage || name == &names.all || !target.is_empty() {
                let list = join(target);
                let tables = if list.is_empty() { String::new() } else { format!(" for table {list}") };
                statements.push(format!(
                    "create publication {publication}{tables} with (publish = '{operations}', \
                     publish_via_partition_root = true{with});"
                ));
            }
            continue;
        };
        if manage && !found.via_root {
            statements
                .push(format!("alter publication {publication} set (publish_via_partition_root = true);"));
        }
        // Before tables are added: one whose identity has such a column could not be updated in between.
        if generated && !found.generated && (manage || (targets.insist_on_generated && name == &names.all)) {
            statements
                .push(format!("alter publication {publication} set (publish_generated_columns = stored);"));
        }
        let missing: BTreeSet<_> = target
            .iter()
            .filter(|t| !found.tables.contains(*t) && (manage || !covered.contains(*t)))
            .collect();
        if !missing.is_empty() && !found.for_all {
            statements.push(format!("alter publication {publication} add table {};", join(missing)));
        }
        let surplus: BTreeSet<_> = found.listed.difference(target).collect();
        if manage && !surplus.is_empty() {
            statements.push(format!("alter publication {publication} drop table {};", join(surplus)));
        }
    }
    statements
}

/// The tables themselves: without `ONLY` their children by inheritance would come too, wanted or not, with a usable
/// identity or without.
fn join(names: BTreeSet<&String>) -> String {
    names.into_iter().map(|name| format!("only {name}")).collect::<Vec<_>>().join(", ")
}

async fn read(session: &Session, names: &PublicationNames) -> Result<Found, SetupError> {
    let failed = SetupError::query("read the publications");
    let version = session.client.query_one("select current_setting('server_version_num')::int4", &[]).await;
    let version = version.and_then(|row| row.try_get(0)).map_err(&failed)?;
    let both = vec![names.all.clone(), names.inserts.clone()];
    let sql = "
        select p.pubname::text, p.puballtables, p.pubviaroot,
            coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false)  -- a column of Postgres 18
        from pg_catalog.pg_publication p where p.pubname = any($1)";
    let mut found = BTreeMap::new();
    for row in session.client.query(sql, &[&both]).await.map_err(&failed)? {
        let name: String = row.try_get(0).map_err(&failed)?;
        let publication = Existing {
            for_all: row.try_get(1).map_err(&failed)?,
            via_root: row.try_get(2).map_err(&failed)?,
            generated: row.try_get(3).map_err(&failed)?,
            ..Existing::default()
        };
        found.insert(name, publication);
    }
    let sql = "
        select t.pubname::text, t.schemaname::text, t.tablename::text, false
        from pg_catalog.pg_publication_tables t where t.pubname = any($1)
        union all
        select p.pubname::text, n.nspname::text, c.relname::text, true
        from pg_catalog.pg_publication_rel r
        join pg_catalog.pg_publication p on p.oid = r.prpubid
        join pg_catalog.pg_class c on c.oid = r.prrelid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where p.pubname = any($1)";
    for row in session.client.query(sql, &[&both]).await.map_err(&failed)? {
        let (name, schema, table): (String, String, String) = (
            row.try_get(0).map_err(&failed)?,
            row.try_get(1).map_err(&failed)?,
            row.try_get(2).map_err(&failed)?,
        );
        let listed: bool = row.try_get(3).map_err(&failed)?;
        if let Some(publication) = found.get_mut(&name) {
            let table = qualified(&schema, &table);
            if listed {
                publication.listed.insert(table.clone());
            }
            publication.tables.insert(table);
        }
    }
    Ok(Found { version, publications: found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, usable: bool) -> TableInfo {
        TableInfo {
            schema: "public".to_owned(),
            table: name.to_owned(),
            oid: 1,
            partitioned: false,
            identity: if usable { RowIdentity::Key } else { RowIdentity::Unusable },
            owned: true,
            stored_in_identity: false,
        }
    }

    fn wanted(name: &str, updates_or_deletes: bool, explicit: bool) -> TableWanted {
        TableWanted { schema: "public".to_owned(), table: name.to_owned(), updates_or_deletes, explicit }
    }

    fn existing(tables: &[&str]) -> Existing {
        let tables: BTreeSet<_> = tables.iter().map(|t| qualified("public", t)).collect();
        Existing { for_all: false, via_root: true, generated: false, listed: tables.clone(), tables }
    }

    #[test]
    fn tables_without_identity_publish_inserts_only_or_are_refused() {
        let known = [table("orders", true), table("log", false)];
        let mut report = Report::default();
        let sorted =
            targets(&[wanted("orders", true, true), wanted("log", true, false)], &known, &mut report);
        let sorted = sorted.unwrap();
        assert_eq!(sorted.all.into_iter().collect::<Vec<_>>(), ["\"public\".\"orders\""]);
        assert_eq!(sorted.inserts.into_iter().collect::<Vec<_>>(), ["\"public\".\"log\""]);
        assert_eq!(report.inserts_only, ["\"public\".\"log\""]);
        let error = targets(&[wanted("log", true, true)], &known, &mut report).unwrap_err();
        assert!(error.hint().unwrap().contains("ALTER TABLE \"public\".\"log\" REPLICA IDENTITY FULL;"));
        assert!(targets(&[wanted("log", false, true)], &known, &mut report).is_ok());
    }

    #[test]
    fn publications_are_made_once_and_then_only_altered() {
        let names = PublicationNames::of("walhook");
        let targets = Targets {
            all: existing(&["a", "b"]).tables,
            inserts: existing(&["l"]).tables,
            ..Targets::default()
        };
        let made = plan(&names, &Found::default(), &targets, Manage::Change);
        assert_eq!(
            made,
            [
                "create publication \"walhook\" for table only \"public\".\"a\", only \"public\".\"b\" with (publish = \
                 'insert, update, delete, truncate', publish_via_partition_root = true);",
                "create publication \"walhook_inserts\" for table only \"public\".\"l\" with (publish = 'insert, truncate', \
                 publish_via_partition_root = true);",
            ]
        );
        let mut there = Found { version: 170_000, ..Found::default() };
        there.publications.insert(names.all.clone(), existing(&["b", "c"]));
        there.publications.insert(names.inserts.clone(), existing(&["l"]));
        assert_eq!(
            plan(&names, &there, &targets, Manage::Change),
            [
                "alter publication \"walhook\" add table only \"public\".\"a\";",
                "alter publication \"walhook\" drop table only \"public\".\"c\";",
            ]
        );
        assert_eq!(
            plan(&names, &there, &targets, Manage::Look),
            ["alter publication \"walhook\" add table only \"public\".\"a\";"]
        );
    }

    #[test]
    fn a_publication_of_all_tables_suffices() {
        let names = PublicationNames::of("theirs");
        let targets =
            Targets { all: existing(&["a"]).tables, inserts: existing(&["l"]).tables, ..Targets::default() };
        let everything = Existing { for_all: true, listed: BTreeSet::new(), ..existing(&["a", "l", "x"]) };
        let mut there = Found { version: 180_000, ..Found::default() };
        there.publications.insert(names.all.clone(), everything);
        assert!(plan(&names, &there, &targets, Manage::Look).is_empty());
        let insists = Targets { insist_on_generated: true, ..targets };
        assert_eq!(
            plan(&names, &there, &insists, Manage::Look),
            ["alter publication \"theirs\" set (publish_generated_columns = stored);"]
        );
    }
}
