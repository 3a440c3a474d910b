//! From a [`Server`] to an open byte stream: host by host, then TLS as `sslmode` says.
//!
//! Sessions and the replication link both start here. `prefer` falls back to plain text where the server offers no
//! TLS or the handshake fails, as libpq does; a Unix socket is never encrypted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::server::Target;
use super::watched::Watched;
use super::{ConnectError, Server, TlsMode, binding, tls};

/// How long one host may take, where the connection string has no `connect_timeout`.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection on which nothing has come for this long is probed, so often and so many times: a machine that is gone says
/// nothing. The server does the same by [`super::PINS`].
const QUIET: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBES: u32 = 4;
/// How long what we send may go unacknowledged.
#[cfg(target_os = "linux")]
const UNHEARD: Duration = Duration::from_secs(30);
/// Addresses of one host name that are tried.
const ADDRESSES: usize = 8;

/// A byte stream to a server.
#[derive(Debug)]
pub enum Socket {
    /// Plain TCP.
    Tcp(Watched<TcpStream>),
    /// TLS over TCP.
    Tls(Box<TlsStream<Watched<TcpStream>>>),
    /// A Unix socket.
    Unix(Watched<UnixStream>),
}

impl Socket {
    /// Lets bytes gather unnoticed until the next read or write.
    ///
    /// # Errors
    ///
    /// Where the poller will not let go of it; the stream is then lost.
    pub fn leave_alone(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.leave_alone(),
            Self::Tls(stream) => stream.get_mut().0.leave_alone(),
            Self::Unix(stream) => stream.leave_alone(),
        }
    }
}

/// An open stream, before startup.
#[derive(Debug)]
pub struct Dialled {
    /// The stream.
    pub socket: Socket,
    /// The `tls-server-end-point` hash that SCRAM is bound to, where there is TLS.
    pub end_point: Option<Vec<u8>>,
}

enum Negotiated {
    Tls(Dialled),
    /// The server said no, and the plain connection is still good.
    Plain(Watched<TcpStream>),
}

/// Opens a stream to the first host that answers.
pub async fn dial(server: &Server) -> Result<Dialled, ConnectError> {
    let config = tls::client_config(server)?;
    let patience = server.config.get_connect_timeout().copied().unwrap_or(PATIENCE);
    let mut last = None;
    for target in server.targets() {
        match timeout(patience, one(server, &target, config.as_ref())).await {
            Ok(Ok(dialled)) => return Ok(dialled),
            Ok(Err(error)) => last = Some(error),
            Err(_) => {
                last = Some(ConnectError::TimedOut { server: server.display(), seconds: patience.as_secs() });
            }
        }
    }
    Err(last.unwrap_or_else(|| unreachable(server, io::ErrorKind::AddrNotAvailable.into())))
}

/// How long a startup may take after the stream is open.
pub(super) fn patience(server: &Server) -> Duration {
    server.config.get_connect_timeout().copied().unwrap_or(PATIENCE)
}

fn unreachable(server: &Server, source: io::Error) -> ConnectError {
    ConnectError::Unreachable { server: server.display(), source }
}

async fn one(
    server: &Server,
    target: &Target,
    config: Option<&Arc<ClientConfig>>,
) -> Result<Dialled, ConnectError> {
    let (host, addr, port) = match target {
        Target::Unix { dir, port } => {
            let path = dir.join(format!(".s.PGSQL.{port}"));
            let stream = UnixStream::connect(path).await.map_err(|e| unreachable(server, e))?;
            return Ok(Dialled { socket: Socket::Unix(Watched::new(stream)), end_point: None });
        }
        Target::Tcp { host, addr, port } => (host, *addr, *port),
    };
    let open = || async {
        match addr {
            Some(addr) => tcp((addr, port).into()).await,
            None => by_name(host, port).await,
        }
    };
    let stream = open().await.map_err(|e| unreachable(server, e))?;
    let Some(config) = config else {
        return Ok(Dialled { socket: Socket::Tcp(stream), end_point: None });
    };
    let prefer = server.tls_mode() == TlsMode::Prefer;
    match negotiate(server, host, stream, config).await {
        Ok(Negotiated::Tls(dialled)) => Ok(dialled),
        Ok(Negotiated::Plain(stream)) if prefer => {
            Ok(Dialled { socket: Socket::Tcp(stream), end_point: None })
        }
        Ok(Negotiated::Plain(_)) => Err(ConnectError::NoTls { server: server.display() }),
        Err(ConnectError::Tls { .. }) if prefer => {
            let stream = open().await.map_err(|e| unreachable(server, e))?;
            Ok(Dialled { socket: Socket::Tcp(stream), end_point: None })
        }
        Err(error) => Err(error),
    }
}

async fn by_name(host: &str, port: u16) -> io::Result<Watched<TcpStream>> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in tokio::net::lookup_host((host, port)).await?.take(ADDRESSES) {
        match tcp(addr).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn tcp(addr: std::net::SocketAddr) -> io::Result<Watched<TcpStream>> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let stream = socket.connect(addr).await?;
    let probed = TcpKeepalive::new().with_time(QUIET).with_interval(PROBE_EVERY).with_retries(PROBES);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&probed)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNHEARD))?;
    stream.set_nodelay(true)?;
    Ok(Watched::new(stream))
}

/// `SSLRequest`, one byte of answer, handshake.
async fn negotiate(
    server: &Server,
    host: &str,
    mut stream: Watched<TcpStream>,
    config: &Arc<ClientConfig>,
) -> Result<Negotiated, ConnectError> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(|e| unreachable(server, e))?;
    match stream.read_u8().await.map_err(|e| unreachable(server, e))? {
        b'S' => {}
        b'N' => return Ok(Negotiated::Plain(stream)),
        // An error message: the server is out of processes, or what answers is too old to know the request.
        b'E' => return Err(unreachable(server, io::ErrorKind::ConnectionRefused.into())),
        other => {
            let source = format!("answer {other:#04x} to an SSLRequest").into();
            return Err(ConnectError::Protocol { server: server.display(), source });
        }
    }
    let name = ServerName::try_from(host.to_owned())
        .map_err(|source| ConnectError::TlsSetup { server: server.display(), source: Box::new(source) })?;
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await
        .map_err(|source| ConnectError::Tls { server: server.display(), source })?;
    let certificates = stream.get_ref().1.peer_certificates();
    let end_point = certificates.and_then(<[_]>::first).and_then(|c| binding::end_point(c));
    Ok(Negotiated::Tls(Dialled { socket: Socket::Tls(Box::new(stream)), end_point }))
}

macro_rules! each {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket.get_mut() {
            Socket::Tcp($stream) => $call,
            Socket::Tls($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
