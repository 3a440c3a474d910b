//! Every verb an operator has, once: in domain terms, answering data.
//!
//! The command line calls these and finds the words; an HTTP API would call the same. Nothing here prints, asks or
//! ends the process. Each verb opens the sessions it needs and closes them when it is done, so that it works whether
//! or not an instance runs; what changes the ledger is announced to the instance that does.
//!
//! | verb | where |
//! | --- | --- |
//! | look at everything that could go wrong | [`check()`] |
//! | how it stands | [`status()`] |
//! | numbers over time | [`stats`] |
//! | send dead letters again | one, [`deliveries::retry`]; many, as a job of the running instance's, [`retries`] |
//! | enable, pause, disable a webhook | [`states`] |
//! | send a test event through the real path | [`trigger()`] |
//! | see what a format or a template makes | [`preview()`], of a real row [`given_row()`] |
//! | deliver existing rows | [`backfill`] |
//! | replace a webhook's secret, show it, encrypt what the database holds | [`secrets`] |
//! | list, create, change, remove webhooks | [`webhooks`] |
//! | search deliveries, send one again, cancel one | [`deliveries`] |
//! | make, list, revoke keys of the API | [`keys`] |
//! | see which event types there are | [`events`] |
//! | see templates, keep and remove those of the database, try one | [`templates`] |
//! | read who did what | [`Desk::audit`] |
//! | remove all traces | [`uninstall`] |
//!
//! Whose webhooks there are for whoever asks is a [`Sight`]; every verb works under one.
//!
//! Also here, because checking and starting must agree: what a configuration names ([`Places`]) and whether webhooks
//! and tables fit each other ([`fit`]).

pub mod backfill;
pub mod check;
mod conditions;
pub mod deliveries;
mod desk;
mod error;
pub mod events;
pub mod fit;
pub mod keys;
mod places;
pub mod preview;
mod repetition;
pub mod retries;
mod row;
mod sample;
pub mod secrets;
mod sight;
pub mod states;
pub mod stats;
pub mod status;
pub mod templates;
pub mod trigger;
pub mod uninstall;
pub mod webhooks;

pub use check::{CheckReport, Finding, Severity, check};
pub use desk::{Actor, Desk};
pub use error::ControlError;
pub use places::{Places, load_config, manage, transport};
pub use preview::preview;
pub use repetition::Repetition;
pub use row::{RowName, given_row};
pub use sample::Given;
pub use sight::{About, Sight};
pub use status::{Status, status};
pub use trigger::trigger;

use tokio_postgres::Client;

use crate::catalog::{self, Rows, Snapshot};
use crate::config::Config;
use crate::postgres::Session;

/// A session with the ledger, which must be there, for whom it concerns.
async fn ledger_session(places: &Places, actor: &Actor, about: About<'_>) -> Result<Session, ControlError> {
    actor.sight.admit(about)?;
    let session = places.ledger.session("walhook control").await?;
    if places.ledger.look(&session.client).await?.ready {
        Ok(session)
    } else {
        Err(ControlError::NoLedger { schema: places.ledger.schema().to_owned() })
    }
}

/// The same for what only commands do: whoever runs those on the machine is the operator.
async fn command_session(places: &Places) -> Result<Session, ControlError> {
    ledger_session(places, &Actor::command_line(), About::Operators).await
}

/// What file and database declare.
async fn declared(config: &Config, client: &Client) -> Result<(Snapshot, Rows), ControlError> {
    let rows = catalog::load(client).await?;
    let snapshot = catalog::compile_with(config, &rows).map_err(ControlError::Compile)?;
    Ok((snapshot, rows))
}

/// The word that a person who wrote `written` most likely meant.
fn nearest<'a>(written: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let likeness = |word: &str| strsim::normalized_damerau_levenshtein(written, word);
    let best = valid.into_iter().map(|word| (likeness(word), word)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= 0.5).map(|(_, word)| word.to_owned())
}
