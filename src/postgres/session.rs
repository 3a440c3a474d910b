//! An ordinary connection: a client, and the task that drives it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::poll_fn;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, Empty, ReadBuf};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Connection, Notification};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dial::patience;
use super::{ConnectError, Dialled, Server, dial, pinned_options};

/// Notifications that wait for whoever listens. They are hints: of more of them, it is told that there were.
const NOTIFICATIONS: usize = 64;
/// How long a closed session may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// A connection with its driver. Dropping it closes the connection.
#[derive(Debug)]
pub struct Session {
    /// Sends statements.
    pub client: Client,
    notifications: Notifications,
    _gone: DropGuard,
}

/// What arrives for `LISTEN`.
#[derive(Debug)]
struct Notifications<T = Notification> {
    arriving: mpsc::Receiver<T>,
    missed: Arc<AtomicBool>,
}

/// What was heard.
#[derive(Debug)]
pub enum Heard<T = Notification> {
    /// A notification.
    Told(T),
    /// There were more than had room.
    Missed,
}

/// Where a driver puts them.
#[derive(Debug)]
pub(super) struct Hints<T = Notification> {
    to: mpsc::Sender<T>,
    missed: Arc<AtomicBool>,
}

impl<T> Notifications<T> {
    async fn hear(&mut self) -> Option<Heard<T>> {
        if self.missed.swap(false, Ordering::Relaxed) {
            return Some(Heard::Missed);
        }
        self.arriving.recv().await.map(Heard::Told)
    }
}

/// The two ends.
fn notifications<T>() -> (Hints<T>, Notifications<T>) {
    let ((to, arriving), missed) = (mpsc::channel(NOTIFICATIONS), Arc::<AtomicBool>::default());
    (Hints { to, missed: Arc::clone(&missed) }, Notifications { arriving, missed })
}

impl<T> Hints<T> {
    fn tell(&self, notification: T) {
        if let Err(TrySendError::Full(_)) = self.to.try_send(notification) {
            // As long as there is no room, whoever takes what is there looks here before the next.
            self.missed.store(true, Ordering::Relaxed);
        }
    }
}

impl Server {
    /// Opens a session with the first host that takes writes; `name` is its `application_name`, settings are pinned as
    /// [`super::PINS`] says.
    pub async fn session(&self, name: &str) -> Result<Session, ConnectError> {
        let mut hosts = self.each_host().into_iter();
        let mut opened = hosts.next().unwrap_or_else(|| self.clone()).session_there(name).await;
        for host in hosts {
            if opened.is_ok() {
                break;
            }
            opened = host.session_there(name).await;
        }
        opened
    }

    async fn session_there(&self, name: &str) -> Result<Session, ConnectError> {
        let wait = patience(self) * 2;
        let (client, connection) = match timeout(wait, connect(self, name)).await {
            Ok(made) => made.map_err(|error| ConnectError::startup(self, error))?,
            Err(_) => {
                return Err(ConnectError::TimedOut { server: self.display(), seconds: wait.as_secs() });
            }
        };
        if connection.parameter("in_hot_standby") == Some("on") {
            return Err(ConnectError::Standby { server: self.display() });
        }
        let gone = CancellationToken::new();
        let (hints, notifications) = notifications();
        spawn(drive(connection, gone.clone(), Some(hints)));
        Ok(Session { client, notifications, _gone: gone.drop_guard() })
    }
}

impl Session {
    /// The next that arrives for `LISTEN`; `None` when the connection has ended. Cancelling loses nothing.
    pub async fn hear(&mut self) -> Option<Heard> {
        self.notifications.hear().await
    }
}

/// The stream of a session.
pub(super) struct Ours(Dialled);

/// Where `tokio_postgres` expects to make TLS over a stream it was given, it is given an empty one, and the whole
/// way to the server is gone here: so whatever fails comes out as one error with a [`ConnectError`] as its cause.
struct Way(Server);

impl TlsConnect<Empty> for Way {
    type Stream = Ours;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Ours, ConnectError>>;

    fn connect(self, _stream: Empty) -> Self::Future {
        async move { dial(&self.0).await.map(Ours) }.boxed()
    }
}

impl TlsStream for Ours {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.0.end_point {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}

/// The connection of a session, to be driven.
pub(super) type Driven = Connection<Empty, Ours>;

/// Dials and logs in; [`ConnectError::startup`] sorts the error.
pub(super) async fn connect(server: &Server, name: &str) -> Result<(Client, Driven), tokio_postgres::Error> {
    let mut config = server.config.clone();
    config
        .application_name(name)
        .options(pinned_options(server.options()))
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    config.connect_raw(tokio::io::empty(), Way(server.clone())).await
}

/// Drives a connection until it ends, or until a little after its session is gone.
pub(super) async fn drive(mut connection: Driven, gone: CancellationToken, hints: Option<Hints>) {
    let mut messages = poll_fn(move |cx| connection.poll_message(cx));
    let pump = async {
        while let Some(message) = messages.next().await {
            match message {
                Ok(AsyncMessage::Notification(hint)) => {
                    if let Some(hints) = &hints {
                        hints.tell(hint);
                    }
                }
                Ok(AsyncMessage::Notice(notice)) => {
                    // Not its text: a function of the application's can raise what it likes.
                    tracing::debug!(code = notice.code().code(), "the server gave a notice");
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(error = crate::telemetry::chain(&error), "a session ended");
                    return;
                }
            }
        }
    };
    tokio::pin!(pump);
    tokio::select! {
        () = &mut pump => return,
        () = gone.cancelled() => {}
    }
    if timeout(GOODBYE, pump).await.is_err() {
        tracing::debug!("a closed session did not end in time and was cut");
    }
}

/// The driver belongs to its session and ends with it, so it is not one of the named tasks.
#[expect(clippy::disallowed_methods, reason = "a driver lives exactly as long as the session that owns it")]
pub(super) fn spawn(driver: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(driver)
}

impl AsyncRead for Ours {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Ours {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0.socket).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_more_notifications_than_there_is_room_for_it_is_told_that_there_were() {
        let (hints, mut heard) = notifications();
        for number in 0..=NOTIFICATIONS {
            hints.tell(number);
        }
        assert!(matches!(heard.hear().await, Some(Heard::Missed)));
        for number in 0..NOTIFICATIONS {
            assert!(matches!(heard.hear().await, Some(Heard::Told(told)) if told == number));
        }
        hints.tell(7);
        drop(hints);
        assert!(matches!(heard.hear().await, Some(Heard::Told(7))));
        assert!(heard.hear().await.is_none());
    }
}
