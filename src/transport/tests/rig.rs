//! A receiver made of bare bytes, so that it can misbehave, and a transport to send to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::super::{Lookups, Policy, Request, Route, Transport, TransportOptions};
use crate::clock::Clock;
use crate::domain::{Auth, Connection, Outcome, Reach, WebhookSource, limits};
use crate::tasks::{Role, Tasks};

/// What the receiver does once it has read a request.
#[derive(Debug, Clone, Copy)]
pub enum Script {
    /// Sends these bytes and reads the next request.
    Answer(&'static [u8]),
    /// Sends these bytes and closes.
    Close(&'static [u8]),
    /// Sends these bytes, says that it sends no more, and goes on reading.
    HalfClose(&'static [u8]),
    /// Sends these bytes and stays silent.
    Hang(&'static [u8]),
    /// Sends the first bytes, then the second again and again, with a pause between.
    Repeat(&'static [u8], &'static [u8], Duration),
}

/// A running receiver; it ends with the test's runtime.
pub struct Receiver {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Receiver {
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (written, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let receiver = Self {
            address,
            connections: Arc::clone(&connections),
            requests: Arc::clone(&requests),
            written: Arc::clone(&written),
            open: Arc::clone(&open),
        };
        let (tasks, _) = Tasks::new();
        let connected = tasks.clone();
        tasks.spawn("receiver", Role::Passing, async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, written, open) =
                    (Arc::clone(&requests), Arc::clone(&written), Arc::clone(&open));
                open.fetch_add(1, Ordering::SeqCst);
                connected.spawn("connection", Role::Passing, async move {
                    let ended = converse(stream, script, (&requests, &written)).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                    drop(ended);
                });
            }
        });
        receiver
    }

    pub fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections that have not ended.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Bytes of answers that the system has taken.
    pub fn written(&self) -> usize {
        self.written.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Writes all, and counts what the system has taken of it.
pub async fn write_counted(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    written: &AtomicUsize,
) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let taken = stream.write(bytes).await?;
        written.fetch_add(taken, Ordering::SeqCst);
        bytes = &bytes[taken..];
    }
    Ok(())
}

async fn converse(
    mut stream: TcpStream,
    script: Script,
    (requests, written): (&AtomicUsize, &AtomicUsize),
) -> std::io::Result<()> {
    while read_request(&mut stream).await? {
        requests.fetch_add(1, Ordering::SeqCst);
        match script {
            Script::Answer(bytes) => stream.write_all(bytes).await?,
            Script::Close(bytes) => {
                stream.write_all(bytes).await?;
                return stream.shutdown().await;
            }
            Script::HalfClose(bytes) => {
                stream.write_all(bytes).await?;
                stream.shutdown().await?;
                std::future::pending::<()>().await;
            }
            Script::Hang(bytes) => {
                stream.write_all(bytes).await?;
                std::future::pending::<()>().await;
            }
            Script::Repeat(head, again, pause) => {
                write_counted(&mut stream, head, written).await?;
                loop {
                    write_counted(&mut stream, again, written).await?;
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
    Ok(())
}

/// Reads a head and the body it announces; `false` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<bool> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let announced = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = announced.map_or(0, |text| text.trim().parse().unwrap());
            if read.len() >= end + 4 + length {
                return Ok(true);
            }
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(false);
        }
    }
}

/// A transport that keeps 16 bytes of answers.
pub fn transport(policy: Policy, extra_roots: Vec<CertificateDer<'static>>) -> Transport {
    bounded(policy, extra_roots, Lookups::of_the_system(), limits::CONNECT_TIMEOUT)
}

/// The same with lookups and a time to connect of its own.
pub fn bounded(
    policy: Policy,
    extra_roots: Vec<CertificateDer<'static>>,
    lookups: Lookups,
    connect_within: Duration,
) -> Transport {
    let clock = Clock::turned("2026-11-21T20:00:00Z".parse().unwrap(), 7);
    Transport::new(TransportOptions {
        tenants: policy.clone(),
        policy,
        capture_bytes: 16,
        clock,
        extra_roots,
        lookups,
        connect_within,
    })
    .unwrap()
}

/// A route by these settings.
pub fn route(auth: Option<Auth>, connection: Connection) -> Route {
    let reach = Reach { auth, connection: Arc::new(connection), ..Reach::default() };
    Route::of(&reach).expect("it is no ordinary one")
}

/// Sends a small body with a timeout in milliseconds.
pub async fn send(transport: &Transport, url: &Url, source: WebhookSource, timeout_ms: u64) -> Outcome {
    send_by(transport, None, (url, source), timeout_ms).await
}

/// The same by a way of its own.
pub async fn send_by(
    transport: &Transport,
    route: Option<&Route>,
    (url, source): (&Url, WebhookSource),
    timeout_ms: u64,
) -> Outcome {
    let body = Bytes::from_static(b"{\"hello\":1}");
    let timeout = Duration::from_millis(timeout_ms);
    transport.send(Request { url, source, headers: HeaderMap::new(), body, timeout, route }).await
}
