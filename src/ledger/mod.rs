//! The ledger: all SQL on walhook's own tables, one file per verb.
//!
//! The slot is the queue for what is young, the ledger for what is old. A delivery that works is one row, written
//! once, with the outcome of its first attempt; whatever is handed over unfinished stays *open* here until it has
//! ended. [`record`] writes, through one [`writer`] that works strictly in order; [`claim`] takes what is due
//! under a lease; [`own`] fences out whoever has lost the slot; [`prune`] drops what is past its retention.
//!
//! Order of a lane (invariant I7): of the open deliveries of a lane only the earliest has a `due_at`. A row is
//! recorded without one when an earlier is open, and gets it in the transaction that ends the earlier. Both run on
//! the writer's single connection, so neither can miss the other.

pub mod ask;
pub mod audit;
pub mod backfills;
pub mod claim;
mod condense;
mod copy;
pub mod deliveries;
pub mod gaps;
mod ghosts;
pub mod health;
pub mod idempotency;
pub mod keys;
pub mod migrate;
pub mod notices;
pub mod numbers;
pub mod overview;
pub mod own;
pub mod pokes;
pub mod pool;
pub mod positions;
pub mod prune;
pub mod query;
pub mod record;
pub mod recorded;
pub mod refusals;
pub mod replay;
pub mod retries;
pub mod rollups;
mod row;
pub mod schema;
pub mod secrets;
pub mod shapes;
pub mod states;
pub mod templates;
pub mod trigger;
pub mod unrendered;
pub mod webhooks;
pub mod writer;

use std::time::Duration;

use crate::domain::limits;
use crate::postgres::{ConnectError, Nature, Server, Session};
use crate::telemetry::server_words;

/// Where the ledger lives: a database and a schema in it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    server: Server,
    schema: String,
}

/// What can go wrong between us and the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No session could be had.
    #[error("the ledger's database cannot be reached")]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error("the ledger refused a statement ({doing})")]
    Statement {
        /// What was being done.
        doing: &'static str,
        /// The server's word.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A statement that carried secrets failed; what the server tells of values is left out.
    #[error("the ledger refused a statement ({doing}): {message} ({code})")]
    Withheld {
        /// What was being done.
        doing: &'static str,
        /// The SQLSTATE.
        code: String,
        /// The server's primary message.
        message: String,
    },
    /// The server did not answer.
    #[error("the ledger's database has not answered for {seconds} s")]
    Silent {
        /// For how long.
        seconds: u64,
    },
    /// There is no schema, or nothing in it, and the role may not make it.
    #[error("the role may not create what it needs in schema {schema}")]
    MayNotCreate {
        /// The schema's name.
        schema: String,
        /// Whether it is there.
        exists: bool,
    },
    /// The migrations failed.
    #[error("the ledger's schema cannot be brought up to date")]
    Migrate(#[source] Box<refinery::Error>),
    /// Another process has taken over the slot; this one must write nothing more.
    #[error("another walhook has taken over the slot")]
    FencedOff,
    /// The ledger belongs to another database system.
    #[error("the ledger belongs to another database")]
    Foreign {
        /// The system the ledger knows.
        known: String,
        /// The system that was met.
        met: String,
    },
}

impl LedgerError {
    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => error.nature() == Nature::Transient,
            Self::Statement { source, .. } => {
                source.as_db_error().is_none_or(|db| is_passing(db.code().code()))
            }
            Self::Withheld { code, .. } => is_passing(code),
            Self::Silent { .. } => true,
            Self::Migrate(error) => statement_of(error).is_some_and(|source| {
                source.as_db_error().map_or(source.is_closed(), |db| is_passing(db.code().code()))
            }),
            Self::MayNotCreate { .. } | Self::FencedOff | Self::Foreign { .. } => false,
        }
    }

    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.hint(),
            Self::Statement { source, .. } => source.as_db_error().and_then(|db| {
                hint_of(db.code().code()).map_or_else(|| db.hint().map(str::to_owned), |hint| Some(hint.into()))
            }),
            Self::Withheld { code, .. } => hint_of(code).map(str::to_owned),
            Self::Silent { .. } => Some("the connection is given up and made anew".to_owned()),
            Self::MayNotCreate { schema, exists } => {
                let quoted = quote(schema);
                Some(if *exists {
                    format!("GRANT CREATE, USAGE ON SCHEMA {quoted} TO <role>;")
                } else {
                    format!(
                        "GRANT CREATE ON DATABASE <database> TO <role>; or CREATE SCHEMA {quoted} AUTHORIZATION <role>;"
                    )
                })
            }
            Self::Migrate(_) => Some("the role needs CREATE on the schema (GRANT CREATE ON SCHEMA …)".to_owned()),
            Self::FencedOff => Some("this process ends; the other one goes on where it stood".to_owned()),
            Self::Foreign { .. } => Some(
                "the database was restored elsewhere or the ledger copied: run `walhook uninstall` against the \
                 ledger to start afresh, or point database.url at the database it belongs to"
                    .to_owned(),
            ),
        }
    }
}

