//! `/webhooks/{id}/backfill`, `/backfills`: the rows that a table has already, delivered as a job.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::door::{May, Read, Write};
use super::input::{Document, Fields, In, Parameters, next};
use super::problem::Problem;
use super::webhooks::named;
use crate::control::backfill::{self, Ask};
use crate::ledger::backfills::{Backfill as Standing, Steer};

const PLACE: &str = "backfill";
const MOST_A_SECOND: u32 = 1_000_000;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, ask))
        .routes(routes!(get))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(list_all))
        .routes(routes!(find))
}

/// Which rows are to be delivered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackfillToMake {
    /// The table; `schema.table` outside `public`.
    #[schema(example = "orders")]
    table: String,
    /// Rows from a time on, by one of their columns.
    since: Option<Since>,
    /// SQL over the table's columns; needs a key with `admin`, because it is run by the database.
    #[schema(example = "status = 'paid'")]
    condition: Option<String>,
    /// At most so many rows a second.
    #[schema(minimum = 1, maximum = 1_000_000)]
    rows_per_second: Option<u32>,
}

/// A column and the time from which on its rows are meant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// The column.
    #[schema(example = "created_at")]
    column: String,
    /// The time, as Postgres reads it.
    #[schema(example = "2026-01-31")]
    time: String,
}

/// A backfill as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Backfill {
    /// Its number.
    id: i64,
    /// The webhook.
    webhook: String,
    /// The table's schema.
    schema: String,
    /// The table.
    table: String,
    /// SQL over its columns.
    condition: Option<String>,
    /// At most so many rows a second.
    rows_per_second: Option<i32>,
    /// `pending`, `running`, `paused`, `done`, `failed`, `cancelled`.
    status: &'static str,
    /// Why it is in it, where that needs a word.
    reason: Option<String>,
    /// How many rows the planner expected.
    estimate: Option<i64>,
    /// Rows done with.
    rows_done: i64,
    /// Deliveries they made.
    deliveries: i64,
    /// Rows that changed at every look, and were left to their live changes.
    rows_moving: i64,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it last moved.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
}

/// A backfill that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeBackfill {
    #[serde(flatten)]
    made: Backfill,
    /// The event type that its rows come as.
    event: String,
    /// Whether an instance streams now, and so begins; else it does when one runs.
    running: bool,
}

/// A page of backfills.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackfillPage {
    /// Newest first.
    data: Vec<Backfill>,
    /// Where the next page begins; null: there is no more.
    next_cursor: Option<String>,
}

impl From<Standing> for Backfill {
    fn from(standing: Standing) -> Self {
        Self {
            id: standing.id,
            webhook: standing.webhook,
            schema: standing.schema,
            table: standing.table,
            condition: standing.condition,
            rows_per_second: standing.rows_per_second,
            status: standing.status.as_str(),
            reason: standing.reason,
            estimate: standing.estimate,
            rows_done: standing.rows_done,
            deliveries: standing.deliveries,
            rows_moving: standing.rows_moving,
            created_at: standing.created_at,
            updated_at: standing.updated_at,
            finished_at: standing.finished_at,
        }
    }
}

fn since(fields: &mut Fields) -> Option<(String, String)> {
    let given = fields.value("since")?;
    let text = |key: &str| given.get(key).and_then(Value::as_str).map(str::to_owned);
    let is_whole = given.as_object().is_some_and(|since| since.len() == 2);
    text("column").zip(text("time")).filter(|_| is_whole).or_else(|| {
        fields.refuse("since", "expected {\"column\": …, \"time\": …}, such as created_at and 2026-01-31")
    })
}

/// Lists the backfills of a webhook. Needs webhook:read.
#[utoipa::path(get, operation_id = "list_backfills", path = "/webhooks/{id}/backfill", tag = "backfills",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("limit" = Option<u32>, Query, description = "how many; 1 to 200, 50 where it is absent", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses((status = OK, body = BackfillPage)))]
async fn list(
    may: May<Read>,
    State(api): State<Api>,
    In(id): In<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<BackfillPage>, Problem> {
    let mut parameters = Parameters::of(query.as_deref());
    let (limit, before) = parameters.numbered_page(PLACE);
    parameters.finish()?;
    let mut found = backfill::list_of(&api.desk, &may.actor, named(&id)?, (before, limit + 1)).await?;
    let next_cursor = next(&mut found, limit, PLACE, |backfill| backfill.id.to_string());
    Ok(Json(BackfillPage { data: found.into_iter().map(Backfill::from).collect(), next_cursor }))
}

/// Delivers the rows that a table has already, as snapshot events, by the running instance. Needs webhook:write.
#[utoipa::path(post, operation_id = "create_backfill", path = "/webhooks/{id}/backfill", tag = "backfills",
    request_body = BackfillToMake,
    params(("id" = String, Path, description = "the webhook's name")),
    responses(
        (status = ACCEPTED, body = MadeBackfill, description = "it will be done; GET says how far it is"),
        (status = CONFLICT, description = "the table's changes are not published"),
    ))]
