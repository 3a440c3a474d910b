//! Text of a database in another encoding than UTF-8, where the server cannot make UTF-8 of it.
//!
//! Some bytes are a character in the database's encoding and have no place in Unicode (0x81 in WIN1252, for one). The
//! database takes them, and the walsender ends the stream over them, for ever at the same place. So after such an end the
//! next connection has the bytes as they are, and UTF-8 is made of them here: a byte at a time by the server's own table
//! where a character is a byte; where it is several, only ASCII is known, and the server is asked again soon
//! ([`LEAVE_AFTER`]). What cannot be told becomes a byte that is no UTF-8, which what reads the values replaces and counts.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::SourceError;
use super::link::Link;
use super::publication::literal;

/// How long all that is not ASCII is given up for the sake of one character.
pub(super) const LEAVE_AFTER: Duration = Duration::from_secs(2);

/// Which encoding it is, and the most bytes that a character has in it.
const ENCODING: &str = "
select pg_catalog.getdatabaseencoding(), pg_catalog.pg_encoding_max_length(d.encoding)
from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()";
const AS_IT_IS: &str = "select pg_catalog.set_config('client_encoding', 'SQL_ASCII', false)";
/// No text in UTF-8 has it.
const NONE: u8 = 0xFF;

/// Makes UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recoder {
    /// The database's encoding.
    pub(super) encoding: String,
    /// What the bytes from 128 on are, where each is a character.
    table: Option<Arc<[Vec<u8>]>>,
}

impl Recoder {
    /// Learns from the server what its bytes mean.
    pub(super) async fn learn(link: &mut Link) -> Result<Self, SourceError> {
        let rows = link.query("the question for the encoding", ENCODING).await?;
        let text = |at: usize| rows.first().and_then(|row| row.get(at)?.clone()).unwrap_or_default();
        let encoding = text(0);
        if text(1) != "1" {
            return Ok(Self { encoding, table: None });
        }
        let mut table = Vec::new();
        for byte in 128..=u8::MAX {
            let sql = format!(
                "select pg_catalog.convert('\\x{byte:02x}'::bytea, {}, 'UTF8')::text",
                literal(&encoding)
            );
            let hex = match link.query("the question for a character", &sql).await {
                Ok(rows) => rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()),
                Err(error) if error.is_of_a_character() => None,
                Err(error) => return Err(error),
            };
            table.push(hex.and_then(|hex| of_hex(&hex)).unwrap_or_else(|| vec![NONE]));
        }
        Ok(Self { encoding, table: Some(table.into()) })
    }

    /// Has the server send text as it is.
    pub(super) async fn begin(link: &mut Link) -> Result<(), SourceError> {
        link.query("the wish for text as it is", AS_IT_IS).await.map(drop)
    }

    /// Whether only what it has no character for is lost.
    pub(super) fn is_exact(&self) -> bool {
        self.table.is_some()
    }

    /// A message with its text in UTF-8; one that is malformed stays as it is, for the decoder to refuse.
    pub(super) fn message(&self, message: Bytes) -> Bytes {
        if message.is_ascii() {
            return message;
        }
        let mut out = BytesMut::with_capacity(message.len() * 2);
        match self.rewrite(message.clone(), &mut out) {
            Some(()) => out.freeze(),
            None => message,
        }
    }

    /// The manual's "Logical Replication Message Formats".
    fn rewrite(&self, mut rest: Bytes, out: &mut BytesMut) -> Option<()> {
        let kind = rest.first().copied()?;
        copy(&mut rest, 1, out)?;
        match kind {
            b'R' => {
                copy(&mut rest, 4, out)?;
                self.name(&mut rest, out)?;
                self.name(&mut rest, out)?;
                copy(&mut rest, 1, out)?;
                for _ in 0..count(&mut rest, out)? {
                    copy(&mut rest, 1, out)?;
                    self.name(&mut rest, out)?;
                    copy(&mut rest, 8, out)?;
                }
            }
            b'Y' => {
                copy(&mut rest, 4, out)?;
                self.name(&mut rest, out)?;
                self.name(&mut rest, out)?;
            }
            b'I' | b'U' | b'D' => {
                copy(&mut rest, 4, out)?;
                while rest.has_remaining() {
                    copy(&mut rest, 1, out)?;
                    self.tuple(&mut rest, out)?;
                }
            }
            // Its prefix is text; its content are bytes, of which the server changes none.
            b'M' => {
                copy(&mut rest, 9, out)?;
                self.name(&mut rest, out)?;
            }
            _ => {}
        }
        out.put(rest);
        Some(())
    }

    fn tuple(&self, rest: &mut Bytes, out: &mut BytesMut) -> Option<()> {
        for _ in 0..count(rest, out)? {
            let kind = rest.try_get_u8().ok()?;
            out.put_u8(kind);
            if matches!(kind, b't' | b'b') {
                let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
                let value = (length <= rest.len()).then(|| rest.split_to(length))?;
                let mut text = BytesMut::with_capacity(length);
                self.text(&value, &mut text);
                out.put_u32(u32::try_from(text.len()).ok()?);
                out.put(text);
            }
        }
        Some(())
    }

    /// A text that ends with a zero.
    fn name(&self, rest: &mut Bytes, out: &mut BytesMut) -> Option<()> {
        let length = rest.iter().position(|byte| *byte == 0)?;
        self.text(&rest.split_to(length), out);
        copy(rest, 1, out)
    }

    fn text(&self, text: &[u8], out: &mut BytesMut) {
        for byte in text {
            let of_table = || self.table.as_ref()?.get(usize::from(*byte).checked_sub(128)?);
            match of_table() {
                _ if byte.is_ascii() => out.put_u8(*byte),
                Some(character) => out.put_slice(character),
                None => out.put_u8(NONE),
            }
        }
    }
}

