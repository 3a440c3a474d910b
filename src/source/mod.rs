//! The replication link: the write-ahead log in, transactions out, confirmed positions back.
//!
//! ```text
//!   walsender ─▶ frame ─▶ assemble ─▶ Item (bounded channel) ─▶ intake
//!       ▲                                                          │ settled
//!       └──────── feedback ◀── Positions (never goes back) ◀───────┘
//! ```
//!
//! [`run`] keeps one connection alive after another; [`stream`] is the life of one. A connection starts at the
//! slot's own confirmed position, so what was sent and not confirmed comes again: [`Item::Restarted`] tells the
//! consumer to forget half transactions and to skip what it has already settled.
//!
//! **One task reads, answers and hands over; it never waits for the consumer** (invariant I9). While the
//! channel is full the chunk under construction grows to its limit, then the socket is left alone, and
//! status messages go on by their clock, at a third of the server's `wal_sender_timeout` or more often ([`patience`] says how
//! long the server itself may be silent). All state of
//! reading lives in structs, so that a read dropped in the middle of a frame loses nothing.
//!
//! **What is confirmed** is what [`Positions`] says and nothing else: the end of a settled transaction, or the
//! server's own position from a keepalive when no transaction was open ([`Item::Idle`]), which is how an idle
//! database's slot moves on. Never inside a transaction, never back.
//!
//! **Order of making things:** publications before the slot, and afterwards only altered: a publication that is younger
//! than the slot's position does not exist there, for ever. [`prepare`] looks first whether all of it can be made, makes it,
//! and takes it back where the last step fails; [`reconcile`] keeps the tables right.
//!
//! Our own schema is dropped here, by relation, before anything looks at it (invariant I10). Protocol 1 and no
//! two-phase option: the server sends a transaction after its commit, or not at all.

mod assemble;
mod auth;
mod closing;
mod columns;
mod error;
#[cfg(test)]
mod fake;
mod feedback;
mod frame;
mod gate;
mod identity;
mod item;
mod link;
mod meaning;
mod open;
mod patience;
mod plan;
mod positions;
mod publication;
mod published;
mod recode;
mod reconcile;
mod remove;
mod run;
mod settings;
mod setup;
mod slot;
mod standbys;
mod stream;
#[cfg(test)]
mod stream_tests;
mod traps;

pub use columns::{ColumnInfo, columns};
pub use error::{PUBLICATION_DROPPED, SetupError, SourceError, identity_remedy};
pub use identity::{Identity, identify};
pub use item::{Chunk, Entry, Item, LogicalMessage, Piece, RawChange};
pub use positions::Positions;
pub use publication::{PublicationNames, RowIdentity, TableInfo, TableWanted, tables};
pub use reconcile::{Planned, Report, Unowned, check_identities, planned, reconcile};
pub use remove::{drop_publication, publications};
pub use run::{SourceState, run};
pub use settings::{ServerSettings, Setting, StandbySlot, roles_among, server_settings};
pub use setup::{Facts, Manage, Preparation, Prepared, SlotHistory, check, prepare, undo};
pub use slot::{SlotState, WalStatus, drop_lost_slot, drop_slot, lock_slot, slot_state};
pub use standbys::{Standby, stand_by, standbys};
pub use stream::{Carried, SourceOptions, Stopped, stream};
pub use traps::{Gives, Leaf, Shape, Unpublishable, UnpublishableKind, shapes, unpublishable};
