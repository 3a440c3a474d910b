//! `/keys`: who may use the API.

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
use super::door::{Admin, May};
use super::input::{Document, Fields, In, Parameters, next};
use super::problem::Problem;
use super::webhooks::named;
use crate::control::keys::{self, NewKey, Scope};
use crate::ledger::keys::ApiKey;

const KEY: &str = "key";

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// A key, without the key.
#[derive(Debug, Serialize, ToSchema)]
pub struct Key {
    /// The part of it that may be shown.
    id: String,
    /// What it is for.
    name: String,
    /// What it may do.
    scopes: Vec<String>,
    /// Whose it is: it opens what is this tenant's alone. Null: the operator's.
    tenant: Option<String>,
    /// Since when it is there.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// From when on it is refused.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    /// Since when it is refused for good.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
}

impl From<ApiKey> for Key {
    fn from(key: ApiKey) -> Self {
        let ApiKey { id, name, scopes, tenant, created_at, expires_at, last_used_at, revoked_at } = key;
        Self { id, name, scopes, tenant, created_at, expires_at, last_used_at, revoked_at }
    }
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
pub struct MadeKey {
    #[serde(flatten)]
    made: Key,
    /// The key itself, in this answer alone.
    key: String,
}

/// A key to be made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyToMake {
    /// What it is for.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// What it may do.
    #[schema(min_items = 1)]
    scopes: Vec<ScopeName>,
    /// Whose it is: then it opens what is this tenant's alone, and its scopes are among `webhook:read`, `webhook:write`.
    #[schema(max_length = 99)]
    tenant: Option<String>,
    /// From when on it is refused.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// What a key may do.
#[derive(Debug, Serialize, ToSchema)]
#[expect(dead_code, reason = "it describes, and is never made")]
pub enum ScopeName {
    /// See webhooks and deliveries.
    #[serde(rename = "webhook:read")]
    WebhookRead,
    /// Change webhooks, send deliveries again, cancel them.
    #[serde(rename = "webhook:write")]
    WebhookWrite,
    /// Change incoming webhooks.
    #[serde(rename = "incoming:write")]
    IncomingWrite,
    /// Everything.
    #[serde(rename = "admin")]
    Admin,
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyPage {
    /// In the order of ids.
    data: Vec<Key>,
    /// Where the next page begins; null: there is no more.
    next_cursor: Option<String>,
}

/// Lists keys, revoked ones too. Needs admin.
#[utoipa::path(get, operation_id = "list_keys", path = "/keys", tag = "keys",
    params(
        ("limit" = Option<u32>, Query, description = "how many; 1 to 200, 50 where it is absent", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses((status = OK, body = KeyPage)))]
async fn list(
    may: May<Admin>,
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<KeyPage>, Problem> {
    let mut parameters = Parameters::of(query.as_deref());
    let (limit, behind) = parameters.page(KEY);
    parameters.finish()?;
    let mut found = keys::list(&api.desk, &may.actor, behind.as_deref(), limit + 1).await?;
    let next_cursor = next(&mut found, limit, KEY, |key| key.id.clone());
    Ok(Json(KeyPage { data: found.into_iter().map(Key::from).collect(), next_cursor }))
}

/// Makes a key, which this answer alone shows. Needs admin.
#[utoipa::path(post, operation_id = "create_key", path = "/keys", tag = "keys", request_body = KeyToMake,
    responses((status = CREATED, body = MadeKey)))]
async fn create(
    may: May<Admin>,
    State(api): State<Api>,
    document: Document,
) -> Result<(StatusCode, Json<MadeKey>), Problem> {
    let mut fields = Fields::of(document);
    let name = fields.required("name", "expected what the key is for, as a string");
    let names = Scope::ALL.map(Scope::as_str).join(", ");
    let read = |value: &Value| value.as_str().and_then(Scope::named);
    let given = fields.value("scopes");
    let scopes = given.and_then(|given| given.as_array()?.iter().map(read).collect::<Option<Vec<_>>>());
    if scopes.is_none() {
        fields.refuse::<()>("scopes", format!("expected a list of some of {names}"));
    }
    let expires_at = fields.time("expires_at");
    let tenant = fields.text("tenant");
    fields.finish()?;
    let new =
        NewKey { name: name.unwrap_or_default(), scopes: scopes.unwrap_or_default(), tenant, expires_at };
    let made = keys::create(&api.desk, &may.actor, &new).await?;
    Ok((StatusCode::CREATED, Json(MadeKey { made: made.key.into(), key: made.secret })))
}

/// Refuses a key from now on, at every instance. Needs admin.
#[utoipa::path(delete, operation_id = "revoke_key", path = "/keys/{id}", tag = "keys",
    params(("id" = String, Path, description = "the key's id: wk_ and 16 digits")),
    responses((status = OK, body = Key)))]
async fn revoke(may: May<Admin>, State(api): State<Api>, In(id): In<String>) -> Result<Json<Key>, Problem> {
    Ok(Json(keys::revoke(&api.desk, &may.actor, named(&id)?).await?.into()))
}