fn copy(rest: &mut Bytes, length: usize, out: &mut BytesMut) -> Option<()> {
    (length <= rest.len()).then(|| out.put(rest.split_to(length)))
}

fn count(rest: &mut Bytes, out: &mut BytesMut) -> Option<u16> {
    let count = rest.try_get_u16().ok()?;
    out.put_u16(count);
    Some(count)
}

/// What `bytea` shows.
fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?;
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in ISO 8859-1, but that 0x81 is nothing.
    fn latin() -> Recoder {
        let character = |byte: u8| char::from(byte).to_string().into_bytes();
        let table: Vec<_> =
            (128..=u8::MAX).map(|byte| if byte == 0x81 { vec![NONE] } else { character(byte) }).collect();
        Recoder { encoding: "LATIN1".to_owned(), table: Some(table.into()) }
    }

    fn check(message: &[u8], expect: &[u8]) {
        assert_eq!(latin().message(Bytes::copy_from_slice(message)), expect);
    }

    #[test]
    fn every_text_of_a_message_is_recoded_and_nothing_else() {
        check(
            b"R\0\0\0\xE9p\xE4\0t\0d\0\x01\x01c\xFC\0\0\0\0\xE9\xFF\xFF\xFF\xFF",
            "R\0\0\0"
                .as_bytes()
                .iter()
                .chain(b"\xE9")
                .chain("pä\0t\0d\0\u{1}\u{1}cü\0\0\0\0".as_bytes())
                .chain(b"\xE9\xFF\xFF\xFF\xFF")
                .copied()
                .collect::<Vec<u8>>()
                .as_slice(),
        );
        check(b"Y\0\0\0\xE9p\xE4\0t\xE4\0", b"Y\0\0\0\xE9p\xC3\xA4\0t\xC3\xA4\0");
        check(
            b"U\0\0\0\xE9O\0\x02t\0\0\0\x02\xE4bnN\0\x02ut\0\0\0\x01\x81",
            b"U\0\0\0\xE9O\0\x02t\0\0\0\x03\xC3\xA4bnN\0\x02ut\0\0\0\x01\xFF",
        );
        check(
            b"M\x01\0\0\0\0\0\0\0\xE9\xE4:x\0\0\0\0\x01\xE4",
            b"M\x01\0\0\0\0\0\0\0\xE9\xC3\xA4:x\0\0\0\0\x01\xE4",
        );
        check(b"B\0\0\0\0\0\0\0\xE9", b"B\0\0\0\0\0\0\0\xE9");
    }

    #[test]
    fn what_is_cut_stays_as_it_is() {
        let whole = b"U\0\0\0\xE9O\0\x02t\0\0\0\x02\xE4bnN\0\x01t\0\0\0\x02\xE4\xE4";
        for end in 0..whole.len() {
            latin().message(Bytes::copy_from_slice(&whole[..end]));
        }
        check(b"I\0\0\0\x01N\0\x01t\0\0\0\x09\xE4", b"I\0\0\0\x01N\0\x01t\0\0\0\x09\xE4");
    }

    #[test]
    fn without_a_table_only_ascii_is_known() {
        let recoder = Recoder { encoding: "EUC_JP".to_owned(), table: None };
        let message = Bytes::from_static(b"I\0\0\0\x01N\0\x01t\0\0\0\x03a\xA4\xA2");
        assert_eq!(recoder.message(message), b"I\0\0\0\x01N\0\x01t\0\0\0\x03a\xFF\xFF".as_slice());
    }

    #[test]
    fn a_byte_string_is_read() {
        assert_eq!(of_hex("\\xe282ac"), Some(vec![0xE2, 0x82, 0xAC]));
        assert_eq!((of_hex("\\xe"), of_hex("e2"), of_hex("\\xzz")), (None, None, None));
    }
}
