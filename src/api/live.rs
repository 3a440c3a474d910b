//! `/live`: changes and deliveries as they happen, as server-sent events.
//!
//! A stream holds no turn of the requests and no session with the database. It tells what this instance does: of several
//! beside one database the one that streams is the one to ask. It goes on until the client or the instance goes, or for as long
//! as the client has said beforehand.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::door::{May, Read};
use super::input::Parameters;
use super::problem::Problem;
use crate::domain::limits;
use crate::live::{Heard, Listener, News};
use crate::matcher::pattern_matches;

const KINDS: [&str; 2] = ["change", "delivery"];
/// The most events after which a stream may be asked to end, and the longest time.
const EVENTS_MOST: u32 = 1_000_000;
const SECONDS_MOST: u32 = 86_400;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(listen))
}

/// What of it somebody wants to hear.
#[derive(Debug, Clone, Default)]
struct Wanted {
    kinds: Vec<&'static str>,
    webhook: Option<String>,
    table: Option<String>,
}

/// When a stream ends by itself.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    /// After so many events more.
    left: Option<u32>,
    /// At this moment.
    at: Option<Instant>,
}

impl End {
    async fn reached(self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn behind_one_more(self) -> Self {
        Self { left: self.left.map(|left| left.saturating_sub(1)), ..self }
    }
}

/// The data of the events: `event: change` and `event: delivery`, each one JSON object; `event: missed` where the reader was
/// too slow, with how many it has lost.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LiveNews)]
pub struct Told {
    /// Of a delivery: its id.
    id: Option<String>,
    /// Of a delivery: its webhook.
    webhook: Option<String>,
    /// Of a delivery: its event's type, where it came straight from memory.
    event: Option<String>,
    /// Of a delivery: its state by now.
    status: Option<String>,
    /// Of a delivery: the attempt that led to it.
    #[schema(value_type = Option<Object>)]
    attempt: Option<serde_json::Value>,
    /// Of a change: the table's schema.
    schema: Option<String>,
    /// Of a change: the table.
    table: Option<String>,
    /// Of a change: `insert`, `update`, `delete`, `truncate`.
    operation: Option<String>,
    /// Of a change: where its commit stands in the log.
    lsn: Option<String>,
    /// Of a change: its place in its transaction.
    sequence: Option<u32>,
    /// Of a change: its transaction.
    xid: Option<u32>,
    /// Of a change: when it was committed.
    #[schema(value_type = Option<String>, format = DateTime)]
    committed_at: Option<String>,
    /// Of what was missed: how many.
    missed: Option<u64>,
}

impl Wanted {
    /// The event, where it is wanted.
    fn told(&self, news: &News) -> Option<Event> {
        let wants = |kind: &str| self.kinds.is_empty() || self.kinds.contains(&kind);
        match news {
            News::Change(change) => {
                let name = if &*change.schema == "public" {
                    change.table.to_string()
                } else {
                    format!("{}.{}", change.schema, change.table)
                };
                let of_table = self.table.as_ref().is_none_or(|table| *table == name);
                let of_webhook = self.webhook.is_none() || !self.kinds.is_empty();
                (wants("change") && of_table && of_webhook).then(|| {
                    let data = json!({
                        "schema": &*change.schema, "table": &*change.table, "operation": change.operation,
                        "lsn": change.commit.0.to_string(), "sequence": change.sequence, "xid": change.xid,
                        "committed_at": change.committed_at,
                    });
                    Event::default().event("change").data(data.to_string())
                })
            }
            News::Delivery(delivery) => {
                let of_webhook =
                    self.webhook.as_ref().is_none_or(|pattern| pattern_matches(pattern, &delivery.webhook));
                (wants("delivery") && of_webhook).then(|| {
                    let attempt = delivery.attempt.as_ref().map(|tried| {
                        json!({
                            "number": tried.number, "at": tried.at, "took_ms": tried.took_ms, "outcome": tried.outcome,
                            "http_status": tried.http_status, "error": tried.error,
                        })
                    });
                    let data = json!({
                        "id": &*delivery.id, "webhook": &*delivery.webhook, "event": delivery.event.as_deref(),
                        "status": delivery.status.as_str(), "attempt": attempt,
                    });
                    Event::default().event("delivery").data(data.to_string())
                })
            }
        }
    }
}

/// Tells of changes and deliveries as they happen at this instance, as server-sent events, without values of rows. A reader
/// that is too slow loses some, and is told how many (`event: missed`). With `limit` or `seconds` it ends by itself. Needs webhook:read.
#[utoipa::path(get, operation_id = "listen", path = "/live", tag = "live",
    params(
        ("kind" = Option<String>, Query, description = "change, delivery; both where it is absent"),
        ("webhook" = Option<String>, Query, description = "deliveries of webhooks of such a name, with * for any run of characters"),
        ("table" = Option<String>, Query, description = "changes of this table; schema.table outside public"),
        ("limit" = Option<u32>, Query, description = "ends after so many events", minimum = 1, maximum = 1_000_000),
        ("seconds" = Option<u32>, Query, description = "ends after so many seconds", minimum = 1, maximum = 86_400),
    ),
    responses((status = OK, description = "news until the end that was asked for, or until the client or the instance goes", content_type = "text/event-stream", body = Told)))]
