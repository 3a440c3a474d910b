//! The operator's verbs: arguments in, [`crate::control`], words out.

use clap::Subcommand;

use crate::app::AppError;
use crate::config::Sources;

/// The operator's verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Operate {
    /// Validate file, database, privileges and replica identities
    Check,
}

/// Runs one.
pub(super) async fn operate(verb: Operate, sources: Sources) -> Result<(), AppError> {
    match verb {
        Operate::Check => crate::app::load_config(&sources).map(drop).map_err(AppError::from),
    }
}
