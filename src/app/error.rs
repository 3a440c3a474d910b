//! What ends the process, told as Postgres tells it: primary, detail, hint.

use crate::control::ControlError;
use crate::domain::Lsn;
use crate::ledger::LedgerError;
use crate::postgres::{Nature, told};
use crate::source::{SetupError, SourceError};

/// Why the process cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Something that a verb of [`crate::control`] could meet too.
    #[error(transparent)]
    Control(ControlError),
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
    /// The ledger is older than what this process knows of it.
    #[error("the ledger is older than what was written to it")]
    LedgerReverted,
    /// Stopping took longer than the grace.
    #[error("stopping took longer than delivery.shutdown_grace")]
    Grace,
}

impl<E: Into<ControlError>> From<E> for AppError {
    fn from(error: E) -> Self {
        Self::Control(error.into())
    }
}

impl AppError {
    /// Whether it ended because the ledger is somebody else's, or may have.
    pub(super) fn is_of_the_fence(&self) -> bool {
        matches!(self, Self::Control(ControlError::Ledger(LedgerError::FencedOff)) | Self::Died { .. })
    }

    /// Whether it ended because the server's log is not the one that was read.
    pub(super) fn is_another_log(&self) -> bool {
        let source = |error: &SourceError| {
            matches!(error, SourceError::OtherTimeline { .. } | SourceError::Reverted { .. })
        };
        match self {
            Self::Control(ControlError::Source(error)) => source(error),
            // Most likely it is in the same server.
            Self::LedgerReverted => true,
            _ => false,
        }
    }

    /// Whether it may pass by itself.
    pub(super) fn is_transient(&self) -> bool {
        let Self::Control(error) = self else { return false };
        match error {
            ControlError::Connect(error) => error.nature() == Nature::Transient,
            ControlError::Setup(error) => error.nature() == Nature::Transient,
            ControlError::Source(error) => error.nature() == Nature::Transient,
            ControlError::Ledger(error) => error.is_transient(),
            _ => false,
        }
    }

    /// Where the server's log ended, where it ended because that is before what was read of it; at most, as far as that
    /// is not known.
    pub(super) fn reverted_to(&self) -> Option<Lsn> {
        match self {
            Self::Control(ControlError::Source(SourceError::Reverted { end, .. })) => Some(*end),
            Self::LedgerReverted => Some(Lsn(u64::MAX)),
            _ => None,
        }
    }

    /// Why the slot cannot be read from any more, where it is that.
    pub(super) fn loss(&self) -> Option<&'static str> {
        match self {
            Self::Control(ControlError::Source(error)) => error.loss(),
            Self::Control(ControlError::Setup(SetupError::Slot(error))) => error.loss(),
            _ => None,
        }
    }

    /// The message for people: every line of it.
    pub fn tell(&self) -> String {
        let (detail, hint) = match self {
            Self::Control(error) => return error.tell(),
            Self::Listen { source, .. } => (
                Some(source.to_string()),
                "Another process may hold the port; choose another with server.listen.",
            ),
            Self::Died { .. } => (None, "This is a fault in walhook; the log before this line says more."),
            Self::LedgerReverted => (
                Some("An older state of its database was put back.".to_owned()),
                "Start walhook again: it looks at what has happened first.",
            ),
            Self::Grace => (None, "Nothing is lost: what was under way is sent again at the next start."),
        };
        told(self, detail.as_deref(), Some(hint))
    }
}
