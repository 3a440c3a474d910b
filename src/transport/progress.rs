//! How far an attempt has come, for saying where it ran out of time.
//!
//! reqwest tells nobody whether it is still connecting or already waits for the answer, nor which addresses it
//! dialled. A layer around its connector and the resolver note both here. They find the attempt they work for in a
//! task-local, because a request's connection is made inside the polling of the request itself; one that takes an
//! idle connection from the pool never passes the layer, and rightly counts as connected.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tower::{Layer, Service};

use crate::domain::TimeoutStage;

tokio::task_local! {
    static ATTEMPT: Arc<Progress>;
}

/// How far one attempt has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    connecting: AtomicBool,
    dialled: Mutex<Vec<IpAddr>>,
}

impl Progress {
    /// The step the attempt is in, as long as no head of an answer has come.
    pub(super) fn stage(&self) -> TimeoutStage {
        if self.connecting.load(Ordering::Relaxed) { TimeoutStage::Connect } else { TimeoutStage::Response }
    }

    /// The addresses its host's name resolved to.
    pub(super) fn dialled(&self) -> Vec<IpAddr> {
        self.dialled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs `request` so that what happens below it is noted in `progress`.
pub(super) async fn noting<F: Future>(progress: Arc<Progress>, request: F) -> F::Output {
    ATTEMPT.scope(progress, request).await
}

/// Notes the addresses that are about to be dialled.
pub(super) fn dialling(addresses: &[SocketAddr]) {
    if let Ok(progress) = ATTEMPT.try_with(Arc::clone) {
        let mut dialled = progress.dialled.lock().unwrap_or_else(PoisonError::into_inner);
        *dialled = addresses.iter().map(SocketAddr::ip).collect();
    }
}

/// Wraps a connector so that it notes when it starts and when it is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoteConnects;

impl<S> Layer<S> for NoteConnects {
    type Service = Noted<S>;

    fn layer(&self, inner: S) -> Noted<S> {
        Noted(inner)
    }
}

/// A connector that notes.
#[derive(Debug, Clone)]
pub(super) struct Noted<S>(S);

impl<S, R> Service<R> for Noted<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let progress = ATTEMPT.try_with(Arc::clone).ok();
        let connected = self.0.call(target);
        Box::pin(async move {
            note(progress.as_ref(), true);
            let result = connected.await;
            note(progress.as_ref(), false);
            result
        })
    }
}

fn note(progress: Option<&Arc<Progress>>, connecting: bool) {
    if let Some(progress) = progress {
        progress.connecting.store(connecting, Ordering::Relaxed);
    }
}
