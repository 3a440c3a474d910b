//! Bringing the publications to what webhooks need, by `ALTER` only.
//!
//! A publication that is dropped and made again does not exist at the positions before, and the stream could never
//! pass them. What is to be done is worked out as SQL first ([`planned`]), so that the same text is run, or printed for
//! the owner.
//!
//! Only a table's owner may publish it. One that belongs to somebody else, and that a pattern happens to match, is left
//! out and told; the others are published all the same. One that is meant by name is an error where its
//! [`explicit`](TableWanted::explicit) says so.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{self, INSERTS, Step, Target, Targets};
use super::publication::{qualified, quoted};
use super::published::{Found, read};
use super::setup::Manage;
use super::{PublicationNames, RowIdentity, SetupError, TableInfo, TableWanted};
use crate::postgres::Session;

/// How often it is looked again, where another process makes the same things at the same moment.
const LOOKS: u32 = 3;

/// What was found and done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The publications to stream from.
    pub publications: Vec<String>,
    /// The statements that were run (or, of a plan, would be).
    pub statements: Vec<String>,
    /// The publications that they made.
    pub made: Vec<String>,
    /// Wanted tables that do not exist (yet).
    pub missing: Vec<String>,
    /// Tables of which only inserts come, although a pattern wants more.
    pub inserts_only: Vec<String>,
    /// Wanted tables that belong to somebody else and are not published.
    pub unowned: Vec<Unowned>,
    /// Wanted tables whose events the publication leaves rows or columns out of, on purpose: each with what does so.
    pub narrowed: Vec<String>,
    /// Tables without a replica identity whose updates or deletes are published: Postgres refuses the application's own.
    /// A publication of ours has none, unless it is `FOR ALL TABLES`.
    pub hurt: Vec<String>,
}

/// A table that only its owner may publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unowned {
    /// Its name, quoted.
    pub table: String,
    /// What somebody with the rights of both must run.
    pub sql: String,
    /// What lets our role act for the owner.
    pub grant: String,
}

/// What would be done, and why it cannot be.
#[derive(Debug)]
pub struct Planned {
    /// What was found, and the statements that would be run.
    pub report: Report,
    /// Why they are not run by us.
    pub refused: Option<SetupError>,
}

/// Compares the publications with what is wanted and, with [`Manage::Change`], changes them. Nothing is changed before
/// everything has been found possible; all changes are one transaction.
pub async fn reconcile(
    session: &mut Session,
    names: &PublicationNames,
    wanted: &[TableWanted],
    known: &[TableInfo],
    manage: Manage,
) -> Result<Report, SetupError> {
    let mut looks = 0;
    loop {
        looks += 1;
        let planned = planned(session, names, wanted, known, manage).await?;
        if let Some(refused) = planned.refused {
            return Err(refused);
        }
        let report = planned.report;
        if report.statements.is_empty() {
            return Ok(report);
        }
        match run(session, &report.statements).await {
            Ok(()) => return Ok(report),
            Err(error) => match error.code().map(tokio_postgres::error::SqlState::code) {
                Some("42501") => {
                    let (publication, sql) = (names.all.clone(), report.statements);
                    return Err(SetupError::NeedsOwner { publication, sql, unowned: Vec::new() });
                }
                // Another process was quicker.
                Some("42710" | "23505") if looks < LOOKS => {}
                _ => return Err(SetupError::query("change the publication")(error)),
            },
        }
    }
}

/// What [`reconcile`] would do, or would have the owner do; changes nothing.
pub async fn planned(
    session: &Session,
    names: &PublicationNames,
    wanted: &[TableWanted],
    known: &[TableInfo],
    manage: Manage,
) -> Result<Planned, SetupError> {
    let mut report = Report::default();
    let targets = targets(wanted, known, &mut report)?;
    let found = read(session, names).await?;
    let refused = compare(names, &found, &targets, manage, &mut report);
    report.hurt = hurt(names, &found, known, manage);
    Ok(Planned { report, refused })
}

/// Works the statements out, and whether they can be run.
fn compare(
    names: &PublicationNames,
    found: &Found,
    targets: &Targets,
    manage: Manage,
    report: &mut Report,
) -> Option<SetupError> {
    report.publications = plan::asked(names, found);
    report.narrowed = plan::narrowed(names, found, targets, manage);
    let everything = plan::steps(names, found, targets, manage);
    let (possible, unowned, insisted) = without_unowned(names, found, targets, manage);
    let steps = plan::steps(names, found, &possible, manage);
    let may = |step: &Step| match found.publications.get(&step.publication) {
        None => found.may_create,
        Some(publication) => publication.owned,
    };
    let refused = (manage == Manage::Look && !steps.is_empty()) || !steps.iter().all(may) || insisted;
    report.made = steps
        .iter()
        .filter(|step| !found.publications.contains_key(&step.publication))
        .map(|step| step.publication.clone())
        .collect();
    report.statements = steps.into_iter().map(|step| step.sql).collect();
    report.unowned = unowned;
    refused.then(|| SetupError::NeedsOwner {
        publication: names.all.clone(),
        sql: everything.into_iter().map(|step| step.sql).collect(),
        unowned: report.unowned.clone(),
    })
}

