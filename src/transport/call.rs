//! Requests to an instance's API, as whoever types commands names it.
//!
//! The address is the operator's own word, so no rule of `[security]` is asked. Like deliveries, a call follows no
//! redirect, which would carry the key elsewhere, and knows no proxy.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::door::{SendError, direct};
use super::lookups::Lookups;
use super::progress::{Progress, noting};
use super::resolve::Resolver;
use super::{TransportError, failure, tls};
use crate::domain::{Connection, limits};

/// A client for calls.
#[derive(Debug, Clone)]
pub struct Calls {
    client: reqwest::Client,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request cannot be made.
    #[error("the request cannot be made")]
    Request(#[source] reqwest::Error),
    /// Nobody answered.
    #[error("{reason}")]
    Unanswered {
        /// Where it ended: a refused connection, a name that nobody knows, a certificate that is not trusted.
        reason: String,
    },
    /// It took too long.
    #[error("there was no answer within {} s", within.as_secs())]
    Late {
        /// How long it may take.
        within: Duration,
    },
    /// The answer is too long.
    #[error("the answer is longer than {} bytes", limits::CALL_ANSWER_BYTES)]
    TooLong,
}

impl Calls {
    /// Loads the system's root certificates; opens no connection.
    pub fn new() -> Result<Self, TransportError> {
        let tls = tls::Verifiers::new(Vec::new())?.client_config(&Connection::default())?;
        Ok(Self {
            client: direct(&tls, &Resolver::new(None, Lookups::of_the_system()), limits::CONNECT_TIMEOUT)?,
        })
    }

    /// Sends a request with an absolute URI, and reads the whole answer.
    pub async fn call(
        &self,
        request: http::Request<Bytes>,
        within: Duration,
    ) -> Result<http::Response<Bytes>, CallError> {
        let request = reqwest::Request::try_from(request).map_err(CallError::Request)?;
        let answered = tokio::time::timeout(within, self.answer(request)).await;
        answered.unwrap_or(Err(CallError::Late { within }))
    }

    async fn answer(&self, request: reqwest::Request) -> Result<http::Response<Bytes>, CallError> {
        let (url, progress) = (request.url().clone(), Arc::new(Progress::default()));
        let sent = noting(Arc::clone(&progress), self.client.execute(request)).await;
        let unanswered = |error: reqwest::Error| CallError::Unanswered {
            reason: failure::outcome(&SendError::Direct(error), &url, &progress).describe(),
        };
        let mut response = sent.map_err(&unanswered)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(&unanswered)? {
            if body.len() + chunk.len() > limits::CALL_ANSWER_BYTES {
                return Err(CallError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = http::Response::new(Bytes::from(body));
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}
