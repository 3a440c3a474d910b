//! What was refused for the sake of security, in the audit: bounded.
//!
//! Whoever is refused can come again as often as they like, and must not fill a table with it. So a refusal is written once
//! in an hour for what makes it the same ([`Refusals::admit`]), and with it how often it came since; of each action a process
//! writes so many an hour, so that a flood of one hides no other. What is left out is counted, and the count is in the next
//! entry.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::LedgerError;
use super::ask::Ask;
use super::audit::{self, Act, Actor};
use crate::domain::limits;

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Who was refused.
    pub actor: Actor,
    /// What it was: `login.refused`, `access.refused`, `address.refused`.
    pub action: &'static str,
    /// What was not to be had, where that has a name.
    pub object: Option<String>,
    /// What is the same in refusals that are one, beside the actor and the action.
    pub same: String,
    /// A JSON object with what else is to be known. Never a secret.
    pub detail: Value,
}

/// The refusals of late.
#[derive(Debug, Default)]
pub struct Refusals {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<String, Seen>,
    /// By action.
    written: HashMap<&'static str, Written>,
}

#[derive(Debug, Clone, Copy)]
struct Written {
    since: Instant,
    count: u32,
    /// Those that came when no more were written.
    left_out: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    since: Instant,
    again: u64,
}

/// What was not written since the entry before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// Refusals that were the same.
    pub again: u64,
    /// Others of the same action, which were too many.
    pub others: u64,
}

impl Refusals {
    /// Whether this one is to be written now; then what was not written before it.
    pub fn admit(&self, refusal: &Refusal) -> Option<LeftOut> {
        let Refusal { actor, action, same, .. } = refusal;
        let key = format!("{action} {} {same}", actor.name());
        self.table.lock().unwrap_or_else(PoisonError::into_inner).admit(action, key, Instant::now())
    }
}

impl Table {
    fn admit(&mut self, action: &'static str, key: String, now: Instant) -> Option<LeftOut> {
        let is_recent = |since: Instant| now.duration_since(since) < limits::REFUSALS_WITHIN;
        if let Some(seen) = self.known.get_mut(&key).filter(|seen| is_recent(seen.since)) {
            seen.again += 1;
            return None;
        }
        let written = self.written.entry(action).or_insert(Written { since: now, count: 0, left_out: 0 });
        if !is_recent(written.since) {
            (written.since, written.count) = (now, 0);
        }
        if written.count >= limits::REFUSALS_WRITTEN {
            written.left_out += 1;
            return None;
        }
        written.count += 1;
        let others = std::mem::take(&mut written.left_out);
        if self.known.len() >= limits::REFUSALS_KNOWN && !self.known.contains_key(&key) {
            let oldest = self.known.iter().min_by_key(|(_, seen)| seen.since).map(|(key, _)| key.clone());
            oldest.map(|key| self.known.remove(&key));
        }
        let before = self.known.insert(key, Seen { since: now, again: 0 });
        let again = before.map_or(0, |seen| seen.again);
        Some(LeftOut { again, others })
    }
}

/// Writes one that was admitted.
pub async fn write(client: &impl Ask, refusal: Refusal, left_out: LeftOut) -> Result<(), LedgerError> {
    let Refusal { actor, action, object, mut detail, .. } = refusal;
    if let Value::Object(detail) = &mut detail {
        for (name, count) in [("again", left_out.again), ("others_unwritten", left_out.others)] {
            if count > 0 {
                detail.insert(name.to_owned(), json!(count));
            }
        }
    }
    audit::record(client, &Act { actor: &actor, action, object: object.as_deref(), detail }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &str, reason: &str) -> Refusal {
        let actor = Actor::Unknown { from: address.parse().ok() };
        let same = format!("{reason} {address}");
        Refusal { actor, action: "login.refused", object: None, same, detail: json!({}) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_the_same_is_written_once_an_hour_with_how_often_it_came() {
        let refusals = Refusals::default();
        let new = Some(LeftOut { again: 0, others: 0 });
        assert_eq!(refusals.admit(&refusal("10.0.0.1", "unknown")), new);
        for _ in 0..5 {
            assert_eq!(refusals.admit(&refusal("10.0.0.1", "unknown")), None);
        }
        assert_eq!(refusals.admit(&refusal("10.0.0.1", "revoked")), new);
        assert_eq!(refusals.admit(&refusal("10.0.0.2", "unknown")), new);
        tokio::time::advance(limits::REFUSALS_WITHIN).await;
        let told = Some(LeftOut { again: 5, others: 0 });
        assert_eq!(refusals.admit(&refusal("10.0.0.1", "unknown")), told);
        assert_eq!(refusals.admit(&refusal("10.0.0.1", "unknown")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_everywhere_is_written_up_to_a_bound_and_counted_beyond_it() {
        let refusals = Refusals::default();
        let admitted = |count: u32| {
            let all = (0..count).map(|host| std::net::Ipv4Addr::from(host).to_string());
            all.filter(|address| refusals.admit(&refusal(address, "")).is_some()).count()
        };
        let most = usize::try_from(limits::REFUSALS_WRITTEN).unwrap();
        assert_eq!(admitted(limits::REFUSALS_WRITTEN + 7), most);
        let other = Refusal { action: "access.refused", ..refusal("10.0.0.1", "") };
        assert!(refusals.admit(&other).is_some(), "a flood of one hides no other");
        tokio::time::advance(limits::REFUSALS_WITHIN).await;
        let told = refusals.admit(&refusal("192.0.2.1", "")).unwrap();
        assert_eq!(told, LeftOut { again: 0, others: 7 });
        for _ in 0..10 {
            tokio::time::advance(limits::REFUSALS_WITHIN).await;
            admitted(limits::REFUSALS_WRITTEN);
            assert!(refusals.table.lock().unwrap().known.len() <= limits::REFUSALS_KNOWN);
        }
    }
}
