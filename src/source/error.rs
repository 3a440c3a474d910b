//! What can go wrong between the log and intake, in the voice of Postgres: primary, detail, hint.

use std::error::Error;
use std::io;

use tokio_postgres::error::SqlState;

use super::Unowned;
use super::frame::FrameError;
use super::meaning::is_of_a_large_row;
use crate::pgoutput::DecodeError;
use crate::postgres::{ConnectError, Fault, Nature, fault_nature};
use crate::telemetry::chain;

/// The reason of a gap that a dropped publication makes.
pub const PUBLICATION_DROPPED: &str = "the publication was dropped";

/// Why a stream ended or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] Box<ConnectError>),
    /// The server refused a command.
    #[error("Postgres refused {command}")]
    Refused {
        /// The command's name.
        command: &'static str,
        /// What the server said.
        #[source]
        source: Box<Fault>,
    },
    /// The server ended the stream with an error.
    #[error("Postgres ended the replication stream")]
    Ended {
        /// What the server said.
        #[source]
        source: Box<Fault>,
    },
    /// Somebody else streams from the slot.
    #[error("replication slot \"{slot}\" is in use by another process")]
    SlotTaken {
        /// The slot.
        slot: String,
        /// The server process that holds it.
        pid: Option<i32>,
    },
    /// The slot is not there.
    #[error("replication slot \"{slot}\" does not exist")]
    SlotMissing {
        /// The slot.
        slot: String,
    },
    /// The server has removed log that the slot needs.
    #[error("replication slot \"{slot}\" is lost")]
    SlotLost {
        /// The slot.
        slot: String,
        /// Up to where everything was confirmed.
        confirmed: Option<crate::domain::EndLsn>,
        /// Why, in the server's word (`pg_replication_slots.invalidation_reason`), from Postgres 17 on.
        reason: Option<String>,
    },
    /// A publication that the stream is made from did not exist where the log now stands.
    #[error("a publication was dropped")]
    PublicationGone {
        /// What the server said.
        #[source]
        source: Box<Fault>,
    },
    /// The slot belongs to another plugin or database.
    #[error("replication slot \"{slot}\" is not ours")]
    SlotForeign {
        /// The slot.
        slot: String,
        /// What it is instead.
        problem: String,
    },
    /// It is another database cluster than before.
    #[error("the database cluster is not the one this slot was made in")]
    OtherSystem {
        /// The identifier that was expected.
        expected: u64,
        /// The identifier found.
        found: u64,
    },
    /// The server is on another timeline than when this process began: a standby was promoted, or a backup restored.
    #[error("the database is on another timeline")]
    OtherTimeline {
        /// The one that was expected.
        expected: u32,
        /// The one found.
        found: u32,
    },
    /// The server is on another timeline than the ledger knows, and its slot is no copy of the one that was read.
    #[error("the database is on timeline {found}, and the ledger knows timeline {known}")]
    Forked {
        /// The slot.
        slot: String,
        /// The one the ledger knows.
        known: u32,
        /// The one found.
        found: u32,
        /// Where the timeline found has left the known one; `None` where it does not come from there.
        fork: Option<crate::domain::Lsn>,
    },
    /// The ledger holds changes that are not in the server's log.
    #[error("the ledger is ahead of the database")]
    Restored {
        /// How far the server's log reaches.
        end: crate::domain::Lsn,
    },
    /// The server's log ends before what this process has read of it: an older state of its disk was put back.
    #[error("the database's log ends before what was read of it")]
    Reverted {
        /// How far it was read.
        read: crate::domain::Lsn,
        /// How far it reaches.
        end: crate::domain::Lsn,
    },
    /// A message's length is impossible.
    #[error("the replication stream is malformed")]
    Frame(#[from] FrameError),
    /// A message's content is malformed.
    #[error("the replication stream is malformed")]
    Decode(#[from] DecodeError),
    /// A message came where it cannot come, or has no valid form.
    #[error("the replication stream is malformed: {problem}")]
    Protocol {
        /// What came.
        problem: String,
    },
    /// The connection broke.
    #[error("the replication connection broke")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("Postgres closed the replication connection")]
    HungUp,
    /// More tables came over one connection than are remembered.
    #[error("the replication stream has described {most} tables")]
    ManyTables {
        /// As many are.
        most: usize,
    },
    /// The same again, and nothing was confirmed in between.
    #[error("the replication stream describes more than {most} tables at one place")]
    TooManyTables {
        /// As many are.
        most: usize,
    },
    /// The server shuts down, and waits for us.
    #[error("Postgres is shutting down")]
    Closing,
    /// Text was read as it is for long enough: the server is to make UTF-8 of it again.
    #[error("the replication connection is made anew")]
    Recoded,
    /// Nothing came for too long although an answer was asked for.
    #[error("Postgres has been silent on the replication connection")]
    Silent {
        /// For how long, in seconds.
        seconds: u64,
    },
}

impl From<ConnectError> for SourceError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Box::new(error))
    }
}

