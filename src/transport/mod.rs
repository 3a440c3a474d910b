//! The only HTTP client of deliveries.
//!
//! A request goes in, a [`domain::Outcome`](crate::domain::Outcome) comes out: whatever a receiver does is data, never
//! an `Err`. The timeout is that of the whole attempt: name lookup, connection, request, answer.
//!
//! Two clients stand behind one door, and share no connection. The *trusted* one carries webhooks of the operator's
//! file. The *guarded* one carries those of the database, which anybody may have written who can write there:
//!
//! - plain http is refused, unless `security.allow_http`;
//! - addresses in the URL are checked here, however they are spelled (the URL parser has made `0x7f.1` an address);
//! - names are resolved by [`resolve`], which lets only allowed addresses through, and those are the ones dialled.
//!
//! A webhook with TLS settings, a proxy or access tokens has a [`Route`], and a client of its own kind, again one for each
//! of the two origins: [`route`] has what webhooks share, [`proxy`] the way through one, [`token`] the tokens.
//!
//! None follows redirects, uses a proxy that the configuration does not name, or decompresses; what goes compressed is
//! [`encoding`]'s. Absent on purpose: cookies,
//! caches, retries; trying again is the dispatcher's, where it is recorded. Two exceptions are no second try: what the
//! receiver's HTTP/2 layer hands back unprocessed (a stream refused, a connection going away) is sent on another
//! connection, and what was answered 401 under an access token from before is sent once more under a new one.

mod address;
mod answer;
pub mod call;
mod door;
pub mod encoding;
mod failure;
mod lookups;
mod probe;
mod progress;
mod proxy;
mod resolve;
mod retry_after;
mod route;
#[cfg(test)]
mod tests;
mod tls;
mod token;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use url::{Host, Url};

use self::door::Door;
pub use self::lookups::Lookups;
use self::progress::Progress;
pub use self::route::Route;
use self::route::{Routes, Way};
pub use self::tls::{check_authorities, check_identity, expiry};
use self::token::Tokens;
use crate::clock::Clock;
use crate::domain::{Connection, Outcome, RefusedBy, TimeoutStage, WebhookSource, limits};

/// What webhooks of the database may target (`[security]`, `[security.tenants]`).
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Whether plain http is allowed.
    pub allow_http: bool,
    /// Networks that are allowed although private, loopback, link-local, …
    pub allow_networks: Vec<IpNet>,
    /// Whether these are the rules for tenants (`[security.tenants]`), who are not told what a name resolves to.
    pub for_tenants: bool,
}

/// What a [`Transport`] is made of.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// The rules for webhooks of the database.
    pub policy: Policy,
    /// The rules for those of tenants.
    pub tenants: Policy,
    /// How many bytes of an answer's body are kept (`ledger.capture_response`).
    pub capture_bytes: usize,
    /// What time it is, for `Retry-After` dates.
    pub clock: Clock,
    /// Certificates trusted beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// How names become addresses.
    pub lookups: Lookups,
    /// How long a connection may take to be made, whoever waits for it ([`limits::CONNECT_TIMEOUT`]).
    pub connect_within: Duration,
}

/// One attempt, ready to go: a `POST` of `body` with `headers`.
#[derive(Debug)]
pub struct Request<'a> {
    /// Where to; userinfo becomes basic authentication.
    pub url: &'a Url,
    /// Who wrote the webhook.
    pub source: WebhookSource,
    /// All headers but `user-agent`, `host`, `content-length` and `accept`.
    pub headers: HeaderMap,
    /// The body's bytes as they go over the wire.
    pub body: Bytes,
    /// How long the whole attempt may take.
    pub timeout: Duration,
    /// The webhook's own way, where it has one.
    pub route: Option<&'a Route>,
}

/// Why no [`Transport`] could be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The system's root certificates could not be had (is `ca-certificates` installed?), or an extra one is broken.
    #[error("the trusted root certificates cannot be loaded (is the package ca-certificates installed?)")]
    Roots {
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// A client's TLS settings cannot be used.
    #[error("the settings in tls cannot be used")]
    Tls {
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// The HTTP client refused its settings.
    #[error("the HTTP client cannot be set up")]
    Client {
        /// What reqwest says.
        #[source]
        source: reqwest::Error,
    },
}

/// Sends deliveries. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    trusted: Arc<Door>,
    guarded: Arc<Door>,
    tenants: Arc<Door>,
    routes: Routes,
    policies: Policies,
    capture_bytes: usize,
    clock: Clock,
}

