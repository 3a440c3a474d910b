//! The messages of protocol 1 and how each is laid out.
//!
//! Bytes after the end of a message are passed over: a later server may append a field, and nothing is lost by
//! not knowing it. A first byte that protocol 1 does not know is an error: it would mean a stream that was not asked
//! for (streamed or prepared transactions), where going on could lose changes.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;

use super::read::Cursor;
use super::{DecodeError, RawOld, RawTuple, TypeNames, tuple};
use crate::domain::{Column, CommitLsn, EndLsn, Lsn, Relation, ReplicaIdentity, limits};

/// 2000-01-01 00:00:00 UTC, from which Postgres counts, in microseconds since 1970.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Which message a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the protocol, each documented at its Message")]
pub enum MessageKind {
    Begin,
    Commit,
    Origin,
    Relation,
    Type,
    Insert,
    Update,
    Delete,
    Truncate,
    Logical,
}

/// One message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `B`: a transaction starts; the stream holds committed transactions only, one after the other.
    Begin {
        /// Where its commit record starts.
        commit: CommitLsn,
        /// When it committed.
        committed_at: Timestamp,
        /// Its transaction id.
        xid: u32,
    },
    /// `C`: the transaction is complete.
    Commit {
        /// Where its commit record starts, as in `Begin`.
        commit: CommitLsn,
        /// The byte after it: what may be confirmed.
        end: EndLsn,
        /// When it committed.
        committed_at: Timestamp,
    },
    /// `O`: the transaction was replicated to this server from elsewhere.
    Origin {
        /// Its commit on the server of origin.
        commit: Lsn,
        /// The origin's name.
        name: Box<str>,
    },
    /// `R`: a table as the following changes see it.
    Relation(Relation),
    /// `Y`: the name of a type that a following `R` uses. A domain comes with the name of its base type.
    Type {
        /// The type's (or domain's) oid.
        oid: u32,
        /// Its schema.
        schema: Box<str>,
        /// Its name.
        name: Box<str>,
    },
    /// `I`: a new row.
    Insert {
        /// The table's oid.
        relation: u32,
        /// The row.
        new: RawTuple,
    },
    /// `U`: a changed row.
    Update {
        /// The table's oid.
        relation: u32,
        /// The row before, where the replica identity gives it.
        old: Option<RawOld>,
        /// The row after.
        new: RawTuple,
    },
    /// `D`: a removed row.
    Delete {
        /// The table's oid.
        relation: u32,
        /// The row or its key.
        old: RawOld,
    },
    /// `T`: tables emptied by one command.
    Truncate {
        /// The tables' oids.
        relations: Vec<u32>,
        /// `CASCADE` was given.
        cascade: bool,
        /// `RESTART IDENTITY` was given.
        restart_identity: bool,
    },
    /// `M`: what `pg_logical_emit_message` sent.
    Logical {
        /// Part of the transaction; otherwise it stands outside of any, and is sent even after a rollback.
        transactional: bool,
        /// Where it stands in the log.
        lsn: Lsn,
        /// Its prefix.
        prefix: Box<str>,
        /// Its content.
        content: Bytes,
    },
}

/// Reads the payloads of one connection, in order.
#[derive(Debug, Default)]
pub struct Decoder {
    types: TypeNames,
}

