//! One way for a command to ask: an API request, sent to the instance that is named, or handed to the very same routes in
//! this process, which then work straight on the database.
//!
//! ```text
//!  command ─▶ method, path, document ─┬─ --server ──▶ HTTP, with a key ──▶ the instance's routes ─┐
//!                                     └─ otherwise ─▶ by hand, no key ───▶ the same routes, here ─┴─▶ control
//! ```
//!
//! So a command has no rule of its own (invariant I13), and what it shows as JSON is the API's document. The key comes from
//! the environment or a file, never from the command line, which everybody on the machine can read.

mod pages;
mod told;

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tower::ServiceExt as _;
use url::Url;

pub(super) use self::pages::{PageArgs, cell, gather, gather_all, moment, show};
use super::super::print;
use super::Here;
use crate::api::router_by_hand;
use crate::clock::Clock;
use crate::config::{API_KEY_FILE_VARIABLE, API_KEY_VARIABLE, API_URL_VARIABLE, Sources};
use crate::control::{self, ControlError, Places};
use crate::domain::limits;
use crate::transport::call::{CallError, Calls};

/// The longest key that a file may hold.
const KEY_BYTES: u64 = 4096;
/// What stands for itself in a part of a path (RFC 3986, unreserved).
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whom a command asks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where")]
pub(in crate::cli) struct Reach {
    /// Ask the instance at this address, with the key in `WALHOOK_API_KEY`; without it: work on the database itself
    #[arg(long, global = true, value_name = "URL", env = API_URL_VARIABLE, value_parser = server)]
    server: Option<Url>,
    /// The file that holds the key for --server, where `WALHOOK_API_KEY` does not
    #[arg(long, global = true, value_name = "FILE", env = API_KEY_FILE_VARIABLE)]
    key_file: Option<PathBuf>,
}

fn server(text: &str) -> Result<Url, String> {
    let expected =
        "expected where the instance listens, such as https://walhook.example.com or http://127.0.0.1:8787";
    let mut url = Url::parse(text).map_err(|_| expected.to_owned())?;
    let is_plain = matches!(url.scheme(), "https" | "http")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && !text.contains(['?', '#']);
    if !is_plain {
        return Err(expected.to_owned());
    }
    // Whoever copied the address of the API itself means the same.
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/api/v1").or_else(|| path.strip_suffix("/api")).unwrap_or(path).to_owned();
    url.set_path(&path);
    Ok(url)
}

/// What keeps a command from being done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The verb itself.
    #[error("{}", .0.tell())]
    Control(#[from] ControlError),
    /// A problem document (RFC 9457), in words.
    #[error("{0}")]
    Told(String),
    /// The instance did not answer.
    #[error(
        "{server} cannot be asked: {reason}\n  hint: {API_URL_VARIABLE} or --server names the instance; without both, commands work on the database itself."
    )]
    Unanswered { server: String, reason: String },
    /// What answered is no API of walhook's.
    #[error(
        "{server} answered {status} with what is no answer of walhook's API\n  hint: See that the address is that of server.listen, or of what stands before it."
    )]
    Strange { server: String, status: u16 },
    /// There is no key.
    #[error(
        "there is no key for {server}\n  hint: Set {API_KEY_VARIABLE}, or name a file with --key-file. `walhook keys create` makes one."
    )]
    NoKey { server: String },
    /// A file cannot be used.
    #[error("cannot read {path}: {reason}")]
    Input { path: String, reason: String },
}

/// An answer that is no problem.
#[derive(Debug)]
pub(super) struct Answer {
    /// The document; null where there is none.
    pub document: Value,
}

/// Where requests go.
pub(super) enum Caller {
    /// An instance.
    Instance(Instance),
    /// The routes in this process.
    Here(Box<Local>),
}

/// An instance, and the right to ask it.
pub(super) struct Instance {
    calls: Calls,
    server: Url,
    authorization: HeaderValue,
}

/// The database, by the routes of this process.
pub(super) struct Local {
    router: Router,
    here: Here,
}

