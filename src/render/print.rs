//! How a value becomes text, in pieces, so that none of it is held at a length that no body may have.

use std::io::{self, Write};

use handlebars::{HelperResult, Output, RenderError, RenderErrorReason};
use serde_json::Value as Json;

use super::budget;
use super::escape::Escape;
use crate::domain::limits;

/// How much is escaped at once.
const PIECE_BYTES: usize = 4096;

/// The text that a helper makes, up to its bound.
pub(super) struct Made<'n> {
    helper: &'n str,
    text: Vec<u8>,
}

impl<'n> Made<'n> {
    pub(super) fn of(helper: &'n str) -> Self {
        Self { helper, text: Vec::new() }
    }

    pub(super) fn push(&mut self, part: &str) -> Result<(), RenderError> {
        self.write_all(part.as_bytes()).map_err(|_| self.over())
    }

    fn over(&self) -> RenderError {
        let (helper, most) = (self.helper, limits::TEMPLATE_VALUE_BYTES);
        RenderErrorReason::Other(format!("what {helper} makes is over {most} bytes")).into()
    }

    fn text(self) -> String {
        String::from_utf8(self.text).unwrap_or_default()
    }
}

impl From<Made<'_>> for Json {
    fn from(made: Made<'_>) -> Self {
        made.text().into()
    }
}

impl Write for Made<'_> {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.text.len() + part.len() > limits::TEMPLATE_VALUE_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.text.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A value as JSON, for `helper`.
pub(super) fn json_of(value: &Json, helper: &str) -> Result<String, RenderError> {
    let mut made = Made::of(helper);
    match serde_json::to_writer(&mut made, value) {
        Ok(()) => {
            budget::charge(made.text.len())?;
            Ok(made.text())
        }
        Err(_) => Err(made.over()),
    }
}

/// Writes a value as JSON; what is too long for a helper is too long for a body.
pub(super) fn write_json(value: &Json, out: &mut dyn Output) -> HelperResult {
    let mut made = Made::of("json");
    let written = serde_json::to_writer(&mut made, value);
    budget::charge(made.text.len())?;
    let over = made.over();
    out.write(&made.text())?;
    written.map_err(|_| over)
}

/// Writes a value as what the content type wants: text escaped, null as nothing, objects and lists as JSON, which stands as
/// it is inside a JSON template.
pub(super) fn printed(value: &Json, escape: Escape, as_it_is: bool, out: &mut dyn Output) -> HelperResult {
    let text = match value {
        Json::Null => return Ok(()),
        Json::String(text) => text,
        Json::Object(_) | Json::Array(_) if !as_it_is && escape != Escape::Json => {
            return escaped(&json_of(value, "printing it")?, escape, out);
        }
        other => return write_json(other, out),
    };
    if as_it_is {
        budget::charge(text.len())?;
        out.write(text)?;
        return Ok(());
    }
    escaped(text, escape, out)
}

fn escaped(text: &str, escape: Escape, out: &mut dyn Output) -> HelperResult {
    for piece in pieces(text) {
        budget::charge(piece.len())?;
        out.write(&escape.apply(piece))?;
    }
    Ok(())
}

/// A text in pieces that each end between characters.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = PIECE_BYTES.min(rest.len());
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}
