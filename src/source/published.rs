//! The publications as they are, whoever made them: what they hold, which operations they publish, under which name
//! partitions come, and what of a table's rows and columns they leave out.

use std::collections::{BTreeMap, BTreeSet};

use super::publication::qualified;
use super::{PublicationNames, SetupError};
use crate::domain::Operation;
use crate::postgres::Session;

/// The operations that a publication may publish, in the order of their columns in the catalog.
pub(super) const EVERY: [Operation; 4] =
    [Operation::Insert, Operation::Update, Operation::Delete, Operation::Truncate];

/// The first version whose publications have row filters, column lists and whole schemas.
const NARROWS: i32 = 150_000;

/// A publication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one answer per column of the catalog")]
pub(super) struct Existing {
    /// `FOR ALL TABLES`.
    pub for_all: bool,
    /// Whether partitions come under their root's name.
    pub via_root: bool,
    /// Whether it publishes stored generated columns.
    pub generated: bool,
    /// Whether our role may alter it.
    pub owned: bool,
    /// What it publishes.
    pub operations: Vec<Operation>,
    /// The tables it lists one by one, by quoted name.
    pub listed: BTreeMap<String, Narrowed>,
    /// The schemas it holds whole (`FOR TABLES IN SCHEMA`).
    pub schemas: BTreeSet<String>,
}

/// What a publication leaves out of a table that it lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Narrowed {
    /// Whether it has a row filter.
    pub rows: bool,
    /// Its column list, by the columns' numbers; `None` for all columns.
    pub columns: Option<String>,
}

/// What there is.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// `server_version_num`.
    pub version: i32,
    /// Our role.
    pub role: String,
    /// Whether it may make publications.
    pub may_create: bool,
    /// Those of our names.
    pub publications: BTreeMap<String, Existing>,
}

impl Existing {
    /// Whether it publishes changes of a table, under whatever name.
    pub fn holds(&self, schema: &str, name: &str) -> bool {
        self.for_all || self.listed.contains_key(name) || self.schemas.contains(schema)
    }

    /// Whether it refuses the application's updates or deletes of a table without a replica identity.
    pub fn publishes_old_rows(&self) -> bool {
        self.operations.iter().any(|o| matches!(o, Operation::Update | Operation::Delete))
    }

    /// The column list of a table, where it has one.
    pub fn columns(&self, name: &str) -> Option<&String> {
        self.listed.get(name).and_then(|narrowed| narrowed.columns.as_ref())
    }
}

const ROLE: &str = "
select current_setting('server_version_num')::int4, current_user::text,
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')";

const PUBLICATIONS: &str = "
select p.pubname::text, p.puballtables, p.pubviaroot,
    coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false),  -- a column of Postgres 18
    pg_catalog.pg_has_role(p.pubowner, 'USAGE'), array[p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate]
from pg_catalog.pg_publication p where p.pubname = any($1)";

/// `prqual` and `prattrs` are columns of Postgres 15.
const LISTED: &str = "
select p.pubname::text, n.nspname::text, c.relname::text, to_jsonb(r) ->> 'prqual' is not null,
    to_jsonb(r) ->> 'prattrs'
from pg_catalog.pg_publication_rel r
join pg_catalog.pg_publication p on p.oid = r.prpubid
join pg_catalog.pg_class c on c.oid = r.prrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.pubname = any($1)";

const SCHEMAS: &str = "
select p.pubname::text, n.nspname::text
from pg_catalog.pg_publication_namespace s
join pg_catalog.pg_publication p on p.oid = s.pnpubid
join pg_catalog.pg_namespace n on n.oid = s.pnnspid
where p.pubname = any($1)";

/// Reads what there is of these names.
pub(super) async fn read(session: &Session, names: &PublicationNames) -> Result<Found, SetupError> {
    let failed = SetupError::query("read the publications");
    let client = &session.client;
    let row = client.query_one(ROLE, &[]).await.map_err(&failed)?;
    let mut found = Found {
        version: row.try_get(0).map_err(&failed)?,
        role: row.try_get(1).map_err(&failed)?,
        may_create: row.try_get(2).map_err(&failed)?,
        publications: BTreeMap::new(),
    };
    let both = vec![names.all.clone(), names.inserts.clone()];
    for row in client.query(PUBLICATIONS, &[&both]).await.map_err(&failed)? {
        let flags: Vec<bool> = row.try_get(5).map_err(&failed)?;
        let publication = Existing {
            for_all: row.try_get(1).map_err(&failed)?,
            via_root: row.try_get(2).map_err(&failed)?,
            generated: row.try_get(3).map_err(&failed)?,
            owned: row.try_get(4).map_err(&failed)?,
            operations: EVERY.into_iter().zip(flags).filter_map(|(o, does)| does.then_some(o)).collect(),
            ..Existing::default()
        };
        found.publications.insert(row.try_get(0).map_err(&failed)?, publication);
    }
    for row in client.query(LISTED, &[&both]).await.map_err(&failed)? {
        let name: String = row.try_get(0).map_err(&failed)?;
        let table = qualified(row.try_get(1).map_err(&failed)?, row.try_get(2).map_err(&failed)?);
        let narrowed =
            Narrowed { rows: row.try_get(3).map_err(&failed)?, columns: row.try_get(4).map_err(&failed)? };
        found.publications.entry(name).and_modify(|p| p.listed.extend([(table, narrowed)]));
    }
    if found.version >= NARROWS {
        for row in client.query(SCHEMAS, &[&both]).await.map_err(&failed)? {
            let (name, schema): (String, String) =
                (row.try_get(0).map_err(&failed)?, row.try_get(1).map_err(&failed)?);
            found.publications.entry(name).and_modify(|p| p.schemas.extend([schema]));
        }
    }
    Ok(found)
}
