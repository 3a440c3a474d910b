//! What the server's own messages mean to the stream, beyond their nature.

use super::SourceError;
use crate::postgres::{Fault, is_of_a_character};

impl SourceError {
    /// The same, or that one of these publications is not there, where the server ends the stream over that
    /// (`undefined_object`).
    pub(super) fn about(self, publications: &[String]) -> Self {
        match self {
            Self::Ended { source } if source.code == "42704" && names_one(&source.message, publications) => {
                Self::PublicationGone { source }
            }
            other => other,
        }
    }

    /// That one of these publications is not there, where a notice says so (`object_not_in_prerequisite_state`): from
    /// Postgres 18 on the server skips it and goes on.
    pub(super) fn noticed(notice: Fault, publications: &[String]) -> Option<Self> {
        let gone = notice.code == "55000" && names_one(&notice.message, publications);
        gone.then(|| Self::PublicationGone { source: Box::new(notice) })
    }

    /// Whether the server met text that it cannot convert.
    pub(super) fn is_of_a_character(&self) -> bool {
        match self {
            Self::Refused { source, .. } | Self::Ended { source } => is_of_a_character(&source.code),
            _ => false,
        }
    }
}

/// Whether a message names one of these. The server speaks the language of its `lc_messages`, each with quotes of its own,
/// so only the name is looked for; and one that is not ASCII may have come in another encoding, so its code must do.
fn names_one(message: &str, publications: &[String]) -> bool {
    publications.iter().any(|name| !name.is_ascii() || message.contains(name.as_str()))
}

/// Whether it is about a row that the server's own messages cannot hold: `program_limit_exceeded`, or an allocation that it
/// never makes. That one is an internal error like any other, but internal errors are never translated.
pub(super) fn is_of_a_large_row(fault: &Fault) -> bool {
    fault.code.starts_with("54")
        || (fault.code == "XX000" && fault.message.starts_with("invalid memory alloc request size"))
}
