//! The shapes that the `OpenAPI` document describes and no type of ours has: a webhook travels as the object that it is
//! declared as, and is judged by the readers of the configuration.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A webhook: what is declared of it, by the names that `[[webhooks]]` of the file has, and how it stands.
///
/// What is secret is shown as `***`: `secret`, the values of `headers`, of the url's query, and of `auth` and `tls`. Where
/// `***` is written back in its place, what is stored stays. Of a webhook of the file only the origin of its url is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The name again: what the paths have.
    #[schema(read_only)]
    id: Option<String>,
    /// Unique and stable; deliveries' ids go by it.
    #[schema(example = "crm", max_length = 100)]
    name: Option<String>,
    /// Whose it is: it gets events of rows of this tenant alone, and is named `TENANT~NAME`. Absent: the operator's. A
    /// tenant's key makes those of its tenant, whether it says so or not.
    #[schema(max_length = 98)]
    tenant: Option<String>,
    /// For people.
    #[schema(max_length = 1000)]
    description: Option<String>,
    /// For programs: any object, up to 16 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Where deliveries go. `https`, and not into a private network, unless `[security]` allows it.
    #[schema(example = "https://crm.example.com/hooks", max_length = 2048)]
    url: Option<String>,
    /// What it signs with: one secret, or a list. Absent at creation: one is made, and shown in that answer alone. Null:
    /// it does not sign.
    #[schema(value_type = Option<Secrets>)]
    secret: Option<Value>,
    /// Event types, with `*` for any run of characters.
    #[schema(example = json!(["orders.*"]))]
    events: Option<Vec<String>>,
    /// A CEL condition on the row.
    #[schema(example = "record.total > 100")]
    filter: Option<String>,
    /// Headers added to each request.
    headers: Option<BTreeMap<String, String>>,
    /// The body's format.
    #[schema(example = "standard")]
    format: Option<String>,
    /// The format's version.
    format_version: Option<u32>,
    /// A template, instead of a format: `slack` for the latest, `slack@v1` for a version of it.
    template: Option<String>,
    /// `none`, `gzip` or `zstd`.
    compression: Option<String>,
    /// From which size on bodies are compressed.
    #[schema(example = "1KiB")]
    compression_threshold: Option<String>,
    /// How long a whole attempt may take.
    #[schema(example = "15s")]
    timeout: Option<String>,
    /// Requests in flight: a number, or `auto`.
    #[schema(value_type = Option<Concurrency>)]
    concurrency: Option<Value>,
    /// `row`, `none` or `strict`.
    ordering: Option<String>,
    /// When to try again, and when to give up: a table, or the name of a preset.
    #[schema(value_type = Option<TableOrWord>)]
    retry: Option<Value>,
    /// How much may leave: `100/s`.
    rate_limit: Option<String>,
    /// When a failing receiver is left alone: a table, or false.
    #[schema(value_type = Option<TableOrFalse>)]
    breaker: Option<Value>,
    /// After how long of nothing but failures it is disabled: a duration, or false.
    #[schema(value_type = Option<WordOrFalse>)]
    disable_after: Option<Value>,
    /// How long what it is owed is held while it is suspended.
    held_for: Option<String>,
    /// Several deliveries in one request: a table, or false.
    #[schema(value_type = Option<TableOrFalse>)]
    batch: Option<Value>,
    /// Within how long a delivery is in time, for the numbers.
    sla: Option<String>,
    /// How walhook proves itself beside signatures.
    #[schema(value_type = Option<Object>)]
    auth: Option<Value>,
    /// Another signature beside that of Standard Webhooks: a name, or a table.
    #[schema(value_type = Option<TableOrWord>)]
    signature: Option<Value>,
    /// How connections are made.
    #[schema(value_type = Option<Object>)]
    tls: Option<Value>,
    /// `file` or `database`; one of the file is read-only here.
    #[schema(read_only)]
    source: Option<String>,
    /// `active`, `failing`, `paused`, `disabled`, or `unusable` where the row has mistakes.
    #[schema(read_only)]
    status: Option<String>,
    /// Why it is not active.
    #[schema(read_only)]
    reason: Option<String>,
    /// Since when it is not active.
    #[schema(read_only, value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Which version of the declaration this is; the `ETag` has it too.
    #[schema(read_only)]
    version: Option<i64>,
    /// Since when it is there.
    #[schema(read_only, value_type = Option<String>, format = DateTime)]
    created_at: Option<String>,
    /// When its declaration last changed.
    #[schema(read_only, value_type = Option<String>, format = DateTime)]
    updated_at: Option<String>,
}

/// One secret, or several, of which each signs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Secrets {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// A number, or `auto`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Concurrency {
    /// So many at most.
    Number(u32),
    /// As many as the receiver takes well.
    Auto(String),
}

/// A table of settings, or a word.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TableOrWord {
    /// A table.
    #[schema(value_type = Object)]
    Table(Value),
    /// A word.
    Word(String),
}

/// A table of settings, or false.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TableOrFalse {
    /// A table.
    #[schema(value_type = Object)]
    Table(Value),
    /// Off.
    False(bool),
}

/// A duration, or false.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum WordOrFalse {
    /// A duration.
    Word(String),
    /// Off.
    False(bool),
}

/// A page of webhooks.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookPage {
    /// In the order of names.
    data: Vec<Webhook>,
    /// Where the next page begins; null: there is no more.
    next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::PartialSchema as _;

    use super::*;
    use crate::control::webhooks::READ_ONLY;
    use crate::ledger::webhooks::COLUMNS;

    #[test]
    fn a_webhook_is_described_with_every_column_and_nothing_else() {
        let schema = serde_json::to_value(Webhook::schema()).unwrap();
        let told: BTreeSet<&str> =
            schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(told, COLUMNS.into_iter().chain(READ_ONLY).collect());
        for name in READ_ONLY {
            assert_eq!(schema["properties"][name]["readOnly"], true, "{name}");
        }
    }
}
