//! Logs and metrics: set up once, named here.
//!
//! `error` means a person must act, `warn` unexpected but carried on, `info` a change of state, `debug` one line a
//! delivery, `trace` one a change. Never row values, bodies, secrets, or URLs with userinfo or query.

mod server_words;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

pub use server_words::{may_quote_rows, name_of, server_words};

/// Libraries that rows pass through, and that are silent at `debug` and `trace`. At `debug` they tell what they are given: the database client every statement's
/// parameters, bodies among them, the template engine every value that it prints.
const SEE_ROWS: [&str; 4] = ["tokio_postgres", "handlebars", "cel", "pgwire"];

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Each metric's name and help; the README's table is checked against it.
pub const METRICS: &[(&str, Kind, &str)] = &[
    ("walhook_source_changes_total", Kind::Counter, "Row changes received"),
    (
        "walhook_source_transactions_total",
        Kind::Counter,
        "Transactions received that had changes of published tables",
    ),
    (
        "walhook_source_lag_seconds",
        Kind::Gauge,
        "Age of the change being read, or of what has waited for longest; 0 where nothing waits",
    ),
    (
        "walhook_source_connections_total",
        Kind::Counter,
        "Connections of the replication link that began to stream",
    ),
    ("walhook_slot_lag_bytes", Kind::Gauge, "How far the server's log is ahead of what is confirmed"),
    ("walhook_slot_retained_bytes", Kind::Gauge, "Log that the server keeps for the slot"),
    (
        "walhook_slot_safe_bytes",
        Kind::Gauge,
        "What may still be written before the slot is lost; +Inf without a limit",
    ),
    ("walhook_slot_wal_status", Kind::Gauge, "1 at the slot's wal_status, by status"),
    ("walhook_gaps", Kind::Gauge, "Gaps that are recorded in the ledger, ten at most"),
    (
        "walhook_messages_ignored_total",
        Kind::Counter,
        "Logical messages for walhook that were ignored because they were not transactional",
    ),
    ("walhook_events_total", Kind::Counter, "Events made from changes that a webhook wanted"),
    ("walhook_conditions_errors_total", Kind::Counter, "Conditions that could not be evaluated on a row"),
    (
        "walhook_values_as_text_total",
        Kind::Counter,
        "Values that went out as their text because they could not be parsed",
    ),
    ("walhook_deliveries_delivered_total", Kind::Counter, "Deliveries that a receiver accepted"),
    ("walhook_deliveries_failed_total", Kind::Counter, "Deliveries given up"),
    (
        "walhook_deliveries_handed_over_total",
        Kind::Counter,
        "Young deliveries that went to the ledger unfinished",
    ),
    ("walhook_deliveries_in_flight", Kind::Gauge, "Requests under way"),
    ("walhook_webhooks_failing", Kind::Gauge, "Webhooks whose circuit breaker is open"),
    ("walhook_breakers_opened_total", Kind::Counter, "Times that a webhook's circuit breaker opened"),
    ("walhook_attempts_total", Kind::Counter, "Attempts, by outcome"),
    ("walhook_attempt_duration_seconds", Kind::Histogram, "How long attempts took"),
    ("walhook_delivery_age_seconds", Kind::Histogram, "From commit to the receiver's acceptance"),
    ("walhook_sla_met_total", Kind::Counter, "Deliveries made within their webhook's sla of the commit"),
    ("walhook_sla_missed_total", Kind::Counter, "Deliveries made later than that, or given up"),
    (
        "walhook_waiting_oldest_seconds",
        Kind::Passing,
        "How long the oldest delivery that waits has, by webhook, status and its reason; of 500 webhooks, and of the others together",
    ),
    ("walhook_ledger_rows_total", Kind::Counter, "Rows written to the ledger"),
    ("walhook_backfills_open", Kind::Gauge, "Backfills that are to be done"),
    ("walhook_backfills_deliveries_total", Kind::Counter, "Deliveries that backfills made of existing rows"),
    ("walhook_notices_total", Kind::Counter, "Deliveries that tell about walhook itself"),
    (
        "walhook_notices_left_out_total",
        Kind::Counter,
        "Notices that a webhook was not told because too many wait for it",
    ),
    ("walhook_memory_young_bytes", Kind::Gauge, "Memory taken by deliveries that are not in the ledger yet"),
];

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
    /// Goes up and down, and its labels come and go: see [`set_passing`].
    Passing,
}

