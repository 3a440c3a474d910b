//! What is received, as lines.
//!
//! Written with `writeln!`, never `println!`: a closed pipe is an error to act on, not a panic. What came from outside
//! is stripped of control characters before it reaches a terminal.

use std::io::{self, Write};
use std::net::SocketAddr;

use serde_json::value::RawValue;

use super::{Received, Signature};

/// How bodies are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BodyStyle {
    /// On one line.
    Compact,
    /// Indented, where it is JSON.
    Pretty,
    /// Not at all.
    None,
}

/// Writes lines for people, or for programs.
#[derive(Debug)]
pub struct Printer<W> {
    out: W,
    json: bool,
    body: BodyStyle,
}

#[derive(serde::Serialize)]
struct Line<'a> {
    time: String,
    #[serde(rename = "type")]
    event_type: &'a str,
    id: &'a str,
    attempt: Option<u32>,
    verified: Option<bool>,
    reason: Option<&'a str>,
    seen_before: bool,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body<'a>>,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Json(Box<RawValue>),
    Text(std::borrow::Cow<'a, str>),
}

impl<W: Write> Printer<W> {
    /// Prints to `out`: JSON objects, one a line, or text. Fails when nobody reads it any more.
    pub fn new(out: W, json: bool, body: BodyStyle) -> Self {
        Self { out, json, body }
    }

    /// Says where the receiver is to be found.
    pub fn listening(&mut self, address: SocketAddr) -> io::Result<()> {
        if self.json {
            writeln!(self.out, "{}", serde_json::json!({ "listening": format!("http://{address}") }))?;
        } else {
            writeln!(self.out, "listening on http://{address}")?;
        }
        self.out.flush()
    }

    /// Prints one request.
    pub fn received(&mut self, received: &Received) -> io::Result<()> {
        if self.json { self.as_json(received) } else { self.as_text(received) }?;
        self.out.flush()
    }

    fn as_json(&mut self, received: &Received) -> io::Result<()> {
        let (verified, reason) = match &received.signature {
            Signature::Verified => (Some(true), None),
            Signature::Unchecked => (None, None),
            Signature::Wrong(reason) => (Some(false), Some(reason.as_str())),
        };
        let line = Line {
            time: received.at.to_string(),
            event_type: &received.event_type,
            id: &received.id,
            attempt: received.attempt,
            verified,
            reason,
            seen_before: received.seen_before,
            status: received.status,
            body: (self.body != BodyStyle::None).then(|| json_body(&received.body)),
        };
        let line = serde_json::to_string(&line).map_err(io::Error::other)?;
        writeln!(self.out, "{line}")
    }

    fn as_text(&mut self, received: &Received) -> io::Result<()> {
        let time = received.at.strftime("%H:%M:%S%.3f");
        let attempt = received.attempt.map(|attempt| format!("  attempt {attempt}")).unwrap_or_default();
        let line = format!("{time}  {}  {}{attempt}", or_dash(&received.event_type), or_dash(&received.id));
        writeln!(
            self.out,
            "{}  {}{}  → {}",
            plain(&line),
            plain(&received.signature.to_string()),
            if received.seen_before { "  seen before" } else { "" },
            received.status,
        )?;
        for line in self.body_lines(&received.body).lines() {
            writeln!(self.out, "              {}", plain(line))?;
        }
        Ok(())
    }

    fn body_lines(&self, body: &[u8]) -> String {
        match (self.body, serde_json::from_slice::<serde_json::Value>(body)) {
            (BodyStyle::None, _) => String::new(),
            (BodyStyle::Pretty, Ok(json)) => format!("{json:#}"),
            (BodyStyle::Compact, Ok(json)) => json.to_string(),
            (_, Err(_)) => String::from_utf8_lossy(body).into_owned(),
        }
    }
}

/// The JSON as it came where it stands on one line, made anew where it does not.
fn json_body(body: &[u8]) -> Body<'_> {
    let as_it_came = serde_json::from_slice::<Box<RawValue>>(body).ok();
    let raw = match as_it_came {
        Some(raw) if raw.get().contains(['\n', '\r']) => serde_json::from_slice::<serde_json::Value>(body)
            .ok()
            .and_then(|json| RawValue::from_string(json.to_string()).ok()),
        other => other,
    };
    raw.map_or_else(|| Body::Text(String::from_utf8_lossy(body)), Body::Json)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
