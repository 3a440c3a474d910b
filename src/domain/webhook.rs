//! What operators declare: webhooks, tables, named events, templates. All of it checked.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::{Reach, RetryPolicy};

/// Who wrote a webhook, and so what it may target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookSource {
    /// The operator's file: private networks and plain http are allowed.
    Toml,
    /// The database or the API: `[security]` applies.
    Database,
}

/// Which deliveries of a webhook wait for which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// Those of one row, in commit order.
    #[default]
    Row,
    /// None.
    None,
    /// All, one at a time.
    Strict,
}

/// What the ledger keeps of a body once its delivery has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreBodies {
    /// Every body.
    #[default]
    All,
    /// Those of failed deliveries.
    Failed,
    /// None.
    None,
}

/// A body's built-in shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// walhook's own.
    #[default]
    Standard,
    /// `CloudEvents` 1.0, structured JSON.
    Cloudevents,
    /// That of Supabase database webhooks.
    Supabase,
    /// That of Sequin.
    Sequin,
    /// `data` alone.
    Raw,
}

/// How a body is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BodyShape {
    /// By a built-in format.
    Format(Format),
    /// By the template of this name.
    Template(Arc<str>),
}

/// What happens to a column's value before it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// Replaced by `"[redacted]"`.
    Redact,
    /// Replaced by the hex SHA-256 of its text: equal values stay equal.
    Hash,
}

/// A webhook, checked and ready to compile.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its name, unique over file and database.
    pub name: Arc<str>,
    /// Who wrote it.
    pub source: WebhookSource,
    /// Where its deliveries go; http or https, with a host.
    pub url: Url,
    /// The keys it signs with; the first also makes `x-webhook-signature`. Empty: unsigned.
    pub secrets: Vec<SecretString>,
    /// The event types it wants, with `*` for any run of characters.
    pub events: Vec<String>,
    /// A CEL condition on the row.
    pub filter: Option<String>,
    /// Headers added to each request.
    pub headers: http::HeaderMap,
    /// How its bodies are made.
    pub body: BodyShape,
    /// How long a whole attempt may take.
    pub timeout: Duration,
    /// How many requests may be in flight.
    pub concurrency: u32,
    /// Which deliveries wait for which.
    pub ordering: Ordering,
    /// When to try again, and when to give up.
    pub retry: RetryPolicy,
    /// How its receiver is reached, and how walhook proves itself.
    pub reach: Reach,
}

/// What is declared of a table (`[tables.NAME]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableRule {
    /// The schema; `public` where none is written.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The event type prefix, where it is not the table's name.
    pub event: Option<String>,
    /// Columns that never leave.
    pub exclude: Vec<String>,
    /// Columns that leave changed.
    pub mask: Vec<(String, Mask)>,
    /// The column that says whose row it is.
    pub tenant: Option<String>,
    /// The columns that identify a row in whichever partition it stands; empty: a move is a delete and an insert.
    pub fold_moves: Vec<String>,
}

/// An event beyond created, updated, deleted (`[[events]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEvent {
    /// Its type.
    pub event_type: Arc<str>,
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The operations it is about: insert, update, delete, truncate; or message alone, and then there is no table.
    pub on: Vec<super::Operation>,
    /// A CEL condition on the row.
    pub when: Option<String>,
}

impl NamedEvent {
    /// Whether it declares the type of a logical message.
    pub fn is_message(&self) -> bool {
        self.on.contains(&super::Operation::Message)
    }
}

/// A handlebars template (`[templates.NAME]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSource {
    /// Its name.
    pub name: Arc<str>,
    /// The media type of what it makes.
    pub content_type: Arc<str>,
    /// Its text.
    pub body: String,
}
