//! Keys of the API: made, listed, revoked, verified.
//!
//! A key reads `wk_ID_SECRET`. `ID` finds its row and may be shown; `SECRET` is 256 random bits, of which only a SHA-256
//! is kept. A slow hash would add nothing: it makes guessing a person's password dear, and nobody guesses 256 bits. The
//! hash is compared in constant time. Every use looks at the row, so that a revoked key is refused at once, by every
//! instance.
//!
//! A tenant's key opens only what is that tenant's ([`super::Sight`]), and of that at most what [`Scope::OF_TENANTS`] says,
//! whatever its row says.

use jiff::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{About, Actor, ControlError, Desk, nearest};
use crate::domain::{TENANT_MARK, limits};
use crate::ledger::keys::{self, ApiKey};

/// What every key begins with.
pub const PREFIX: &str = "wk_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// See webhooks and deliveries.
    WebhookRead,
    /// Change webhooks, send deliveries again, cancel them.
    WebhookWrite,
    /// Change incoming webhooks.
    IncomingWrite,
    /// Everything.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::WebhookRead, Self::WebhookWrite, Self::IncomingWrite, Self::Admin];

    /// What the key of a tenant may be for.
    pub const OF_TENANTS: [Self; 2] = [Self::WebhookRead, Self::WebhookWrite];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebhookRead => "webhook:read",
            Self::WebhookWrite => "webhook:write",
            Self::IncomingWrite => "incoming:write",
            Self::Admin => "admin",
        }
    }

    /// The scope of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// A key to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Whose it is; `None`: the operator's.
    pub tenant: Option<String>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
}

/// A key that was made.
pub struct Made {
    /// What is kept of it.
    pub key: ApiKey,
    /// The key itself, which nobody can show again.
    pub secret: String,
}

/// Why a key is refused. What the refused is told does not say which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such key, or its secret is another. Its id, where it has the form of a key.
    Unknown(Option<String>),
    /// It was revoked.
    Revoked(Box<ApiKey>),
    /// It has expired.
    Expired(Box<ApiKey>),
}

/// Makes a key.
pub async fn create(desk: &Desk, actor: &Actor, new: &NewKey) -> Result<Made, ControlError> {
    let refused = |key: &'static str, problem: &str| ControlError::Value { key, problem: problem.to_owned() };
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > limits::API_KEY_NAME || name.chars().any(char::is_control) {
        let problem = format!("expected 1 to {} characters that can be seen", limits::API_KEY_NAME);
        return Err(refused("name", &problem));
    }
    if new.scopes.is_empty() {
        return Err(refused("scopes", "expected at least one scope"));
    }
    if let Some(tenant) = &new.tenant {
        check_tenant(tenant)?;
        if new.scopes.iter().any(|scope| !Scope::OF_TENANTS.contains(scope)) {
            let names = Scope::OF_TENANTS.map(Scope::as_str).join(", ");
            return Err(refused("scopes", &format!("the key of a tenant has some of {names}")));
        }
    }
    if new.expires_at.is_some_and(|at| at <= desk.clock.now()) {
        return Err(refused("expires_at", "expected a time to come"));
    }
    let mut scopes: Vec<&str> = new.scopes.iter().map(|scope| scope.as_str()).collect();
    scopes.sort_unstable();
    scopes.dedup();
    let (id, secret) = (format!("{PREFIX}{}", random::<ID_BYTES>()?), random::<SECRET_BYTES>()?);
    let hash = Sha256::digest(secret.as_bytes());
    let mut session = desk.session(actor, About::Operators).await?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let row = (id.as_str(), name, scopes.as_slice(), new.tenant.as_deref());
    let made = keys::insert(&transaction, row, &hash, new.expires_at, limits::API_KEYS).await?;
    let key = made.ok_or(ControlError::TooMany { what: "keys", most: limits::API_KEYS })?;
    let after =
        json!({ "name": key.name, "scopes": key.scopes, "tenant": key.tenant, "expires_at": key.expires_at });
    actor.note(&transaction, "key.create", &id, (None, Some(after))).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(Made { key, secret: format!("{id}_{secret}") })
}

/// A tenant is written as names of webhooks and columns of rows can have it.
fn check_tenant(tenant: &str) -> Result<(), ControlError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    // Its webhooks have longer names.
    if !tenant.is_empty() && tenant.len() < limits::WEBHOOK_NAME && tenant.chars().all(plain) {
        return Ok(());
    }
    let most = limits::WEBHOOK_NAME - 1;
    let problem = format!("expected 1 to {most} characters of A-Z a-z 0-9 _ . - (and no {TENANT_MARK})");
    Err(ControlError::Value { key: "tenant", problem })
}

