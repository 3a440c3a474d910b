//! Reading a page: which rows, in which form, and at which moment.
//!
//! Every value is read as its type's output function writes it (`format('%s', …)`), under the settings that every
//! session has pinned: so it is the very text that the stream would carry, and the same code makes JSON of it. A cast
//! to `text` would not do: it writes `true` for `t`, strips `char(n)` of its spaces and `inet` of nothing.
//!
//! A page ends at a number of rows or of bytes, whichever comes first; rows are fetched in small portions, and a row
//! that is too large to send comes without its values. What the server cannot send as UTF-8 is read once more, as it is, and
//! made UTF-8 here ([`recode`](super::recode)).

use std::collections::HashSet;
use std::error::Error;

use bytes::Bytes;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Row};

use super::BackfillError;
use super::pages::PageRow;
use super::recode::{AS_IT_IS, recode};
use super::table::{Table, quoted};
use crate::domain::{Cell, Tuple, limits};
use crate::postgres::is_of_a_character;

/// Rows fetched at once, within a page: so many of the largest are in memory beyond the page's bytes.
const PORTION: i32 = 8;
/// How long a page may take to be read.
const PATIENCE: &str = "set local statement_timeout = '60s'; set local row_security = off";

/// Which rows of a table.
#[derive(Debug)]
pub(super) enum Which<'w> {
    /// The next so many after a key.
    After(Option<&'w [String]>, usize),
    /// Those with these keys.
    Keys(&'w [Vec<String>]),
    /// The one with the greatest key.
    Last,
}

/// Rows of one tenant: those whose column reads so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The column that says whose a row is.
    pub column: String,
    /// What it holds, as its type's output function writes it.
    pub tenant: String,
}

impl Owned {
    /// The condition as SQL, with the tenant as the parameter of a number.
    fn sql(&self, parameter: usize) -> String {
        format!("pg_catalog.format('%s', {}) = ${parameter}::text", quoted(&self.column))
    }
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub rows: Vec<PageRow>,
    /// The key of each.
    pub keys: Vec<Vec<String>>,
    /// The transactions that were under way.
    pub running: HashSet<u32>,
    /// Whether there may be more behind the last.
    pub more: bool,
}

/// Rows as they come.
#[derive(Default)]
struct Read {
    rows: Vec<Fetched>,
    running: HashSet<u32>,
    more: bool,
}

/// A row as it comes; one that is too large without its values.
struct Fetched {
    key: Vec<Raw>,
    size: usize,
    values: Option<Vec<Option<Raw>>>,
}

/// A value's text, whatever its bytes.
struct Raw(Bytes);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Bytes::copy_from_slice(raw)))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Reads the row of a key, or the one with the greatest key: its values in the order of `table.relation`'s columns. In a
/// transaction that cannot write.
pub async fn read_one(
    client: &mut Client,
    table: &Table,
    key: Option<Vec<String>>,
) -> Result<Option<Tuple>, BackfillError> {
    let keys: Vec<_> = key.into_iter().collect();
    let which = if keys.is_empty() { Which::Last } else { Which::Keys(&keys) };
    let found = read(client, table, (None, None), &which).await;
    let mut found = found.map_err(|error| match error {
        BackfillError::Rows { code } if !keys.is_empty() && code.starts_with("22") => {
            BackfillError::Key { table: quoted(&table.relation.name), code }
        }
        error => error,
    })?;
    Ok(found.rows.pop().map(|row| row.values))
}

/// Reads rows at one moment, in a transaction that cannot write.
pub(super) async fn read(
    client: &mut Client,
    table: &Table,
    filter: (Option<&str>, Option<&Owned>),
    which: &Which<'_>,
) -> Result<Found, BackfillError> {
    let read = match fetch(client, table, filter, which, Text::Utf8).await {
        Err(BackfillError::Rows { code }) if is_of_a_character(&code) => {
            let mut read = fetch(client, table, filter, which, Text::AsItIs).await?;
            recode(client, read.rows.iter_mut().flat_map(Fetched::texts).collect()).await?;
            read
        }
        read => read?,
    };
    let mut found = Found { running: read.running, more: read.more, ..Found::default() };
    for row in read.rows {
        row.put(table, &mut found)?;
    }
    Ok(found)
}

/// How the server sends text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Utf8,
    AsItIs,
}

async fn fetch(
    client: &mut Client,
    table: &Table,
    (condition, owned): (Option<&str>, Option<&Owned>),
    which: &Which<'_>,
    text: Text,
) -> Result<Read, BackfillError> {
    let failed = BackfillError::query("read the table's rows");
    let transaction = client.build_transaction().read_only(true).start().await.map_err(&failed)?;
    let settings = format!("{PATIENCE}; set local {}", table.names_sql());
    transaction.batch_execute(&settings).await.map_err(&failed)?;
    let sql = statement(table, (condition, owned), which);
    let statement = transaction.prepare(&sql).await.map_err(&failed)?;
    let mut parameters: Vec<&(dyn ToSql + Sync)> = match which {
        Which::After(after, _) => after.iter().flat_map(|key| key.iter()).map(|v| v as _).collect(),
        Which::Keys(keys) => keys.iter().flatten().map(|value| value as _).collect(),
        Which::Last => Vec::new(),
    };
    parameters.extend(owned.map(|owned| &owned.tenant as &(dyn ToSql + Sync)));
    let portal = transaction.bind(&statement, &parameters).await.map_err(BackfillError::of_rows)?;
    if text == Text::AsItIs {
        // The statement and its parameters were UTF-8.
        transaction.batch_execute(AS_IT_IS).await.map_err(&failed)?;
    }
    let mut read = Read::default();
    let mut bytes = 0;
    loop {
        let portion = transaction.query_portal(&portal, PORTION).await.map_err(BackfillError::of_rows)?;
        let last = portion.len() < usize::try_from(PORTION).unwrap_or(usize::MAX);
        for row in portion {
            bytes += read.take(&row).map_err(BackfillError::of_rows)?;
        }
        if last {
            break;
        }
        if bytes >= limits::BACKFILL_PAGE_BYTES {
            read.more = true;
            break;
        }
    }
    if let Which::After(_, most) = which {
        read.more |= read.rows.len() >= *most;
    }
    transaction.commit().await.map_err(&failed)?;
    Ok(read)
}