impl Transport {
    /// Loads the root certificates and makes both clients; opens no connection.
    pub fn new(options: TransportOptions) -> Result<Self, TransportError> {
        let TransportOptions { policy, tenants, capture_bytes, clock, extra_roots, lookups, connect_within } =
            options;
        let policies = Policies { database: Arc::new(policy), tenants: Arc::new(tenants) };
        let routes =
            Routes::new(tls::Verifiers::new(extra_roots)?, policies.clone(), lookups, connect_within);
        let ordinary = Connection::default();
        let shared = Shared {
            trusted: routes.door(&ordinary, WebhookSource::Toml)?,
            guarded: routes.door(&ordinary, WebhookSource::Database)?,
            tenants: routes.door(&ordinary, WebhookSource::Tenant)?,
            routes,
            policies,
            capture_bytes: capture_bytes.min(limits::CAPTURE_BYTES),
            clock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes one attempt and says how it ended, within its timeout.
    pub async fn send(&self, request: Request<'_>) -> Outcome {
        if let Some(refused) = self.refusal(request.url, request.source) {
            return refused;
        }
        match request.route {
            None => self.post(self.door(request.source), request).await,
            // Apart, so that the ordinary attempt does not carry the size of this one.
            Some(route) => Box::pin(self.send_by(route, request)).await,
        }
    }

    async fn send_by(&self, route: &Route, request: Request<'_>) -> Outcome {
        match route.way(&self.shared.routes, request.source) {
            Ok(Way { door, tokens: None }) => self.post(&door, request).await,
            Ok(Way { door, tokens: Some(tokens) }) => self.post_with_token(&door, &tokens, request).await,
            Err(error) => unusable(&error),
        }
    }

    async fn post(&self, door: &Door, request: Request<'_>) -> Outcome {
        let Request { url, headers, body, timeout, .. } = request;
        let started = Instant::now();
        let progress = Arc::new(Progress::default());
        let sending = progress::noting(Arc::clone(&progress), door.post(url, headers, body.into()));
        match tokio::time::timeout(timeout, sending).await {
            Err(_) => Outcome::TimedOut { stage: progress.stage() },
            Ok(Err(error)) => failure::outcome(&error, url, &progress),
            Ok(Ok(response)) => {
                let time_left = timeout.saturating_sub(started.elapsed());
                let now = self.shared.clock.now();
                answer::outcome(response, self.shared.capture_bytes, time_left, now, (url, &progress)).await
            }
        }
    }

    /// One attempt under an access token. A 401 to a token from before has it renewed, once, and the request sent again.
    async fn post_with_token(&self, door: &Door, tokens: &Tokens, request: Request<'_>) -> Outcome {
        if let Some(refused) = self.refusal(tokens.url(), tokens.source) {
            let Outcome::Refused { by, reason } = refused else { return refused };
            return Outcome::Refused { by, reason: format!("auth.token_url: {reason}") };
        }
        let deadline = Instant::now() + request.timeout;
        let mut refused = None;
        loop {
            let (token, is_old) = match tokio::time::timeout_at(deadline, tokens.get(refused.as_ref())).await
            {
                Ok(Ok(token)) => token,
                Ok(Err(outcome)) => return outcome,
                Err(_) => return token::no_token(tokens.url(), "the attempt's time ran out"),
            };
            let mut headers = request.headers.clone();
            headers.insert(AUTHORIZATION, token.value.clone());
            let time_left = deadline.saturating_duration_since(Instant::now());
            if time_left.is_zero() {
                return Outcome::TimedOut { stage: TimeoutStage::Connect };
            }
            let again = Request { headers, body: request.body.clone(), timeout: time_left, ..request };
            let outcome = self.post(door, again).await;
            if outcome.status() != Some(401) || !is_old || refused.is_some() {
                return outcome;
            }
            refused = Some(token);
        }
    }

    fn door(&self, source: WebhookSource) -> &Door {
        match source {
            WebhookSource::Toml => &self.shared.trusted,
            WebhookSource::Database => &self.shared.guarded,
            WebhookSource::Tenant => &self.shared.tenants,
        }
    }

    /// What the rules say before anything is looked up or sent.
    fn refusal(&self, url: &Url, source: WebhookSource) -> Option<Outcome> {
        let (by, reason) = match self.shared.policies.of(source) {
            Some(policy) => policy.refusal(url)?,
            None if matches!(url.scheme(), "https" | "http") => return None,
            None => foreign(url),
        };
        Some(Outcome::Refused { by, reason })
    }
}

/// The rules by who wrote a webhook.
#[derive(Debug, Clone)]
struct Policies {
    database: Arc<Policy>,
    tenants: Arc<Policy>,
}

impl Policies {
    /// `None`: there are none.
    fn of(&self, source: WebhookSource) -> Option<&Arc<Policy>> {
        match source {
            WebhookSource::Toml => None,
            WebhookSource::Database => Some(&self.database),
            WebhookSource::Tenant => Some(&self.tenants),
        }
    }
}

impl Policy {
    /// The table of the configuration that has them.
    fn table(&self) -> &'static str {
        if self.for_tenants { "security.tenants" } else { "security" }
    }

    /// Why nothing may be sent to an address that a name leads to.
    pub fn refusal_of_name(&self, name: &str, address: IpAddr) -> Option<String> {
        let class = self.forbids(address)?;
        Some(format!(
            "{name} is {address}, a special address ({class}): not allowed for this webhook unless \
             {}.allow_networks has it",
            self.table()
        ))
    }

    /// Why nothing may be sent to this URL, as far as it can be told from the URL alone. What a name resolves to is seen
    /// when it is dialled.
    pub fn refusal(&self, url: &Url) -> Option<(RefusedBy, String)> {
        match url.scheme() {
            "http" if !self.allow_http => Some((
                RefusedBy::PlainHttp,
                format!(
                    "plain http is not allowed for this webhook unless {}.allow_http is true",
                    self.table()
                ),
            )),
            "https" | "http" => {
                let address: IpAddr = match url.host()? {
                    Host::Ipv4(address) => address.into(),
                    Host::Ipv6(address) => address.into(),
                    Host::Domain(_) => return None,
                };
                let class = self.forbids(address)?;
                Some((
                    RefusedBy::Address(address),
                    resolve::refusal(&address.to_string(), address, class, self.for_tenants),
                ))
            }
            _ => Some(foreign(url)),
        }
    }
}

fn foreign(url: &Url) -> (RefusedBy, String) {
    (RefusedBy::Request, format!("{} is neither https nor http", url.scheme()))
}

/// The outcome of a webhook whose client cannot be made.
fn unusable(error: &TransportError) -> Outcome {
    let mut reason = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        reason = format!("{reason}: {source}");
    }
    Outcome::Refused { by: RefusedBy::Request, reason }
}
