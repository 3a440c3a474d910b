//! The way through a proxy: HTTP CONNECT (RFC 9110, section 9.3.6) or SOCKS 5 (RFC 1928, RFC 1929), always a tunnel.
//!
//! For a webhook of the operator's the proxy is given the receiver's name: where proxies are, they are often the only ones
//! who can resolve it. For one of the database the name is resolved here, the policy applied, and the proxy given the
//! address: it connects to what was checked, and to nothing else. The proxy's own address is the operator's business.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Service;

use super::lookups::Lookups;
use super::resolve::Resolver;
use crate::domain::{Proxy, ProxyKind, limits};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the proxy opened no tunnel. Its credentials are never told.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("the proxy {place} (setting: proxy) cannot be reached: {why}")]
    Unreachable { place: String, why: String },
    #[error("the proxy {place} (setting: proxy) wants other credentials")]
    Credentials { place: String },
    #[error("the proxy {place} (setting: proxy) opened no connection to {target}: {why}")]
    Refused { place: String, target: String, why: String },
    #[error("{place} (setting: proxy) does not answer like a proxy: {why}")]
    Protocol { place: String, why: &'static str },
}

/// Makes connections through a proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ProxyConnector {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    proxy: Proxy,
    /// With the policy of the webhooks whose connections these are.
    resolver: Resolver,
    /// For the proxy's own name.
    own_resolver: Resolver,
    tls: Arc<rustls::ClientConfig>,
    /// How long a connection may take.
    within: Duration,
}

/// No connection stood within its time.
#[derive(Debug, thiserror::Error)]
#[error("no connection within its time")]
pub(super) struct ConnectTimedOut;

/// What the proxy is asked for.
enum Target {
    Name(String),
    Address(IpAddr),
}