/// The lines of metrics whose labels come and go, by name. The recorder keeps every label for good.
static PASSING: Mutex<BTreeMap<&'static str, String>> = Mutex::new(BTreeMap::new());

/// Starts logging to standard error. `filter` is in `tracing`'s `EnvFilter` syntax; what would tell values of rows stays
/// silent whatever it says.
pub fn start_logging(format: LogFormat, filter: &str) {
    // The certificate verifier logs every bad receiver as an error of its own; the attempt tells it already.
    let quiet = format!("rustls_platform_verifier=off,{filter}");
    let filter = EnvFilter::try_new(quiet).unwrap_or_else(|_| EnvFilter::new("info"));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    let started = match format {
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(false).with_filter(without_rows(filter))).try_init()
        }
        LogFormat::Text => {
            let layer = layer.with_ansi(std::io::stderr().is_terminal()).with_target(false);
            registry.with(layer.with_filter(without_rows(filter))).try_init()
        }
    };
    drop(started);
}

fn without_rows<S: Subscriber>(filter: EnvFilter) -> impl Filter<S> {
    let tells_rows = |of: &Metadata<'_>| {
        *of.level() > Level::INFO && SEE_ROWS.iter().any(|library| of.target().starts_with(library))
    };
    filter.and(filter_fn(move |of| !tells_rows(of)).with_max_level_hint(LevelFilter::TRACE))
}

/// Starts metrics; the handle renders them for `/metrics`. `None` when they had been started before.
pub fn start_metrics() -> Option<PrometheusHandle> {
    let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];
    let recorder = PrometheusBuilder::new().set_buckets(&seconds).ok()?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    for (name, kind, help) in METRICS {
        match kind {
            Kind::Counter => {
                metrics::describe_counter!(*name, *help);
                metrics::counter!(*name).increment(0);
            }
            Kind::Gauge => {
                metrics::describe_gauge!(*name, *help);
                metrics::gauge!(*name).set(0.0);
            }
            Kind::Histogram => metrics::describe_histogram!(*name, *help),
            Kind::Passing => set_passing(name, ""),
        }
    }
    Some(handle)
}

/// Replaces the lines of a metric whose labels come and go; each as the page has it.
pub fn set_passing(name: &'static str, lines: &str) {
    let help = METRICS.iter().find(|metric| metric.0 == name).map_or("", |metric| metric.2);
    let told = format!("# HELP {name} {help}\n# TYPE {name} gauge\n{lines}\n");
    PASSING.lock().unwrap_or_else(PoisonError::into_inner).insert(name, told);
}

/// The page of metrics.
pub fn page(metrics: &PrometheusHandle) -> String {
    let mut page = metrics.render();
    page.extend(PASSING.lock().unwrap_or_else(PoisonError::into_inner).values().map(String::as_str));
    page
}

/// An error and its causes in one line; a cause that the line ends with already is not said twice.
/// What a server says about values is left out: see [`server_words`].
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = server_words::words(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = server_words::words(error);
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silencing_libraries_costs_nothing_where_they_are_silent_anyway() {
        for (filter, hint) in [("info", LevelFilter::INFO), ("walhook=debug", LevelFilter::DEBUG)] {
            let filter = without_rows::<tracing_subscriber::Registry>(EnvFilter::new(filter));
            assert_eq!(filter.max_level_hint(), Some(hint));
        }
    }
}
