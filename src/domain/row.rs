//! Tables, columns and rows as the stream describes them.
//!
//! A row says what it can lack: an old row may be whole or only the key, and any value may be an unchanged large
//! (TOASTed) one that Postgres did not send. A column that was not sent is *absent*, never null.

use std::sync::Arc;

use bytes::Bytes;

/// How a column's text becomes JSON, decided once when the table is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueKind {
    /// `bool`: `t` or `f`.
    Bool,
    /// `int2`, `int4`, `oid`.
    Integer,
    /// `int8`: beyond 2^53 a receiver that reads numbers as floats loses digits, so it may go out as a string ([`Int8`](super::Int8)).
    LongInteger,
    /// `float4`, `float8`.
    Float,
    /// `numeric`: JSON string with its scale kept.
    Numeric,
    /// `json`, `jsonb`: embedded as it is.
    Json,
    /// `timestamp` without a zone.
    Timestamp,
    /// `timestamptz`, in UTC.
    TimestampTz,
    /// `bytea`: base64.
    Bytea,
    /// An array of the element kind, with the element delimiter (`,`, or `;` for `box`).
    Array(Box<ValueKind>, u8),
    /// Everything else keeps its Postgres text.
    Text,
}

/// One column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name at this place in the log.
    pub name: Box<str>,
    /// The type's oid (a domain announces its base type).
    pub type_oid: u32,
    /// The type's name, with its schema outside `pg_catalog`; `None` where it is not known.
    pub type_name: Option<Box<str>>,
    /// The type modifier, -1 where there is none.
    pub type_modifier: i32,
    /// Whether it is part of the replica identity (with `FULL`, every column is).
    pub in_identity: bool,
    /// How its text is read.
    pub kind: ValueKind,
}

/// `REPLICA IDENTITY` of a table, as the stream announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaIdentity {
    /// The primary key (or nothing, where the table has none).
    Default,
    /// No old row at all.
    Nothing,
    /// The whole old row.
    Full,
    /// A unique index.
    Index,
}

/// A table as described at one place in the log (message `R`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The table's oid.
    pub id: u32,
    /// Its schema.
    pub schema: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// What identifies its rows.
    pub identity: ReplicaIdentity,
    /// Its columns, in order; tuples follow this order.
    pub columns: Box<[Column]>,
}

/// One value of a row as the stream carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// SQL null (in a key-only old row: not sent).
    Null,
    /// A large value that did not change and was not sent.
    Unchanged,
    /// The value in Postgres text form.
    Text(Bytes),
}

/// Values in the order of the relation's columns; shorter or longer tuples are matched as far as they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuple(pub Vec<Cell>);

/// What Postgres sent of the row before the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldRow {
    /// Only the identity's columns mean anything; the others were not sent.
    Key(Tuple),
    /// The whole row.
    Full(Tuple),
}

/// A row change, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The table.
    pub relation: Arc<Relation>,
    /// What happened.
    pub operation: super::Operation,
    /// The row after the change; `None` for deletes and truncates.
    pub new: Option<Tuple>,
    /// What was sent of the row before.
    pub old: Option<OldRow>,
    /// The change's place among all row changes of its transaction, from 1.
    pub sequence: u32,
}

impl Relation {
    /// `table`, or `schema.table` outside `public`: how configuration names it.
    pub fn config_name(&self) -> String {
        if &*self.schema == "public" {
            self.name.to_string()
        } else {
            format!("{}.{}", self.schema, self.name)
        }
    }

    /// The position of a column by name.
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| &*c.name == column)
    }
}

impl Tuple {
    /// The value at a position; absent positions read as not sent.
    pub fn cell(&self, position: usize) -> &Cell {
        self.0.get(position).unwrap_or(&Cell::Unchanged)
    }
}

impl OldRow {
    /// Its values; of a key, those of other columns mean nothing.
    pub fn tuple(&self) -> &Tuple {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

impl Change {
    /// The full old row, where it was sent.
    pub fn old_full(&self) -> Option<&Tuple> {
        match &self.old {
            Some(OldRow::Full(tuple)) => Some(tuple),
            _ => None,
        }
    }

    /// The row after the change with unchanged large values taken from the full old row where there is one.
    pub fn new_cell(&self, position: usize) -> Option<&Cell> {
        let cell = self.new.as_ref()?.cell(position);
        match (cell, self.old_full()) {
            (Cell::Unchanged, Some(old)) => Some(old.cell(position)),
            _ => Some(cell),
        }
    }
}
