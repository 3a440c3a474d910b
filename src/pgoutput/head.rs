//! What can be said of a message of which only the first bytes were kept.
//!
//! A frame over `limits::FRAME_BYTES` is too large to hold, and its row too large to send. The head still says which
//! table it is about, and mostly the key, since keys tend to come first: enough to record the change as one that
//! could not be delivered.

use bytes::Bytes;

use super::message::{logical_head, relation_id};
use super::read::Cursor;
use super::{DecodeError, MessageKind, tuple};
use crate::domain::{OldRow, Tuple};

/// The readable part of a cut message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadOnly {
    /// Which message it is.
    pub kind: MessageKind,
    /// The table, for a row change.
    pub relation: Option<u32>,
    /// The leading values of the row before, where the message has one; those that were cut are missing from the end.
    pub old: Option<OldRow>,
    /// The leading values of the row after, where the head reaches it; those that were cut are missing from the end.
    pub new: Option<Tuple>,
    /// Whether a logical message belongs to its transaction; `true` for everything else.
    pub transactional: bool,
    /// A logical message's prefix, where it is whole.
    pub prefix: Option<Box<str>>,
}

/// Reads the head of a message that was cut (or not: a whole message is its own head). Values are slices of `payload`.
///
/// # Errors
///
/// [`DecodeError`], where not even the table can be told, or where the bytes that are there are malformed.
pub fn decode_head(payload: Bytes) -> Result<HeadOnly, DecodeError> {
    let kind = MessageKind::of(&payload)?;
    let mut at = Cursor::new(kind, payload, 1);
    let mut head = HeadOnly { kind, relation: None, old: None, new: None, transactional: true, prefix: None };
    match kind {
        MessageKind::Insert | MessageKind::Update | MessageKind::Delete => {
            head.relation = Some(relation_id(&mut at)?);
            rows(&mut at, &mut head)?;
        }
        MessageKind::Logical => {
            head.transactional = at.u8("the flags")? & 1 == 1;
            let mut whole = Cursor::new(kind, at.payload().clone(), 1);
            head.prefix = logical_head(&mut whole).ok().map(|(_, _, prefix)| prefix);
        }
        _ => {}
    }
    Ok(head)
}

/// The marks and rows after the table's oid, up to the cut.
fn rows(at: &mut Cursor, head: &mut HeadOnly) -> Result<(), DecodeError> {
    let (expected, old_may_come, new_may_come) = match head.kind {
        MessageKind::Insert => ("the mark of a new row ('N')", false, true),
        MessageKind::Delete => ("the mark of an old row ('K' or 'O')", true, false),
        _ => ("the mark of a row ('K', 'O' or 'N')", true, true),
    };
    while at.left() > 0 {
        let mark = at.u8(expected)?;
        let old_fits = old_may_come && head.old.is_none();
        if !(mark == b'N' && new_may_come || matches!(mark, b'K' | b'O') && old_fits) {
            return Err(at.unexpected(1, expected, mark));
        }
        let (leading, whole) = leading_cells(at)?;
        match mark {
            b'K' => head.old = Some(OldRow::Key(leading)),
            b'O' => head.old = Some(OldRow::Full(leading)),
            _ => head.new = Some(leading),
        }
        if !whole || mark == b'N' || !new_may_come {
            break;
        }
    }
    Ok(())
}

/// The values of a row that are whole, and whether that is all of them.
fn leading_cells(at: &mut Cursor) -> Result<(Tuple, bool), DecodeError> {
    let mut cells = Vec::new();
    let count = match tuple::column_count(at) {
        Ok(count) => count,
        Err(DecodeError::Truncated { .. }) => return Ok((Tuple(cells), false)),
        Err(error) => return Err(error),
    };
    for _ in 0..count {
        match tuple::read_cell(at) {
            Ok(cell) => cells.push(cell),
            Err(DecodeError::Truncated { .. }) => return Ok((Tuple(cells), false)),
            Err(error) => return Err(error),
        }
    }
    Ok((Tuple(cells), true))
}