impl Caller {
    /// The one that the command names.
    pub(super) async fn of(reach: &Reach, sources: &Sources, clock: &Clock) -> Result<Self, Failure> {
        let Some(server) = &reach.server else {
            let config = control::load_config(sources).map_err(ControlError::from)?;
            let here = Here { places: Places::of(&config)?, config, clock: clock.clone() };
            let desk = here.desk();
            // A request would tell of a database that cannot be reached no more than others may know.
            desk.open().await?;
            return Ok(Self::Here(Box::new(Local { router: router_by_hand(Arc::new(desk)), here })));
        };
        let key = key(reach, sources, server)?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|_| Failure::NoKey { server: shown(server) })?;
        authorization.set_sensitive(true);
        let is_loopback = match server.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if server.scheme() == "http" && !is_loopback {
            print::note(
                "the key and what is answered go over the network as plain text: https would hide them",
            );
        }
        let calls = Calls::new().map_err(ControlError::from)?;
        Ok(Self::Instance(Instance { calls, server: server.clone(), authorization }))
    }

    /// The database, where no instance is asked.
    pub(super) fn here(&self) -> Option<&Here> {
        match self {
            Self::Here(local) => Some(&local.here),
            Self::Instance(_) => None,
        }
    }

    /// Asks for something to be done.
    pub(super) async fn post(&self, path: &str, document: Option<&Value>) -> Result<Value, Failure> {
        Ok(self.ask(Method::POST, path, HeaderMap::new(), document).await?.document)
    }

    /// Asks without a document.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask(Method::GET, path, HeaderMap::new(), None).await
    }

    /// Asks, and gives what was answered where that is no problem.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        document: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        if document.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let body = document.map(|document| Bytes::from(document.to_string())).unwrap_or_default();
        let (name, answer) = match self {
            Self::Instance(instance) => {
                (shown(&instance.server), instance.call(method, path, headers, body).await?)
            }
            Self::Here(local) => ("walhook".to_owned(), local.call(method, path, headers, body).await?),
        };
        let strange = || Failure::Strange { server: name.clone(), status: answer.status().as_u16() };
        let document: Value = match answer.body() {
            body if body.is_empty() => Value::Null,
            body => serde_json::from_slice(body).map_err(|_| strange())?,
        };
        if answer.status().is_success() {
            return Ok(Answer { document });
        }
        told::words(&document).map_or_else(|| Err(strange()), |words| Err(Failure::Told(words)))
    }
}

impl Instance {
    async fn call(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<http::Response<Bytes>, Failure> {
        let server = self.server.as_str().trim_end_matches('/');
        headers.insert(AUTHORIZATION, self.authorization.clone());
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        let unanswered = |reason: String| Failure::Unanswered { server: shown(&self.server), reason };
        *request.uri_mut() = format!("{server}/api{path}")
            .parse()
            .map_err(|error: http::uri::InvalidUri| unanswered(error.to_string()))?;
        let answered = self.calls.call(request, limits::CALL_WITHIN).await;
        answered.map_err(|error: CallError| unanswered(error.to_string()))
    }
}

impl Local {
    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<http::Response<Bytes>, Failure> {
        let unanswered = |reason: String| Failure::Unanswered { server: "walhook".to_owned(), reason };
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        *request.uri_mut() = format!("/api{path}")
            .parse()
            .map_err(|error: http::uri::InvalidUri| unanswered(error.to_string()))?;
        let answered = self.router.clone().oneshot(request).await;
        let (head, body) = answered.unwrap_or_else(|never| match never {}).into_parts();
        let body = to_bytes(body, limits::CALL_ANSWER_BYTES).await;
        Ok(http::Response::from_parts(head, body.map_err(|error| unanswered(error.to_string()))?))
    }
}

/// A part of a path.
pub(super) fn part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// One header.
pub(super) fn header(name: &'static str, value: &str) -> Result<HeaderMap, Failure> {
    let value = HeaderValue::try_from(value)
        .map_err(|_| Failure::Told(format!("{name}: expected plain characters of ASCII")))?;
    Ok(HeaderMap::from_iter([(HeaderName::from_static(name), value)]))
}

/// The server without the dash that a path of its own leaves behind.
fn shown(server: &Url) -> String {
    server.as_str().trim_end_matches('/').to_owned()
}

fn key(reach: &Reach, sources: &Sources, server: &Url) -> Result<String, Failure> {
    let missing = || Failure::NoKey { server: shown(server) };
    if let Some(key) = sources.variable(API_KEY_VARIABLE).map(str::trim).filter(|key| !key.is_empty()) {
        return Ok(key.to_owned());
    }
    let path = reach.key_file.as_ref().ok_or_else(missing)?;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(KEY_BYTES).read_to_string(&mut text));
    read.map_err(|error| Failure::Input { path: path.display().to_string(), reason: error.to_string() })?;
    let key = text.trim();
    if key.is_empty() { Err(missing()) } else { Ok(key.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_without_anything_behind_it() {
        let read = |text: &str| server(text).map(|url| shown(&url));
        for (text, expect) in [
            ("http://127.0.0.1:8787", "http://127.0.0.1:8787"),
            ("https://walhook.example.com/", "https://walhook.example.com"),
            ("https://example.com/walhook/", "https://example.com/walhook"),
            ("https://example.com/walhook/api/v1/", "https://example.com/walhook"),
            ("http://[::1]:8787/api", "http://[::1]:8787"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expect), "{text}");
        }
        for wrong in ["", "127.0.0.1:8787", "ftp://a", "http://key@a/", "http://a/?key=b", "http://a/#b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_stays_one_part_of_a_path() {
        assert_eq!(part("a/b?c#d e%é.._~-"), "a%2Fb%3Fc%23d%20e%25%C3%A9.._~-");
    }
}