/// The targets without those that we may not publish; those, and whether one of them is insisted on.
fn without_unowned(
    names: &PublicationNames,
    found: &Found,
    targets: &Targets,
    manage: Manage,
) -> (Targets, Vec<Unowned>, bool) {
    let (mut possible, mut unowned, mut insisted) = (targets.clone(), Vec::new(), false);
    let is_for_all = found.publications.get(&names.all).is_some_and(|all| all.for_all);
    if manage == Manage::Look || is_for_all {
        return (possible, unowned, insisted);
    }
    for (name, tables) in [(&names.all, &mut possible.all), (&names.inserts, &mut possible.inserts)] {
        tables.retain(|table, target| {
            let is_listed = found.publications.get(name).is_some_and(|p| p.listed.contains_key(table));
            let Some(owner) = target.foreign_owner.as_ref().filter(|_| !is_listed) else { return true };
            insisted |= target.explicit;
            unowned.push(Unowned {
                table: table.clone(),
                sql: format!("alter publication {} add table only {table};", quoted(name)),
                grant: format!("grant {} to {};", quoted(owner), quoted(&found.role)),
            });
            false
        });
    }
    (possible, unowned, insisted)
}

/// The tables, wanted or not, of which the server refuses the application's updates.
fn hurt(names: &PublicationNames, found: &Found, known: &[TableInfo], manage: Manage) -> Vec<String> {
    let all = found.publications.get(&names.all);
    if manage == Manage::Change && !all.is_some_and(|all| all.for_all) {
        return Vec::new();
    }
    let asked = plan::asked(names, found);
    let streams: Vec<_> = asked.iter().filter_map(|name| found.publications.get(name)).collect();
    let keyless = known.iter().filter(|table| !table.identity_usable());
    let quoted = keyless.map(|table| (table, qualified(&table.schema, &table.table)));
    let refused = quoted.filter(|(table, name)| {
        streams.iter().any(|p| p.publishes_old_rows() && p.holds(&table.schema, name))
    });
    refused.map(|(_, name)| name).collect()
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
        let Some(info) = by_name.get(&(&*table.schema, &*table.table)) else {
            report.missing.push(name);
            continue;
        };
        let mut target = Target {
            schema: table.schema.clone(),
            partitioned: info.partitioned,
            foreign_owner: (!info.owned).then(|| info.owner.clone()),
            explicit: table.explicit,
            needs: table.operations.clone(),
        };
        if info.identity_usable() {
            targets.insist_on_generated |= info.stored_in_identity;
            targets.all.insert(name, target);
        } else if table.updates_or_deletes() && table.explicit {
            let of = if info.identity == RowIdentity::Virtual { &mut virtuals } else { &mut refused };
            of.insert(name);
        } else {
            if table.updates_or_deletes() {
                report.inserts_only.push(name.clone());
            }
            target.needs.retain(|operation| INSERTS.contains(operation));
            targets.inserts.insert(name, target);
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

#[cfg(test)]
mod tests {
    use super::super::published::{EVERY, Existing, Narrowed};
    use super::*;
    use crate::domain::Operation;

    fn table(name: &str, usable: bool) -> TableInfo {
        TableInfo {
            schema: "public".to_owned(),
            table: name.to_owned(),
            oid: 1,
            partitioned: false,
            identity: if usable { RowIdentity::Key } else { RowIdentity::Unusable },
            owned: true,
            owner: "app".to_owned(),
            stored_in_identity: false,
        }
    }

    fn wanted(name: &str, operations: &[Operation], explicit: bool) -> TableWanted {
        let (schema, table) = ("public".to_owned(), name.to_owned());
        TableWanted { schema, table, operations: operations.to_vec(), explicit }
    }

    fn existing(tables: &[&str], operations: &[Operation]) -> Existing {
        let listed = tables.iter().map(|table| (qualified("public", table), Narrowed::default()));
        Existing {
            via_root: true,
            owned: true,
            operations: operations.to_vec(),
            listed: listed.collect(),
            ..Existing::default()
        }
    }

    /// What [`compare`] says of tables `a` and `b` with a key and `l` without one.
    struct Case {
        names: PublicationNames,
        known: Vec<TableInfo>,
        wanted: Vec<TableWanted>,
        found: Found,
    }

    impl Case {
        fn new() -> Self {
            Self {
                names: PublicationNames::of("walhook"),
                known: vec![table("a", true), table("b", true), table("l", false)],
                wanted: vec![
                    wanted("a", &EVERY, false),
                    wanted("b", &[Operation::Insert], false),
                    wanted("l", &EVERY, false),
                ],
                found: Found {
                    version: 170_000,
                    role: "app".to_owned(),
                    may_create: true,
                    ..Found::default()
                },
            }
        }

        fn with(mut self, all: Existing, inserts: Existing) -> Self {
            self.found.publications.insert(self.names.all.clone(), all);
            self.found.publications.insert(self.names.inserts.clone(), inserts);
            self
        }

        fn compare(&self, manage: Manage) -> (Report, Option<SetupError>) {
            let mut report = Report::default();
            let targets = targets(&self.wanted, &self.known, &mut report).unwrap();
            let refused = compare(&self.names, &self.found, &targets, manage, &mut report);
            report.hurt = hurt(&self.names, &self.found, &self.known, manage);
            (report, refused)
        }

        #[track_caller]
        fn changes(&self, expect: &[&str]) {
            let (report, refused) = self.compare(Manage::Change);
            assert_eq!(report.statements, expect);
            assert!(refused.is_none(), "{refused:?}");
        }

        #[track_caller]
        fn asks(&self, expect: &[&str]) {
            let (_, refused) = self.compare(Manage::Look);
            let sql = match refused {
                Some(SetupError::NeedsOwner { sql, .. }) => sql,
                None => Vec::new(),
                other => panic!("{other:?}"),
            };
            assert_eq!(sql, expect);
        }
    }

    #[test]
    fn tables_without_identity_publish_inserts_only_or_are_refused() {
        let known = [table("orders", true), table("log", false)];
        let mut report = Report::default();
        let all = [wanted("orders", &EVERY, true), wanted("log", &EVERY, false)];
        let sorted = targets(&all, &known, &mut report).unwrap();
        assert_eq!(sorted.all.into_keys().collect::<Vec<_>>(), ["\"public\".\"orders\""]);
        assert_eq!(sorted.inserts.into_keys().collect::<Vec<_>>(), ["\"public\".\"log\""]);
        assert_eq!(report.inserts_only, ["\"public\".\"log\""]);
        let error = targets(&[wanted("log", &EVERY, true)], &known, &mut report).unwrap_err();
        assert!(error.hint().unwrap().contains("ALTER TABLE \"public\".\"log\" REPLICA IDENTITY FULL;"));
        assert!(targets(&[wanted("log", &INSERTS, true)], &known, &mut report).is_ok());
    }

    #[test]
    fn publications_are_made_both_at_once_and_then_only_altered() {
        let made = [
            "create publication \"walhook\" for table only \"public\".\"a\", only \"public\".\"b\" with (publish = \
             'insert, update, delete, truncate', publish_via_partition_root = true);",
            "create publication \"walhook_inserts\" for table only \"public\".\"l\" with (publish = 'insert, truncate', \
             publish_via_partition_root = true);",
        ];
        Case::new().changes(&made);
        Case::new().asks(&made);
        let there = || Case::new().with(existing(&["b", "c"], &EVERY), existing(&["l"], &INSERTS));
        there().changes(&[
            "alter publication \"walhook\" drop table only \"public\".\"c\";",
            "alter publication \"walhook\" add table only \"public\".\"a\";",
        ]);
        there().asks(&["alter publication \"walhook\" add table only \"public\".\"a\";"]);
        let mut one = there();
        one.found.publications.remove("walhook_inserts");
        one.wanted.truncate(2);
        one.asks(&[
            "alter publication \"walhook\" add table only \"public\".\"a\";",
            "create publication \"walhook_inserts\" with (publish = 'insert, truncate', publish_via_partition_root = true);",
        ]);
    }

    #[test]
    fn what_a_publication_leaves_out_is_repaired_where_it_is_ours_and_asked_for_or_told_where_not() {
        let narrow = Narrowed { rows: true, columns: Some("1".to_owned()) };
        let mut all = existing(&["a", "b"], &[Operation::Insert]);
        (all.via_root, all.schemas) = (false, ["shop".to_owned()].into());
        all.listed.insert(qualified("public", "b"), narrow);
        let case = || Case::new().with(all.clone(), existing(&["l"], &INSERTS));
        case().changes(&[
            "alter publication \"walhook\" set (publish_via_partition_root = true);",
            "alter publication \"walhook\" set (publish = 'insert, update, delete, truncate');",
            "alter publication \"walhook\" drop table only \"public\".\"b\";",
            "alter publication \"walhook\" add table only \"public\".\"b\";",
            "alter publication \"walhook\" drop tables in schema \"shop\";",
        ]);
        case().asks(&["alter publication \"walhook\" set (publish = 'insert, update, delete, truncate');"]);
        let (report, _) = case().compare(Manage::Look);
        assert_eq!(
            report.narrowed,
            ["\"public\".\"b\" (row filter of \"walhook\")", "\"public\".\"b\" (column list of \"walhook\")"]
        );
        assert!(case().compare(Manage::Change).0.narrowed.is_empty());
        let mut partitioned = case();
        partitioned.known[1].partitioned = true;
        partitioned.asks(&[
            "alter publication \"walhook\" set (publish_via_partition_root = true);",
            "alter publication \"walhook\" set (publish = 'insert, update, delete, truncate');",
        ]);
    }

    #[test]
    fn two_column_lists_of_one_table_would_end_the_stream() {
        let mut inserts = existing(&["a", "l"], &INSERTS);
        let columns = Some("1".to_owned());
        inserts.listed.insert(qualified("public", "a"), Narrowed { rows: false, columns });
        let case = Case::new().with(existing(&["a", "b"], &EVERY), inserts);
        case.asks(&["alter publication \"walhook_inserts\" drop table only \"public\".\"a\";"]);
        assert!(case.compare(Manage::Look).0.narrowed.is_empty(), "the other has all columns");
    }

    #[test]
    fn a_publication_of_all_tables_suffices_and_who_is_hurt_by_it_is_named() {
        let everything = Existing { for_all: true, ..existing(&[], &EVERY) };
        let mut case = Case::new();
        case.found.version = 180_000;
        case.found.publications.insert(case.names.all.clone(), everything.clone());
        case.asks(&[]);
        case.changes(&[]);
        let (report, _) = case.compare(Manage::Change);
        assert_eq!(
            (report.publications, report.hurt),
            (vec!["walhook".to_owned()], vec![qualified("public", "l")])
        );
        case.known[0].stored_in_identity = true;
        case.asks(&["alter publication \"walhook\" set (publish_generated_columns = stored);"]);
        let inserts = Existing { operations: INSERTS.to_vec(), generated: true, ..everything };
        case.found.publications.insert(case.names.all.clone(), inserts);
        assert!(case.compare(Manage::Look).0.hurt.is_empty(), "only inserts are published");
        case.asks(&["alter publication \"walhook\" set (publish = 'insert, update, delete, truncate');"]);
    }

    #[test]
    fn a_table_of_somebody_elses_keeps_none_of_the_others_from_being_published() {
        let mut case = Case::new().with(existing(&[], &EVERY), existing(&[], &INSERTS));
        for info in &mut case.known {
            info.owned = info.table == "b";
            info.owner = "bob".to_owned();
        }
        case.changes(&["alter publication \"walhook\" add table only \"public\".\"b\";"]);
        let unowned = case.compare(Manage::Change).0.unowned;
        let sql: Vec<_> = unowned.iter().map(|unowned| &*unowned.sql).collect();
        assert_eq!(
            sql,
            [
                "alter publication \"walhook\" add table only \"public\".\"a\";",
                "alter publication \"walhook_inserts\" add table only \"public\".\"l\";",
            ]
        );
        assert!(unowned.iter().all(|unowned| unowned.grant == "grant \"bob\" to \"app\";"));
        case.wanted[0].explicit = true;
        let refused = case.compare(Manage::Change).1.expect("a table that is meant by name");
        assert!(refused.hint().unwrap().contains("add table only \"public\".\"a\", only \"public\".\"b\";"));
        // It is published already: nothing to do, and none of its owner's business.
        case.found.publications.insert("walhook".to_owned(), existing(&["a", "b"], &EVERY));
        case.wanted.truncate(2);
        case.changes(&[]);
    }

    #[test]
    fn without_the_right_to_the_publication_nothing_is_tried() {
        let mut case = Case::new();
        case.found.may_create = false;
        assert!(case.compare(Manage::Change).1.is_some());
        let theirs = Existing { owned: false, ..existing(&["a"], &EVERY) };
        let case = Case::new().with(theirs, existing(&["l"], &INSERTS));
        let refused = case.compare(Manage::Change).1.expect("somebody else's publication");
        assert!(
            refused
                .hint()
                .unwrap()
                .contains("alter publication \"walhook\" add table only \"public\".\"b\";")
        );
    }
}