fn statement(table: &Table, (condition, owned): (Option<&str>, Option<&Owned>), which: &Which<'_>) -> String {
    let text = |name: &str| {
        let name = quoted(name);
        format!("case when {name} is distinct from null then pg_catalog.format('%s', {name}) end")
    };
    let list = |parts: Vec<String>| parts.join(", ");
    let values = list(table.relation.columns.iter().map(|column| text(&column.name)).collect());
    let key_texts = list(table.key.iter().map(|column| text(&column.name)).collect());
    let key = list(table.key.iter().map(|column| quoted(&column.name)).collect());
    let width = table.key.len();
    let parameters = |first: usize| {
        let casts = table.key.iter().enumerate();
        list(casts.map(|(at, column)| format!("${}::text::{}", first + at, column.type_sql)).collect())
    };
    let (place, limit) = match which {
        Which::After(None, most) => (String::new(), format!("limit {most}")),
        Which::After(Some(_), most) => (format!("({key}) > ({})", parameters(1)), format!("limit {most}")),
        Which::Keys(keys) => {
            let each = (0..keys.len()).map(|at| format!("({})", parameters(at * width + 1)));
            (format!("({key}) in ({})", list(each.collect())), String::new())
        }
        Which::Last => (String::new(), "limit 1".to_owned()),
    };
    let order = match which {
        Which::Last => list(table.key.iter().map(|column| quoted(&column.name) + " desc").collect()),
        _ => key.clone(),
    };
    let before = match which {
        Which::After(key, _) => key.map_or(0, |_| width),
        Which::Keys(keys) => keys.len() * width,
        Which::Last => 0,
    };
    let own = owned.map_or_else(String::new, |owned| owned.sql(before + 1));
    let conditions: Vec<String> =
        [place, own, condition.map_or_else(String::new, |text| format!("({text}\n)"))]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
    let filter =
        if conditions.is_empty() { String::new() } else { format!("where {}", conditions.join(" and ")) };
    format!(
        "select r.k, pg_catalog.pg_column_size(r.v)::int8,
             case when pg_catalog.pg_column_size(r.v) <= {} then r.v end, pg_catalog.pg_current_snapshot()::text
         from (select array[{key_texts}]::text[] as k, array[{values}]::text[] as v
               from {} {filter} order by {order} {limit} offset 0) r",
        limits::BACKFILL_ROW_BYTES,
        table.source_sql(),
    )
}

impl Read {
    /// Takes a row. Returns its size in bytes, as far as it was sent.
    fn take(&mut self, row: &Row) -> Result<usize, tokio_postgres::Error> {
        let size = usize::try_from(row.try_get::<_, i64>(1)?).unwrap_or(usize::MAX);
        let taken = Fetched { key: row.try_get(0)?, size, values: row.try_get(2)? };
        if self.rows.is_empty() {
            self.running = running(row.try_get(3)?);
        }
        let sent = if taken.values.is_some() { size } else { 0 };
        self.rows.push(taken);
        Ok(sent)
    }
}

impl Fetched {
    fn texts(&mut self) -> impl Iterator<Item = &mut Bytes> {
        let values = self.values.iter_mut().flatten().flatten();
        self.key.iter_mut().chain(values).map(|raw| &mut raw.0)
    }

    /// Puts it to those found. A key is remembered as text.
    fn put(self, table: &Table, into: &mut Found) -> Result<(), BackfillError> {
        let no_text =
            |_| BackfillError::Rows { code: SqlState::CHARACTER_NOT_IN_REPERTOIRE.code().to_owned() };
        let key: Result<Vec<String>, _> =
            self.key.iter().map(|raw| String::from_utf8(raw.0.to_vec()).map_err(no_text)).collect();
        let oversized = self.values.is_none().then_some(self.size);
        let cells = if let Some(values) = self.values {
            values.into_iter().map(|value| value.map_or(Cell::Null, |raw| Cell::Text(raw.0))).collect()
        } else {
            let of_key = |name: &str| {
                let place = table.key.iter().position(|column| column.name == name)?;
                Some(Cell::Text(self.key.get(place)?.0.clone()))
            };
            let columns = table.relation.columns.iter();
            columns.map(|column| of_key(&column.name).unwrap_or(Cell::Unchanged)).collect()
        };
        into.rows.push(PageRow { values: Tuple(cells), oversized });
        into.keys.push(key?);
        Ok(())
    }
}

/// The transactions of a snapshot (`xmin:xmax:xip,xip,…`) that were under way.
fn running(snapshot: &str) -> HashSet<u32> {
    let list = snapshot.rsplit(':').next().unwrap_or_default();
    let ids = list.split(',').filter_map(|id| id.parse::<u64>().ok());
    ids.filter_map(|id| u32::try_from(id & u64::from(u32::MAX)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_tells_which_transactions_were_under_way() {
        assert_eq!(running("10:20:11,4294967309"), HashSet::from([11, 13]));
        assert_eq!(running("10:10:"), HashSet::new());
    }
}
