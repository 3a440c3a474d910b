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
//! Neither follows redirects, uses a proxy, or decompresses; what goes compressed is [`encoding`]'s. Absent on purpose: cookies, caches, retries; trying
//! again is the dispatcher's, where it is recorded. One exception is no second try: what the receiver's HTTP/2 layer
//! hands back unprocessed (a stream refused, a connection going away) is sent on another connection.

mod address;
mod answer;
pub mod encoding;
mod failure;
mod probe;
mod progress;
mod resolve;
mod retry_after;
#[cfg(test)]
mod tests;
mod tls;

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

use self::progress::Progress;
use self::resolve::Resolver;
use crate::clock::Clock;
use crate::domain::{Outcome, RefusedBy, WebhookSource, limits};

/// How long an idle connection is kept: less than the five seconds after which common servers close theirs, so
/// that a delivery hardly ever meets a connection that is just going away.
const IDLE: Duration = Duration::from_secs(4);
/// What HTTP/2 receivers may send ahead of our reading, per answer.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same over all answers of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// What webhooks of the database may target (`[security]`).
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Whether plain http is allowed.
    pub allow_http: bool,
    /// Networks that are allowed although private, loopback, link-local, …
    pub allow_networks: Vec<IpNet>,
}

/// What a [`Transport`] is made of.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// The rules for webhooks of the database.
    pub policy: Policy,
    /// How many bytes of an answer's body are kept (`ledger.capture_response`).
    pub capture_bytes: usize,
    /// What time it is, for `Retry-After` dates.
    pub clock: Clock,
    /// Certificates trusted beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
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
    trusted: Door,
    guarded: Door,
    policy: Arc<Policy>,
    tls: Arc<rustls::ClientConfig>,
    capture_bytes: usize,
    clock: Clock,
}

/// One client and the resolver inside it.
#[derive(Debug)]
struct Door {
    client: reqwest::Client,
    resolver: Resolver,
}

impl Transport {
    /// Loads the root certificates and makes both clients; opens no connection.
    pub fn new(options: TransportOptions) -> Result<Self, TransportError> {
        let TransportOptions { policy, capture_bytes, clock, extra_roots } = options;
        let tls = tls::client_config(extra_roots)?;
        let policy = Arc::new(policy);
        let shared = Shared {
            trusted: Door::new(&tls, Resolver::new(None))?,
            guarded: Door::new(&tls, Resolver::new(Some(Arc::clone(&policy))))?,
            policy,
            tls: Arc::new(tls),
            capture_bytes: capture_bytes.min(limits::CAPTURE_BYTES),
            clock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes one attempt and says how it ended, within its timeout.
    pub async fn send(&self, request: Request<'_>) -> Outcome {
        let Request { url, source, headers, body, timeout } = request;
        if let Some(refused) = self.refusal(url, source) {
            return refused;
        }
        let started = Instant::now();
        let progress = Arc::new(Progress::default());
        let client = &self.door(source).client;
        let post = match client.post(url.clone()).body(body).build() {
            Ok(post) => with_headers(post, headers),
            Err(error) => return failure::outcome(&error, url, &progress),
        };
        let sending = progress::noting(Arc::clone(&progress), client.execute(post));
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

    fn door(&self, source: WebhookSource) -> &Door {
        match source {
            WebhookSource::Toml => &self.shared.trusted,
            WebhookSource::Database => &self.shared.guarded,
        }
    }

    /// What the rules say before anything is looked up or sent.
    fn refusal(&self, url: &Url, source: WebhookSource) -> Option<Outcome> {
        let (by, reason) = match (url.scheme(), source) {
            ("https" | "http", WebhookSource::Toml) => return None,
            ("http", WebhookSource::Database) if !self.shared.policy.allow_http => (
                RefusedBy::PlainHttp,
                "plain http is not allowed for this webhook unless security.allow_http is true".to_owned(),
            ),
            ("https" | "http", WebhookSource::Database) => {
                let address: IpAddr = match url.host()? {
                    Host::Ipv4(address) => address.into(),
                    Host::Ipv6(address) => address.into(),
                    Host::Domain(_) => return None,
                };
                let class = self.shared.policy.forbids(address)?;
                (RefusedBy::Address, resolve::refusal(&address.to_string(), address, class))
            }
            (scheme, _) => (RefusedBy::Request, format!("{scheme} is neither https nor http")),
        };
        Some(Outcome::Refused { by, reason })
    }
}

/// The map is taken over, not copied; of what the URL's userinfo made, the webhook's own header wins.
fn with_headers(mut post: reqwest::Request, headers: HeaderMap) -> reqwest::Request {
    let from_url = std::mem::replace(post.headers_mut(), headers);
    if let Some(basic) = from_url.get(AUTHORIZATION) {
        post.headers_mut().entry(AUTHORIZATION).or_insert_with(|| basic.clone());
    }
    post
}

impl Door {
    #[expect(clippy::disallowed_methods, reason = "the one home of the HTTP client")]
    fn new(tls: &rustls::ClientConfig, resolver: Resolver) -> Result<Self, TransportError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .dns_resolver(resolver.clone())
            .connector_layer(progress::NoteConnects)
            .user_agent(concat!("walhook/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(limits::IN_FLIGHT)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .build()
            .map_err(|source| TransportError::Client { source })?;
        Ok(Self { client, resolver })
    }
}
