//! Why a backfill cannot be done, told as Postgres tells it: primary, detail, hint.

use crate::ledger::LedgerError;
use crate::postgres::{ConnectError, Nature};
use crate::source::SetupError;
use crate::telemetry::{chain, may_quote_rows, name_of, server_words};

/// Why a backfill cannot be asked for, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// The database cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A statement failed.
    #[error("cannot {doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// The server's word.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A statement failed that reads rows. The server's word is left out: it may quote them, and a function that a condition
    /// calls can raise what it likes.
    #[error("cannot read the table's rows")]
    Rows {
        /// The SQLSTATE.
        code: String,
    },
    /// A key is no value of the key's columns.
    #[error("no row of table {table} can have this key")]
    Key {
        /// Its name, quoted.
        table: String,
        /// The SQLSTATE.
        code: String,
    },
    /// The catalog does not tell the table's columns.
    #[error(transparent)]
    Table(Box<SetupError>),
    /// There is no such table.
    #[error("there is no table {table} that could be backfilled")]
    NoTable {
        /// Its name, quoted.
        table: String,
    },
    /// Nothing tells the table's rows apart.
    #[error("table {table} has no key to read it by")]
    NoKey {
        /// Its name, quoted.
        table: String,
    },
    /// The stream does not carry all its changes.
    #[error("publication \"{publication}\" does not carry the updates and deletes of table {table}")]
    NotPublished {
        /// Its name, quoted.
        table: String,
        /// Where they should be.
        publication: String,
    },
    /// The order of its key's values cannot be asked for by name.
    #[error("walhook's role may not use schema {schema}, whose operators sort the key of table {table}")]
    NoUsage {
        /// The table's name, quoted.
        table: String,
        /// The schema's, quoted.
        schema: String,
    },
    /// The condition is no SQL condition on the table's columns.
    #[error("the condition cannot be used: {problem}")]
    Condition {
        /// What is wrong with it.
        problem: String,
    },
    /// The webhook does not take the table's rows.
    #[error("webhook \"{webhook}\" takes no event \"{event_type}\"")]
    NotWanted {
        /// The webhook.
        webhook: String,
        /// What existing rows come as.
        event_type: String,
    },
    /// The webhook is declared no more.
    #[error("webhook \"{webhook}\" is no longer declared")]
    NoWebhook {
        /// The webhook.
        webhook: String,
    },
    /// The mark of a page did not come back in the stream.
    #[error("the stream did not bring back a mark that was written into it")]
    NoMark,
}

/// What walhook's role needs of a table.
const RIGHTS: &str = "GRANT SELECT on the table, and EXECUTE on what its --where calls, to walhook's role; where the table has \
                      row level security, also: ALTER ROLE … BYPASSRLS; (what its policies hide would be missing without a word).";

impl BackfillError {
    /// A statement that reads rows failed.
    pub(super) fn of_rows(source: tokio_postgres::Error) -> Self {
        match source.as_db_error() {
            Some(db) => Self::Rows { code: db.code().code().to_owned() },
            None => Self::Query { doing: "read the table's rows", source },
        }
    }

    /// Names what was being done when a statement failed.
    pub(super) fn query(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Query { doing, source }
    }

    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => error.nature() == Nature::Transient,
            Self::Ledger(error) => error.is_transient(),
            Self::Query { source, .. } => source.as_db_error().is_none_or(|db| is_passing(db.code().code())),
            Self::Rows { code } => is_passing(code),
            Self::Table(error) => error.nature() == Nature::Transient,
            Self::NoMark => true,
            _ => false,
        }
    }

    /// What is known beyond the primary message.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.detail(),
            Self::Query { source, .. } => Some(told(source)),
            Self::Rows { code } | Self::Key { code, .. } => {
                Some(format!("{} (SQLSTATE {code})", name_of(code)))
            }
            Self::Ledger(error) => std::error::Error::source(error).map(crate::telemetry::chain),
            Self::Table(error) => error.detail(),
            Self::NotPublished { .. } => {
                Some("A row that changes while it is being read would be sent as it was.".to_owned())
            }
            Self::NotWanted { event_type, .. } => {
                Some(format!("Existing rows come as \"{event_type}\", with the operation \"snapshot\"."))
            }
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Connect(error) => return error.hint(),
            Self::Ledger(error) => return error.hint(),
            Self::Table(error) => return error.hint(),
            Self::Query { source, .. } => match source.code().map(tokio_postgres::error::SqlState::code) {
                Some("42501") => RIGHTS,
                _ => return None,
            },
            Self::Rows { code } => match code.as_str() {
                "42501" => RIGHTS,
                "57014" => "Its --where needs an index, or cannot be answered within a minute.",
                "25006" => "A condition can change nothing: rows are read in a transaction that only reads.",
                code if may_quote_rows(code) => {
                    "Its --where fails on a row: the server's message quotes the row and is not told. Try the condition in psql."
                }
                _ => return None,
            },
            Self::Key { .. } => "Give each column of the key as its type is written, with commas between.",
            Self::NoTable { .. } => {
                "A table is written orders (in schema public) or shop.orders; partitions are read through their root, \
                 views, foreign, unlogged and temporary tables not at all."
            }
            Self::NoKey { .. } => {
                "Add a primary key, or a unique index on columns that are not null and run: ALTER TABLE … REPLICA \
                 IDENTITY USING INDEX …;"
            }
            Self::NotPublished { table, publication } => {
                return Some(format!(
                    "The running instance adds the tables its webhooks take, where it may; else let an owner run: ALTER \
                     PUBLICATION {} ADD TABLE {table};",
                    super::table::quoted(publication)
                ));
            }
            Self::NoUsage { schema, .. } => {
                return Some(format!("Let an owner run: GRANT USAGE ON SCHEMA {schema} TO walhook's role;"));
            }
            Self::Condition { .. } => {
                "--where is what would follow WHERE: SQL over the table's columns, such as \"status = 'paid'\"."
            }
            Self::NotWanted { event_type, .. } => {
                return Some(format!("Add \"{event_type}\" to the webhook's events."));
            }
            Self::NoWebhook { .. } => "Declare it again and resume the backfill, or cancel it.",
            Self::NoMark => return None,
        };
        Some(text.to_owned())
    }
}

/// Whether it may pass by itself. A statement that took too long takes too long again.
fn is_passing(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    code != "57014"
        && (matches!(class, "08" | "40" | "53" | "57" | "58") || matches!(code, "55P03" | "25P03" | "25P04"))
}

/// What the server said, where that cannot quote a row.
fn told(error: &tokio_postgres::Error) -> String {
    let words = |db: &tokio_postgres::error::DbError| server_words(db.code().code(), db.message()).to_owned();
    error.as_db_error().map_or_else(|| chain(error), words)
}

/// What the server said, without the statement.
pub(super) fn said(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
}
