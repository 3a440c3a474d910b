//! The webhooks, from file and database, compiled into one immutable [`Snapshot`] behind a watch.
//!
//! Whoever works takes the newest snapshot at a boundary of its own (intake: a transaction's begin) and keeps it as
//! long as it needs; nobody sees half a change. A webhook of the database that cannot be used is set aside with its
//! reason and hurts no other (invariant I8); a file that cannot be used is refused as a whole, and the one before
//! goes on. So is a webhook whose template of the database ([`templates`]) cannot be used. What is encrypted in a row is opened when the row is checked ([`sealed`]), and stays encrypted everywhere else.

pub mod anew;
#[cfg(test)]
mod bad_input_tests;
mod compile;
mod load;
mod sealed;
mod templates;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use compile::{
    Compiler, check_row, compile_file, compile_with, conditions_complaint, policy, reach_complaint,
    template_complaint, tenants_policy, unverified,
};
pub use load::{Rows, load, load_of, templates_after, with_texts_apart};
pub use sealed::{Standing, opened, sealed_anew, secrets_in, secrets_text, standings};
pub use templates::{Shelf, check_template_row};
pub use watch::{Before, Watcher, tell_unverified, watch};

use crate::domain::Webhook;
use crate::ledger::states::WebhookState;
use crate::matcher::Matcher;
use crate::render::Renderer;
use crate::sign::{JwtSigner, Signer};
use crate::transport::Route;

/// A webhook, ready to be sent to.
#[derive(Debug)]
pub struct Compiled {
    /// Its declaration.
    pub webhook: Arc<Webhook>,
    /// Signs its requests.
    pub signer: Signer,
    /// Makes its tokens, where it has any of its own.
    pub jwt: Option<JwtSigner>,
    /// The way to its receiver, where it has one of its own.
    pub route: Option<Route>,
    /// Makes its bodies.
    pub renderer: Renderer,
}

/// A webhook of the database that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Its name.
    pub webhook: String,
    /// Every problem it has.
    pub reason: String,
}

/// All webhooks at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    webhooks: Vec<Arc<Compiled>>,
    by_name: FxHashMap<Arc<str>, usize>,
    /// Finds what a change owes; its indices are those of [`Snapshot::webhook`].
    pub matcher: Matcher,
    /// Webhooks of the database that are set aside.
    pub invalid: Vec<Invalid>,
    /// The templates of the database.
    pub shelf: Arc<Shelf>,
}

/// What the catalog publishes: declarations and states together.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The webhooks.
    pub snapshot: Arc<Snapshot>,
    /// Those that are not active.
    pub states: Arc<HashMap<Arc<str>, WebhookState>>,
    /// The version of the database's part that was read.
    pub version: i64,
}

impl Snapshot {
    /// All webhooks.
    pub fn webhooks(&self) -> &[Arc<Compiled>] {
        &self.webhooks
    }

    /// The webhook of an index that the matcher gave.
    pub fn webhook(&self, index: usize) -> Option<&Arc<Compiled>> {
        self.webhooks.get(index)
    }

    /// The index of the webhook of a name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The webhook of a name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Compiled>> {
        self.webhooks.get(*self.by_name.get(name)?)
    }
}
