//! Webhooks that were refused because of the address that they would have sent to.

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use url::Url;

use super::aim::Astray;
use crate::catalog::{policy, tenants_policy};
use crate::config::Config;
use crate::control::{Actor, Sight};
use crate::domain::{RefusedBy, limits};
use crate::ledger::refusals::Refusal;

/// What a document would have sent to and may not, where that can be told from the document alone.
pub(super) fn of_document(
    config: &Config,
    actor: &Actor,
    name: Option<&str>,
    document: &Map<String, Value>,
) -> Option<Refusal> {
    let is_tenants =
        actor.sight != Sight::All || document.get("tenant").is_some_and(|tenant| !tenant.is_null());
    let policy = if is_tenants { tenants_policy(config) } else { policy(config) };
    let token_url = document.get("auth").and_then(|auth| auth.get("token_url"));
    let places = [("url", document.get("url")), ("auth.token_url", token_url)];
    let (key, address) = places.into_iter().find_map(|(key, value)| {
        let url = Url::parse(value?.as_str()?).ok()?;
        match policy.refusal(&url)? {
            (RefusedBy::Address(address), _) => Some((key, address)),
            _ => None,
        }
    })?;
    let name = name.or_else(|| document.get("name").and_then(Value::as_str)).unwrap_or_default();
    Some(of_address(actor, name, (key, address)))
}

/// The refusal of an address that a name leads to.
pub(super) fn of_astray(actor: &Actor, name: &str, astray: Option<Astray>) -> Option<Refusal> {
    astray.map(|astray| of_address(actor, name, (astray.key, astray.address)))
}

/// The refusal of an address that a key of a declaration leads to.
pub(super) fn of_address(actor: &Actor, name: &str, (key, address): (&str, IpAddr)) -> Refusal {
    let name: String = name.chars().take(limits::WEBHOOK_NAME).collect();
    Refusal {
        actor: actor.who.clone(),
        action: "address.refused",
        same: format!("{name} {address}"),
        object: Some(name),
        detail: json!({ "address": address, "when": "it was declared", "key": key }),
    }
}
