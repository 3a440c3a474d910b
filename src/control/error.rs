//! What keeps a verb from being done, told as Postgres tells it: primary, detail, hint.

use std::error::Error;

use jiff::Timestamp;

use crate::backfill::BackfillError;
use crate::config::Problems;
use crate::ledger::LedgerError;
use crate::postgres::{ConnectError, ServerError, told};
use crate::render::RenderError;
use crate::seal::SealError;
use crate::sign::MakeError;
use crate::source::{SetupError, SourceError};
use crate::telemetry::chain;
use crate::transport::TransportError;

/// Why a verb cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The configuration has problems.
    #[error("{0}")]
    Config(#[from] Problems),
    /// A connection string cannot be used.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Postgres cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The database cannot be a source.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The replication link cannot be had, or ended for good.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Existing rows cannot be delivered.
    #[error(transparent)]
    Backfill(#[from] BackfillError),
    /// The backfill is in no state for that.
    #[error("backfill {id} cannot be {what}")]
    NotSteerable {
        /// Its number.
        id: i64,
        /// `paused`, `resumed` or `cancelled`.
        what: &'static str,
        /// Its state.
        status: &'static str,
    },
    /// The retry is over already.
    #[error("retry {id} cannot be cancelled")]
    RetryOver {
        /// Its number.
        id: i64,
        /// Its state.
        status: String,
    },
    /// The HTTP client cannot be made.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Event patterns that nothing can match.
    #[error("{0}")]
    Patterns(String),
    /// The webhooks cannot be compiled.
    #[error("the webhooks cannot be compiled: {0}")]
    Compile(String),
    /// A body cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// walhook has never run here.
    #[error("there is no ledger in schema \"{schema}\"")]
    NoLedger {
        /// Where it would be.
        schema: String,
    },
    /// A tenant asks for what is the operator's.
    #[error("this is the operator's alone")]
    Operators,
    /// Nothing of this name.
    #[error("there is no {what} \"{name}\"")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// Its name as it was given.
        name: String,
        /// The nearest name that there is.
        nearest: Option<String>,
    },
    /// The delivery is not a dead letter that can be sent again.
    #[error("delivery {id} cannot be sent again")]
    NotReplayable {
        /// The delivery.
        id: String,
        /// Why not.
        reason: String,
    },
    /// Somebody has sent the delivery again a moment ago.
    #[error("delivery {id} was sent again at {at}")]
    SentAgain {
        /// The delivery.
        id: String,
        /// When.
        at: Timestamp,
        /// Attempts made by now.
        made: u32,
    },
    /// The delivery is not as whoever asks has seen it.
    #[error("delivery {id} is not as you have seen it")]
    SentMeanwhile {
        /// The delivery.
        id: String,
        /// Attempts that were known of.
        known: u32,
        /// Attempts made.
        made: u32,
    },
    /// An equal retry is not over.
    #[error("retry {id} of webhook \"{webhook}\" sends the same, and is not over")]
    SameRetry {
        /// The retry.
        id: i64,
        /// The webhook.
        webhook: String,
    },
    /// No instance streams.
    #[error("no walhook is running: nobody streams from slot \"{slot}\"")]
    NotRunning {
        /// The slot.
        slot: String,
    },
    /// The webhook takes nothing now.
    #[error("webhook \"{webhook}\" is {state}: {reason}")]
    Suspended {
        /// The webhook.
        webhook: String,
        /// `paused` or `disabled`.
        state: &'static str,
        /// Why.
        reason: String,
    },
    /// The webhook's row cannot be used.
    #[error("webhook \"{webhook}\" cannot be used")]
    Unusable {
        /// The webhook.
        webhook: String,
        /// Every problem of its row.
        reason: String,
    },
    /// The webhook stands in the file, which is not ours to write.
    #[error("webhook \"{webhook}\" is declared in {path}")]
    OfFile {
        /// The webhook.
        webhook: String,
        /// The file.
        path: String,
        /// What to do there.
        remedy: String,
    },
    /// There is no room for another secret.
    #[error("webhook \"{webhook}\" has {count} older secrets without an end")]
    TooManySecrets {
        /// The webhook.
        webhook: String,
        /// How many.
        count: usize,
    },
    /// Nothing can be encrypted without a key.
    #[error("security.encryption_key is not set")]
    NoEncryptionKey,
    /// A secret cannot be encrypted.
    #[error("the secret cannot be encrypted: {0}")]
    Seal(#[from] SealError),
    /// A secret cannot be made.
    #[error("a secret cannot be made: {0}")]
    Make(#[from] MakeError),
    /// The data given for an event cannot be used.
    #[error("the event's data cannot be used: {problem}")]
    Data {
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such row.
    #[error("{problem}")]
    Key {
        /// What is wrong with the key.
        problem: String,
    },
    /// The file with the event's data cannot be read.
    #[error("cannot read {path}")]
    Input {
        /// Which file; `-` is standard input.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What somebody wants to declare has problems.
    #[error("{0}")]
    Declaration(Problems),
    /// A value that was given cannot be used.
    #[error("{key}: {problem}")]
    Value {
        /// Which one.
        key: &'static str,
        /// What is wrong with it: lower case, without a full stop.
        problem: String,
    },
    /// The name is taken.
    #[error("there is a {what} \"{name}\" already")]
    Exists {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The file declares it, and only the file changes it.
    #[error("{what} \"{name}\" is declared in {path}")]
    ReadOnly {
        /// `webhook` or `template`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The file.
        path: String,
    },
    /// Somebody else has changed it since.
    #[error("{what} \"{name}\" was changed since it was read")]
    Stale {
        /// `webhook` or `template`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Webhooks need it.
    #[error("{what} \"{name}\" is used by {}", webhooks.join(", "))]
    InUse {
        /// `template`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The first of the webhooks.
        webhooks: Vec<String>,
    },
    /// The webhook is in no state for that.
    #[error("webhook \"{name}\" cannot be {what}")]
    NotSo {
        /// The webhook.
        name: String,
        /// `resumed`.
        what: &'static str,
        /// Its state.
        status: &'static str,
    },
    /// The delivery is not one that waits.
    #[error("delivery {id} cannot be cancelled")]
    NotCancellable {
        /// The delivery.
        id: String,
        /// Why not.
        reason: String,
    },
    /// Another request was made under the same key.
    #[error("the Idempotency-Key was used for another request")]
    OtherRequest,
    /// There are as many as there may be.
    #[error("there are {most} {what} already, which is the most")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        most: i64,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
    /// The slot cannot be dropped while somebody streams from it.
    #[error("an instance streams from slot \"{slot}\"")]
    SlotBusy {
        /// The slot.
        slot: String,
        /// The server process that holds it.
        pid: i32,
    },
}

impl ControlError {
    /// What is known beyond the primary message.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.detail(),
            Self::Setup(error) => error.detail(),
            Self::Source(error) => error.detail(),
            Self::Ledger(LedgerError::Connect(error)) => Some(chain(error)),
            Self::Ledger(error) => source_of(error),
            Self::Transport(error) => source_of(error),
            Self::Backfill(error) => error.detail(),
            Self::NotSteerable { status, .. } | Self::NotSo { status, .. } => {
                Some(format!("It is {status}."))
            }
            Self::RetryOver { status, .. } => Some(format!("It is {status}.")),
            Self::SentMeanwhile { known, made, .. } => {
                Some(format!("Of it {made} attempts were made, not {known}."))
            }
            Self::Input { source, .. } => Some(source.to_string()),
            Self::NotReplayable { reason, .. }
            | Self::NotCancellable { reason, .. }
            | Self::Unusable { reason, .. } => Some(reason.clone()),
            Self::SlotBusy { pid, .. } => Some(format!("It is active for PID {pid}.")),
            Self::Data { .. } => Some(
                "It is a JSON object with \"record\" (an object or null) and, as you like, \"old\", \"changed\", \
                 \"unavailable\", \"operation\", \"schema\", \"table\" (or, for a table's new shape, \"schema_change\"); or a whole standard body with these in \"data\"."
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Server(error) => return Some(error.hint()),
            Self::Connect(error) => return error.hint(),
            Self::Setup(error) => return error.hint(),
            Self::Source(error) => return error.hint(),
            Self::Ledger(error) => return error.hint(),
            Self::Backfill(error) => return error.hint(),
            Self::Compile(_) => "`walhook check` lists every problem.",
            Self::NoLedger { .. } => {
                "`walhook run` makes it at its first start. Or name the right place in database.schema and ledger.url."
            }
            Self::Unknown { nearest: Some(nearest), .. } => {
                return Some(format!("Perhaps you meant \"{nearest}\"."));
            }
            Self::Unknown { what: "backfill", .. } => "`walhook backfill --list` lists them.",
            Self::Unknown { what: "template", .. } => {
                "Templates are declared in the file, as [templates.NAME], or kept in the database: `walhook templates` lists both."
            }
            Self::Unknown { what: "event type", .. } => "GET /api/events lists them.",
            Self::Unknown { what: "key", .. } => "`walhook keys list` lists them.",
            Self::ReadOnly { .. } => "Change it there; SIGHUP has the file read again.",
            Self::InUse { .. } => "Give them another template, or pin them to another version, first.",
            Self::Stale { .. } => "Read it again, and make the change to what it is now.",
            Self::OtherRequest => "Take a new key for each request that is not a repetition.",
            Self::Unknown { what: "webhook", .. } => "`walhook status` lists the webhooks.",
            Self::NotReplayable { .. } => {
                "Only deliveries that have ended and whose body was kept, or can be made, can be sent again."
            }
            Self::SentAgain { made, .. } => {
                return Some(format!(
                    "Look at what became of it. To send it once more at once, say how many attempts you know of: \
                     `\"attempts\": {made}` (--attempts {made})."
                ));
            }
            Self::SentMeanwhile { .. } => "Look at what became of it, and ask again if you still mean it.",
            Self::SameRetry { id, webhook } => {
                return Some(format!(
                    "GET /api/webhooks/{webhook}/retry/{id} says how far it is; POST …/retry/{id}/cancel ends it."
                ));
            }
            Self::NotRunning { .. } => "Start `walhook run`, and try again.",
            Self::Suspended { webhook, .. } => {
                return Some(format!("Run `walhook enable {webhook}` first."));
            }
            Self::Key { .. } => {
                "A row is named orders:7, by its primary key; orders alone is the last row by that key."
            }
            Self::OfFile { remedy, .. } => return Some(remedy.clone()),
            Self::TooManySecrets { .. } => {
                "Take some of them out of the column secret, which is a JSON array; `walhook webhooks reveal` shows them."
            }
            Self::NoEncryptionKey => {
                "Make a key with: openssl rand -base64 32, and write security.encryption_key = { env = \"NAME\" } or \
                 { file = \"…\" }."
            }
            Self::Seal(error) => error.hint(),
            Self::Make(_) => "See what is wrong with the system's random source, getrandom(2).",
            Self::Unusable { .. } => "Correct its row, or the setting that the reason names.",
            Self::SlotBusy { .. } => "Stop `walhook run`, and try again. Nothing was removed.",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The message for people: every line of it.
    pub fn tell(&self) -> String {
        told(self, self.detail().as_deref(), self.hint().as_deref())
    }
}

fn source_of(error: &dyn Error) -> Option<String> {
    error.source().map(chain)
}
