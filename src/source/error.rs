//! What can go wrong between the log and intake, in the voice of Postgres: primary, detail, hint.

use std::error::Error;
use std::io;

use super::frame::FrameError;
use crate::pgoutput::DecodeError;
use crate::postgres::{ConnectError, Fault, Nature, fault_nature};
use crate::telemetry::chain;

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
            Self::Refused { source, .. } | Self::Ended { source } => fault_nature(source),
            Self::SlotMissing { .. }
            | Self::SlotLost { .. }
            | Self::SlotForeign { .. }
            | Self::OtherSystem { .. } => Nature::Definite,
            _ => Nature::Transient,
        }
    }

    /// What is known beyond the primary message.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.detail(),
            Self::Refused { source, .. } | Self::Ended { source } => Some(match &source.detail {
                Some(detail) => format!("{source}: {detail}"),
                None => source.to_string(),
            }),
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
            Self::Silent { seconds } => Some(format!("Nothing came for {seconds} s.")),
            _ => self.source().map(chain),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Connect(error) => return error.hint(),
            Self::Refused { source, .. } | Self::Ended { source } => match source.code.as_str() {
                "42704" => {
                    "A publication must be older than the slot's position. If it was dropped and made again, the slot \
                     must be made again too."
                }
                "42501" => "The role needs the REPLICATION attribute.",
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
            Self::SlotForeign { .. } => "Choose another name in database.slot.",
            Self::OtherSystem { .. } => {
                "If the database was restored or replaced on purpose, remove the old state with \"walhook uninstall\" \
                 or use another schema and slot."
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
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
    },
    /// The slot cannot be used.
    #[error(transparent)]
    Slot(#[from] Box<SourceError>),
}

impl SetupError {
    pub(super) fn query(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Query { doing, source: Box::new(source) }
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
            Self::Setting { needed, .. } => Some(needed.clone()),
            Self::NoIdentity { .. } => Some(
                "Without a primary key or replica identity, publishing them would make the application's own UPDATE and \
                 DELETE fail."
                    .to_owned(),
            ),
            Self::VirtualIdentity { .. } => Some(
                "Their replica identity is full and they have virtual generated columns, which Postgres does not publish: \
                 it would refuse the application's own UPDATE and DELETE."
                    .to_owned(),
            ),
            Self::Slot(error) => error.detail(),
            Self::Privilege { .. } | Self::NeedsOwner { .. } => None,
        }
    }

    /// What to do about it: SQL to paste, where there is some.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Query { .. } | Self::Version { .. } => None,
            Self::Setting { remedy, .. } => Some(remedy.clone()),
            Self::Privilege { role } => Some(format!(
                "As a superuser: ALTER ROLE {} REPLICATION; (on Amazon RDS: GRANT rds_replication TO {}).",
                super::publication::quoted(role),
                super::publication::quoted(role)
            )),
            Self::NoIdentity { tables } => {
                let remedies: Vec<_> =
                    tables.iter().map(|t| format!("ALTER TABLE {t} REPLICA IDENTITY FULL;")).collect();
                Some(format!(
                    "Add a primary key, or run: {} Or subscribe to inserts only.",
                    remedies.join(" ")
                ))
            }
            Self::VirtualIdentity { tables } => {
                let remedies: Vec<_> =
                    tables.iter().map(|t| format!("ALTER TABLE {t} REPLICA IDENTITY DEFAULT;")).collect();
                Some(format!(
                    "With a primary key, run: {} Or make the columns STORED, or subscribe to inserts only.",
                    remedies.join(" ")
                ))
            }
            Self::NeedsOwner { sql, .. } => Some(format!("Have the owner run: {}", sql.join(" "))),
            Self::Slot(error) => error.hint(),
        }
    }
}
