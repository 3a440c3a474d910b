//! A receiver that answers as the test says and remembers what it got.
//!
//! A small HTTP/1.1 server of its own: the tests need what a well-behaved server library does not offer, such as
//! half an answer, none at all, or a closed door.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::background;

/// What the receiver does with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Answers with a status.
    Status(u16),
    /// Answers with a status and a header.
    With(u16, &'static str, String),
    /// Answers with a status and a body.
    Body(u16, String),
    /// Waits, then answers with a status.
    Late(Duration, u16),
    /// Never answers.
    Hang,
    /// Closes the connection in the middle of a 200.
    Drop,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its path.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body's bytes.
    pub body: Bytes,
    /// When it was complete.
    pub at: Instant,
    /// Which request of its `webhook-id` on this path it is, from 1.
    pub nth: u32,
    /// Whether the answer to it was a complete 2xx.
    pub accepted: bool,
}

impl Request {
    /// A header's text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header of plain text"))
    }

    /// The delivery's id.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The column of the row after the change, or of the old row where there is none.
    pub fn column(&self, name: &str) -> serde_json::Value {
        let data = &self.json()["data"];
        let row = if data["record"].is_null() { &data["old"] } else { &data["record"] };
        row[name].clone()
    }
}

type Script = Box<dyn FnMut(&Request) -> Answer + Send>;

#[derive(Default)]
struct Book {
    requests: HashMap<String, Vec<Request>>,
    times: HashMap<(String, String), u32>,
    scripts: HashMap<String, Script>,
    counting: bool,
    count: u64,
}

/// The server. Its door closes with it.
pub struct Receiver {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    arrived: Arc<Notify>,
    open: watch::Sender<bool>,
}

impl Receiver {
    /// Listens on a free loopback port and answers 200 to everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (open, door) = watch::channel(true);
        let (book, arrived) = (Arc::<Mutex<Book>>::default(), Arc::<Notify>::default());
        background(keep_door(listener, address, door, book.clone(), arrived.clone()));
        Self { address, book, arrived, open }
    }

    /// The URL of a path that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Decides each answer on a path by what came.
    pub fn script(&self, path: &str, script: impl FnMut(&Request) -> Answer + Send + 'static) {
        self.book().scripts.insert(path.to_owned(), Box::new(script));
    }

    /// Answers the first requests of every delivery on a path with these, further ones with 200.
    pub fn answers(&self, path: &str, answers: &[Answer]) {
        let answers = answers.to_vec();
        self.script(path, move |request| {
            answers.get(request.nth as usize - 1).cloned().unwrap_or(Answer::Status(200))
        });
    }

    /// From now on only counts what comes, and remembers nothing of it: to a script each request is the first.
    pub fn only_count(&self) {
        self.book().counting = true;
    }

    /// How many requests came.
    pub fn count(&self) -> u64 {
        self.book().count
    }

    /// Closes the door: connections are refused, those that stand are cut.
    pub fn refuse(&self) {
        self.open.send_replace(false);
    }

    /// Opens it again.
    pub fn welcome(&self) {
        self.open.send_replace(true);
    }

    /// Everything that came on a path, in order of arrival.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        self.book().requests.get(path).cloned().unwrap_or_default()
    }

    /// Waits until what came on a path satisfies a condition; panics with `what` and what came when `patience` ends.
    pub async fn wait(
        &self,
        path: &str,
        what: &str,
        patience: Duration,
        mut enough: impl FnMut(&[Request]) -> bool,
    ) -> Vec<Request> {
        let deadline = Instant::now() + patience;
        loop {
            let arrival = self.arrived.notified();
            tokio::pin!(arrival);
            arrival.as_mut().enable();
            let so_far = {
                let book = self.book();
                let requests = book.requests.get(path).map_or(&[][..], Vec::as_slice);
                if enough(requests) {
                    return requests.to_vec();
                }
                requests.len()
            };
            if so_far > 500 {
                // Looking through many after each one that comes would take the time of the test.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if tokio::time::timeout_at(deadline, arrival).await.is_err() {
                let came: Vec<_> = self.requests(path).iter().rev().take(50).map(Self::in_short).collect();
                panic!(
                    "waited {patience:?} on {path} in vain for: {what}\n{so_far} came, the last: {came:#?}"
                );
            }
        }
    }

    /// Waits until `count` requests came on a path, and gives them.
    pub async fn expect(&self, path: &str, count: usize) -> Vec<Request> {
        let what = format!("{count} requests");
        self.wait(path, &what, super::PATIENCE, |requests| requests.len() >= count).await
    }

    /// Waits until so many requests came, of any kind, while only counting.
    pub async fn expect_count(&self, count: u64, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let arrival = self.arrived.notified();
            let came = self.count();
            if came >= count {
                return;
            }
            let quiet = tokio::time::timeout_at(deadline, arrival).await.is_err();
            assert!(!quiet, "waited {patience:?} in vain for {count} requests; {came} came");
        }
    }

    fn in_short(request: &Request) -> String {
        let event = request.header("x-webhook-event");
        format!(
            "{} {event} #{} accepted={}",
            request.id(),
            request.header("x-webhook-attempt"),
            request.accepted
        )
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts while the door is open; cuts everybody off when it closes.
async fn keep_door(
    first: TcpListener,
    address: SocketAddr,
    mut door: watch::Receiver<bool>,
    book: Arc<Mutex<Book>>,
    arrived: Arc<Notify>,
) {
    let mut listener = Some(first);
    loop {
        if !*door.borrow_and_update() {
            drop(listener.take());
            if door.changed().await.is_err() {
                return;
            }
            continue;
        }
        if listener.is_none() {
            listener = Some(bind_again(address).await);
        }
        let accept = async { listener.as_ref().expect("an open door").accept().await };
        tokio::select! {
            changed = door.changed() => if changed.is_err() { return },
            accepted = accept => {
                let Ok((stream, _)) = accepted else { continue };
                let (mut door, book, arrived) = (door.clone(), book.clone(), arrived.clone());
                background(async move {
                    tokio::select! {
                        _ = door.wait_for(|open| !open) => {}
                        _ = converse(stream, &book, &arrived) => {}
                    }
                });
            }
        }
    }
}

/// Another test may have been given the port for a moment.
async fn bind_again(address: SocketAddr) -> TcpListener {
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    TcpListener::bind(address).await.expect("the port it had")
}

/// Serves one connection until either side ends it.
async fn converse(mut stream: TcpStream, book: &Mutex<Book>, arrived: &Notify) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    loop {
        let Some((path, headers, body)) = read(&mut stream, &mut buffer).await? else { return Ok(()) };
        let answer = record(book, path, headers, body);
        arrived.notify_waiters();
        match answer {
            Answer::Status(status) => respond(&mut stream, status, "").await?,
            Answer::With(status, name, value) => {
                respond(&mut stream, status, &format!("{name}: {value}\r\n")).await?;
            }
            Answer::Body(status, body) => {
                let length = body.len();
                let text = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).await?;
            }
            Answer::Late(wait, status) => {
                tokio::time::sleep(wait).await;
                respond(&mut stream, status, "").await?;
            }
            Answer::Hang => std::future::pending().await,
            Answer::Drop => {
                return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of").await;
            }
        }
    }
}

