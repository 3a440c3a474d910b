//! What operators declare: webhooks, tables, named events, templates. All of it checked.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::{BatchPolicy, Flow, MaskKey, Reach, RetryPolicy, SigningSecret};

/// Who wrote a webhook, and so what it may target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookSource {
    /// The operator's file: private networks and plain http are allowed.
    Toml,
    /// The database or the API: `[security]` applies.
    Database,
    /// The same, and it is a tenant's: `[security.tenants]` applies.
    Tenant,
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

/// How bodies are compressed on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// By which coding; none: not at all.
    pub coding: Option<Coding>,
    /// Bodies of fewer bytes go as they are.
    pub threshold: usize,
}

/// A content coding (RFC 9110, 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// The value of `content-encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self { coding: None, threshold: 1024 }
    }
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
    /// `CloudEvents` 1.0 in HTTP's binary mode: attributes are headers, the body is `data`.
    CloudeventsBinary,
    /// That of Supabase database webhooks.
    Supabase,
    /// That of Sequin.
    Sequin,
    /// `data` alone.
    Raw,
    /// The standard body's fields as XML.
    Xml,
    /// The standard body's fields as a form (`application/x-www-form-urlencoded`).
    Form,
}

impl Format {
    /// Every version of every format, by the format's name. The shape of a version never changes: a format that changes
    /// gets another row here, and whoever does not ask for it keeps version 1.
    pub const VERSIONS: [(&'static str, u32, Self); 8] = [
        ("standard", 1, Self::Standard),
        ("cloudevents", 1, Self::Cloudevents),
        ("cloudevents-binary", 1, Self::CloudeventsBinary),
        ("supabase", 1, Self::Supabase),
        ("sequin", 1, Self::Sequin),
        ("raw", 1, Self::Raw),
        ("xml", 1, Self::Xml),
        ("form", 1, Self::Form),
    ];

    /// A version of the format of a name.
    pub fn named(name: &str, version: u32) -> Option<Self> {
        let found = Self::VERSIONS.iter().find(|(known, v, _)| *known == name && *v == version);
        found.map(|(_, _, format)| *format)
    }

    /// The versions of the format of a name, ascending; none where there is no such format.
    pub fn versions(name: &str) -> Vec<u32> {
        Self::VERSIONS.iter().filter(|(known, ..)| *known == name).map(|(_, version, _)| *version).collect()
    }
}

/// How a body is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BodyShape {
    /// By a built-in format.
    Format(Format),
    /// By the template of this name, or of this `name@version`.
    Template(Arc<str>),
}

/// What happens to a column's value before it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// Replaced by `"[redacted]"`.
    Redact,
    /// Replaced by the hex HMAC-SHA-256 of its text under `security.mask_key`, or its SHA-256 where there is no key: equal
    /// values stay equal.
    Hash,
    /// All but the end is replaced; of an e-mail address, all of the name but its first character.
    Partial,
    /// Replaced by null.
    Null,
}

/// A webhook, checked and ready to compile.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its name, unique over file and database.
    pub name: Arc<str>,
    /// Who wrote it.
    pub source: WebhookSource,
    /// Whose it is; `None`: the operator's. Its name says the same ([`super::tenant_of`]).
    pub tenant: Option<Arc<str>>,
    /// Where its deliveries go; http or https, with a host.
    pub url: Url,
    /// What it signs with; the first also makes `x-webhook-signature`. Empty: unsigned.
    pub secrets: Vec<SigningSecret>,
    /// The event types it wants, with `*` for any run of characters.
    pub events: Vec<String>,
    /// A CEL condition on the row.
    pub filter: Option<String>,
    /// Headers added to each request.
    pub headers: http::HeaderMap,
    /// How its bodies are made.
    pub body: BodyShape,
    /// How its bodies are compressed.
    pub compression: Compression,
    /// How long a whole attempt may take.
    pub timeout: Duration,
    /// How many requests may be in flight at most.
    pub concurrency: u32,
    /// Which deliveries wait for which.
    pub ordering: Ordering,
    /// When to try again, and when to give up.
    pub retry: RetryPolicy,
    /// Within which time after its commit a delivery should be there; for the numbers.
    pub sla: Duration,
    /// How its receiver is reached, and how walhook proves itself.
    pub reach: Reach,
    /// How much may leave, and when it is left alone.
    pub flow: Flow,
    /// How many share a request; `None`: each has its own.
    pub batch: Option<BatchPolicy>,
}

/// How an `int8` goes out, which has more digits than a float can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Int8 {
    /// As a JSON number.
    #[default]
    Number,
    /// As a string.
    String,
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
    /// The key of [`Mask::Hash`].
    pub mask_key: Option<MaskKey>,
    /// The column that says whose row it is.
    pub tenant: Option<String>,
    /// What tenants are told of a row that changes its owner.
    pub tenant_change: super::TenantChange,
    /// Of which operations tenants may be told: insert, update, delete.
    pub public: Vec<super::Operation>,
    /// The columns that identify a row in whichever partition it stands; empty: a move is a delete and an insert.
    pub fold_moves: Vec<String>,
    /// How its `int8` go out, where that is not as everywhere else.
    pub int8: Option<Int8>,
    /// What its rows are, in a sentence.
    pub description: Option<String>,
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
    /// What it tells, in a sentence.
    pub description: Option<String>,
    /// Whether tenants may be told of it.
    pub public: bool,
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
    /// Its name, or `name@version`.
    pub name: Arc<str>,
    /// The media type of what it makes.
    pub content_type: Arc<str>,
    /// Its text.
    pub body: String,
}
