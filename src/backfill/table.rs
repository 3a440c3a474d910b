//! A table as a backfill reads it: its columns as the stream would describe them, and the key its pages go by.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_postgres::{Client, Row};

use super::BackfillError;
use crate::domain::{Column, Relation, ReplicaIdentity};
use crate::pgoutput::kind_of;
use crate::postgres::Session;
use crate::source::{PublicationNames, columns};

/// A table that can be backfilled.
#[derive(Debug, Clone)]
pub struct Table {
    /// As the stream would describe it.
    pub relation: Arc<Relation>,
    /// Its key's columns, in the order of the key's index.
    pub(super) key: Vec<KeyColumn>,
    /// The schemas of the operators that compare its key's values in the order of their types: an extension may have been
    /// made in one of its own.
    operators: BTreeSet<String>,
    /// `only` before the name: children by inheritance are tables of their own to the stream.
    only: bool,
}

/// A column of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Its type, as SQL writes it.
    pub type_sql: String,
}

const TABLE: &str = "
select c.oid, c.relkind = 'r', c.relreplident::text, c.relpersistence = 'p'
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')";

/// The key that tells rows apart in the stream: the identity's index, or else the primary key. Of each column also the
/// schemas of `=` and `>` of the default operator class, which is the one that sorts.
const KEY: &str = "
select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
    array(select n.nspname::text
        from pg_catalog.pg_opclass o
        join pg_catalog.pg_opclass d
            on d.opcmethod = o.opcmethod and d.opcintype = o.opcintype and d.opcdefault
        join pg_catalog.pg_amop p on p.amopfamily = d.opcfamily and p.amopstrategy in (3, 5)
            and p.amoplefttype = d.opcintype and p.amoprighttype = d.opcintype
        join pg_catalog.pg_operator s on s.oid = p.amopopr
        join pg_catalog.pg_namespace n on n.oid = s.oprnamespace
        where o.oid = i.indclass[k.place::int4 - 1])
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indrelid
cross join lateral pg_catalog.unnest(i.indkey::int2[]) with ordinality k(attnum, place)
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = $1 and k.place <= i.indnkeyatts
    and case c.relreplident
        when 'i' then i.indisreplident
        when 'd' then i.indisprimary and i.indimmediate
        else i.indisprimary end
order by k.place";

/// Of these schemas, one that our role may not use.
const UNUSABLE: &str = "
select n.nspname::text from pg_catalog.pg_namespace n
where n.nspname = any($1::text[]) and not pg_catalog.has_schema_privilege(n.oid, 'usage')
limit 1";

/// Whether one of our publications carries the table's updates and deletes too.
const PUBLISHED: &str = "
select coalesce(bool_or(p.pubinsert and p.pubupdate and p.pubdelete), false)
from pg_catalog.pg_publication_tables t join pg_catalog.pg_publication p on p.pubname = t.pubname
where t.schemaname = $1 and t.tablename = $2 and t.pubname = any($3)";

impl Table {
    /// Looks at a table, and refuses one whose rows could not be told apart or whose changes could not be followed.
    pub async fn look(session: &Session, schema: &str, table: &str) -> Result<Self, BackfillError> {
        let failed = BackfillError::query("look at the table");
        let client = &session.client;
        let row = client.query_opt(TABLE, &[&schema, &table]).await.map_err(&failed)?;
        let name = qualified(schema, table);
        let Some(row) = row.filter(|row| row.get(3)) else {
            return Err(BackfillError::NoTable { table: name });
        };
        let (oid, only, identity): (u32, bool, String) = (row.get(0), row.get(1), row.get(2));
        let identity = match &*identity {
            "f" => ReplicaIdentity::Full,
            "i" => ReplicaIdentity::Index,
            "n" => ReplicaIdentity::Nothing,
            _ => ReplicaIdentity::Default,
        };
        let key = client.query(KEY, &[&oid]).await.map_err(&failed)?;
        let schemas =
            |row: &Row| row.get::<_, Vec<String>>(2).into_iter().filter(|name| name != "pg_catalog");
        let operators = key.iter().flat_map(schemas).collect();
        let key: Vec<KeyColumn> =
            key.iter().map(|row| KeyColumn { name: row.get(0), type_sql: row.get(1) }).collect();
        if key.is_empty() || identity == ReplicaIdentity::Nothing {
            return Err(BackfillError::NoKey { table: name });
        }
        let all = columns(session, &[oid]).await.map_err(|error| BackfillError::Table(Box::new(error)))?;
        let full = identity == ReplicaIdentity::Full;
        let kept = all.get(&oid).into_iter().flatten().filter(|column| !column.unsent);
        let columns = kept.map(|column| Column {
            name: column.name.as_str().into(),
            type_oid: column.type_oid,
            type_name: Some(column.type_name.as_str().into()),
            type_modifier: column.type_modifier,
            in_identity: full || column.in_key,
            kind: kind_of(column.type_oid, Some(&column.type_name)),
        });
        let relation = Relation {
            id: oid,
            schema: schema.into(),
            name: table.into(),
            identity,
            columns: columns.collect(),
        };
        Ok(Self { relation: Arc::new(relation), key, operators, only })
    }

    /// Refuses a table whose changes do not all come in the stream: a row that changes while its page is read would
    /// be sent stale.
    pub async fn insist_on_changes(
        &self,
        client: &Client,
        publications: &PublicationNames,
    ) -> Result<(), BackfillError> {
        let (schema, table) = (&*self.relation.schema, &*self.relation.name);
        let names = vec![publications.all.clone(), publications.inserts.clone()];
        let row = client.query_one(PUBLISHED, &[&schema, &table, &names]).await;
        let published: bool = row.map_err(BackfillError::query("look at the publication"))?.get(0);
        let (table, publication) = (self.sql(), publications.all.clone());
        if published { Ok(()) } else { Err(BackfillError::NotPublished { table, publication }) }
    }

    /// Refuses a table whose key cannot be compared in the order it is sorted in: a schema that the role may not use is
    /// passed over where names are looked for, and rows would be missing without a word.
    pub async fn insist_on_order(&self, client: &Client) -> Result<(), BackfillError> {
        let failed = BackfillError::query("look at the key's operators");
        let operators: Vec<&String> = self.operators.iter().collect();
        match client.query_opt(UNUSABLE, &[&operators]).await.map_err(failed)? {
            Some(row) => Err(BackfillError::NoUsage { table: self.sql(), schema: quoted(row.get(0)) }),
            None => Ok(()),
        }
    }

    /// How many columns its key has.
    pub fn key_width(&self) -> usize {
        self.key.len()
    }

    /// Its name, quoted.
    pub fn sql(&self) -> String {
        qualified(&self.relation.schema, &self.relation.name)
    }

    /// Where names in conditions, and the operators of the key's types, are looked for: sessions are pinned to
    /// `pg_catalog`, and `citext` would be compared as `text` there.
    pub(super) fn names_sql(&self) -> String {
        let own = quoted(&self.relation.schema);
        let names = ["pg_catalog".to_owned(), own, "public".to_owned()];
        let names: Vec<String> = names.into_iter().chain(self.operators.iter().map(|s| quoted(s))).collect();
        format!("search_path to {}", names.join(", "))
    }

    /// Its name after `from`.
    pub(super) fn source_sql(&self) -> String {
        format!("{}{}", if self.only { "only " } else { "" }, self.sql())
    }
}

/// An SQL identifier, quoted.
pub(super) fn quoted(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}

fn qualified(schema: &str, table: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(table))
}
