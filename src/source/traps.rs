//! What a table's own shape does to its events: partitions, children, large values; and what looks like a table and
//! cannot be published. Read from the catalog as it is now, for who looks before anything streams.

use std::collections::BTreeMap;

use super::SetupError;
use crate::postgres::Session;

/// A partition without partitions of its own: where rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Whether it is a foreign table.
    pub foreign: bool,
    /// Whether it is unlogged.
    pub unlogged: bool,
    /// What it gives of the old row, where its changes are in the log. The server asks the leaf whether an update may be published, and takes from it what
    /// is sent.
    pub gives: Gives,
}

impl Leaf {
    /// Whether its changes are in this server's log.
    pub fn is_logged(&self) -> bool {
        !self.foreign && !self.unlogged
    }
}

/// What a replica identity gives of the old row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// Nothing.
    Nothing,
    /// A key.
    Key,
    /// All of it.
    Row,
}

/// A table's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// What the table itself says; of a partitioned one, how its rows are announced.
    pub gives: Gives,
    /// Its leaves, where it is partitioned.
    pub leaves: Vec<Leaf>,
    /// Its children by inheritance, and theirs: schema and name.
    pub children: Vec<(String, String)>,
    /// Columns outside the key whose large values are stored apart, and not sent by an update that leaves them alone.
    pub toastable: Vec<String>,
}

/// What an identity gives, as SQL over a row `c` of `pg_class`: `n`, `k` or `r`.
const GIVES: &str = "
    case when c.relreplident = 'f' then 'r'
        when exists (
            select from pg_catalog.pg_index i
            where i.indrelid = c.oid and i.indimmediate and i.indisvalid
                and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end) then 'k'
        else 'n' end";

fn gives(letter: &str) -> Gives {
    match letter {
        "r" => Gives::Row,
        "k" => Gives::Key,
        _ => Gives::Nothing,
    }
}

/// The shapes of these tables, by oid.
pub async fn shapes(session: &Session, tables: &[u32]) -> Result<BTreeMap<u32, Shape>, SetupError> {
    let failed = SetupError::query("read the tables' shapes");
    let mut found = BTreeMap::new();
    let sql = format!(
        "select c.oid, {GIVES}, coalesce(heavy.columns, '{{}}')
        from pg_catalog.pg_class c left join ({TOASTABLE}) heavy on heavy.root = c.oid
        where c.oid = any($1)"
    );
    for row in session.client.query(&sql, &[&tables]).await.map_err(&failed)? {
        let shape = Shape {
            gives: gives(row.try_get(1).map_err(&failed)?),
            toastable: row.try_get(2).map_err(&failed)?,
            leaves: Vec::new(),
            children: Vec::new(),
        };
        found.insert(row.try_get::<_, u32>(0).map_err(&failed)?, shape);
    }
    let sql = format!(
        "select r.oid, n.nspname::text, c.relname::text, c.relkind = 'f', c.relpersistence = 'u', {GIVES}
        from pg_catalog.pg_class r
        cross join lateral pg_catalog.pg_partition_tree(r.oid) t
        join pg_catalog.pg_class c on c.oid = t.relid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where r.oid = any($1) and r.relkind = 'p' and t.isleaf
        order by 1, 2, 3"
    );
    for row in session.client.query(&sql, &[&tables]).await.map_err(&failed)? {
        let leaf = Leaf {
            schema: row.try_get(1).map_err(&failed)?,
            table: row.try_get(2).map_err(&failed)?,
            foreign: row.try_get(3).map_err(&failed)?,
            unlogged: row.try_get(4).map_err(&failed)?,
            gives: gives(row.try_get(5).map_err(&failed)?),
        };
        let of: u32 = row.try_get(0).map_err(&failed)?;
        found.entry(of).and_modify(|shape| shape.leaves.push(leaf));
    }
    for row in session.client.query(CHILDREN, &[&tables]).await.map_err(&failed)? {
        let child = (row.try_get(1).map_err(&failed)?, row.try_get(2).map_err(&failed)?);
        let of: u32 = row.try_get(0).map_err(&failed)?;
        found.entry(of).and_modify(|shape| shape.children.push(child));
    }
    Ok(found)
}

/// Short strings are never stored apart: a row is made smaller only where it is over two kilobytes.
const TOASTABLE: &str = "
    select held.root, array_agg(distinct a.attname::text) as columns
    from (
        select r.oid as root, coalesce(t.relid, r.oid)::oid as oid
        from pg_catalog.pg_class r
        left join lateral pg_catalog.pg_partition_tree(r.oid) t on r.relkind = 'p' and t.isleaf
        where r.oid = any($1)
    ) held
    join pg_catalog.pg_class c on c.oid = held.oid and c.reltoastrelid <> 0
    join pg_catalog.pg_attribute a on a.attrelid = c.oid
    where a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attlen = -1 and a.attstorage in ('x', 'e')
        and not (a.atttypid in ('varchar'::regtype, 'bpchar'::regtype) and a.atttypmod between 1 and 500)
        and not exists (
            select from pg_catalog.pg_index i
            cross join lateral pg_catalog.unnest(i.indkey::int2[]) with ordinality k(attnum, place)
            where i.indrelid = c.oid and k.attnum = a.attnum and k.place <= i.indnkeyatts
                and i.indimmediate and i.indisvalid
                and (i.indisreplident or (i.indisprimary and c.relreplident <> 'i')))
    group by held.root";