async fn ask(
    may: May<Write>,
    State(api): State<Api>,
    In(id): In<String>,
    document: Document,
) -> Result<(StatusCode, Json<MadeBackfill>), Problem> {
    let webhook = named(&id)?.to_owned();
    let mut fields = Fields::of(document);
    let table = fields.required("table", "expected the table whose rows are to be delivered, as a string");
    let (since, condition) = (since(&mut fields), fields.text("condition"));
    let rows_per_second = fields.number("rows_per_second", 1..=MOST_A_SECOND);
    fields.finish()?;
    if condition.is_some() {
        may.insist_on_admin(&api, "a condition in SQL").await?;
    }
    let ask = Ask { webhook, table: table.unwrap_or_default(), since, condition, rows_per_second };
    let asked = backfill::ask(&api.desk, &may.actor, &ask).await?;
    let made = asked.now().await?.into();
    let made = MadeBackfill { made, event: asked.event_type, running: asked.running };
    Ok((StatusCode::ACCEPTED, Json(made)))
}

/// How far a backfill is. Needs webhook:read.
#[utoipa::path(get, operation_id = "get_backfill", path = "/webhooks/{id}/backfill/{job}", tag = "backfills",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("job" = i64, Path, description = "the backfill's number"),
    ),
    responses((status = OK, body = Backfill)))]
async fn get(
    may: May<Read>,
    State(api): State<Api>,
    In((id, job)): In<(String, i64)>,
) -> Result<Json<Backfill>, Problem> {
    Ok(Json(backfill::get(&api.desk, &may.actor, named(&id)?, job).await?.into()))
}

async fn steer(
    may: &May<Write>,
    api: &Api,
    id: &str,
    job: i64,
    steer: Steer,
) -> Result<Json<Backfill>, Problem> {
    let whose = (named(id)?, job);
    Ok(Json(backfill::steer(&api.desk, &may.actor, whose, steer).await?.into()))
}

/// Stops a backfill for a while. Needs webhook:write.
#[utoipa::path(post, operation_id = "pause_backfill", path = "/webhooks/{id}/backfill/{job}/pause", tag = "backfills",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("job" = i64, Path, description = "the backfill's number"),
    ),
    responses((status = OK, body = Backfill), (status = CONFLICT, description = "it is in no state for that")))]
async fn pause(
    may: May<Write>,
    State(api): State<Api>,
    In((id, job)): In<(String, i64)>,
) -> Result<Json<Backfill>, Problem> {
    steer(&may, &api, &id, job, Steer::Pause).await
}

/// Goes on with a backfill that is paused or failed. Needs webhook:write.
#[utoipa::path(post, operation_id = "resume_backfill", path = "/webhooks/{id}/backfill/{job}/resume", tag = "backfills",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("job" = i64, Path, description = "the backfill's number"),
    ),
    responses((status = OK, body = Backfill), (status = CONFLICT, description = "it is in no state for that")))]
async fn resume(
    may: May<Write>,
    State(api): State<Api>,
    In((id, job)): In<(String, i64)>,
) -> Result<Json<Backfill>, Problem> {
    steer(&may, &api, &id, job, Steer::Resume).await
}

/// Ends a backfill; what of it is in the ledger already is sent all the same. Needs webhook:write.
#[utoipa::path(post, operation_id = "cancel_backfill", path = "/webhooks/{id}/backfill/{job}/cancel", tag = "backfills",
    params(
        ("id" = String, Path, description = "the webhook's name"),
        ("job" = i64, Path, description = "the backfill's number"),
    ),
    responses((status = OK, body = Backfill), (status = CONFLICT, description = "it is in no state for that")))]
async fn cancel(
    may: May<Write>,
    State(api): State<Api>,
    In((id, job)): In<(String, i64)>,
) -> Result<Json<Backfill>, Problem> {
    steer(&may, &api, &id, job, Steer::Cancel).await
}

/// Lists the backfills of all webhooks. Needs webhook:read.
#[utoipa::path(get, operation_id = "list_all_backfills", path = "/backfills", tag = "backfills",
    params(
        ("limit" = Option<u32>, Query, description = "how many; 1 to 200, 50 where it is absent", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses((status = OK, body = BackfillPage)))]
async fn list_all(
    may: May<Read>,
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<BackfillPage>, Problem> {
    let mut parameters = Parameters::of(query.as_deref());
    let (limit, before) = parameters.numbered_page(PLACE);
    parameters.finish()?;
    let mut found = backfill::list(&api.desk, &may.actor, (before, limit + 1)).await?;
    let next_cursor = next(&mut found, limit, PLACE, |backfill| backfill.id.to_string());
    Ok(Json(BackfillPage { data: found.into_iter().map(Backfill::from).collect(), next_cursor }))
}

/// How far a backfill is, by its number alone. Needs webhook:read.
#[utoipa::path(get, operation_id = "find_backfill", path = "/backfills/{job}", tag = "backfills",
    params(("job" = i64, Path, description = "the backfill's number")),
    responses((status = OK, body = Backfill)))]
async fn find(may: May<Read>, State(api): State<Api>, In(job): In<i64>) -> Result<Json<Backfill>, Problem> {
    Ok(Json(backfill::find(&api.desk, &may.actor, job).await?.into()))
}
