//! The way to one webhook's receiver, where it is not the ordinary one, and what such webhooks share.
//!
//! A [`Route`] is made with the webhook, from its settings. The first delivery looks up the client and the tokens of
//! those settings; webhooks with equal settings, of one origin, share both. What no webhook uses any more is kept for a
//! while: a change of the webhooks makes every route anew, and must cost no connection and no token.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::door::Door;
use super::lookups::Lookups;
use super::tls::Verifiers;
use super::token::Tokens;
use super::{Policies, TransportError};
use crate::domain::{Auth, Connection, Fingerprint, OAuth2, Reach, WebhookSource, limits};

/// How one webhook's receiver is reached, where that is not the ordinary way.
#[derive(Debug)]
pub struct Route {
    connection: Arc<Connection>,
    oauth2: Option<OAuth2>,
    way: OnceLock<Way>,
}

/// What a route comes to.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub door: Arc<Door>,
    pub tokens: Option<Arc<Tokens>>,
}

impl Route {
    /// The route of a webhook; `None` for the ordinary one.
    pub fn of(reach: &Reach) -> Option<Self> {
        let oauth2 = match &reach.auth {
            Some(Auth::OAuth2(oauth2)) => Some(oauth2.clone()),
            _ => None,
        };
        let is_ordinary = oauth2.is_none() && reach.connection.is_plain();
        (!is_ordinary).then(|| Self {
            connection: Arc::clone(&reach.connection),
            oauth2,
            way: OnceLock::new(),
        })
    }

    pub(super) fn way(&self, routes: &Routes, source: WebhookSource) -> Result<Way, TransportError> {
        if let Some(way) = self.way.get() {
            return Ok(way.clone());
        }
        let door = routes.door(&self.connection, source)?;
        let tokens = match &self.oauth2 {
            Some(oauth2) => Some(routes.tokens(oauth2, &self.connection, source)?),
            None => None,
        };
        Ok(self.way.get_or_init(|| Way { door, tokens }).clone())
    }
}

type Key = (Fingerprint, WebhookSource);

/// Everything that webhooks share on their ways.
#[derive(Debug)]
pub(super) struct Routes {
    verifiers: Verifiers,
    policies: Policies,
    lookups: Lookups,
    connect_within: Duration,
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    doors: HashMap<Key, Kept<Door>>,
    tokens: HashMap<(Key, Fingerprint), Kept<Tokens>>,
}

#[derive(Debug)]
struct Kept<T> {
    it: Arc<T>,
    used_at: Instant,
}

impl Routes {
    pub(super) fn new(
        verifiers: Verifiers,
        policies: Policies,
        lookups: Lookups,
        connect_within: Duration,
    ) -> Self {
        Self { verifiers, policies, lookups, connect_within, pool: Mutex::default() }
    }

    /// The client of these settings.
    pub(super) fn door(
        &self,
        connection: &Connection,
        source: WebhookSource,
    ) -> Result<Arc<Door>, TransportError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        shared(&mut pool.doors, (connection.fingerprint(), source), || {
            let bounds = (&self.lookups, self.connect_within);
            Door::new(&self.verifiers, connection, self.policies.of(source).cloned(), bounds)
        })
    }

    fn tokens(
        &self,
        oauth2: &OAuth2,
        connection: &Connection,
        source: WebhookSource,
    ) -> Result<Arc<Tokens>, TransportError> {
        let way = connection.for_tokens();
        let door = self.door(&way, source)?;
        let key = ((way.fingerprint(), source), oauth2.fingerprint());
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        shared(&mut pool.tokens, key, || Ok(Tokens::new(oauth2.clone(), source, door)))
    }

    /// How many clients there are.
    #[cfg(test)]
    pub(super) fn doors(&self) -> usize {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).doors.len()
    }
}

/// What is kept under a key, or is made now; lets go what has not been used for long.
fn shared<K: Hash + Eq, T>(
    all: &mut HashMap<K, Kept<T>>,
    key: K,
    make: impl FnOnce() -> Result<T, TransportError>,
) -> Result<Arc<T>, TransportError> {
    let now = Instant::now();
    if let Some(kept) = all.get_mut(&key) {
        kept.used_at = now;
        return Ok(Arc::clone(&kept.it));
    }
    let it = Arc::new(make()?);
    all.retain(|_, kept| Arc::strong_count(&kept.it) > 1 || now - kept.used_at < limits::ROUTE_UNUSED);
    all.insert(key, Kept { it: Arc::clone(&it), used_at: now });
    Ok(it)
}
