//! The HTTP API, by hand as a client would, and as somebody with bad intent would.

mod access;
mod again;
mod catalogue;
mod clients;
mod contract;
mod deliveries;
mod edges;
mod guards;
mod halves;
mod jobs;
mod live;
mod plans;
mod security;
mod templates;
mod tools;
mod webhooks;

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Database, Run, Sidecar};

/// The operator's token.
pub const ADMIN: &str = "an-operators-own-token";
pub const OPEN: &str = "[security]\nallow_http = true\nallow_networks = [\"127.0.0.0/8\"]\n";

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Insists on a status; anything but success is a problem document that says the same.
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        if status >= 400 {
            assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
            let problem = self.json();
            assert_eq!(problem["status"], status, "{problem}");
            for told in ["type", "title", "detail"] {
                assert!(problem[told].as_str().is_some_and(|text| !text.is_empty()), "{told}: {problem}");
            }
        }
        assert!(!self.header("x-request-id").is_empty(), "no request id");
        self
    }

    /// The end of the problem's URN.
    pub fn kind(&self) -> String {
        self.json()["type"].as_str().and_then(|urn| urn.rsplit(':').next()).unwrap_or_default().to_owned()
    }

    /// The JSON pointers, or the parameters, of what is wrong.
    pub fn wrong(&self) -> Vec<String> {
        let problem = self.json();
        let place = |error: &Value| {
            let place = error["pointer"].as_str().or(error["parameter"].as_str());
            place.unwrap_or_default().to_owned()
        };
        problem["errors"].as_array().into_iter().flatten().map(place).collect()
    }
}

/// Who asks, and where.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    key: Option<String>,
}

impl Client {
    pub fn of(sidecar: &Sidecar, key: &str) -> Self {
        Self { address: sidecar.address().expect("an address"), key: Some(key.to_owned()) }
    }

    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self { key: key.map(str::to_owned), ..self.clone() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], body).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.ask(method, path, &headers, &body.to_string()).await
    }

    /// A request by hand; its connection is closed behind it.
    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        if let Some(key) = &self.key {
            head.extend(["authorization: Bearer ", key, "\r\n"]);
        }
        for (name, value) in headers {
            head.extend([*name, ": ", *value, "\r\n"]);
        }
        if !headers.iter().any(|(name, _)| *name == "content-length") {
            head.extend(["content-length: ", &body.len().to_string(), "\r\n"]);
        }
        let mut stream = TcpStream::connect(&self.address).await.expect("a server");
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.expect("a reader");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("an answer");
        answer_of(&bytes)
    }
}

fn answer_of(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = bytes[end + 4..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = joined(&body);
    }
    Answer { status, headers, body }
}

/// The content of a body in chunks.
fn joined(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16).expect("a size");
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    whole
}

/// A sidecar with an operator's token, and the operator.
pub async fn served(database: &Database, toml: &str) -> (Sidecar, Client) {
    served_by(database, Run::with(toml)).await
}

pub async fn served_by(database: &Database, mut run: Run) -> (Sidecar, Client) {
    run.environment.push(("WALHOOK_SERVER__ADMIN_TOKEN".to_owned(), ADMIN.to_owned()));
    let sidecar = Sidecar::start(database, run).await;
    let client = Client::of(&sidecar, ADMIN);
    (sidecar, client)
}

/// A key with these scopes: its id, and itself.
pub async fn key(operator: &Client, scopes: &[&str]) -> (String, String) {
    let made =
        operator.post("/api/keys", &json!({ "name": "a test", "scopes": scopes })).await.is(201).json();
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    (text("id"), text("key"))
}