async fn respond(stream: &mut TcpStream, status: u16, header: &str) -> std::io::Result<()> {
    let text = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: 2\r\n{header}\r\nok");
    stream.write_all(text.as_bytes()).await
}

/// Writes down a request and decides its answer, in one step: what `accepted` says is what the script meant.
fn record(book: &Mutex<Book>, path: String, headers: HeaderMap, body: Bytes) -> Answer {
    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
    book.count += 1;
    let mut nth = 1;
    if !book.counting {
        let id = headers.get("webhook-id").map_or("", |id| id.to_str().unwrap_or("")).to_owned();
        let times = book.times.entry((path.clone(), id)).or_default();
        *times += 1;
        nth = *times;
    }
    let mut request = Request { path, headers, body, at: Instant::now(), nth, accepted: false };
    let answer = match book.scripts.get_mut(&request.path) {
        Some(script) => script(&request),
        None => Answer::Status(200),
    };
    request.accepted = matches!(
        answer,
        Answer::Status(200..300)
            | Answer::With(200..300, ..)
            | Answer::Body(200..300, _)
            | Answer::Late(_, 200..300)
    );
    if !book.counting {
        book.requests.entry(request.path.clone()).or_default().push(request);
    }
    answer
}

/// One request off the connection, `None` at its end. The body's length must be announced.
async fn read(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
) -> std::io::Result<Option<(String, HeaderMap, Bytes)>> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = buffer.split_to(end);
            buffer.advance(4);
            break head;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = std::str::from_utf8(&head).expect("a head of plain text");
    let mut lines = head.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a request line").to_owned();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a header line");
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.append(name, HeaderValue::from_str(value.trim()).expect("a header value"));
    }
    let length = headers.get("content-length").map_or("0", |text| text.to_str().expect("plain text"));
    let length: usize = length.parse().expect("a length");
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = buffer.split_to(length).freeze();
    Ok(Some((path, headers, body)))
}
