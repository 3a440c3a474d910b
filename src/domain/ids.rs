//! Names of events and deliveries (invariant I2).
//!
//! Both are pure functions of where a change stands in the log, so reading the log again makes the same ids, and
//! both sort, as text, in commit order. Layout, in base-32 digits `0-9a-v` (which sort as ASCII):
//!
//! ```text
//! evt_ gggg lllllllllllll ooooooo hhhhhhhhhh        38 characters
//! dlv_ gggg lllllllllllll ooooooo hhhhhhhhhhhh      40 characters
//!      │    │             │       └ fingerprint: what else makes it unique (database, named type, webhook)
//!      │    │             └ the change's place in its transaction
//!      │    └ commit LSN
//!      └ generation: a database that was restored or failed over may use an LSN twice
//! ```
//!
//! The name of a batch, `bat_` and 32 digits, is a fingerprint of the names of its deliveries in their order.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::CommitLsn;

const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// What stands for the event of a table's new shape, in the place of a named event's type: no type has a space.
///
/// It shares its place with the row change that showed the shape, and sorts before it: fifteen leading bits of its
/// fingerprints are zero.
pub const OF_SHAPE: &str = "schema change";

/// Characters of an id before its fingerprint.
const STEM: usize = 4 + 4 + 13 + 7;

/// Which log a position belongs to: a database system, and how often its log began anew or forked there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `system_identifier` of the cluster.
    pub system: u64,
    /// Counts the slots made for this database and the forks of its log, from 1.
    pub generation: u32,
}

/// The name of an event: the same change has the same one for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Arc<str>);

/// The name of a delivery, sent as `webhook-id`: the same at every attempt and after every restart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(Arc<str>);

/// Where a change stands: everything that orders it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which log.
    pub origin: Origin,
    /// Which transaction.
    pub commit: CommitLsn,
    /// Which change of it, from 1.
    pub sequence: u32,
}

fn digits(out: &mut String, value: u64, count: u32) {
    for place in (0..count).rev() {
        let digit = usize::try_from((value >> (5 * place)) & 31).unwrap_or(0);
        out.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'0')));
    }
}

fn fingerprint(system: u64, parts: [&str; 2]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(system.to_be_bytes());
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    u64::from_be_bytes(first)
}

/// A fingerprint of so many digits, made small for what comes first at its place.
fn first_or_any(named: &str, fingerprint: u64, count: u32) -> u64 {
    if named == OF_SHAPE { fingerprint & ((1 << (5 * (count - 3))) - 1) } else { fingerprint }
}

fn stem(prefix: &str, place: &Place) -> String {
    let mut text = String::with_capacity(40);
    text.push_str(prefix);
    digits(&mut text, u64::from(place.origin.generation), 4);
    digits(&mut text, place.commit.0.0, 13);
    digits(&mut text, u64::from(place.sequence), 7);
    text
}

impl EventId {
    /// The id of the event that a change makes; `named` is the type of an `[[events]]` entry, or empty for the
    /// change's own `created`, `updated`, `deleted`.
    pub fn of(place: &Place, named: &str) -> Self {
        let mut text = stem("evt_", place);
        digits(&mut text, first_or_any(named, fingerprint(place.origin.system, [named, ""]), 10), 10);
        Self(text.into())
    }
}

impl DeliveryId {
    /// The beginning of an id, which names its place: those of deliveries of one change begin alike.
    pub fn place_of(id: &str) -> &str {
        id.get(..STEM).unwrap_or(id)
    }

    /// The id of the delivery of a change's event to a webhook, by its name.
    pub fn of(place: &Place, named: &str, webhook: &str) -> Self {
        let mut text = stem("dlv_", place);
        digits(&mut text, first_or_any(named, fingerprint(place.origin.system, [named, webhook]), 12), 12);
        Self(text.into())
    }

