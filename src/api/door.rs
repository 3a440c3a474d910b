//! Who may do what: the bearer of a key (RFC 6750), of the operator's token, or of this run's.
//!
//! A handler that takes a [`May`] cannot be reached without the right it names, and not by a tenant's key unless it says that
//! tenants may come ([`Tenants`]). What is refused is told alike, whether
//! the key is unknown, revoked or expired: that is nobody's business who does not hold it.

use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::Api;
use super::edge::RequestId;
use super::guesses::{Then, network};
use super::problem::Problem;
use super::rates::Noted;
use crate::control::keys::{self, Refused, Scope};
use crate::control::{Actor, ControlError, Sight};
use crate::ledger::audit::Actor as Who;
use crate::ledger::keys::ApiKey;
use crate::ledger::refusals::Refusal;

const REALM: &str = "Bearer realm=\"walhook\"";

/// Whoever asks may do what `N` names.
pub struct May<N> {
    /// Who it is.
    pub actor: Actor,
    is_admin: bool,
    need: PhantomData<N>,
}

impl<N> May<N> {
    /// Refuses whoever may not do everything.
    pub async fn insist_on_admin(&self, api: &Api, what: &'static str) -> Result<(), Problem> {
        if self.is_admin {
            return Ok(());
        }
        let detail = json!({ "needs": Scope::Admin.as_str() });
        let refusal = Refusal {
            actor: self.actor.who.clone(),
            action: "access.refused",
            object: Some(what.to_owned()),
            same: what.to_owned(),
            detail,
        };
        api.desk.refused(&self.actor, refusal).await;
        Err(beyond(Scope::Admin, what))
    }
}

fn beyond(scope: Scope, what: &str) -> Problem {
    let scope = scope.as_str();
    let detail = format!("{what} needs the scope {scope}");
    let problem = Problem::new(StatusCode::FORBIDDEN, "scope", "The key does not allow it", detail);
    let challenge = format!("{REALM}, error=\"insufficient_scope\", scope=\"{scope}\"");
    problem.header(header::WWW_AUTHENTICATE, &challenge)
}

/// Marks requests that a command of this very process hands to the routes: who may write the database needs no key. No
/// request that comes over a network has it.
#[derive(Debug, Clone, Copy)]
pub struct ByHand;

/// A right.
pub trait Need {
    /// The scope that gives it, beside `admin`.
    const SCOPE: Scope;
    /// Whether a tenant may have it; then the verbs see what is the tenant's.
    const FOR_TENANTS: bool = false;
}

/// The same right, for tenants too.
pub struct Tenants<N>(PhantomData<N>);

impl<N: Need> Need for Tenants<N> {
    const SCOPE: Scope = N::SCOPE;
    const FOR_TENANTS: bool = true;
}

/// To see webhooks and deliveries.
pub struct Read;
/// To change them.
pub struct Write;
/// To see and change everything.
pub struct Admin;

impl Need for Read {
    const SCOPE: Scope = Scope::WebhookRead;
}

impl Need for Write {
    const SCOPE: Scope = Scope::WebhookWrite;
}

impl Need for Admin {
    const SCOPE: Scope = Scope::Admin;
}

impl<N: Need> FromRequestParts<Api> for May<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let (actor, scopes) = known(parts, api).await?;
        if let Some(limit) = api.desk.config().server.rate_limit {
            let standing = api.rates.count(actor.who.name(), limit);
            if let Some(noted) = parts.extensions.get::<Arc<Noted>>() {
                noted.0.get_or_init(|| standing);
            }
            standing.checked()?;
        }
        if actor.sight.tenant().is_some() && !N::FOR_TENANTS {
            refused_access(parts, api, &actor, "nothing of a tenant's").await;
            return Err(ControlError::Operators.into());
        }
        let may = |scope: Scope| scopes.iter().any(|held| held == scope.as_str());
        let is_admin = may(Scope::Admin);
        if may(N::SCOPE) || is_admin {
            return Ok(Self { actor, is_admin, need: PhantomData });
        }
        refused_access(parts, api, &actor, N::SCOPE.as_str()).await;
        Err(beyond(N::SCOPE, "this"))
    }
}

/// Writes down that somebody known asked for what they have no right to.
async fn refused_access(parts: &Parts, api: &Api, actor: &Actor, needs: &'static str) {
    let path: String = parts.uri.path().chars().take(200).collect();
    let refusal = Refusal {
        actor: actor.who.clone(),
        action: "access.refused",
        object: Some(format!("{} {path}", parts.method)),
        same: format!("{} {needs}", parts.method),
        detail: json!({ "needs": needs }),
    };
    api.desk.refused(actor, refusal).await;
}

