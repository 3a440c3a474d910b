//! What ends the process, told as Postgres tells it: primary, detail, hint.

use crate::config::Problems;
use crate::ledger::LedgerError;
use crate::postgres::{ConnectError, ServerError, told};
use crate::source::{SetupError, SourceError};
use crate::telemetry::chain;
use crate::transport::TransportError;

/// Why the process cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration has problems.
    #[error("{0}")]
    Config(#[from] Problems),
    /// A connection string cannot be used.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Postgres cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The database cannot be a source.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The replication link ended for good.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The HTTP client cannot be made.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Event patterns that nothing can match.
    #[error("{0}")]
    Patterns(String),
    /// The webhooks cannot be compiled.
    #[error("the webhooks cannot be compiled: {0}")]
    Compile(String),
    /// The port cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A task ended that may not.
    #[error("the task \"{task}\" ended unexpectedly")]
    Died {
        /// Which one.
        task: &'static str,
    },
    /// Stopping took longer than the grace.
    #[error("stopping took longer than delivery.shutdown_grace")]
    Grace,
}

impl AppError {
    /// The message for people: every line of it.
    pub fn tell(&self) -> String {
        let (detail, hint) = match self {
            Self::Config(_) | Self::Patterns(_) => return self.to_string(),
            Self::Server(error) => (None, Some(error.hint())),
            Self::Connect(error) => (error.detail(), error.hint()),
            Self::Setup(error) => (error.detail(), error.hint()),
            Self::Source(error) => (error.detail(), error.hint()),
            Self::Ledger(LedgerError::Connect(error)) => (Some(chain(error)), error.hint()),
            Self::Ledger(error) => (source_of(error), error.hint()),
            Self::Transport(error) => (source_of(error), None),
            Self::Compile(_) => (None, Some("`walhook check` lists every problem.".to_owned())),
            Self::Listen { source, .. } => {
                let hint = "Another process may hold the port; choose another with server.listen.";
                (Some(source.to_string()), Some(hint.to_owned()))
            }
            Self::Died { .. } => {
                (None, Some("This is a fault in walhook; the log before this line says more.".to_owned()))
            }
            Self::Grace => {
                let hint = "Nothing is lost: what was under way is sent again at the next start.";
                (None, Some(hint.to_owned()))
            }
        };
        told(self, detail.as_deref(), hint.as_deref())
    }
}

fn source_of(error: &dyn std::error::Error) -> Option<String> {
    error.source().map(|source| chain(source))
}