impl MessageKind {
    /// By the first byte of a payload.
    pub(super) fn of(payload: &Bytes) -> Result<Self, DecodeError> {
        Ok(match *payload.first().ok_or(DecodeError::Empty)? {
            b'B' => Self::Begin,
            b'C' => Self::Commit,
            b'O' => Self::Origin,
            b'R' => Self::Relation,
            b'Y' => Self::Type,
            b'I' => Self::Insert,
            b'U' => Self::Update,
            b'D' => Self::Delete,
            b'T' => Self::Truncate,
            b'M' => Self::Logical,
            tag => return Err(DecodeError::UnknownMessage { tag }),
        })
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Decoder {
    /// A decoder for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// The message in `payload`, the part of an `XLogData` frame after its header. Rows and contents are slices of it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], where it is no message of protocol 1. The decoder stays usable.
    pub fn decode(&mut self, payload: Bytes) -> Result<Message, DecodeError> {
        let kind = MessageKind::of(&payload)?;
        let mut at = Cursor::new(kind, payload, 1);
        match kind {
            MessageKind::Begin => begin(&mut at),
            MessageKind::Commit => commit(&mut at),
            MessageKind::Origin => origin(&mut at),
            MessageKind::Relation => {
                let relation = relation(&mut at, &self.types)?;
                self.types.table_described();
                Ok(Message::Relation(relation))
            }
            MessageKind::Type => {
                let (oid, schema, name) = announced_type(&mut at)?;
                self.types.announce(oid, &schema, &name);
                Ok(Message::Type { oid, schema, name })
            }
            MessageKind::Insert => insert(&mut at),
            MessageKind::Update => update(&mut at),
            MessageKind::Delete => delete(&mut at),
            MessageKind::Truncate => truncate(&mut at),
            MessageKind::Logical => logical(&mut at),
        }
    }

    /// The type names announced so far.
    pub fn types(&self) -> &TypeNames {
        &self.types
    }
}

fn begin(at: &mut Cursor) -> Result<Message, DecodeError> {
    let commit = CommitLsn(lsn(at, "the commit position")?);
    let committed_at = timestamp(at)?;
    Ok(Message::Begin { commit, committed_at, xid: at.u32("the transaction id")? })
}

fn commit(at: &mut Cursor) -> Result<Message, DecodeError> {
    at.u8("the flags")?;
    let commit = CommitLsn(lsn(at, "the commit position")?);
    let end = EndLsn(lsn(at, "the end position")?);
    Ok(Message::Commit { commit, end, committed_at: timestamp(at)? })
}

fn origin(at: &mut Cursor) -> Result<Message, DecodeError> {
    let commit = lsn(at, "the commit position at the origin")?;
    Ok(Message::Origin { commit, name: at.string("the origin's name")? })
}

fn announced_type(at: &mut Cursor) -> Result<(u32, Box<str>, Box<str>), DecodeError> {
    let oid = at.u32("the type's oid")?;
    let schema = schema(at)?;
    Ok((oid, schema, at.string("the type's name")?))
}

fn relation(at: &mut Cursor, types: &TypeNames) -> Result<Relation, DecodeError> {
    let id = at.u32("the table's oid")?;
    let schema = schema(at)?;
    let name = at.string("the table's name")?;
    let expected = "a replica identity";
    let identity = match at.u8(expected)? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        other => return Err(at.unexpected(1, expected, other)),
    };
    let count = tuple::column_count(at)?;
    let columns = (0..count).map(|_| column(at, types)).collect::<Result<_, _>>()?;
    Ok(Relation { id, schema, name, identity, columns })
}

fn column(at: &mut Cursor, types: &TypeNames) -> Result<Column, DecodeError> {
    let in_identity = at.u8("a column's flags")? & 1 == 1;
    let name = at.string("a column's name")?;
    let type_oid = at.u32("a column's type")?;
    let type_modifier = at.i32("a column's type modifier")?;
    let (type_name, kind) = (types.name(type_oid), types.kind(type_oid));
    Ok(Column { name, type_oid, type_name, type_modifier, in_identity, kind })
}

fn insert(at: &mut Cursor) -> Result<Message, DecodeError> {
    let relation = relation_id(at)?;
    tuple::new_mark(at)?;
    Ok(Message::Insert { relation, new: RawTuple::read(at)? })
}

fn update(at: &mut Cursor) -> Result<Message, DecodeError> {
    let relation = relation_id(at)?;
    let expected = "the mark of a row ('K', 'O' or 'N')";
    let old = match at.u8(expected)? {
        b'N' => None,
        b'K' => Some(RawOld::Key(RawTuple::read(at)?)),
        b'O' => Some(RawOld::Full(RawTuple::read(at)?)),
        other => return Err(at.unexpected(1, expected, other)),
    };
    if old.is_some() {
        tuple::new_mark(at)?;
    }
    Ok(Message::Update { relation, old, new: RawTuple::read(at)? })
}

fn delete(at: &mut Cursor) -> Result<Message, DecodeError> {
    let relation = relation_id(at)?;
    let expected = "the mark of an old row ('K' or 'O')";
    let old = match at.u8(expected)? {
        b'K' => RawOld::Key(RawTuple::read(at)?),
        b'O' => RawOld::Full(RawTuple::read(at)?),
        other => return Err(at.unexpected(1, expected, other)),
    };
    Ok(Message::Delete { relation, old })
}

fn truncate(at: &mut Cursor) -> Result<Message, DecodeError> {
    let count = at.length("the number of tables")?;
    let options = at.u8("the options of TRUNCATE")?;
    // The count is not believed before that many oids are there.
    let mut relations = Vec::with_capacity(count.min(at.left() / 4));
    for _ in 0..count {
        relations.push(relation_id(at)?);
    }
    Ok(Message::Truncate { relations, cascade: options & 1 != 0, restart_identity: options & 2 != 0 })
}

fn logical(at: &mut Cursor) -> Result<Message, DecodeError> {
    let (transactional, lsn, prefix) = logical_head(at)?;
    let length = at.length("the length of the content")?;
    let start = at.offset();
    at.skip(length, "the content")?;
    Ok(Message::Logical { transactional, lsn, prefix, content: at.since(start) })
}

/// A logical message up to its content.
pub(super) fn logical_head(at: &mut Cursor) -> Result<(bool, Lsn, Box<str>), DecodeError> {
    let transactional = at.u8("the flags")? & 1 == 1;
    let lsn = lsn(at, "the message's position")?;
    Ok((transactional, lsn, at.string("the message's prefix")?))
}

/// The oid of the table that a change is about.
pub(super) fn relation_id(at: &mut Cursor) -> Result<u32, DecodeError> {
    at.u32("the table's oid")
}

fn lsn(at: &mut Cursor, expected: &'static str) -> Result<Lsn, DecodeError> {
    at.u64(expected).map(Lsn)
}

/// `pg_catalog` is sent as the empty string.
fn schema(at: &mut Cursor) -> Result<Box<str>, DecodeError> {
    let schema = at.string("a schema's name")?;
    Ok(if schema.is_empty() { "pg_catalog".into() } else { schema })
}

/// Microseconds since 2000; what lies beyond the years that a [`Timestamp`] has becomes its first or last moment.
fn timestamp(at: &mut Cursor) -> Result<Timestamp, DecodeError> {
    let micros = at.i64("the commit time")?;
    let bound = if micros < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Ok(Timestamp::from_microsecond(micros.saturating_add(POSTGRES_EPOCH_MICROS)).unwrap_or(bound))
}

const _: () = assert!(limits::COLUMNS <= u16::MAX as usize, "a tuple's column count is an Int16");

#[cfg(test)]
mod tests;