async fn listen(
    _: May<Read>,
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of(query.as_deref());
    let mut wanted = Wanted::default();
    for word in parameters.all("kind").iter().flat_map(|text| text.split(',')) {
        match KINDS.iter().find(|kind| **kind == word) {
            Some(kind) => wanted.kinds.push(kind),
            None => {
                parameters.refuse::<()>("kind", format!("expected some of {}", KINDS.join(", ")));
            }
        }
    }
    (wanted.webhook, wanted.table) = (parameters.one("webhook"), parameters.one("table"));
    let mut number = |name, most: u32| {
        let expected = format!("expected a whole number from 1 to {most}");
        parameters
            .read(name, &expected, |text| text.parse().ok().filter(|number| (1..=most).contains(number)))
    };
    let left = number("limit", EVENTS_MOST);
    let seconds = number("seconds", SECONDS_MOST);
    let at = seconds.map(|seconds| Instant::now() + Duration::from_secs(u64::from(seconds)));
    parameters.finish()?;
    let listener = api.live.listen().ok_or_else(|| {
        let detail = format!("{} listen already, which is the most", limits::LIVE_LISTENERS);
        Problem::unavailable(detail)
    })?;
    let alive = KeepAlive::new().interval(limits::LIVE_KEEP_ALIVE).text("still here");
    let news = Sse::new(events((listener, End { left, at }), wanted, api)).keep_alive(alive);
    // Proxies that would collect an answer before they hand it on leave this one alone.
    Ok(([("x-accel-buffering", "no"), ("cache-control", "no-store")], news).into_response())
}

type Events = Pin<Box<dyn Stream<Item = Result<Event, Infallible>> + Send>>;

/// Ends with the instance at the latest.
fn events((listener, end): (Listener, End), wanted: Wanted, api: Api) -> Events {
    let next = async |((mut listener, end), wanted, api): ((Listener, End), Wanted, Api)| {
        loop {
            if end.left == Some(0) {
                return None;
            }
            let heard = tokio::select! {
                biased;
                () = api.stop.cancelled() => return None,
                () = end.reached() => return None,
                heard = listener.next() => heard,
            };
            let event = match heard {
                Heard::Over => return None,
                Heard::Missed(missed) => {
                    Some(Event::default().event("missed").data(json!({ "missed": missed }).to_string()))
                }
                Heard::News(news) => wanted.told(&news),
            };
            if let Some(event) = event {
                return Some((Ok(event), ((listener, end.behind_one_more()), wanted, api)));
            }
        }
    };
    // The first line at once: whoever listens knows then that it does.
    let hello = stream::iter([Ok(Event::default().comment("listening"))]);
    Box::pin(stream::StreamExt::chain(hello, stream::unfold(((listener, end), wanted, api), next)))
}