const CHILDREN: &str = "
    with recursive below as (
        select i.inhparent as root, i.inhrelid as oid from pg_catalog.pg_inherits i where i.inhparent = any($1)
        union
        select below.root, i.inhrelid from below join pg_catalog.pg_inherits i on i.inhparent = below.oid)
    select below.root, n.nspname::text, c.relname::text
    from below
    join pg_catalog.pg_class c on c.oid = below.oid and not c.relispartition and c.relkind = 'r'
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    order by 1, 2, 3";

/// Something that looks like a table to who names it, and cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpublishable {
    /// The schema it is named with: of a temporary table, `public`.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: UnpublishableKind,
}

/// Why a relation cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnpublishableKind {
    /// A view of these tables (schema and name).
    View(Vec<(String, String)>),
    /// A materialised view of these tables.
    MaterialisedView(Vec<(String, String)>),
    /// Another server's table.
    Foreign,
    /// Its changes are not logged.
    Unlogged,
    /// A session's own.
    Temporary,
    /// A partition of this table (schema and name), as which its rows are published.
    Partition((String, String)),
}

/// What has one of these names, in whatever schema, looks like a table and cannot be published.
pub async fn unpublishable(session: &Session, names: &[String]) -> Result<Vec<Unpublishable>, SetupError> {
    let failed = SetupError::query("look for views, foreign, unlogged and temporary tables");
    let mut found = Vec::new();
    for row in session.client.query(UNPUBLISHABLE, &[&names]).await.map_err(&failed)? {
        let tables = |at: usize| -> Result<Vec<(String, String)>, SetupError> {
            let schemas: Vec<String> = row.try_get(at).map_err(&failed)?;
            let tables: Vec<String> = row.try_get(at + 1).map_err(&failed)?;
            Ok(schemas.into_iter().zip(tables).collect())
        };
        let letter: String = row.try_get(2).map_err(&failed)?;
        let kind = match letter.as_str() {
            "v" => UnpublishableKind::View(tables(3)?),
            "m" => UnpublishableKind::MaterialisedView(tables(3)?),
            "f" => UnpublishableKind::Foreign,
            "t" => UnpublishableKind::Temporary,
            "u" => UnpublishableKind::Unlogged,
            _ => match tables(5)?.into_iter().next() {
                Some(root) => UnpublishableKind::Partition(root),
                None => continue,
            },
        };
        let schema = row.try_get(0).map_err(&failed)?;
        found.push(Unpublishable { schema, name: row.try_get(1).map_err(&failed)?, kind });
    }
    Ok(found)
}

const UNPUBLISHABLE: &str = "
    with recursive strange as (
        select c.oid, c.relnamespace, c.relname, c.relispartition,
            case when c.relkind in ('v', 'm', 'f') and not c.relispartition then c.relkind::text
                when c.relpersistence <> 'p' then c.relpersistence::text
                else 'l' end as letter
        from pg_catalog.pg_class c
        where c.relname = any($1) and (c.relkind in ('v', 'm', 'f')
            or (c.relkind in ('r', 'p') and (c.relpersistence <> 'p' or c.relispartition)))
    ), reads as (
        select s.oid as root, s.oid from strange s where s.letter in ('v', 'm')
        union
        select reads.root, d.refobjid
        from reads
        join pg_catalog.pg_rewrite w on w.ev_class = reads.oid
        join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = w.oid
            and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> reads.oid
    ), behind as (
        select r.root, array_agg(n.nspname::text order by n.nspname, c.relname) as schemas,
            array_agg(c.relname::text order by n.nspname, c.relname) as tables
        from reads r
        join pg_catalog.pg_class c on c.oid = r.oid and c.relkind in ('r', 'p')
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        group by r.root
    )
    select case when s.letter = 't' then 'public' else n.nspname::text end, s.relname::text, s.letter,
        coalesce(b.schemas, '{}'), coalesce(b.tables, '{}'),
        array(select rn.nspname::text from pg_catalog.pg_class rc
            join pg_catalog.pg_namespace rn on rn.oid = rc.relnamespace
            where s.relispartition and rc.oid = pg_catalog.pg_partition_root(s.oid)),
        array(select rc.relname::text from pg_catalog.pg_class rc
            where s.relispartition and rc.oid = pg_catalog.pg_partition_root(s.oid))
    from strange s
    join pg_catalog.pg_namespace n on n.oid = s.relnamespace
    left join behind b on b.root = s.oid
    where n.nspname !~ '^pg_(catalog|toast)' and n.nspname <> 'information_schema'
    order by 1, 2";
