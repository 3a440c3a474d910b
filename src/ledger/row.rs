//! Rows as parameters and back: columns for `unnest`, and the times that tokio-postgres does not know.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::record::State;
use crate::domain::{Attempt, Delivery, DeliveryId, EventId, Lane, Operation, Outcome};

/// One vector a column.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub id: Vec<&'a str>,
    pub event_id: Vec<&'a str>,
    pub event_type: Vec<&'a str>,
    pub webhook: Vec<&'a str>,
    pub lane: Vec<i64>,
    pub committed_at: Vec<SystemTime>,
    pub schema: Vec<&'a str>,
    pub table: Vec<&'a str>,
    pub key: Vec<&'a str>,
    pub operation: Vec<&'a str>,
    pub content_type: Vec<&'a str>,
    pub headers: Vec<Option<&'a str>>,
    pub body: Vec<Option<&'a [u8]>>,
    pub status: Vec<&'a str>,
    pub due: Vec<Option<SystemTime>>,
    pub lease: Vec<Option<i64>>,
    pub fail_reason: Vec<Option<&'a str>>,
    pub keep: Vec<bool>,
    pub attempts: Vec<i32>,
    pub behind: Vec<bool>,
    pub at: Vec<Option<SystemTime>>,
    pub took_ms: Vec<Option<f64>>,
    pub outcome: Vec<Option<&'a str>>,
    pub http_status: Vec<Option<i32>>,
    pub error: Vec<Option<String>>,
    pub response: Vec<Option<&'a [u8]>>,
}

impl<'a> Columns<'a> {
    pub fn push_delivery(&mut self, delivery: &'a Delivery) {
        self.id.push(delivery.id.as_str());
        self.event_id.push(delivery.event_id.as_str());
        self.event_type.push(&delivery.event_type);
        self.webhook.push(&delivery.webhook);
        self.lane.push(delivery.lane.0);
        self.committed_at.push(pg_time(delivery.committed_at));
        self.schema.push(&delivery.schema);
        self.table.push(&delivery.table);
        self.key.push(&delivery.key);
        self.operation.push(delivery.operation.as_str());
        self.content_type.push(&delivery.content_type);
        self.headers.push(delivery.headers.as_deref());
    }

    pub fn push_state(&mut self, state: &'a State, due: Option<Timestamp>, keep: bool) {
        self.status.push(state.status().as_str());
        self.due.push(due.map(pg_time));
        self.lease.push(match state {
            State::Leased { token, .. } => Some(*token),
            _ => None,
        });
        self.fail_reason.push(state.fail_reason());
        self.keep.push(keep);
    }

    pub fn push_attempt(&mut self, attempt: Option<&'a Attempt>) {
        self.at.push(attempt.map(|a| pg_time(a.started_at)));
        self.took_ms.push(attempt.map(|a| a.took.as_secs_f64() * 1e3));
        self.outcome.push(attempt.map(|a| a.outcome.kind()));
        self.http_status.push(attempt.and_then(|a| a.outcome.status()).map(i32::from));
        self.error.push(attempt.filter(|a| !a.outcome.is_success()).map(|a| a.outcome.describe()));
        self.response.push(attempt.and_then(|a| captured(&a.outcome)));
    }
}

/// What was kept of an answer's body.
pub(super) fn captured(outcome: &Outcome) -> Option<&[u8]> {
    match outcome {
        Outcome::Responded { body, .. } if !body.is_empty() => Some(body),
        _ => None,
    }
}

/// A time as `timestamptz` takes it; microseconds.
pub(super) fn pg_time(time: Timestamp) -> SystemTime {
    let micros = u64::try_from(time.as_microsecond()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

/// A `timestamptz` as read.
pub(super) fn time_of(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The columns that [`delivery_of`] reads, in its order.
pub(super) const DELIVERY: &str = "id, event_id, event_type, webhook, lane, schema_name, table_name, row_key, \
    operation, committed_at, content_type, body, headers";

/// A delivery from a row that begins with [`DELIVERY`].
pub(super) fn delivery_of(row: &Row) -> Delivery {
    let text = |index: usize| -> &str { row.get(index) };
    let shared = |index: usize| -> Arc<str> { text(index).into() };
    let body: Option<&[u8]> = row.get(11);
    Delivery {
        id: DeliveryId::from_ledger(text(0)),
        event_id: EventId::from_ledger(text(1)),
        event_type: shared(2),
        webhook: shared(3),
        lane: Lane(row.get(4)),
        schema: shared(5),
        table: shared(6),
        key: shared(7),
        operation: Operation::from_word(text(8)),
        committed_at: time_of(row.get(9)),
        content_type: shared(10),
        headers: row.get::<_, Option<&str>>(12).map(Into::into),
        body: Bytes::copy_from_slice(body.unwrap_or_default()),
    }
}
