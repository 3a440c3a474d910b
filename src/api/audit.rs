//! `/audit`: who did what.

use axum::Json;
use axum::extract::{RawQuery, State};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::door::{Admin, May};
use super::input::{Parameters, next};
use super::problem::Problem;
use crate::ledger::audit::{KINDS, Sought, Written};

const PLACE: &str = "audit";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// What somebody did.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its number; later ones are greater.
    id: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How whoever it was came: `command`, `admin`, `key`, `walhook`; `sql`, by a session of their own with the database;
    /// `unknown`, whoever could not say who they are.
    actor_kind: String,
    /// Who: the key's name and id, the database's role.
    actor: String,
    /// Did what: `webhook.update`.
    action: String,
    /// To what.
    object: Option<String>,
    /// How it was and is, with secrets left out; the id of the request.
    #[schema(value_type = Object)]
    detail: Value,
    /// From where.
    from_address: Option<String>,
}

impl From<Written> for AuditEntry {
    fn from(written: Written) -> Self {
        let Written { id, at, actor_kind, actor, action, object, detail, address } = written;
        let from_address = address.map(|address| address.to_string());
        Self { id, at, actor_kind, actor, action, object, detail, from_address }
    }
}

/// A page of the audit.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    /// Newest first.
    data: Vec<AuditEntry>,
    /// Where the next page begins; null: there is no more.
    next_cursor: Option<String>,
}

/// Reads who did what, newest first. Needs admin.
#[utoipa::path(get, operation_id = "list_audit", path = "/audit", tag = "audit",
    params(
        ("object" = Option<String>, Query, description = "what was done to this: a webhook's name, a delivery's or a key's id"),
        ("action" = Option<String>, Query, description = "what was done, with * for any run of characters: webhook.*"),
        ("actor" = Option<String>, Query, description = "by whom, with * for any run of characters: a key's name and id, as in `ops (wk_…)`"),
        ("actor_kind" = Option<String>, Query, description = "how they came: command, admin, key, walhook; sql, by a session of their own; unknown, whoever could not say who they are"),
        ("since" = Option<String>, Query, description = "then or later (RFC 3339)"),
        ("until" = Option<String>, Query, description = "before (RFC 3339)"),
        ("limit" = Option<u32>, Query, description = "how many; 1 to 200, 50 where it is absent", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses((status = OK, body = AuditPage)))]
async fn list(
    may: May<Admin>,
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<AuditPage>, Problem> {
    let mut parameters = Parameters::of(query.as_deref());
    let (limit, before) = parameters.numbered_page(PLACE);
    let when = "expected a time with its zone, such as 2026-01-31T08:00:00Z";
    let kinds = format!("expected one of {}", KINDS.join(", "));
    let sought = Sought {
        object: parameters.one("object"),
        action: parameters.one("action"),
        actor: parameters.one("actor"),
        actor_kind: parameters
            .read("actor_kind", &kinds, |text| KINDS.into_iter().find(|kind| *kind == text)),
        since: parameters.read("since", when, |text| text.parse().ok()),
        until: parameters.read("until", when, |text| text.parse().ok()),
    };
    parameters.finish()?;
    let mut found = api.desk.audit(&may.actor, &sought, before, limit + 1).await?;
    let next_cursor = next(&mut found, limit, PLACE, |entry| entry.id.to_string());
    Ok(Json(AuditPage { data: found.into_iter().map(AuditEntry::from).collect(), next_cursor }))
}