impl SourceError {
    pub(super) fn out_of_order(what: &str) -> Self {
        Self::Protocol { problem: what.to_owned() }
    }

    /// Whether trying again can help. A malformed stream counts as transient: a new connection starts with clean bytes.
    pub fn nature(&self) -> Nature {
        match self {
            Self::Connect(error) => error.nature(),
            Self::Ended { source } if is_of_a_large_row(source) => Nature::Definite,
            Self::Refused { source, .. } | Self::Ended { source } => fault_nature(source),
            Self::SlotMissing { .. }
            | Self::SlotLost { .. }
            | Self::PublicationGone { .. }
            | Self::SlotForeign { .. }
            | Self::TooManyTables { .. }
            | Self::OtherSystem { .. }
            | Self::OtherTimeline { .. }
            | Self::Forked { .. }
            | Self::Restored { .. }
            | Self::Reverted { .. } => Nature::Definite,
            _ => Nature::Transient,
        }
    }

    /// Why the slot cannot be read from any more, where it is that: changes are lost, and only a new one helps.
    pub fn loss(&self) -> Option<&'static str> {
        match self {
            Self::SlotMissing { .. } => Some("the slot is gone"),
            Self::SlotLost { .. } => Some("the slot was invalidated"),
            Self::PublicationGone { .. } => Some(PUBLICATION_DROPPED),
            _ => None,
        }
    }

    /// What is known beyond the primary message.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.detail(),
            Self::Refused { source, .. } | Self::Ended { source } | Self::PublicationGone { source } => {
                Some(match &source.detail {
                    Some(detail) => format!("{source}: {detail}"),
                    None => source.to_string(),
                })
            }
            Self::SlotTaken { pid, .. } => pid.map(|pid| format!("It is active for PID {pid}.")),
            Self::SlotLost { confirmed, reason, .. } => confirmed.map(|lsn| {
                let why = reason.as_ref().map(|reason| format!(" (invalidation_reason = {reason})"));
                let why = why.unwrap_or_default();
                format!("Changes after {lsn} were not delivered and can no longer be read{why}.")
            }),
            Self::SlotForeign { problem, .. } => Some(problem.clone()),
            Self::OtherSystem { expected, found } => {
                Some(format!("The state was made with system {expected}; this is system {found}."))
            }
            Self::OtherTimeline { expected, found } => {
                Some(format!("It was on timeline {expected}, it is on timeline {found}."))
            }
            Self::Forked { slot, found, fork, .. } => Some(match fork {
                Some(fork) => format!(
                    "Timeline {found} left it at {fork}: a backup was restored, or a standby was promoted whose slot \
                     \"{slot}\" was not synchronized from the primary. What was committed beyond {fork} before is not \
                     in this database, although receivers may have heard of it; what the slot had not read by then \
                     may be missing."
                ),
                None => format!("Timeline {found} does not come from it: an older backup was restored."),
            }),
            Self::Restored { end } => Some(format!(
                "It holds deliveries of changes beyond {end}, where the log of this database ends: an older backup was \
                 restored, and receivers have heard of changes that it does not have."
            )),
            Self::Reverted { read, end } => Some(format!(
                "It was read up to {read}, and ends at {end}: an older state of the server was put back."
            )),
            Self::ManyTables { .. } => Some("They are forgotten with the connection.".to_owned()),
            Self::Silent { seconds } => Some(format!("Nothing came for {seconds} s.")),
            _ => self.source().map(chain),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Connect(error) => return error.hint(),
            Self::Refused { source, .. } | Self::Ended { source } => match source.code.as_str() {
                "42501" => "The role needs the REPLICATION attribute.",
                _ if is_of_a_large_row(source) => {
                    "A row is larger than the server can send, so this slot can never pass its place. To go on from now and \
                     record the gap, drop the slot (SELECT pg_drop_replication_slot('SLOT');) and set \
                     database.on_slot_lost = \"recreate\"; keep such tables out of webhooks to avoid it."
                }
                _ => return source.hint.clone(),
            },
            Self::SlotTaken { .. } => {
                "If another walhook runs with this slot, this one takes over when it ends. After a crash the server \
                 frees the slot within wal_sender_timeout."
            }
            Self::SlotMissing { .. } => {
                "Changes since it was dropped cannot be read any more. To go on from now and record the gap, set \
                 database.on_slot_lost = \"recreate\"."
            }
            Self::SlotLost { reason, .. } => match reason.as_deref() {
                Some("idle_timeout") => {
                    "It was unused for longer than idle_replication_slot_timeout. To go on from now and record the gap, \
                     set database.on_slot_lost = \"recreate\"; raise idle_replication_slot_timeout to avoid it."
                }
                Some("wal_level_insufficient" | "rows_removed") => {
                    "To go on from now and record the gap, set database.on_slot_lost = \"recreate\"; keep \
                     wal_level = logical on every server that takes over."
                }
                _ => {
                    "max_slot_wal_keep_size was exceeded. To go on from now and record the gap, set \
                     database.on_slot_lost = \"recreate\"; raise max_slot_wal_keep_size to avoid it."
                }
            },
            Self::PublicationGone { .. } => {
                "For the log before it was made again it does not exist, so this slot can never pass that place. To go \
                 on from now and record the gap, set database.on_slot_lost = \"recreate\"."
            }
            Self::SlotForeign { .. } => "Choose another name in database.slot.",
            Self::TooManyTables { .. } => {
                "A transaction changes more tables than that, so this slot can never pass its place. To go on from now and \
                 record the gap, drop the slot (SELECT pg_drop_replication_slot('SLOT');) and set \
                 database.on_slot_lost = \"recreate\"; to avoid it, name fewer tables in the webhooks' events, or publish \
                 partitions by their root (publish_via_partition_root = true) where the publication is not walhook's own."
            }
            Self::OtherSystem { .. } => {
                "If the database was restored or replaced on purpose, remove the old state with \"walhook uninstall\" \
                 or use another schema and slot."
            }
            Self::OtherTimeline { .. } | Self::Reverted { .. } => {
                "Start walhook again: it looks at what has happened first."
            }
            Self::Forked { .. } | Self::Restored { .. } => {
                "To go on from the slot's position, with new ids from the fork on, set database.on_timeline_change = \
                 \"continue\" for the next start. To begin anew instead, run \"walhook uninstall\"."
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// What gives tables (by quoted name) a replica identity: all of them, as SQL to paste.
pub fn identity_remedy(tables: &[String]) -> String {
    let remedies: Vec<_> = tables.iter().map(|t| format!("ALTER TABLE {t} REPLICA IDENTITY FULL;")).collect();
    format!("Add a primary key (one that is not deferrable), or run: {}", remedies.join(" "))
}

/// Why the database cannot be used as a source as it is.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A statement failed.
    #[error("could not {doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        #[source]
        source: Box<tokio_postgres::Error>,
    },
    /// The server is too old.
    #[error("Postgres {found} is too old")]
    Version {
        /// The server's version.
        found: String,
    },
    /// The server cannot copy slots to its standbys.
    #[error("database.slot_failover needs Postgres 17 or later")]
    NoFailover {
        /// The server's version.
        found: String,
    },
    /// A setting of the server is in the way.
    #[error("{setting} is {found}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value, or how it is used up.
        found: String,
        /// What is needed.
        needed: String,
        /// What to run.
        remedy: String,
    },
    /// The role may not replicate.
    #[error("role \"{role}\" may not replicate")]
    Privilege {
        /// The role.
        role: String,
    },
    /// Tables whose updates or deletes are wanted have no usable replica identity.
    #[error("{} cannot publish updates and deletes", tables.join(", "))]
    NoIdentity {
        /// The tables, quoted.
        tables: Vec<String>,
    },
    /// Tables whose updates or deletes are wanted have a full identity with columns that cannot be published.
    #[error("{} cannot publish updates and deletes", tables.join(", "))]
    VirtualIdentity {
        /// The tables, quoted.
        tables: Vec<String>,
    },
    /// Somebody with more rights must change the publication.
    #[error("publication \"{publication}\" must be changed by its owner")]
    NeedsOwner {
        /// The publication.
        publication: String,
        /// What to run.
        sql: Vec<String>,
        /// Tables among them that only their owners may publish.
        unowned: Vec<Unowned>,
    },
    /// The slot cannot be used.
    #[error(transparent)]
    Slot(#[from] Box<SourceError>),
}

