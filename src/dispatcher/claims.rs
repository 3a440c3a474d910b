//! The task that asks the ledger for what is due, one claim at a time, while the dispatcher goes on.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_postgres::Client;

use crate::domain::limits;
use crate::ledger::claim::{Claimer, Claims, Room};
use crate::ledger::{Ledger, LedgerError, within};
use crate::postgres::Session;

/// What the dispatcher asks for.
#[derive(Debug)]
pub(super) enum Ask {
    /// Lease what is due.
    Claim { rooms: Vec<Room>, token: i64, bytes: usize },
    /// Which webhooks have anything open?
    Survey,
}

/// What it is answered.
#[derive(Debug)]
pub(super) enum Answer {
    Claims(Claims),
    Survey(Vec<Arc<str>>),
    /// The ledger could not be asked; the question should be put again later.
    Failed,
}

/// A lost lease only means that a delivery is claimed again, so claims need not wait for the disk.
const LOOSE: &str = "set synchronous_commit = off";

/// Answers until nobody asks any more.
pub(super) async fn serve(ledger: Ledger, mut asks: mpsc::Receiver<Ask>, answers: mpsc::Sender<Answer>) {
    let mut open: Option<(Session, Claimer)> = None;
    while let Some(ask) = asks.recv().await {
        let answer = match within(limits::ANSWER_WITHIN, answer(&ledger, &mut open, ask)).await {
            Ok(answer) => answer,
            Err(error) => {
                // The writer meets the same trouble and reports it; here it only delays.
                tracing::debug!(reason = crate::telemetry::chain(&error), "the ledger could not be asked");
                open = None;
                Answer::Failed
            }
        };
        if answers.send(answer).await.is_err() {
            break;
        }
    }
}

async fn answer(
    ledger: &Ledger,
    open: &mut Option<(Session, Claimer)>,
    ask: Ask,
) -> Result<Answer, LedgerError> {
    let usable = open.as_ref().is_some_and(|(session, _)| !session.client.is_closed());
    if !usable {
        *open = Some(connect(ledger).await?);
    }
    let Some((session, claimer)) = open.as_mut() else { return Ok(Answer::Failed) };
    let client: &Client = &session.client;
    Ok(match ask {
        Ask::Claim { rooms, token, bytes } => {
            Answer::Claims(claimer.claim(client, &rooms, token, bytes).await?)
        }
        Ask::Survey => Answer::Survey(claimer.survey(client).await?),
    })
}

async fn connect(ledger: &Ledger) -> Result<(Session, Claimer), LedgerError> {
    let session = ledger.session("walhook claims").await?;
    let loose = session.client.batch_execute(LOOSE).await;
    loose.map_err(|source| LedgerError::Statement { doing: "preparing to claim", source })?;
    let claimer = Claimer::prepare(&session.client).await?;
    Ok((session, claimer))
}
