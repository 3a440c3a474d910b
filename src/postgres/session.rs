//! An ordinary connection: a client, and the task that drives it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::poll_fn;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, Empty, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Connection, Notification};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dial::patience;
use super::{ConnectError, Dialled, Server, dial, pinned_options};

/// Notifications that wait for whoever listens. They are hints: more of them are dropped.
const NOTIFICATIONS: usize = 64;
/// How long a closed session may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// A connection with its driver. Dropping it closes the connection.
#[derive(Debug)]
pub struct Session {
    /// Sends statements.
    pub client: Client,
    notifications: Option<mpsc::Receiver<Notification>>,
    _gone: DropGuard,
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
        let (hints, notifications) = mpsc::channel(NOTIFICATIONS);
        spawn(drive(connection, gone.clone(), Some(hints)));
        Ok(Session { client, notifications: Some(notifications), _gone: gone.drop_guard() })
    }
}

impl Session {
    /// What arrives for `LISTEN`, from the first call on; `None` when it has been taken already. It ends with
    /// the connection.
    pub fn notifications(&mut self) -> Option<mpsc::Receiver<Notification>> {
        self.notifications.take()
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
pub(super) async fn drive(
    mut connection: Driven,
    gone: CancellationToken,
    hints: Option<mpsc::Sender<Notification>>,
) {
    let mut messages = poll_fn(move |cx| connection.poll_message(cx));
    let pump = async {
        while let Some(message) = messages.next().await {
            match message {
                Ok(AsyncMessage::Notification(hint)) => {
                    if let Some(Err(_)) = hints.as_ref().map(|to| to.try_send(hint)) {
                        tracing::trace!("a notification nobody waits for was dropped");
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
