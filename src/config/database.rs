//! `[database]`: what is tailed, and what walhook keeps there.

use secrecy::SecretString;

use super::names;
use super::node::{Node, Table};

/// The database whose changes become webhooks.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its connection string.
    pub url: SecretString,
    /// The replication slot; a valid name of one.
    pub slot: String,
    /// The publication; at most 63 bytes.
    pub publication: String,
    /// The schema of the ledger and of the webhooks in the database; at most 63 bytes, not `public`.
    pub schema: String,
    /// Whether walhook may create and alter the publication. If not, it checks it, and says what an owner must run.
    pub manage_publication: bool,
    /// What to do when the slot is gone or unusable.
    pub on_slot_lost: OnSlotLost,
    /// Whether the slot is copied to standbys, so that it is there when one is promoted; Postgres 17 and later.
    pub slot_failover: bool,
    /// What to do when the log has forked and the slot is no synchronized copy.
    pub on_timeline_change: OnTimelineChange,
}

/// What to do when Postgres has lost the slot, and with it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSlotLost {
    /// Stop, and say so.
    #[default]
    Fail,
    /// Record the gap, make a new slot, go on.
    Recreate,
}

/// What to do when the server is on another timeline than before and its slot was not synchronized from the primary, or
/// when its log ends before what the ledger holds: a backup was restored, or a standby promoted that had no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTimelineChange {
    /// Stop, and say so.
    #[default]
    Fail,
    /// Go on from the slot's position, with new ids from the fork on.
    Continue,
}

pub(super) fn read(mut table: Table<'_>) -> Option<Database> {
    let name = |node: Node<'_>| node.parse("a name, as a string", names::identifier);
    let url = table.require("url", "the connection string of the database to tail", connection);
    let slot = table.get("slot", |node| node.parse("a name, as a string", names::slot));
    let publication = table.get("publication", name);
    let schema = table.get("schema", |node| node.parse("a name, as a string", names::own_schema));
    let manage_publication = table.get("manage_publication", Node::boolean);
    let losses = [("fail", OnSlotLost::Fail), ("recreate", OnSlotLost::Recreate)];
    let on_slot_lost = table.get("on_slot_lost", |node| node.word(&losses));
    let slot_failover = table.get("slot_failover", Node::boolean);
    let changes = [("fail", OnTimelineChange::Fail), ("continue", OnTimelineChange::Continue)];
    let on_timeline_change = table.get("on_timeline_change", |node| node.word(&changes));
    table.finish();
    Some(Database {
        url: url?,
        slot: slot.unwrap_or_else(|| "walhook".to_owned()),
        publication: publication.unwrap_or_else(|| "walhook".to_owned()),
        schema: schema.unwrap_or_else(|| "walhook".to_owned()),
        manage_publication: manage_publication.unwrap_or(true),
        on_slot_lost: on_slot_lost.unwrap_or_default(),
        slot_failover: slot_failover.unwrap_or_default(),
        on_timeline_change: on_timeline_change.unwrap_or_default(),
    })
}

/// A connection string, which the injected check accepts.
pub(super) fn connection(node: Node<'_>) -> Option<SecretString> {
    let (doc, path) = (node.doc, node.path.clone());
    let url = node.secret()?;
    let complaint = (doc.checks.connection)(secrecy::ExposeSecret::expose_secret(&url)).err();
    if let Some(complaint) = &complaint {
        doc.complain(&path, "connection string", "", complaint);
    }
    complaint.is_none().then_some(url)
}
