//! The logical replication stream, read: bytes to messages, Postgres text to JSON.
//!
//! Postgres' output plugin `pgoutput`, protocol version 1, wraps one message in each `XLogData` frame. A
//! [`Decoder`] turns the payload of such a frame into a [`Message`]; the shapes are those of the chapter "Logical
//! Replication Message Formats" of the Postgres manual. Nothing here does I/O, and nothing here can panic: malformed
//! bytes are a [`DecodeError`] that names the message, the byte and what was expected there.
//!
//! **Most rows are not wanted.** A row change is decoded to a [`RawTuple`]: checked once from end to end, but not taken
//! apart, so that a change of a table nobody subscribes to costs no allocation. [`RawTuple::decode`] makes the
//! cells, as slices of the payload, for the others.
//!
//! **Every value goes out.** [`write_json`] appends exactly one JSON value for any kind and any bytes. A text that does
//! not read as its kind says goes out as a JSON string of that text, and the caller is told ([`Written`]), so that it
//! can be counted. What the texts look like is pinned by the session: `datestyle=ISO`, `intervalstyle=iso_8601`,
//! `bytea_output=hex`, `extra_float_digits=3`, `timezone=UTC`, `search_path=pg_catalog`, `client_encoding=UTF8`.
//!
//! **Types are known from the stream alone.** A column's type is an oid. Those of the system catalog are known here; all
//! others are announced by a [`Message::Type`] before the table that uses them, a domain under the name of its base
//! type. The decoder remembers those names ([`TypeNames`]) and gives every column its
//! [`ValueKind`](crate::domain::ValueKind).
//!
//! **Too large is not lost.** Of a frame over the limit only the head is kept; [`decode_head`] reads from it which
//! table and, as far as they are whole, which values.

mod array;
mod head;
mod json;
mod kind;
mod message;
mod read;
mod scan;
mod time;
mod tuple;

#[cfg(test)]
mod golden;

pub use array::{ArrayToken, ArrayTokens, MalformedArray};
pub use head::{HeadOnly, decode_head};
pub use json::{Written, write_json, write_json_string};
pub use kind::{TypeNames, kind_of};
pub use message::{Decoder, Message, MessageKind};
pub use read::DecodeError;
pub use tuple::{RawOld, RawTuple};
