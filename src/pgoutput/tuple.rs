//! Rows: checked when read, taken apart when wanted.

use std::fmt;

use bytes::Bytes;

use super::read::Cursor;
use super::{DecodeError, MessageKind};
use crate::domain::{Cell, OldRow, Tuple, limits};

/// A row as it stands in its message (`TupleData`): checked from end to end, not taken apart. Its `Debug` shows sizes
/// only, never values.
#[derive(Clone, PartialEq, Eq)]
pub struct RawTuple {
    columns: u16,
    cells: Bytes,
}

/// The row before a change, not taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawOld {
    /// Only the columns of the replica identity mean anything.
    Key(RawTuple),
    /// The whole row.
    Full(RawTuple),
}

/// One value that the cursor has just passed.
enum Piece {
    Null,
    Unchanged,
    /// Text that starts there and ends at the cursor.
    Text(usize),
    /// The same of bytes.
    Binary(usize),
}

impl RawTuple {
    /// Checks a row and remembers where it stands.
    pub(super) fn read(at: &mut Cursor) -> Result<Self, DecodeError> {
        let columns = column_count(at)?;
        let start = at.offset();
        for _ in 0..columns {
            piece(at)?;
        }
        Ok(Self { columns, cells: at.since(start) })
    }

    /// How many values it has.
    pub fn columns(&self) -> usize {
        usize::from(self.columns)
    }

    /// Its size in the message, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.cells.len()
    }

    /// Its values, each a slice of the message.
    ///
    /// The binary form of a value (`b`) is never asked for; where it comes all the same, the cell holds its bytes as
    /// `\x` and hexadecimal digits, so that nothing is lost.
    pub fn decode(&self) -> Tuple {
        // What the message was does not matter any more: a checked row has no errors.
        let mut at = Cursor::new(MessageKind::Insert, self.cells.clone(), 0);
        let mut cells = Vec::with_capacity(self.columns());
        for _ in 0..self.columns {
            let Ok(cell) = read_cell(&mut at) else { break };
            cells.push(cell);
        }
        Tuple(cells)
    }
}

impl fmt::Debug for RawTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawTuple")
            .field("columns", &self.columns)
            .field("size_bytes", &self.cells.len())
            .finish()
    }
}

impl RawOld {
    /// The row, whichever way it is known.
    pub fn tuple(&self) -> &RawTuple {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }

    /// Its values, each a slice of the message.
    pub fn decode(&self) -> OldRow {
        match self {
            Self::Key(tuple) => OldRow::Key(tuple.decode()),
            Self::Full(tuple) => OldRow::Full(tuple.decode()),
        }
    }
}

/// The number of values or columns that follow.
pub(super) fn column_count(at: &mut Cursor) -> Result<u16, DecodeError> {
    let expected = "a number of columns within the limit";
    let count = at.u16(expected)?;
    if usize::from(count) > limits::COLUMNS {
        return Err(at.unexpected(2, expected, count));
    }
    Ok(count)
}

/// The mark before a new row.
pub(super) fn new_mark(at: &mut Cursor) -> Result<(), DecodeError> {
    let expected = "the mark of a new row ('N')";
    match at.u8(expected)? {
        b'N' => Ok(()),
        other => Err(at.unexpected(1, expected, other)),
    }
}

/// One value of a row, as a slice of the payload.
pub(super) fn read_cell(at: &mut Cursor) -> Result<Cell, DecodeError> {
    Ok(match piece(at)? {
        Piece::Null => Cell::Null,
        Piece::Unchanged => Cell::Unchanged,
        Piece::Text(start) => Cell::Text(at.since(start)),
        Piece::Binary(start) => Cell::Text(format!("\\x{}", hex::encode(at.since(start))).into()),
    })
}

fn piece(at: &mut Cursor) -> Result<Piece, DecodeError> {
    let expected = "the kind of a value ('n', 'u', 't' or 'b')";
    match at.u8(expected)? {
        b'n' => Ok(Piece::Null),
        b'u' => Ok(Piece::Unchanged),
        b't' => Ok(Piece::Text(sized(at)?)),
        b'b' => Ok(Piece::Binary(sized(at)?)),
        other => Err(at.unexpected(1, expected, other)),
    }
}

fn sized(at: &mut Cursor) -> Result<usize, DecodeError> {
    let length = at.length("the length of a value")?;
    let start = at.offset();
    at.skip(length, "a value of the announced length")?;
    Ok(start)
}