/// Writes down that somebody gave a key, or a token, that does not open anything.
async fn refused_login(api: &Api, actor: &Actor, (reason, object): (&'static str, Option<String>)) {
    // The ids of keys that were made up are as many as somebody likes, and so are the addresses of one customer's network.
    let same = match &actor.who {
        Who::Unknown { from } => format!("{reason} {:?}", from.map(network)),
        _ => reason.to_owned(),
    };
    let detail = json!({ "reason": reason });
    let refusal = Refusal { actor: actor.who.clone(), action: "login.refused", object, same, detail };
    api.desk.refused(actor, refusal).await;
}

/// Who asks, and what they may.
async fn known(parts: &Parts, api: &Api) -> Result<(Actor, Vec<String>), Problem> {
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let request = parts.extensions.get::<RequestId>().map(|id| id.0.clone());
    let actor = |who| Actor { who, request: request.clone(), sight: Sight::All };
    let all = || Scope::ALL.map(|scope| scope.as_str().to_owned()).to_vec();
    if parts.extensions.get::<ByHand>().is_some() {
        return Ok((actor(Who::Command), all()));
    }
    let given = bearer(parts)?;
    let unknown = || actor(Who::Unknown { from: address });
    if let Some(left) = address.and_then(|address| api.guesses.locked_out(address)) {
        refused_login(api, &unknown(), ("locked out", None)).await;
        let problem = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "locked-out",
            "Too many wrong keys",
            "too many wrong keys came from this address; for a while none is looked at",
        );
        return Err(problem.header(header::RETRY_AFTER, &(left.as_secs() + 1).to_string()));
    }
    let config = api.desk.config();
    match (&config.server.admin_token, &api.token) {
        (Some(token), _) if keys::same(given, token.expose_secret()) => {
            return Ok((actor(Who::Admin { from: address }), all()));
        }
        (None, Some(token)) if keys::same(given, token.expose_secret()) => {
            return Ok((actor(Who::Admin { from: address }), all()));
        }
        _ => {}
    }
    match keys::verify(&api.desk, given).await? {
        Ok(key) => {
            let mut actor = actor(who_of(&key, address));
            let mut scopes = key.scopes;
            if let Some(tenant) = key.tenant {
                actor.sight = Sight::Tenant(tenant.into());
                // Whatever its row says.
                scopes.retain(|scope| Scope::OF_TENANTS.iter().any(|may| may.as_str() == scope));
            }
            Ok((actor, scopes))
        }
        Err(refused) => {
            let (who, told) = match refused {
                Refused::Unknown(id) => (unknown(), ("unknown", id)),
                Refused::Revoked(key) => (actor(who_of(&key, address)), ("revoked", Some(key.id))),
                Refused::Expired(key) => (actor(who_of(&key, address)), ("expired", Some(key.id))),
            };
            refused_login(api, &who, told).await;
            if let Some(address) = address
                && api.guesses.wrong(address) == Then::LockedOut
            {
                tracing::info!(%address, "an address is locked out for a while: it sent too many wrong keys");
                let locked = Refusal {
                    actor: unknown().who,
                    action: "login.locked_out",
                    object: Some(address.to_string()),
                    same: network(address).to_string(),
                    detail: json!({}),
                };
                api.desk.refused(&unknown(), locked).await;
            }
            let challenge = format!("{REALM}, error=\"invalid_token\"");
            Err(unauthorised("this key is not one that is valid now", &challenge))
        }
    }
}

fn who_of(key: &ApiKey, from: Option<IpAddr>) -> Who {
    Who::Key { name: format!("{} ({})", key.name, key.id), from }
}

/// The token of the request.
fn bearer(parts: &Parts) -> Result<&str, Problem> {
    let missing = "a key is needed: Authorization: Bearer KEY";
    let value = parts.headers.get(header::AUTHORIZATION).ok_or_else(|| unauthorised(missing, REALM))?;
    let text = value.to_str().unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(unauthorised(missing, REALM));
    }
    Ok(token)
}

fn unauthorised(detail: &str, challenge: &str) -> Problem {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "key", "A valid key is needed", detail);
    let hint = "`walhook keys create` makes one, and so does the operator's token (server.admin_token).";
    problem.hint(hint).header(header::WWW_AUTHENTICATE, challenge)
}