impl SetupError {
    pub(super) fn query(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Query { doing, source: Box::new(source) }
    }

    /// Whether a statement met a slot that somebody streams from.
    pub(super) fn is_of_a_slot_in_use(&self) -> bool {
        match self {
            Self::Query { source, .. } => source.code() == Some(&SqlState::OBJECT_IN_USE),
            _ => false,
        }
    }

    /// Whether a statement named a table that is not there.
    pub fn is_of_a_missing_table(&self) -> bool {
        match self {
            Self::Query { source, .. } => source.code() == Some(&SqlState::UNDEFINED_TABLE),
            _ => false,
        }
    }

    /// Whether trying again can help.
    pub fn nature(&self) -> Nature {
        match self {
            Self::Query { source, .. } => match source.as_db_error() {
                Some(db) => fault_nature(&Fault::from(db)),
                None => Nature::Transient,
            },
            Self::Slot(error) => error.nature(),
            _ => Nature::Definite,
        }
    }

    /// What is known beyond the primary message.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Query { source, .. } => Some(match source.as_db_error() {
                Some(db) => Fault::from(db).to_string(),
                None => chain(source.as_ref()),
            }),
            Self::Version { .. } => Some("walhook needs Postgres 14 or later.".to_owned()),
            Self::NoFailover { found } => Some(format!("This is Postgres {found}, which does not copy logical slots to standbys.")),
            Self::Setting { needed, .. } => Some(needed.clone()),
            Self::NoIdentity { .. } => Some(
                "Without a primary key (a deferrable one does not count) or replica identity, publishing them would make \
                 the application's own UPDATE and DELETE fail."
                    .to_owned(),
            ),
            Self::VirtualIdentity { .. } => Some(
                "Their replica identity is full and they have virtual generated columns, which Postgres does not publish: \
                 it would refuse the application's own UPDATE and DELETE."
                    .to_owned(),
            ),
            Self::Slot(error) => error.detail(),
            Self::NeedsOwner { unowned, .. } if !unowned.is_empty() => {
                let tables: Vec<_> = unowned.iter().map(|unowned| &*unowned.table).collect();
                Some(format!("Only a table's owner may publish it, and the role does not own {}.", tables.join(", ")))
            }
            Self::Privilege { .. } | Self::NeedsOwner { .. } => None,
        }
    }

    /// What to do about it: SQL to paste, where there is some.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Query { .. } | Self::Version { .. } => None,
            Self::NoFailover { .. } => Some(
                "Set database.slot_failover = false; after a failover, database.on_timeline_change says what becomes of the slot."
                    .to_owned(),
            ),
            Self::Setting { remedy, .. } => Some(remedy.clone()),
            Self::Privilege { role } => Some(format!(
                "As a superuser: ALTER ROLE {} REPLICATION; (on Amazon RDS: GRANT rds_replication TO {}).",
                super::publication::quoted(role),
                super::publication::quoted(role)
            )),
            Self::NoIdentity { tables } => {
                Some(format!("{} Or subscribe to inserts only.", identity_remedy(tables)))
            }
            Self::VirtualIdentity { tables } => {
                let remedies: Vec<_> =
                    tables.iter().map(|t| format!("ALTER TABLE {t} REPLICA IDENTITY DEFAULT;")).collect();
                Some(format!(
                    "With a primary key, run: {} Or make the columns STORED, or subscribe to inserts only.",
                    remedies.join(" ")
                ))
            }
            Self::NeedsOwner { sql, unowned, .. } => {
                let grants: std::collections::BTreeSet<_> = unowned.iter().map(|unowned| &*unowned.grant).collect();
                let grants: Vec<_> = grants.into_iter().collect();
                let or = if grants.is_empty() {
                    String::new()
                } else {
                    format!(" Or let the role act for the tables' owners: {}", grants.join(" "))
                };
                Some(format!("Have the owner run: {}{or}", sql.join(" ")))
            }
            Self::Slot(error) => error.hint(),
        }
    }
}
