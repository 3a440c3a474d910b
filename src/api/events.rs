//! `/events`: the event types that exist.

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::door::{May, Read, Tenants};
use super::input::{In, Parameters, next};
use super::problem::Problem;
use super::webhooks::named;
use crate::control::events;

const PLACE: &str = "event";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// An event type.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventType {
    /// Its name.
    #[serde(rename = "type")]
    #[schema(example = "orders.created")]
    name: String,
    /// What it tells.
    description: String,
    /// What makes it: `insert`, `update`, `delete`, `truncate`, `schema`, `message`, `notice`.
    operations: Vec<&'static str>,
    /// The table's schema; null where it is of no table.
    schema: Option<String>,
    /// The table; null where it is of none.
    table: Option<String>,
    /// The JSON Schema (2020-12) of its body in the format `standard`.
    #[schema(value_type = Object)]
    json_schema: Value,
    /// A body of it in the format `standard`.
    #[schema(value_type = Object)]
    sample: Value,
    /// The webhooks that subscribe to it, the first hundred by name; to a tenant, its own.
    subscribers: Vec<String>,
    /// How many subscribe to it.
    subscriber_count: usize,
}

/// A page of event types.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventTypePage {
    /// In the order of names.
    data: Vec<EventType>,
    /// Where the next page begins; null: there is no more.
    next_cursor: Option<String>,
}

impl From<events::EventType> for EventType {
    fn from(made: events::EventType) -> Self {
        let (schema, table) = made.table.unzip();
        Self {
            name: made.name.to_string(),
            description: made.description,
            operations: made.operations,
            schema,
            table,
            json_schema: made.schema,
            sample: made.sample,
            subscribers: made.subscribers.iter().map(ToString::to_string).collect(),
            subscriber_count: made.subscriber_count,
        }
    }
}

/// Lists the event types that exist: of the tables that there are, of `[[events]]`, and of walhook itself. A tenant's key
/// gets those that are public, with its own subscribers. Needs webhook:read.
#[utoipa::path(get, operation_id = "list_events", path = "/events", tag = "events",
    params(
        ("limit" = Option<u32>, Query, description = "how many; 1 to 200, 50 where it is absent", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses((status = OK, body = EventTypePage)))]
async fn list(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<EventTypePage>, Problem> {
    let mut parameters = Parameters::of(query.as_deref());
    let (limit, behind) = parameters.page(PLACE);
    parameters.finish()?;
    let mut found = events::list(&api.desk, &may.actor, behind.as_deref(), limit + 1).await?;
    let next_cursor = next(&mut found, limit, PLACE, |event| event.name.to_string());
    Ok(Json(EventTypePage { data: found.into_iter().map(EventType::from).collect(), next_cursor }))
}

/// One event type; with a tenant's key, one that is public. Needs webhook:read.
#[utoipa::path(get, operation_id = "get_event", path = "/events/{type}", tag = "events",
    params(("type" = String, Path, description = "the event type")),
    responses((status = OK, body = EventType)))]
async fn get(
    may: May<Tenants<Read>>,
    State(api): State<Api>,
    In(name): In<String>,
) -> Result<Json<EventType>, Problem> {
    Ok(Json(events::get(&api.desk, &may.actor, named(&name)?).await?.into()))
}
