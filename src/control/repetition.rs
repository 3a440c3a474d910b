//! A create that is sent again, by somebody who did not hear the answer.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::ControlError;
use crate::domain::limits;
use crate::ledger::ask::Ask;
use crate::ledger::idempotency::{self, Found};

/// What tells a repetition of a create from another create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repetition {
    id: [u8; 32],
    request: [u8; 32],
}

impl Repetition {
    /// Of an `Idempotency-Key`, which is each actor's own, and of the request's document.
    pub fn of(actor: &str, key: &str, document: &Map<String, Value>) -> Self {
        let mut id = Sha256::new();
        for part in [actor, key] {
            id.update(part.len().to_be_bytes());
            id.update(part);
        }
        let request = Sha256::digest(json!(document).to_string());
        Self { id: id.finalize().into(), request: request.into() }
    }

    /// What was kept of the answer that was given before; `None`: it is the first, and the key is its own now, in this
    /// transaction. Another request under the key is an error.
    pub(super) async fn answered(&self, transaction: &impl Ask) -> Result<Option<Value>, ControlError> {
        let bounds = (limits::API_ANSWERS_FOR.as_secs_f64(), limits::API_ANSWERS);
        match idempotency::take(transaction, &self.id, &self.request, bounds).await? {
            Found::New => Ok(None),
            Found::Other => Err(ControlError::OtherRequest),
            Found::Answered { answer, .. } => Ok(Some(answer)),
        }
    }

    /// Keeps what a repetition is to be answered.
    pub(super) async fn keep(&self, transaction: &impl Ask, answer: &Value) -> Result<(), ControlError> {
        Ok(idempotency::keep(transaction, &self.id, 201, answer).await?)
    }
}
