//! One client: a pool of connections with their TLS, their resolver, and their proxy where there is one.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Layer as _;
use url::Url;

use super::lookups::Lookups;
use super::progress::{NoteConnects, Noted};
use super::proxy::{ConnectTimedOut, ProxyConnector};
use super::resolve::Resolver;
use super::tls::Verifiers;
use super::{Policy, TransportError, failure};
use crate::domain::{Connection, limits};

/// How long an idle connection is kept: less than the five seconds after which common servers close theirs, so
/// that a delivery hardly ever meets a connection that is just going away.
const IDLE: Duration = Duration::from_secs(4);
/// What HTTP/2 receivers may send ahead of our reading, per answer.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same over all answers of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const AGENT: &str = concat!("walhook/", env!("CARGO_PKG_VERSION"));

/// One client, with what a probe needs of it.
#[derive(Debug)]
pub(super) struct Door {
    client: Client,
    pub(super) resolver: Resolver,
    pub(super) tls: Arc<rustls::ClientConfig>,
}

#[derive(Debug)]
enum Client {
    Direct(reqwest::Client),
    Proxied(Box<legacy::Client<Noted<ProxyConnector>, reqwest::Body>>, Box<ProxyConnector>),
}

/// Why no answer came.
#[derive(Debug)]
pub(super) enum SendError {
    Direct(reqwest::Error),
    Proxied(legacy::Error),
}

impl SendError {
    pub(super) fn cause(&self) -> &(dyn Error + 'static) {
        match self {
            Self::Direct(error) => error,
            Self::Proxied(error) => error,
        }
    }

    pub(super) fn is_builder(&self) -> bool {
        matches!(self, Self::Direct(error) if error.is_builder())
    }

    /// Whether no connection stood within the time that one may take.
    pub(super) fn is_connect_timeout(&self) -> bool {
        match self {
            Self::Direct(error) => error.is_connect() && error.is_timeout(),
            Self::Proxied(error) => failure::find::<ConnectTimedOut>(error).is_some(),
        }
    }

    pub(super) fn is_connect(&self) -> bool {
        match self {
            Self::Direct(error) => error.is_connect(),
            Self::Proxied(error) => error.is_connect(),
        }
    }
}

impl Door {
    /// Makes the client of these settings; opens no connection. With a `policy`, only what it allows is dialled.
    pub(super) fn new(
        verifiers: &Verifiers,
        connection: &Connection,
        policy: Option<Arc<Policy>>,
        (lookups, connect_within): (&Lookups, Duration),
    ) -> Result<Self, TransportError> {
        let tls = Arc::new(verifiers.client_config(connection)?);
        let resolver = Resolver::new(policy, lookups.clone());
        let client = match &connection.proxy {
            None => Client::Direct(direct(&tls, &resolver, connect_within)?),
            Some(proxy) => {
                let bounds = (lookups, connect_within);
                let connector =
                    ProxyConnector::new(proxy.clone(), resolver.clone(), bounds, Arc::clone(&tls));
                Client::Proxied(Box::new(proxied(connector.clone())), Box::new(connector))
            }
        };
        Ok(Self { client, resolver, tls })
    }

    /// The way through the proxy, where there is one.
    pub(super) fn proxy(&self) -> Option<&ProxyConnector> {
        match &self.client {
            Client::Direct(_) => None,
            Client::Proxied(_, connector) => Some(connector),
        }
    }

    /// Sends one `POST` and gives the head of its answer.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: reqwest::Body,
    ) -> Result<reqwest::Response, SendError> {
        match &self.client {
            Client::Direct(client) => {
                let post = client.post(url.clone()).body(body).build().map_err(SendError::Direct)?;
                client.execute(with_headers(post, headers)).await.map_err(SendError::Direct)
            }
            Client::Proxied(client, _) => {
                let mut post = reqwest::Request::new(http::Method::POST, url.clone());
                *post.headers_mut() = headers;
                post.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
                *post.body_mut() = Some(body);
                let post = http::Request::try_from(post).map_err(SendError::Direct)?;
                let response = client.request(post).await.map_err(SendError::Proxied)?;
                Ok(reqwest::Response::from(response.map(reqwest::Body::wrap)))
            }
        }
    }
}

/// A client that dials by itself. It follows no redirect and knows no proxy.
#[expect(clippy::disallowed_methods, reason = "the one home of the HTTP client")]
pub(super) fn direct(
    tls: &rustls::ClientConfig,
    resolver: &Resolver,
    connect_within: Duration,
) -> Result<reqwest::Client, TransportError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .dns_resolver(resolver.clone())
        .connector_layer(NoteConnects)
        // The client goes on with a connection that it has begun when an older one becomes free first and carries the
        // request: the attempt's own timeout does not end that one.
        .connect_timeout(connect_within)
        .user_agent(AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(limits::IN_FLIGHT)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .build()
        .map_err(|source| TransportError::Client { source })
}

fn proxied(connector: ProxyConnector) -> legacy::Client<Noted<ProxyConnector>, reqwest::Body> {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(limits::IN_FLIGHT)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .build(NoteConnects.layer(connector))
}

/// The map is taken over, not copied; of what the URL's userinfo made, the webhook's own header wins.
fn with_headers(mut post: reqwest::Request, headers: HeaderMap) -> reqwest::Request {
    let from_url = std::mem::replace(post.headers_mut(), headers);
    if let Some(basic) = from_url.get(AUTHORIZATION) {
        post.headers_mut().entry(AUTHORIZATION).or_insert_with(|| basic.clone());
    }
    post
}
