//! The standard body's fields as a template sees them.

use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use super::formats::{Parts, columns};
use crate::domain::Event;

/// The fields of the standard body. A value that is valid in Postgres and no JSON value here (a lone surrogate, a number
/// beyond a double) is its text.
pub(super) fn fields(event: &Event, data: &[u8], webhook: &str) -> Result<Json, serde_json::Error> {
    let parts: Parts<'_> = serde_json::from_slice(data)?;
    let mut fields = json!({
        "id": event.id.as_str(),
        "type": &*event.event_type,
        "timestamp": format!("{:.6}", event.transaction.committed_at),
        "data": {
            "operation": parts.operation,
            "schema": parts.schema,
            "table": parts.table,
            "record": row(parts.record)?,
            "old": row(parts.old)?,
            "changed": parts.changed,
            "unavailable": value(parts.unavailable),
        },
        "metadata": {
            "database": &*event.database,
            "lsn": event.transaction.commit.to_string(),
            "xid": event.transaction.xid,
            "sequence": event.place.sequence,
            "webhook": webhook,
        },
    });
    if let (Some(change), Some(Json::Object(data))) = (parts.schema_change, fields.get_mut("data")) {
        data.insert("schema_change".to_owned(), value(change));
    }
    Ok(fields)
}

fn row(row: Option<&RawValue>) -> Result<Json, serde_json::Error> {
    let Some(row) = row else { return Ok(Json::Null) };
    if !row.get().starts_with('{') {
        // The payload of a logical message is any JSON.
        return Ok(value(row));
    }
    let columns = columns(row)?.into_iter().map(|(name, raw)| (name, value(raw)));
    Ok(Json::Object(columns.collect::<Map<_, _>>()))
}

fn value(raw: &RawValue) -> Json {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().into())
}
