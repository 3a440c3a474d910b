//! Tables, and which publication each belongs in.
//!
//! A table whose rows have no usable identity must not be in a publication that publishes updates: Postgres would
//! refuse the application's own UPDATE and DELETE of it. So there are two publications: one for everything, and one
//! that publishes inserts and truncates only. Both publish partitions as their root.

use super::SetupError;
use crate::domain::Operation;
use crate::postgres::Session;

/// The two publications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationNames {
    /// Publishes every operation.
    pub all: String,
    /// Publishes inserts and truncates.
    pub inserts: String,
}

/// A table that webhooks need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableWanted {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Which of its inserts, updates, deletes and truncates are wanted.
    pub operations: Vec<Operation>,
    /// Whether it is named (or only matched by a pattern): then what cannot be had is an error.
    pub explicit: bool,
}

impl TableWanted {
    /// Whether updates or deletes are wanted of it.
    pub fn updates_or_deletes(&self) -> bool {
        self.operations.iter().any(|operation| matches!(operation, Operation::Update | Operation::Delete))
    }
}

/// A table of the database; partitions are represented by their root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its oid.
    pub oid: u32,
    /// Whether it is partitioned.
    pub partitioned: bool,
    /// What identifies its rows: the partitions decide what is sent of an old row, and a partitioned table itself as
    /// what it is announced, so that all of it is there only where both say so.
    pub identity: RowIdentity,
    /// Whether our role owns it (or has its owner's rights), and so may publish it.
    pub owned: bool,
    /// The role that owns it.
    pub owner: String,
    /// Whether stored generated columns belong to the identity (which is full): a publication must then publish them.
    pub stored_in_identity: bool,
}

/// What a table (and each of its partitions) gives of the old row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowIdentity {
    /// Nothing: updates and deletes must not be published.
    Unusable,
    /// A key.
    Key,
    /// The whole old row (`REPLICA IDENTITY FULL`).
    Full,
    /// The whole old row, but with virtual generated columns (Postgres 18), which cannot be published: the server
    /// refuses the application's UPDATE and DELETE of such a table in a publication of updates.
    Virtual,
}

impl TableInfo {
    /// Whether updates and deletes can be published.
    pub fn identity_usable(&self) -> bool {
        !matches!(self.identity, RowIdentity::Unusable | RowIdentity::Virtual)
    }
}

impl PublicationNames {
    /// `name` and `name_inserts`.
    pub fn of(publication: &str) -> Self {
        Self { all: publication.to_owned(), inserts: format!("{publication}_inserts") }
    }
}

/// The tables that could be published: permanent, not of the system, not in `own_schema`.
pub async fn tables(session: &Session, own_schema: &str) -> Result<Vec<TableInfo>, SetupError> {
    let sql = "
        with leaf as (
            select c.oid as root, coalesce(t.relid, c.oid)::oid as oid
            from pg_catalog.pg_class c
            left join lateral pg_catalog.pg_partition_tree(c.oid) t on c.relkind = 'p' and t.isleaf
            where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence = 'p'
        ), judged as (
            select leaf.root,
                bool_and(elsewhere or l.relkind = 'p' or l.relreplident = 'f' or exists (
                    select from pg_catalog.pg_index i
                    where i.indrelid = l.oid and i.indimmediate and i.indisvalid and case l.relreplident
                        when 'd' then i.indisprimary
                        when 'i' then i.indisreplident
                        else false end)) as usable,
                bool_and(elsewhere or l.relreplident = 'f') as full_row,
                bool_or(l.relreplident = 'f' and exists (
                    select from pg_catalog.pg_attribute a where a.attrelid = l.oid and a.attgenerated = 'v')) as virtual,
                bool_or(l.relreplident = 'f' and exists (
                    select from pg_catalog.pg_attribute a where a.attrelid = l.oid and a.attgenerated = 's')) as stored
            from leaf
            join pg_catalog.pg_class l on l.oid = leaf.oid
            cross join lateral (select l.relkind = 'f' or l.relpersistence <> 'p') not_logged (elsewhere)
            group by leaf.root
        )
        select n.nspname::text, c.relname::text, c.oid, c.relkind = 'p', judged.usable,
            judged.full_row and c.relreplident = 'f', pg_catalog.pg_has_role(c.relowner, 'USAGE'), judged.virtual, judged.stored,
            pg_catalog.pg_get_userbyid(c.relowner)::text
        from judged
        join pg_catalog.pg_class c on c.oid = judged.root
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname <> $1
        order by 1, 2";
    let rows =
        session.client.query(sql, &[&own_schema]).await.map_err(SetupError::query("list the tables"))?;
    rows.iter()
        .map(|row| {
            Ok(TableInfo {
                schema: row.try_get(0)?,
                table: row.try_get(1)?,
                oid: row.try_get(2)?,
                partitioned: row.try_get(3)?,
                identity: match (row.try_get(4)?, row.try_get(5)?, row.try_get(7)?) {
                    (_, _, true) => RowIdentity::Virtual,
                    (_, true, _) => RowIdentity::Full,
                    (true, false, _) => RowIdentity::Key,
                    (false, false, _) => RowIdentity::Unusable,
                },
                owned: row.try_get(6)?,
                stored_in_identity: row.try_get(8)?,
                owner: row.try_get(9)?,
            })
        })
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(SetupError::query("list the tables"))
}

/// An SQL identifier, quoted.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name, quoted.
pub(super) fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(table))
}

/// An SQL string.
pub(super) fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text).trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_strings_cannot_break_out() {
        assert_eq!(qualified("public", "or\"ders"), "\"public\".\"or\"\"ders\"");
        assert_eq!(literal("it's"), "'it''s'");
    }
}
