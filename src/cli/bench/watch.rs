//! Our end of the receiver: starts it, asks it, and sends to it in a bare loop.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use url::Url;

use super::receiver::Ask;
use super::{BenchError, io, process};
use crate::clock::Clock;
use crate::domain::{Outcome, WebhookSource, limits};
use crate::transport::{Lookups, Policy, Request, Transport, TransportOptions};

/// How long it may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(15);
/// How often it is asked how many have come; each time costs it a little.
pub(super) const GLANCE: Duration = Duration::from_millis(5);
/// What the client adds by itself.
const NOT_OURS: [&str; 4] = ["host", "content-length", "user-agent", "accept"];

/// A receiver in another process.
pub(super) struct Receiver {
    address: SocketAddr,
    questions: Mutex<TcpStream>,
    child: Child,
}

/// A request as the sidecar sent it.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    headers: HeaderMap,
    body: Bytes,
}

impl Receiver {
    pub(super) async fn start() -> Result<Self, BenchError> {
        let binary = std::env::current_exe().map_err(io("find this program"))?;
        let mut child = Command::new(binary)
            .arg("bench-receiver")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io("start the receiver"))?;
        let late = || BenchError::Child { what: "the receiver", said: String::new() };
        let stdout = child.stdout.take().ok_or_else(late)?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        timeout(PATIENCE, reader.read_line(&mut line))
            .await
            .map_err(|_| late())?
            .map_err(io("learn the receiver's ports"))?;
        let mut addresses = line.split_whitespace().map(str::parse::<SocketAddr>);
        let (Some(Ok(address)), Some(Ok(questions))) = (addresses.next(), addresses.next()) else {
            return Err(BenchError::Child { what: "the receiver", said: line });
        };
        let questions = TcpStream::connect(questions).await.map_err(io("reach the receiver"))?;
        questions.set_nodelay(true).map_err(io("reach the receiver"))?;
        Ok(Self { address, questions: Mutex::new(questions), child })
    }

    /// Processor time it has had, in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        self.child.id().map_or(0.0, process::cpu_seconds)
    }

    /// A place on it.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Requests that have come since it began.
    pub(super) async fn count(&self) -> Result<u64, BenchError> {
        let asked = async {
            let mut stream = self.questions.lock().await;
            stream.write_u8(Ask::Count as u8).await?;
            stream.read_u64().await
        };
        asked.await.map_err(io("ask the receiver"))
    }

    /// Waits until so many have come.
    pub(super) async fn until(&self, wanted: u64, patience: Duration) -> Result<(), BenchError> {
        let deadline = Instant::now() + patience;
        while self.count().await? < wanted {
            if Instant::now() > deadline {
                return Err(BenchError::Late { what: "the delivery of what was committed" });
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Which rows have come to the timed place, and when, in microseconds since 1970.
    pub(super) async fn times(&self) -> Result<Vec<(u64, i64)>, BenchError> {
        let bytes = {
            let mut stream = self.questions.lock().await;
            stream.write_u8(Ask::Times as u8).await.map_err(io("ask the receiver"))?;
            list(&mut stream).await?
        };
        let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let pair = |bytes: &[u8]| {
            let (id, at) = bytes.split_at_checked(8)?;
            Some((number(id)?, number(at)?.cast_signed()))
        };
        Ok(bytes.chunks_exact(16).filter_map(pair).collect())
    }

    /// The first request that came, as it came.
    pub(super) async fn sample(&self) -> Result<Sample, BenchError> {
        let mut stream = self.questions.lock().await;
        stream.write_u8(Ask::First as u8).await.map_err(io("ask the receiver"))?;
        let lines = list(&mut stream).await?;
        let body = list(&mut stream).await?.into();
        let mut headers = HeaderMap::new();
        for line in String::from_utf8_lossy(&lines).lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            if NOT_OURS.contains(&name) {
                continue;
            }
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        Ok(Sample { headers, body })
    }
}

async fn list(stream: &mut TcpStream) -> Result<Vec<u8>, BenchError> {
    let read = async {
        let length = stream.read_u32().await?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    };
    read.await.map_err(io("ask the receiver"))
}

/// The sidecar's own HTTP client, by itself.
#[derive(Debug, Clone)]
pub(super) struct Bare {
    transport: Transport,
    url: Arc<Url>,
    sample: Arc<Sample>,
}

impl Bare {
    /// A client that sends `sample` to `url`.
    pub(super) fn new(url: &str, sample: Sample) -> Result<Self, BenchError> {
        let options = TransportOptions {
            policy: Policy::default(),
            tenants: Policy::default(),
            capture_bytes: 4096,
            clock: Clock::system(),
            extra_roots: Vec::new(),
            lookups: Lookups::of_the_system(),
            connect_within: limits::CONNECT_TIMEOUT,
        };
        let transport = Transport::new(options)?;
        let url = Url::parse(url).map_err(|error| BenchError::Refused { told: error.to_string() })?;
        Ok(Self { transport, url: Arc::new(url), sample: Arc::new(sample) })
    }

    /// Sends once.
    pub(super) async fn send(&self) -> Result<(), BenchError> {
        let request = Request {
            url: &self.url,
            source: WebhookSource::Toml,
            headers: self.sample.headers.clone(),
            body: self.sample.body.clone(),
            timeout: REQUEST,
            route: None,
        };
        match self.transport.send(request).await {
            Outcome::Responded { status: 200, .. } => Ok(()),
            other => Err(BenchError::Refused { told: other.describe() }),
        }
    }

    /// Sends `requests`, `concurrency` at a time. Returns how many a second.
    pub(super) async fn burst(&self, requests: u32, concurrency: u32) -> Result<f64, BenchError> {
        let begun = Instant::now();
        let next = Arc::new(AtomicU32::new(0));
        let mut senders = JoinSet::new();
        for _ in 0..concurrency {
            let (bare, next) = (self.clone(), Arc::clone(&next));
            senders.spawn(async move {
                while next.fetch_add(1, Ordering::Relaxed) < requests {
                    bare.send().await?;
                }
                Ok::<_, BenchError>(())
            });
        }
        while let Some(ended) = senders.join_next().await {
            ended??;
        }
        Ok(f64::from(requests) / begun.elapsed().as_secs_f64())
    }
}
