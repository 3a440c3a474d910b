//! Rows with bytes that the server cannot make UTF-8 of: a character that has no place in it, or, in a database without an
//! encoding, what is no text at all. The stream copes with both, and so must a page.
//!
//! Such a page is read with its text as it is. The server is then asked for the UTF-8 of all of it at once; where it refuses,
//! of one half and the other, down to a value, a piece of it and its characters: so only what has no UTF-8 is lost. It becomes
//! a byte that is no UTF-8, which what reads the values replaces and counts.

use std::collections::{HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use tokio_postgres::Client;

use super::BackfillError;
use crate::postgres::is_of_a_character;

/// Has the server send text as it is, until the transaction ends.
pub(super) const AS_IT_IS: &str = "set local client_encoding = 'SQL_ASCII'";

/// What has an encoding can be made another; what has none is taken as it is.
const HAS_ENCODING: &str = "select pg_catalog.getdatabaseencoding() <> 'SQL_ASCII'";
const UTF8: &str = "
select pg_catalog.convert(t.text, pg_catalog.getdatabaseencoding(), 'UTF8')
from pg_catalog.unnest($1::bytea[]) with ordinality t (text, place) order by t.place";
const CHARACTERS: &str = "
select pg_catalog.convert_to(c.text, pg_catalog.getdatabaseencoding())
from pg_catalog.regexp_split_to_table(
    pg_catalog.convert_from($1::bytea, pg_catalog.getdatabaseencoding()), '') with ordinality c (text, place)
order by c.place";
const HALVES: &str = "
select pg_catalog.convert_to(pg_catalog.substr(t.text, 1, t.half), t.encoding),
    pg_catalog.convert_to(pg_catalog.substr(t.text, t.half + 1), t.encoding)
from (select d.text, d.encoding, pg_catalog.char_length(d.text) / 2 as half
    from (select pg_catalog.convert_from($1::bytea, pg_catalog.getdatabaseencoding()) as text,
              pg_catalog.getdatabaseencoding() as encoding) d) t";
/// So much of a text is taken apart into its characters at once.
const PIECE_BYTES: usize = 4096;
/// No text in UTF-8 has it.
const NONE: &[u8] = &[0xFF];

/// Makes texts UTF-8 that are in the database's encoding.
pub(super) async fn recode(client: &Client, texts: Vec<&mut Bytes>) -> Result<(), BackfillError> {
    let failed = BackfillError::query("ask for the database's encoding");
    if !client.query_one(HAS_ENCODING, &[]).await.map_err(failed)?.get::<_, bool>(0) {
        return Ok(());
    }
    let mut texts: Vec<&mut Bytes> = texts.into_iter().filter(|text| !text.is_ascii()).collect();
    let given: Vec<Bytes> = texts.iter().map(|text| Bytes::clone(text)).collect();
    let mut pieces = Pieces { client, known: HashMap::new() };
    for (text, whole) in texts.iter_mut().zip(each(client, &given).await?) {
        **text = match whole {
            Some(whole) => whole,
            None => pieces.made(Bytes::clone(text)).await?,
        };
    }
    Ok(())
}

/// The texts in UTF-8, in their order; `None` for each that the server refuses.
async fn each(client: &Client, texts: &[Bytes]) -> Result<Vec<Option<Bytes>>, BackfillError> {
    let mut made = Vec::with_capacity(texts.len());
    let mut rest = vec![texts];
    while let Some(part) = rest.pop() {
        match asked(client, part).await? {
            Some(utf8) => made.extend(utf8.into_iter().map(Some)),
            None if part.len() <= 1 => made.push(None),
            None => {
                let (first, second) = part.split_at(part.len() / 2);
                rest.extend([second, first]);
            }
        }
    }
    Ok(made)
}

/// Texts that are no UTF-8 as a whole.
struct Pieces<'c> {
    client: &'c Client,
    /// The characters that were asked for.
    known: HashMap<Bytes, Bytes>,
}

impl Pieces<'_> {
    async fn made(&mut self, text: Bytes) -> Result<Bytes, BackfillError> {
        let mut made = BytesMut::with_capacity(text.len());
        let mut rest = vec![text];
        while let Some(part) = rest.pop() {
            if let Some(utf8) = asked(self.client, std::slice::from_ref(&part)).await? {
                made.extend(utf8.into_iter().flatten());
            } else if part.len() <= PIECE_BYTES {
                self.by_character(&part, &mut made).await?;
            } else {
                let failed = BackfillError::query("take a text apart");
                let halves = self.client.query_one(HALVES, &[&part.as_ref()]).await.map_err(failed)?;
                rest.extend([1, 0].map(|half| Bytes::copy_from_slice(halves.get(half))));
            }
        }
        Ok(made.freeze())
    }

    async fn by_character(&mut self, piece: &Bytes, made: &mut BytesMut) -> Result<(), BackfillError> {
        let failed = BackfillError::query("take a text apart");
        let split = self.client.query(CHARACTERS, &[&piece.as_ref()]).await.map_err(failed)?;
        let characters: Vec<Bytes> = split.iter().map(|row| Bytes::copy_from_slice(row.get(0))).collect();
        let new: HashSet<&Bytes> = characters.iter().filter(|c| !self.known.contains_key(*c)).collect();
        let new: Vec<Bytes> = new.into_iter().cloned().collect();
        for (character, utf8) in new.iter().zip(each(self.client, &new).await?) {
            self.known.insert(character.clone(), utf8.unwrap_or(Bytes::from_static(NONE)));
        }
        for character in &characters {
            made.extend_from_slice(self.known.get(character).map_or(NONE, AsRef::as_ref));
        }
        Ok(())
    }
}

/// The texts in UTF-8; `None` where the server refuses one of them.
async fn asked(client: &Client, texts: &[Bytes]) -> Result<Option<Vec<Bytes>>, BackfillError> {
    let given: Vec<&[u8]> = texts.iter().map(AsRef::as_ref).collect();
    match client.query(UTF8, &[&given]).await {
        Ok(rows) => Ok(Some(rows.iter().map(|row| Bytes::copy_from_slice(row.get(0))).collect())),
        Err(error) if error.code().is_some_and(|state| is_of_a_character(state.code())) => Ok(None),
        Err(source) => Err(BackfillError::Query { doing: "make text UTF-8", source }),
    }
}
