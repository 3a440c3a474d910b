//! A cursor over one payload: every read is checked against its end and says what it wanted when it fails.

use bytes::Bytes;

use super::MessageKind;

/// Why a payload is no message of protocol 1. Holds no value of any row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A payload of no bytes.
    #[error("empty replication message")]
    Empty,
    /// A first byte that protocol 1 does not know.
    #[error("unknown replication message {:?} (protocol version 1)", char::from(*tag))]
    UnknownMessage {
        /// The first byte.
        tag: u8,
    },
    /// The payload ends too early.
    #[error("malformed {message} message: it ends before byte {offset}, where {expected} was expected")]
    Truncated {
        /// Which message.
        message: MessageKind,
        /// Where the missing part starts, in bytes from the payload's start.
        offset: usize,
        /// What was expected there.
        expected: &'static str,
    },
    /// Something else stands where a count, a length or a mark belongs.
    #[error("malformed {message} message: at byte {offset}, {expected} was expected, not {found}")]
    Unexpected {
        /// Which message.
        message: MessageKind,
        /// Where, in bytes from the payload's start.
        offset: usize,
        /// What was expected there.
        expected: &'static str,
        /// The number found there.
        found: i64,
    },
}

/// A place in a payload. Multi-byte numbers are big-endian, strings end with a zero byte.
pub(super) struct Cursor {
    message: MessageKind,
    payload: Bytes,
    offset: usize,
}

impl Cursor {
    /// A cursor that stands `offset` bytes into the payload.
    pub(super) fn new(message: MessageKind, payload: Bytes, offset: usize) -> Self {
        Self { message, payload, offset }
    }

    /// Where the cursor stands.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// The whole payload.
    pub(super) fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.payload.len().saturating_sub(self.offset)
    }

    /// The payload from `start` up to the cursor, shared and not copied.
    pub(super) fn since(&self, start: usize) -> Bytes {
        self.payload.slice(start.min(self.offset)..self.offset)
    }

    /// The error for a number that does not belong `width` bytes before the cursor.
    pub(super) fn unexpected(
        &self,
        width: usize,
        expected: &'static str,
        found: impl Into<i64>,
    ) -> DecodeError {
        let offset = self.offset.saturating_sub(width);
        DecodeError::Unexpected { message: self.message, offset, expected, found: found.into() }
    }

    fn truncated(&self, expected: &'static str) -> DecodeError {
        DecodeError::Truncated { message: self.message, offset: self.offset, expected }
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], DecodeError> {
        let rest = self.payload.get(self.offset..).unwrap_or_default();
        let found = *rest.first_chunk::<N>().ok_or_else(|| self.truncated(expected))?;
        self.offset += N;
        Ok(found)
    }

    /// One byte.
    pub(super) fn u8(&mut self, expected: &'static str) -> Result<u8, DecodeError> {
        self.array(expected).map(|[byte]| byte)
    }

    /// `Int16`, unsigned.
    pub(super) fn u16(&mut self, expected: &'static str) -> Result<u16, DecodeError> {
        self.array(expected).map(u16::from_be_bytes)
    }

    /// `Int32`, unsigned.
    pub(super) fn u32(&mut self, expected: &'static str) -> Result<u32, DecodeError> {
        self.array(expected).map(u32::from_be_bytes)
    }

    /// `Int32`, signed.
    pub(super) fn i32(&mut self, expected: &'static str) -> Result<i32, DecodeError> {
        self.array(expected).map(i32::from_be_bytes)
    }

    /// `Int64`, unsigned.
    pub(super) fn u64(&mut self, expected: &'static str) -> Result<u64, DecodeError> {
        self.array(expected).map(u64::from_be_bytes)
    }

    /// `Int64`, signed.
    pub(super) fn i64(&mut self, expected: &'static str) -> Result<i64, DecodeError> {
        self.array(expected).map(i64::from_be_bytes)
    }

    /// A count or length: an `Int32` that is not negative.
    pub(super) fn length(&mut self, expected: &'static str) -> Result<usize, DecodeError> {
        let length = self.i32(expected)?;
        usize::try_from(length).map_err(|_| self.unexpected(4, expected, length))
    }

    /// Steps over `length` bytes.
    pub(super) fn skip(&mut self, length: usize, expected: &'static str) -> Result<(), DecodeError> {
        if length > self.left() {
            return Err(self.truncated(expected));
        }
        self.offset += length;
        Ok(())
    }

    /// A zero-terminated string; bytes that are not UTF-8 (a database in `SQL_ASCII`) are replaced.
    pub(super) fn string(&mut self, expected: &'static str) -> Result<Box<str>, DecodeError> {
        let rest = self.payload.get(self.offset..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == 0).ok_or_else(|| self.truncated(expected))?;
        let text = String::from_utf8_lossy(rest.get(..length).unwrap_or_default()).into();
        self.offset += length + 1;
        Ok(text)
    }
}