    /// The name that several deliveries in one request go by: the same deliveries in the same order have the same one.
    pub fn of_batch<'d>(members: impl IntoIterator<Item = &'d Self>) -> Self {
        let mut hash = Sha256::new();
        for member in members {
            // No id has a line's end in it.
            hash.update(member.as_str());
            hash.update("\n");
        }
        let mut text = String::with_capacity(40);
        text.push_str("bat_");
        for five in hash.finalize().chunks_exact(5).take(4) {
            let bits = five.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
            digits(&mut text, bits, 8);
        }
        Self(text.into())
    }

    /// The end of the id: what it is made of beside its place.
    pub fn fingerprint(&self) -> &str {
        self.0.get(STEM..).unwrap_or_default()
    }

    /// The least id of all deliveries of transactions that commit after `commit`.
    pub fn floor_after(origin: Origin, commit: CommitLsn) -> Self {
        let next = CommitLsn(super::Lsn(commit.0.0.saturating_add(1)));
        Self(stem("dlv_", &Place { origin, commit: next, sequence: 0 }).into())
    }

    /// Where the ids of changes begin. Those of tests and notices, which no log told, are in generation zero.
    pub const FIRST_OF_LOGS: &'static str = "dlv_0001";

    /// Whether a change made it; else it is a test or a notice.
    pub fn is_of_a_log(&self) -> bool {
        self.as_str() >= Self::FIRST_OF_LOGS
    }

    /// An id as read back from the ledger.
    pub fn from_ledger(text: &str) -> Self {
        Self(text.into())
    }
}

impl EventId {
    /// An id as read back from the ledger.
    pub fn from_ledger(text: &str) -> Self {
        Self(text.into())
    }
}

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// As sent and stored.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
text_id!(EventId);
text_id!(DeliveryId);

#[cfg(test)]
mod tests {
    use super::super::Lsn;
    use super::*;

    fn place(generation: u32, commit: u64, sequence: u32) -> Place {
        Place { origin: Origin { system: 7, generation }, commit: CommitLsn(Lsn(commit)), sequence }
    }

    #[test]
    fn i2_ids_are_short_plain_and_sort_in_commit_order() {
        let places = [(1, 5, 1), (1, 5, 2), (1, 5, 40_000_000), (1, 6, 1), (1, u64::MAX, 1), (2, 1, 1)];
        let ids: Vec<_> =
            places.iter().map(|&(g, c, s)| DeliveryId::of(&place(g, c, s), "", "crm")).collect();
        assert!(ids.is_sorted());
        for id in &ids {
            assert!(id.as_str().len() <= 40);
            assert!(id.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        }
        let floor = DeliveryId::floor_after(Origin { system: 7, generation: 1 }, CommitLsn(Lsn(5)));
        assert!(floor > ids[2] && floor < ids[3]);
    }

    #[test]
    fn the_event_of_a_new_shape_sorts_before_the_change_that_showed_it() {
        let here = place(3, 77, 4);
        for webhook in ["a", "crm", "billing"] {
            let first = DeliveryId::of(&here, OF_SHAPE, webhook);
            assert!(first.as_str().len() == 40 && first.fingerprint().starts_with("000"), "{first}");
            assert!(first < DeliveryId::of(&here, "", webhook));
            assert!(first > DeliveryId::of(&place(3, 77, 3), "", webhook));
        }
        assert_ne!(DeliveryId::of(&here, OF_SHAPE, "a"), DeliveryId::of(&here, OF_SHAPE, "b"));
        assert!(EventId::of(&here, OF_SHAPE) < EventId::of(&here, ""));
    }

    #[test]
    fn what_no_log_told_has_its_ids_before_all_others() {
        assert!(!DeliveryId::of(&place(0, u64::MAX, 9), "webhook.failing crm", "ops").is_of_a_log());
        assert!(DeliveryId::of(&place(1, 0, 1), "", "ops").is_of_a_log());
    }

    #[test]
    fn the_same_deliveries_in_the_same_order_make_the_same_batch_and_no_others_do() {
        let id = |commit| DeliveryId::of(&place(1, commit, 1), "", "crm");
        let (a, b, c) = (id(1), id(2), id(3));
        let batch = DeliveryId::of_batch([&a, &b]);
        assert_eq!(batch, DeliveryId::of_batch([&a, &b]));
        assert_eq!(batch.as_str().len(), 36);
        assert!(batch.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        for other in [vec![&a], vec![&b], vec![&b, &a], vec![&a, &b, &c], vec![&a, &c]] {
            assert_ne!(batch, DeliveryId::of_batch(other));
        }
    }

    #[test]
    fn i2_ids_differ_by_webhook_type_and_database_and_repeat_otherwise() {
        let here = place(1, 5, 1);
        assert_eq!(DeliveryId::of(&here, "", "a"), DeliveryId::of(&here, "", "a"));
        assert_ne!(DeliveryId::of(&here, "", "a"), DeliveryId::of(&here, "", "b"));
        assert_ne!(DeliveryId::of(&here, "", "a"), DeliveryId::of(&here, "done", "a"));
        assert_ne!(EventId::of(&here, ""), EventId::of(&here, "done"));
        let mut there = here;
        there.origin.system = 8;
        assert_ne!(EventId::of(&here, ""), EventId::of(&there, ""));
    }
}
