//! A model of the ledger: rows, leases, lanes; answers as the real one does, some milliseconds later.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::{Delivery, Lane};
use crate::ledger::claim::{Claimed, Claims, Room};
use crate::ledger::record::{Finish, Lease, NewRow, State};
use crate::ledger::writer::{Ack, Command};

struct Row {
    delivery: Delivery,
    due: Option<Timestamp>,
    lease: Option<Lease>,
    attempts: u32,
    retried_from: u32,
}

/// The open rows of every webhook, by id.
#[derive(Default)]
pub(super) struct Model {
    open: HashMap<Arc<str>, BTreeMap<String, Row>>,
    /// Webhooks whose breakers were noted as open.
    pub failing: HashMap<Arc<str>, bool>,
}

impl Model {
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub fn write(&mut self, command: Command, now: Timestamp) -> Option<Ack> {
        match command {
            Command::Insert(row, permit) => {
                drop(permit);
                Some(self.insert(*row, now))
            }
            Command::Finish(finish) => Some(self.finish(*finish, now)),
            Command::Lanes { webhook, most } => {
                let rows = self.open.get(&webhook);
                let mut lanes = HashMap::<Lane, u32>::new();
                for row in rows.into_iter().flat_map(BTreeMap::values) {
                    *lanes.entry(row.delivery.lane).or_default() += 1;
                }
                let few = rows.map_or(0, BTreeMap::len) <= most;
                Some(Ack::Lanes { webhook, lanes: few.then(|| lanes.into_iter().collect()) })
            }
            Command::Health { webhook, health } => {
                self.failing.insert(webhook, health.is_some_and(|health| health.open.is_some()));
                None
            }
            Command::Disable { webhook, .. } => panic!("{webhook} was disabled"),
        }
    }

    fn insert(&mut self, row: NewRow, now: Timestamp) -> Ack {
        let NewRow { delivery, state, attempt, .. } = row;
        let (webhook, lane, open) = (Arc::clone(&delivery.webhook), delivery.lane, !state.is_ended());
        let told = match &state {
            State::Pending => Some(now),
            State::Leased { until, .. } => Some(*until),
            State::Retrying { due } => Some(*due),
            _ => None,
        };
        if open {
            let rows = self.open.entry(Arc::clone(&webhook)).or_default();
            let behind = state == State::Pending && rows.values().any(|other| other.delivery.lane == lane);
            let lease = match state {
                State::Leased { token, .. } => Some(Lease::with_token(token)),
                _ => None,
            };
            let attempts = u32::from(attempt.is_some());
            let due = told.filter(|_| !behind);
            let id = delivery.id.as_str().to_owned();
            let before = rows.insert(id, Row { delivery, due, lease, attempts, retried_from: 0 });
            assert!(before.is_none(), "recorded twice");
        }
        Ack::Inserted { webhook, lane, open, due: told }
    }

    fn finish(&mut self, finish: Finish, now: Timestamp) -> Ack {
        let Finish { lease, id, webhook, lane, state, attempt, off_schedule } = finish;
        let open = !state.is_ended();
        let rows = self.open.get_mut(&webhook).expect("a claimed delivery has its row");
        let row = rows.get_mut(id.as_str()).expect("a claimed delivery has its row");
        assert_eq!(row.lease.take(), Some(lease), "a lease was lost");
        row.attempts += u32::from(attempt.is_some());
        row.retried_from += u32::from(off_schedule);
        let due = match state {
            State::Pending => Some(now),
            State::Retrying { due } => Some(due),
            _ => None,
        };
        row.due = due;
        if !open {
            rows.remove(id.as_str());
            if let Some(head) = rows.values_mut().find(|row| row.delivery.lane == lane) {
                head.due.get_or_insert(now);
            }
            if rows.is_empty() {
                self.open.remove(&webhook);
            }
        }
        let due = due.or(Some(now));
        Ack::Finished { webhook, lane, open, due, lease_lost: false }
    }

    pub fn claim(&mut self, rooms: &[Room], token: i64, now: Timestamp) -> Claims {
        let mut claims = Claims::default();
        for room in rooms {
            let Some(rows) = self.open.get_mut(&room.webhook) else {
                claims.next_due.push((Arc::clone(&room.webhook), None));
                continue;
            };
            let is_due = |row: &&mut Row| row.due.is_some_and(|due| due <= now);
            let mut due: Vec<&mut Row> = rows.values_mut().filter(is_due).collect();
            due.sort_by_key(|row| row.due);
            for row in due.into_iter().take(room.count) {
                assert!(row.lease.is_none(), "a lease ran out");
                row.due = now.checked_add(room.lease).ok();
                row.lease = Some(Lease::with_token(token));
                claims.claimed.push(Claimed {
                    delivery: row.delivery.clone(),
                    attempts: row.attempts,
                    on_schedule: row.attempts - row.retried_from,
                    sent_again_at: None,
                    lease: Lease::with_token(token),
                });
            }
            let next = rows.values().filter_map(|row| row.due).min();
            claims.next_due.push((Arc::clone(&room.webhook), next));
        }
        claims.claimed.sort_by(|a, b| a.delivery.id.cmp(&b.delivery.id));
        claims
    }

    pub fn webhooks(&self) -> Vec<Arc<str>> {
        self.open.keys().cloned().collect()
    }
}
