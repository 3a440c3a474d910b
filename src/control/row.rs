//! A row of the application as an event's data: what the sample of a template had better be.

use std::str::FromStr;

use super::backfill::place;
use super::{ControlError, Given, Places, sample};
use crate::backfill::{Table, read_one};
use crate::catalog;
use crate::config::Config;
use crate::domain::{Change, Operation, Owner, tenant_of};
use crate::render::write_data;
use crate::source::tables;

/// Which row: `orders` for the one with the greatest key, `orders:7` for the one of this key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowName {
    /// The table as it was written.
    table: String,
    /// The text of the key; of several columns with commas between them.
    key: Option<String>,
}

impl FromStr for RowName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (table, key) = text.split_once(':').map_or((text, None), |(table, key)| (table, Some(key)));
        if table.is_empty() || key.is_some_and(str::is_empty) {
            return Err("expected a table, or a table and a key, such as orders or orders:7".to_owned());
        }
        Ok(Self { table: table.to_owned(), key: key.map(str::to_owned) })
    }
}

/// Reads a row in a transaction that cannot write, and makes the data of it that an event would have, exclusions and masks
/// included. It says `snapshot`.
/// Where it is for a webhook of a tenant's, it is refused unless it is a row of that tenant.
pub async fn given_row(
    config: &Config,
    places: &Places,
    name: &RowName,
    webhook: Option<&str>,
) -> Result<Given, ControlError> {
    let snapshot = catalog::compile_file(config).map_err(ControlError::Compile)?;
    let mut session = places.database.session("walhook row").await?;
    let known = tables(&session, &config.database.schema).await?;
    let (schema, table_name) = place(&known, &name.table)?;
    let table = Table::look(&session, schema, table_name).await?;
    let key = name.key.as_deref().map(|key| parts(&table, key)).transpose()?;
    let Some(row) = read_one(&mut session.client, &table, key).await? else {
        let what = name.key.as_ref().map_or_else(|| "rows".to_owned(), |key| format!("row {key}"));
        return Err(ControlError::Key { problem: format!("table {} has no {what}", name.table) });
    };
    let change = Change {
        relation: table.relation.clone(),
        operation: Operation::Snapshot,
        new: Some(row),
        old: None,
        sequence: 1,
    };
    if let Some(tenant) = webhook.and_then(tenant_of) {
        let column = snapshot.matcher.tenant_column(schema, table_name);
        let position = column.and_then(|column| change.relation.position(column));
        let owner = position.map_or(Owner::Unknown, |position| Owner::after(&change, position));
        if owner != Owner::Of(tenant.as_bytes()) {
            let problem = format!("this row of table {} is not of tenant {tenant}", name.table);
            return Err(ControlError::Key { problem });
        }
    }
    let interest = snapshot.matcher.interest(&change.relation);
    let mut data = Vec::new();
    write_data(&change, interest.rules(), sample::json, &mut data);
    Given::parse(&data)
}

/// The values of a key, one a column.
fn parts(table: &Table, key: &str) -> Result<Vec<String>, ControlError> {
    let width = table.key_width();
    let parts: Vec<String> = match width {
        1 => vec![key.to_owned()],
        _ => key.split(',').map(|part| part.trim().to_owned()).collect(),
    };
    if parts.len() == width {
        return Ok(parts);
    }
    let problem = format!("the key of {} has {width} columns; write their values with commas", table.sql());
    Err(ControlError::Key { problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_named_by_its_table_and_perhaps_its_key() {
        let check = |text: &str, table: &str, key: Option<&str>| {
            let expect = RowName { table: table.to_owned(), key: key.map(str::to_owned) };
            assert_eq!(text.parse(), Ok(expect));
        };
        check("orders", "orders", None);
        check("shop.orders:7", "shop.orders", Some("7"));
        check("hosts:fe80::1", "hosts", Some("fe80::1"));
        for wrong in ["", ":7", "orders:"] {
            assert!(wrong.parse::<RowName>().is_err(), "{wrong}");
        }
    }
}
