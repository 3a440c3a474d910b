//! Templates: handlebars, strict, compiled once.
//!
//! After parsing, the tree is walked once, by [`prepare`]: what cannot work is refused at load instead of at the first row.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use handlebars::{Context, Handlebars, RenderErrorReason, Template as Tree};
use serde::de::IgnoredAny;
use serde_json::Value as Json;

use super::RenderError;
use super::escape::Escape;
use super::prepare::prepare;
use super::scan::scan;
use super::{budget, helpers};
use crate::domain::TemplateSource;

/// The name of the only template in a registry.
const ONLY: &str = "template";
/// The parser's stack; see [`scan`].
const PARSER_STACK_BYTES: usize = 64 * 1024 * 1024;

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", place(*.position))]
pub struct TemplateError {
    /// What is wrong with it.
    pub message: String,
    /// Line and column, from 1, where they are known.
    pub position: Option<(usize, usize)>,
}

pub(super) fn place(position: Option<(usize, usize)>) -> String {
    position.map_or_else(String::new, |(line, column)| format!("line {line}, column {column}: "))
}

impl TemplateError {
    pub(super) fn plain(message: String) -> Self {
        Self { message, position: None }
    }

    /// At a byte of the source.
    pub(super) fn at(message: String, source: &str, byte: usize) -> Self {
        let before = source.get(..byte).unwrap_or_default();
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Self { message, position: Some((before.matches('\n').count() + 1, column)) }
    }
}

/// A compiled template.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) name: Arc<str>,
    pub(super) content_type: Arc<str>,
    escape: Escape,
    registry: Handlebars<'static>,
    /// The most fields that one of its tags names.
    named_at_once: usize,
}

/// Whether a text is a template that can be used.
pub fn check_template(source: &str) -> Result<(), TemplateError> {
    parse(source).map(|_| ())
}

fn parse(source: &str) -> Result<(Tree, usize), TemplateError> {
    scan(source)?;
    thread::scope(|scope| {
        let parser = thread::Builder::new().name("template".to_owned()).stack_size(PARSER_STACK_BYTES);
        let parser = parser.spawn_scoped(scope, || compile(source)).map_err(|error| {
            TemplateError::plain(format!("no thread could be started to read it: {error}"))
        })?;
        parser.join().unwrap_or_else(|_| Err(TemplateError::plain("it cannot be read".to_owned())))
    })
}

/// The tree, and the most fields that one tag names.
fn compile(source: &str) -> Result<(Tree, usize), TemplateError> {
    let mut tree = Tree::compile(source).map_err(|error| {
        let message = error.reason().to_string();
        let first_line = message.lines().next().unwrap_or_default().to_owned();
        TemplateError { message: first_line, position: error.pos() }
    })?;
    let named_at_once = prepare(&mut tree)?;
    Ok((tree, named_at_once))
}

impl Template {
    pub(super) fn compile(source: &TemplateSource) -> Result<Self, TemplateError> {
        let escape = Escape::of(&source.content_type);
        let mut registry = Handlebars::new();
        registry.set_strict_mode(true);
        registry.register_escape_fn(move |text| escape.apply(text));
        helpers::register(&mut registry, escape);
        let (tree, named_at_once) = parse(&source.body)?;
        registry.register_template(ONLY, tree);
        let (name, content_type) = (source.name.clone(), source.content_type.clone());
        Ok(Self { name, content_type, escape, registry, named_at_once })
    }

    /// Renders the fields of a row, of so many bytes, into at most `max_bytes`.
    pub(super) fn render(
        &self,
        fields: Json,
        row_bytes: usize,
        max_bytes: usize,
    ) -> Result<Vec<u8>, RenderError> {
        let mut out = Capped { bytes: Vec::new(), max_bytes, over: false };
        let context = Context::from(fields);
        helpers::start_counting();
        budget::start(row_bytes, self.named_at_once);
        // A bug in the engine must cost this delivery, not the stream its reader (invariant I8).
        let rendered = catch_unwind(AssertUnwindSafe(|| {
            self.registry.render_with_context_to_write(ONLY, &context, &mut out)
        }));
        if out.over {
            return Err(RenderError::TooLarge { max_bytes });
        }
        let fail = |message: String, position| RenderError::Template {
            template: self.name.clone(),
            message,
            position,
        };
        match rendered {
            Err(_) => return Err(fail("the template engine failed on it".to_owned(), None)),
            Ok(Err(error)) => {
                return Err(fail(explain(error.reason()), error.line_no.zip(error.column_no)));
            }
            Ok(Ok(())) => {}
        }
        if self.escape == Escape::Json {
            serde_json::from_slice::<IgnoredAny>(&out.bytes)
                .map_err(|source| RenderError::NotJson { template: self.name.clone(), source })?;
        }
        Ok(out.bytes)
    }
}

/// In our words, and never with a value of the row.
fn explain(reason: &RenderErrorReason) -> String {
    match reason {
        RenderErrorReason::MissingVariable(Some(path)) => {
            format!("there is no field {path}; where it may be missing, write {{{{default {path} \"…\"}}}}")
        }
        RenderErrorReason::MissingVariable(None) => "a field it names is not there".to_owned(),
        RenderErrorReason::ParamNotFoundForIndex(helper, index) => {
            format!("argument {} of {helper} is missing", index + 1)
        }
        RenderErrorReason::InvalidJsonIndex(index) => format!("a list has no element {index:?}"),
        RenderErrorReason::Other(message) => message.clone(),
        _ => "it cannot be rendered with this row".to_owned(),
    }
}

struct Capped {
    bytes: Vec<u8>,
    max_bytes: usize,
    over: bool,
}

impl Write for Capped {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > self.max_bytes {
            self.over = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
