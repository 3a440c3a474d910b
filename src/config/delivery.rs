//! `[delivery]`: the defaults of every webhook, and how much walhook itself may use.

use std::sync::Arc;
use std::time::Duration;

use super::node::Table;
use super::{batch, connection, flow, retry, tables};
use crate::domain::{
    BatchPolicy, Coding, Compression, Connection, Flow, Int8, Ordering, RetryPolicy, limits,
};

const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
const HANDOVER_MIN: Duration = Duration::from_millis(10);
const HANDOVER_MAX: Duration = Duration::from_secs(60);
const GRACE_MAX: Duration = Duration::from_secs(600);
const MEMORY_MIN: usize = 1024 * 1024;
const MEMORY_MAX: usize = 1024 * 1024 * 1024;
const SLA_MIN: Duration = Duration::from_millis(10);
const SLA_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
const BODY_MIN: usize = 1024;
const BODY_MAX: usize = 16 * 1024 * 1024;

/// How deliveries are made where a webhook says nothing else, and with which means.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// How long a whole attempt may take.
    pub timeout: Duration,
    /// How many requests of one webhook may be in flight.
    pub concurrency: u32,
    /// Which deliveries of a webhook wait for which.
    pub ordering: Ordering,
    /// When to try again, and when to give up.
    pub retry: RetryPolicy,
    /// How bodies are compressed.
    pub compression: Compression,
    /// Within which time after its commit a delivery should be there; for the numbers.
    pub sla: Duration,
    /// TLS and proxy.
    pub connection: Arc<Connection>,
    /// How much may leave, and when a webhook is left alone.
    pub flow: Flow,
    /// How many deliveries share a request; `None`: each has its own.
    pub batch: Option<BatchPolicy>,
    /// How an `int8` goes out, of every table that says nothing else.
    pub int8: Int8,
    /// How old a delivery gets in memory before it goes to the ledger unfinished.
    pub handover_after: Duration,
    /// How long what is in flight may take at a shutdown.
    pub shutdown_grace: Duration,
    /// Bytes of rendered deliveries in memory.
    pub memory: usize,
    /// The largest body that is sent, in bytes; at most `memory`.
    pub max_body: usize,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            concurrency: 16,
            ordering: Ordering::default(),
            retry: RetryPolicy::default(),
            compression: Compression::default(),
            sla: Duration::from_secs(5),
            connection: Arc::default(),
            flow: Flow::default(),
            batch: None,
            int8: Int8::default(),
            handover_after: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(10),
            memory: limits::YOUNG_BYTES,
            max_body: limits::BODY_BYTES,
        }
    }
}

/// What `[delivery]` sets for every webhook and a webhook may set for itself.
pub(super) struct Manner {
    pub timeout: Duration,
    pub concurrency: u32,
    pub ordering: Ordering,
    pub retry: RetryPolicy,
    pub compression: Compression,
    pub flow: Flow,
    pub sla: Duration,
    pub batch: Option<BatchPolicy>,
}

pub(super) fn read(mut table: Table<'_>) -> Delivery {
    let base = Delivery::default();
    let Manner { timeout, concurrency, ordering, retry, compression, sla, flow, batch } =
        manner(&mut table, &base);
    let delivery = Delivery {
        timeout,
        concurrency,
        ordering,
        retry,
        compression,
        sla,
        connection: connection::defaults(&mut table),
        flow,
        batch,
        int8: table.get("int8", |node| node.word(&tables::INT8)).unwrap_or(base.int8),
        handover_after: table
            .get("handover_after", |node| node.duration(HANDOVER_MIN..=HANDOVER_MAX))
            .unwrap_or(base.handover_after),
        shutdown_grace: table
            .get("shutdown_grace", |node| node.duration(Duration::ZERO..=GRACE_MAX))
            .unwrap_or(base.shutdown_grace),
        memory: table.get("memory", |node| node.size(MEMORY_MIN..=MEMORY_MAX)).unwrap_or(base.memory),
        max_body: table.get("max_body", |node| node.size(BODY_MIN..=BODY_MAX)).unwrap_or(base.max_body),
    };
    if delivery.max_body > delivery.memory {
        table.refuse("max_body is larger than memory: no such body could ever be held");
    }
    batch::check_wait(&table, delivery.batch, delivery.handover_after);
    table.finish();
    delivery
}

/// Reads the keys that `[delivery]` and each webhook share; what is not written stays as in `base`.
pub(super) fn manner(table: &mut Table<'_>, base: &Delivery) -> Manner {
    let orders = [("row", Ordering::Row), ("none", Ordering::None), ("strict", Ordering::Strict)];
    let timeout = table.get("timeout", |node| node.duration(TIMEOUT_MIN..=TIMEOUT_MAX));
    let concurrency = table.get("concurrency", flow::concurrency);
    let ordering = table.get("ordering", |node| node.word(&orders));
    let retry = table.section("retry", |section| retry::read(section, &base.retry));
    let codings = [("none", None), ("gzip", Some(Coding::Gzip)), ("zstd", Some(Coding::Zstd))];
    let coding = table.get("compression", |node| node.word(&codings));
    let threshold = table.get("compression_threshold", |node| node.size(0..=BODY_MAX));
    let sla = table.get("sla", |node| node.duration(SLA_MIN..=SLA_MAX));
    let batch = batch::read(table, base.batch);
    let flow = flow::read(table, &base.flow);
    let (concurrency, adaptive) = concurrency.unwrap_or((base.concurrency, base.flow.adaptive));
    Manner {
        timeout: timeout.unwrap_or(base.timeout),
        concurrency,
        ordering: ordering.unwrap_or(base.ordering),
        retry: retry.unwrap_or_else(|| base.retry.clone()),
        compression: Compression {
            coding: coding.unwrap_or(base.compression.coding),
            threshold: threshold.unwrap_or(base.compression.threshold),
        },
        flow: Flow { adaptive, ..flow },
        sla: sla.unwrap_or(base.sla),
        batch,
    }
}
