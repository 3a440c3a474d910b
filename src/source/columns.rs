//! The columns of tables as the catalog has them now.
//!
//! The stream describes tables itself, as they were at each place in the log; this is for who looks before anything
//! streams: checks of conditions, and samples.

use std::collections::BTreeMap;

use super::SetupError;
use crate::postgres::Session;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Its name.
    pub name: String,
    /// The type's oid; of a domain, its base type's.
    pub type_oid: u32,
    /// The same type's unqualified name.
    pub type_name: String,
    /// The type modifier, -1 where there is none.
    pub type_modifier: i32,
    /// The first label, where the type is an enum.
    pub label: Option<String>,
    /// Whether it is part of the key that identifies rows (primary key, or the index of the replica identity). Columns
    /// that the index only carries along (`INCLUDE`) are not; a key that may be violated for a while (`DEFERRABLE`) is
    /// one only beside a full identity, for Postgres takes none such as the identity itself.
    pub in_key: bool,
    /// Whether it is generated and the stream never carries it: stored ones are sent from Postgres 18 on, virtual
    /// ones by no version.
    pub unsent: bool,
}

const COLUMNS: &str = "
with recursive walk as (
    select a.attrelid, a.attnum, a.attname, a.atttypmod as typmod, a.attgenerated = 'v'
            or (a.attgenerated = 's' and current_setting('server_version_num')::int4 < 180000) as unsent,
        t.oid as typid, t.typtype, t.typbasetype, t.typtypmod, t.typname
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_type t on t.oid = a.atttypid
    where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
    union all
    select w.attrelid, w.attnum, w.attname, greatest(w.typmod, w.typtypmod), w.unsent,
        t.oid, t.typtype, t.typbasetype, t.typtypmod, t.typname
    from walk w join pg_catalog.pg_type t on w.typtype = 'd' and t.oid = w.typbasetype)
select w.attrelid, w.attname::text, w.typid, w.typname::text, w.typmod, w.unsent,
    (select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = w.typid order by e.enumsortorder limit 1),
    exists (
        select from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indrelid
        cross join lateral pg_catalog.unnest(i.indkey::int2[]) with ordinality k(attnum, place)
        where i.indrelid = w.attrelid and k.attnum = w.attnum and k.place <= i.indnkeyatts and i.indisvalid
            and case c.relreplident
                when 'i' then i.indisreplident
                when 'd' then i.indisprimary and i.indimmediate
                else i.indisprimary end)
from walk w where w.typtype <> 'd'
order by w.attrelid, w.attnum";

/// The columns of these tables (by oid), in their order.
pub async fn columns(
    session: &Session,
    tables: &[u32],
) -> Result<BTreeMap<u32, Vec<ColumnInfo>>, SetupError> {
    let failed = SetupError::query("read the tables' columns");
    let mut found: BTreeMap<u32, Vec<ColumnInfo>> = BTreeMap::new();
    for row in session.client.query(COLUMNS, &[&tables]).await.map_err(&failed)? {
        let column = ColumnInfo {
            name: row.try_get(1).map_err(&failed)?,
            type_oid: row.try_get(2).map_err(&failed)?,
            type_name: row.try_get(3).map_err(&failed)?,
            type_modifier: row.try_get(4).map_err(&failed)?,
            unsent: row.try_get(5).map_err(&failed)?,
            label: row.try_get(6).map_err(&failed)?,
            in_key: row.try_get(7).map_err(&failed)?,
        };
        found.entry(row.try_get(0).map_err(&failed)?).or_default().push(column);
    }
    Ok(found)
}