/// Connection, resource, operator and system trouble, serialization failures; and a transaction that the server ended because
/// it stood still for too long, or took too long.
fn is_passing(code: &str) -> bool {
    matches!(code, "25P03" | "25P04")
        || matches!(code.get(..2).unwrap_or_default(), "08" | "53" | "57" | "58" | "40" | "55")
}

/// What the server, or the connection, had against a migration.
fn statement_of(error: &refinery::Error) -> Option<&tokio_postgres::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(statement) = error.downcast_ref() {
            return Some(statement);
        }
        cause = error.source();
    }
    None
}

/// What is known to help against an SQLSTATE.
fn hint_of(code: &str) -> Option<&'static str> {
    match code {
        "42501" => Some(
            "grant the role CREATE on the database, or create the schema for it: \
             CREATE SCHEMA walhook AUTHORIZATION <role>",
        ),
        "42P01" | "3F000" => Some(
            "the ledger's tables were dropped, or are those of an older walhook (`walhook run` brings them up to date), or \
             the role may not see their schema any more (GRANT USAGE ON SCHEMA …)",
        ),
        "53100" => Some("the ledger's disk is full: free space, nothing is lost meanwhile"),
        _ => None,
    }
}

/// The same for a statement that carries secrets: the server may answer with the row (invariant I12).
fn withheld(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> LedgerError {
    move |source| match source.as_db_error() {
        Some(db) => LedgerError::Withheld {
            doing,
            code: db.code().code().to_owned(),
            message: server_words(db.code().code(), db.message()).to_owned(),
        },
        None => LedgerError::Statement { doing, source },
    }
}

/// Names what was being done when a statement failed.
fn doing(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> LedgerError {
    move |source| LedgerError::Statement { doing, source }
}

/// What the ledger answers, or that it did not within this time.
pub async fn within<T>(
    patience: Duration,
    asking: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    let answered = tokio::time::timeout(patience, asking).await;
    answered.unwrap_or(Err(LedgerError::Silent { seconds: patience.as_secs() }))
}

/// No lock of ours outlives a connection that the network has lost by much.
const LETS_GO: &str = "set idle_in_transaction_session_timeout to '30s'; set tcp_user_timeout to '30s'";

impl Ledger {
    /// A ledger in a schema of a server.
    pub fn new(server: Server, schema: &str) -> Self {
        Self { server, schema: schema.to_owned() }
    }

    /// The schema's name.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// A session whose unqualified names are the ledger's. What is written by it is in the audit, where it has to be, by
    /// whoever writes: the database adds what others write ([`V18__security`](../../../migrations/V18__security.sql)).
    pub async fn session(&self, name: &str) -> Result<Session, LedgerError> {
        let session = self.server.session(name).await?;
        let ours =
            format!("set search_path to {}; set walhook.audited to on; {LETS_GO}", quote(&self.schema));
        let choosing =
            async { session.client.batch_execute(&ours).await.map_err(doing("choosing the schema")) };
        within(limits::ANSWER_WITHIN, choosing).await?;
        Ok(session)
    }
}

/// An identifier, quoted.
pub(crate) fn quote(identifier: &str) -> String {
    postgres_protocol::escape::escape_identifier(identifier)
}
