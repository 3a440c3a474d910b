//! Rendering: from a change to the bytes that are sent.
//!
//! ```text
//!   Change ─▶ write_data ─▶ data bytes ─┬─▶ Renderer (standard) ─▶ body of webhook a
//!             once per change           ├─▶ Renderer (sequin)   ─▶ body of webhook b
//!                                       └─▶ Renderer (template) ─▶ body of webhook c
//! ```
//!
//! `data` is made once and shared: `standard`, `cloudevents` and `raw` copy its bytes, `supabase` and `sequin` its parts,
//! so every value keeps the exact form the decoder gave it; `xml` and `form` write each value's text. A template sees the
//! standard body's fields.
//!
//! A body, and the headers that its format has beside it, are rendered once and its bytes never change (invariant I4). A template that fails on a row makes that delivery
//! `failed` with the reason and nothing else (I8); reasons name templates, places and fields, never values.

#[cfg(test)]
mod bound_tests;
mod budget;
mod data;
mod escape;
mod fields;
mod form;
mod formats;
#[cfg(test)]
mod golden;
mod helpers;
mod prepare;
mod print;
mod scan;
mod template;
#[cfg(test)]
mod tests;
mod xml;

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::domain::{BodyShape, Event, FailReason, Format, TemplateSource};
pub use data::{write_data, write_message_data, write_notice_data, write_schema_data};
use template::Template;
pub use template::{TemplateError, check_template};

/// Why a body could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The body would be over the limit.
    #[error("the body is over {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// The template failed on the row.
    #[error("template {template}: {}{message}", template::place(*.position))]
    Template {
        /// The template.
        template: Arc<str>,
        /// What went wrong.
        message: String,
        /// Line and column in the template, from 1, where they are known.
        position: Option<(usize, usize)>,
    },
    /// The content type promises JSON and the template made something else of the row.
    #[error(
        "template {template}: with this row it makes no valid JSON ({source}); print values with {{{{json …}}}}, or inside quotes"
    )]
    NotJson {
        /// The template.
        template: Arc<str>,
        /// Where in the body, and why.
        source: serde_json::Error,
    },
    /// The data handed in is not what [`write_data`] makes.
    #[error("the event's data cannot be read")]
    Data(#[source] serde_json::Error),
}

impl RenderError {
    /// Why the delivery is given up.
    pub fn reason(&self) -> FailReason {
        match self {
            Self::TooLarge { .. } => FailReason::TooLarge(self.to_string()),
            _ => FailReason::NotRendered(self.to_string()),
        }
    }
}

/// Every template, compiled. The default has none.
#[derive(Debug, Default)]
pub struct Templates {
    by_name: FxHashMap<Arc<str>, Arc<Template>>,
}

impl Templates {
    /// Compiles all, or tells every one that cannot be used, by name.
    pub fn compile_all(sources: &[TemplateSource]) -> Result<Self, Vec<(Arc<str>, TemplateError)>> {
        let (mut by_name, mut errors) = (FxHashMap::default(), Vec::new());
        for source in sources {
            match Template::compile(source) {
                Ok(template) => {
                    by_name.insert(source.name.clone(), Arc::new(template));
                }
                Err(error) => errors.push((source.name.clone(), error)),
            }
        }
        if errors.is_empty() { Ok(Self { by_name }) } else { Err(errors) }
    }

    /// Takes one of another's in, under a name of its own here.
    pub fn take_in(&mut self, name: &Arc<str>, from: &Self, named: &str) {
        let found = from.by_name.get(named).map(Arc::clone);
        self.by_name.extend(found.map(|template| (Arc::clone(name), template)));
    }

    /// Takes the one of a name out, where there is one.
    pub fn leave_out(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// What makes bodies of a shape; nothing where the shape names a template that is not there.
    pub fn renderer(&self, shape: &BodyShape) -> Option<Renderer> {
        let kind = match shape {
            BodyShape::Format(format) => Kind::Format(*format),
            BodyShape::Template(name) => Kind::Template(self.by_name.get(name)?.clone()),
        };
        Some(Renderer { kind })
    }
}

/// What is made of an event, once: no attempt makes it anew (invariant I4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The body.
    pub body: Bytes,
    /// The headers that the format has beside `content-type`, a line `name: value` each, in visible ASCII.
    pub headers: Option<Arc<str>>,
}

/// Makes the bodies of a webhook. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Renderer {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Format(Format),
    Template(Arc<Template>),
}

impl Renderer {
    /// The bodies' media type.
    pub fn content_type(&self) -> &str {
        match &self.kind {
            Kind::Format(format) => formats::content_type(*format),
            Kind::Template(template) => &template.content_type,
        }
    }

    /// Makes a body of at most `max_bytes` from an event and the bytes that [`write_data`] made of its change.
    pub fn render(
        &self,
        event: &Event,
        data: &[u8],
        webhook: &str,
        max_bytes: usize,
    ) -> Result<Rendered, RenderError> {
        let (body, headers) = match &self.kind {
            Kind::Format(format) => {
                formats::render(*format, event, data, webhook).map_err(RenderError::Data)?
            }
            Kind::Template(template) => {
                let fields = fields::fields(event, data, webhook).map_err(RenderError::Data)?;
                (template.render(fields, data.len(), max_bytes)?, None)
            }
        };
        if body.len() > max_bytes {
            return Err(RenderError::TooLarge { max_bytes });
        }
        Ok(Rendered { body: body.into(), headers })
    }
}