/// The keys after an id, in the order of ids.
pub async fn list(
    desk: &Desk,
    actor: &Actor,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<ApiKey>, ControlError> {
    let session = desk.session(actor, About::Operators).await?;
    Ok(keys::page(&*session, after, i64::from(limit)).await?)
}

/// Refuses a key from now on. One that is revoked already stays so.
pub async fn revoke(desk: &Desk, actor: &Actor, id: &str) -> Result<ApiKey, ControlError> {
    let mut session = desk.session(actor, About::Operators).await?;
    let transaction = session.transaction().await.map_err(transaction_failed)?;
    let Some(key) = keys::revoke(&transaction, id).await? else {
        let known = keys::page(&transaction, None, 1000).await?;
        let nearest = nearest(id, known.iter().map(|key| key.id.as_str()));
        return Err(ControlError::Unknown { what: "key", name: id.to_owned(), nearest });
    };
    let after = json!({ "name": key.name, "revoked_at": key.revoked_at });
    actor.note(&transaction, "key.revoke", id, (None, Some(after))).await?;
    transaction.commit().await.map_err(transaction_failed)?;
    Ok(key)
}

/// Whose key it is.
pub async fn verify(desk: &Desk, key: &str) -> Result<Result<ApiKey, Refused>, ControlError> {
    let Some((id, secret)) = split(key) else { return Ok(Err(Refused::Unknown(None))) };
    let session = desk.session(&Actor::walhook(), About::Operators).await?;
    let held = keys::held(&session.prepared().on(&*session), id).await?;
    let hash = Sha256::digest(secret.as_bytes());
    // Where there is no such key the same is done, so that it takes as long.
    let expected = held.as_ref().map_or(&[0; 32][..], |held| &held.hash);
    let is_right = bool::from(hash.as_slice().ct_eq(expected));
    let Some(held) = held.filter(|_| is_right) else { return Ok(Err(Refused::Unknown(Some(id.to_owned())))) };
    if held.key.revoked_at.is_some() {
        return Ok(Err(Refused::Revoked(Box::new(held.key))));
    }
    if held.expired {
        return Ok(Err(Refused::Expired(Box::new(held.key))));
    }
    if held.unused_of_late {
        keys::touch(&*session, id).await?;
    }
    Ok(Ok(held.key))
}

/// Whether two tokens are the same; how long that takes does not tell how much of them is.
pub fn same(one: &str, other: &str) -> bool {
    Sha256::digest(one.as_bytes()).as_slice().ct_eq(Sha256::digest(other.as_bytes()).as_slice()).into()
}

/// A token for one run.
pub fn one_time_token() -> Result<String, ControlError> {
    Ok(format!("wt_{}", random::<SECRET_BYTES>()?))
}

/// The id and the secret of a key.
fn split(key: &str) -> Option<(&str, &str)> {
    let (id, secret) = key.rsplit_once('_')?;
    let hex = |text: &str, bytes: usize| {
        text.len() == 2 * bytes && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    (hex(id.strip_prefix(PREFIX)?, ID_BYTES) && hex(secret, SECRET_BYTES)).then_some((id, secret))
}

/// Random bytes, in hexadecimal digits.
fn random<const BYTES: usize>() -> Result<String, ControlError> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ControlError::NoRandomness)?;
    Ok(hex::encode(bytes))
}

/// A transaction cannot be begun or ended.
pub(super) fn transaction_failed(source: tokio_postgres::Error) -> ControlError {
    crate::ledger::LedgerError::Statement { doing: "a transaction", source }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_apart_only_where_it_has_the_form_of_one() {
        let (id, secret) = (random::<ID_BYTES>().unwrap(), random::<SECRET_BYTES>().unwrap());
        let key = format!("wk_{id}_{secret}");
        assert_eq!(split(&key), Some((key.rsplit_once('_').unwrap().0, secret.as_str())));
        for wrong in ["", "wk_", "wk__", &format!("{id}_{secret}"), &key.to_uppercase(), &format!("{key}0")] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
        assert_ne!(random::<SECRET_BYTES>().unwrap(), random::<SECRET_BYTES>().unwrap());
    }

    #[test]
    fn tokens_are_the_same_only_where_every_byte_is() {
        assert!(same("abc", "abc"));
        for other in ["", "ab", "abd", "abcd"] {
            assert!(!same("abc", other));
        }
    }

    #[test]
    fn scopes_have_the_names_of_the_contract() {
        for scope in Scope::ALL {
            assert_eq!(Scope::named(scope.as_str()), Some(scope));
        }
        assert_eq!(Scope::named("webhook:*"), None);
    }
}