impl Target {
    fn place(&self, port: u16) -> String {
        match self {
            Self::Name(name) => format!("{name}:{port}"),
            Self::Address(address) => SocketAddr::from((*address, port)).to_string(),
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to a receiver, through the proxy.
pub(super) struct Tunnel {
    io: TokioIo<Box<dyn Io>>,
    speaks_h2: bool,
}

impl ProxyConnector {
    pub(super) fn new(
        proxy: Proxy,
        resolver: Resolver,
        (lookups, within): (&Lookups, Duration),
        tls: Arc<rustls::ClientConfig>,
    ) -> Self {
        let own_resolver = Resolver::new(None, lookups.clone());
        Self { shared: Arc::new(Shared { proxy, resolver, own_resolver, tls, within }) }
    }

    /// A connection to the origin of this URI, or none within the time that a connection may take: a client may go on with
    /// it when the attempt that wanted it is long over.
    async fn connect_in_time(&self, uri: &Uri) -> Result<Tunnel, BoxError> {
        let connected = tokio::time::timeout(self.shared.within, self.connect(uri)).await;
        connected.unwrap_or_else(|_| Err(ConnectTimedOut.into()))
    }

    /// A connection to the origin of this URI; for https with the handshake done.
    pub(super) async fn connect(&self, uri: &Uri) -> Result<Tunnel, BoxError> {
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = self.tunnel(host, port).await?;
        if !secure {
            return Ok(Tunnel { io: TokioIo::new(Box::new(stream)), speaks_h2: false });
        }
        let name = ServerName::try_from(host.to_owned())?;
        let stream = TlsConnector::from(Arc::clone(&self.shared.tls)).connect(name, stream).await?;
        let speaks_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Tunnel { io: TokioIo::new(Box::new(stream)), speaks_h2 })
    }

    async fn tunnel(&self, host: &str, port: u16) -> Result<TcpStream, BoxError> {
        let targets = match host.parse::<IpAddr>() {
            Ok(address) => vec![Target::Address(address)],
            Err(_) if self.shared.resolver.is_guarded() => {
                let found = self.shared.resolver.lookup(host).await?;
                self.shared.resolver.note_dialling(&found);
                found.iter().take(limits::PROXY_TRIES).map(|found| Target::Address(found.ip())).collect()
            }
            Err(_) => vec![Target::Name(host.to_owned())],
        };
        let mut last = None;
        for target in &targets {
            match self.open(target, port).await {
                Ok(stream) => return Ok(stream),
                Err(ProxyError::Refused { place, why, .. }) if self.shared.resolver.is_for_tenants() => {
                    last = Some(ProxyError::Refused { place, target: format!("{host}:{port}"), why });
                }
                Err(error @ ProxyError::Refused { .. }) => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or_else(|| "the host has no address".into(), Into::into))
    }

    async fn open(&self, target: &Target, port: u16) -> Result<TcpStream, ProxyError> {
        let proxy = &self.shared.proxy;
        let unreachable = |why: String| ProxyError::Unreachable { place: proxy.place(), why };
        let mut addresses = if let Ok(address) = proxy.host.parse::<IpAddr>() {
            vec![SocketAddr::from((address, proxy.port))]
        } else {
            let found = self.shared.own_resolver.lookup(&proxy.host).await;
            found.map_err(|error| unreachable(error.to_string()))?
        };
        for address in &mut addresses {
            address.set_port(proxy.port);
        }
        let connected = TcpStream::connect(addresses.as_slice()).await;
        let mut stream = connected.map_err(|error| unreachable(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let asked = match proxy.kind {
            ProxyKind::Http => ask_http(&mut stream, proxy, &target.place(port)).await,
            ProxyKind::Socks5 => ask_socks(&mut stream, proxy, target, port).await,
        };
        asked.map(|()| stream)
    }
}

fn broken(proxy: &Proxy) -> impl Fn(io::Error) -> ProxyError {
    let place = proxy.place();
    move |error| ProxyError::Unreachable { place: place.clone(), why: error.to_string() }
}

async fn ask_http(stream: &mut TcpStream, proxy: &Proxy, target: &str) -> Result<(), ProxyError> {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n");
    if let Some((user, password)) = &proxy.credentials {
        let both = format!("{user}:{}", password.expose_secret());
        request.push_str("proxy-authorization: Basic ");
        base64::engine::general_purpose::STANDARD.encode_string(both, &mut request);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken(proxy))?;
    let head = read_head(stream, proxy).await?;
    let mut words = head.split(' ');
    let status = match (words.next(), words.next().map(str::parse::<u16>)) {
        (Some(version), Some(Ok(status))) if version.starts_with("HTTP/1.") => status,
        _ => return Err(ProxyError::Protocol { place: proxy.place(), why: "no HTTP status came" }),
    };
    match status {
        200..300 => Ok(()),
        407 => Err(ProxyError::Credentials { place: proxy.place() }),
        status => {
            let (target, why) = (target.to_owned(), format!("HTTP {status}"));
            Err(ProxyError::Refused { place: proxy.place(), target, why })
        }
    }
}

/// The first line of the answer's head; nothing may come behind the head, for nobody has spoken there yet.
async fn read_head(stream: &mut TcpStream, proxy: &Proxy) -> Result<String, ProxyError> {
    let wrong = |why| ProxyError::Protocol { place: proxy.place(), why };
    let mut read = Vec::with_capacity(1024);
    while !read.ends_with(b"\r\n\r\n") {
        if read.len() > limits::PROXY_HEAD_BYTES {
            return Err(wrong("its answer has no end"));
        }
        if stream.read_buf(&mut read).await.map_err(broken(proxy))? == 0 {
            return Err(wrong("it hung up"));
        }
    }
    let line = read.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

async fn ask_socks(
    stream: &mut TcpStream,
    proxy: &Proxy,
    target: &Target,
    port: u16,
) -> Result<(), ProxyError> {
    let wrong = |why| ProxyError::Protocol { place: proxy.place(), why };
    let method: u8 = if proxy.credentials.is_some() { 2 } else { 0 };
    stream.write_all(&[5, 1, method]).await.map_err(broken(proxy))?;
    match read_exactly::<2>(stream, proxy).await? {
        [5, chosen] if chosen == method => {}
        [5, _] => return Err(ProxyError::Credentials { place: proxy.place() }),
        _ => return Err(wrong("it does not speak SOCKS 5")),
    }
    if let Some((user, password)) = &proxy.credentials {
        let mut login = vec![1];
        for text in [user.as_str(), password.expose_secret()] {
            login.push(u8::try_from(text.len()).map_err(|_| wrong("the credentials are too long for it"))?);
            login.extend_from_slice(text.as_bytes());
        }
        stream.write_all(&login).await.map_err(broken(proxy))?;
        let [_, status] = read_exactly::<2>(stream, proxy).await?;
        if status != 0 {
            return Err(ProxyError::Credentials { place: proxy.place() });
        }
    }
    let mut request = vec![5, 1, 0];
    match target {
        Target::Address(IpAddr::V4(address)) => {
            request.push(1);
            request.extend_from_slice(&address.octets());
        }
        Target::Address(IpAddr::V6(address)) => {
            request.push(4);
            request.extend_from_slice(&address.octets());
        }
        Target::Name(name) => {
            request.push(3);
            request.push(u8::try_from(name.len()).map_err(|_| wrong("the name is too long for it"))?);
            request.extend_from_slice(name.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await.map_err(broken(proxy))?;
    let [_, reply, _, kind] = read_exactly::<4>(stream, proxy).await?;
    let length = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await.map_err(broken(proxy))?),
        _ => return Err(wrong("its answer has an unknown kind of address")),
    };
    let mut bound = vec![0; length + 2];
    stream.read_exact(&mut bound).await.map_err(broken(proxy))?;
    if reply == 0 {
        return Ok(());
    }
    let why = socks_reply(reply).to_owned();
    Err(ProxyError::Refused { place: proxy.place(), target: target.place(port), why })
}

async fn read_exactly<const N: usize>(stream: &mut TcpStream, proxy: &Proxy) -> Result<[u8; N], ProxyError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(broken(proxy))?;
    Ok(bytes)
}

/// RFC 1928, section 6.
fn socks_reply(reply: u8) -> &'static str {
    match reply {
        2 => "its rules do not allow it",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "the time ran out",
        7 | 8 => "it cannot do that",
        _ => "it failed",
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = Tunnel;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Tunnel, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect_in_time(&uri).await })
    }
}

impl Connection for Tunnel {
    fn connected(&self) -> Connected {
        if self.speaks_h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(context, buffer)
    }
}

impl Write for Tunnel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}
