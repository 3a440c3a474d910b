//! Access tokens: asked for once, kept, renewed, and told about when there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use url::Url;

use super::super::{Policy, Route};
use super::rig::{route, send_by, transport};
use crate::domain::{Auth, ClientCredentials, Connection, OAuth2, Outcome, UnreachableBy, WebhookSource};
use crate::tasks::{Role, Tasks};

/// An endpoint for tokens and a receiver that takes the newest only.
struct World {
    base: Url,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Tokens given out; the newest is the only good one.
    tokens: AtomicUsize,
    /// Requests to the receiver.
    requests: AtomicUsize,
    /// Which token the receiver takes; 0: the newest.
    takes: AtomicUsize,
    /// For how many seconds a token is good.
    life: AtomicUsize,
}

async fn give(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: String) -> (StatusCode, String) {
    // Long enough that everybody who wants a token is waiting.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let basic = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let is_basic = basic.as_deref() == Some("Basic Y2xpZW50OnNlJTNBY3JldA==")
        && body == "grant_type=client_credentials&scope=a+b&audience=https%3A%2F%2Fcrm";
    let is_body = basic.is_none()
        && body
            == "grant_type=client_credentials&client_id=client&client_secret=se%3Acret&scope=a+b&audience=https%3A%2F%2Fcrm";
    if !is_basic && !is_body {
        return (
            StatusCode::UNAUTHORIZED,
            r#"{"error":"invalid_client","error_description":"hunter2"}"#.to_owned(),
        );
    }
    let number = seen.tokens.fetch_add(1, Ordering::SeqCst) + 1;
    let life = seen.life.load(Ordering::SeqCst);
    let answer = format!(r#"{{"access_token":"token-{number}","token_type":"Bearer","expires_in":{life}}}"#);
    (StatusCode::OK, answer)
}

async fn take(State(seen): State<Arc<Seen>>, headers: HeaderMap) -> StatusCode {
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let takes = match seen.takes.load(Ordering::SeqCst) {
        0 => seen.tokens.load(Ordering::SeqCst),
        number => number,
    };
    let good = headers.get("authorization").is_some_and(|value| *value == *format!("Bearer token-{takes}"));
    if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
}

impl World {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let seen = Arc::new(Seen { life: AtomicUsize::new(3600), ..Seen::default() });
        let endless = || async { "x".repeat(1024 * 1024) };
        let router = Router::new()
            .route("/token", post(give))
            .route("/endless", post(endless))
            .route("/text", post(|| async { "no JSON" }))
            .route("/hook", post(take))
            .with_state(Arc::clone(&seen));
        let (tasks, _) = Tasks::new();
        tasks.spawn("world", Role::Passing, async move { drop(axum::serve(listener, router).await) });
        Self { base, seen }
    }

    fn at(&self, path: &str) -> Url {
        self.base.join(path).unwrap()
    }

    fn counts(&self) -> (usize, usize) {
        (self.seen.tokens.load(Ordering::SeqCst), self.seen.requests.load(Ordering::SeqCst))
    }
}

fn route_of(token_url: Url, secret: &str, credentials: ClientCredentials) -> Route {
    let oauth2 = OAuth2 {
        token_url,
        client_id: "client".to_owned(),
        client_secret: secret.into(),
        credentials,
        scope: Some("a b".to_owned()),
        audience: Some("https://crm".to_owned()),
    };
    route(Some(Auth::OAuth2(oauth2)), Connection::default())
}

#[tokio::test]
async fn one_token_serves_all_who_wait_and_all_who_come_later() {
    let world = World::start().await;
    let transport = transport(Policy::default(), Vec::new());
    let routes: Vec<_> =
        (0..2).map(|_| route_of(world.at("token"), "se:cret", ClientCredentials::Basic)).collect();
    let hook = world.at("hook");
    let all = (0..40).map(|n| send_by(&transport, routes.get(n % 2), (&hook, WebhookSource::Toml), 20_000));
    assert!(join_all(all).await.iter().all(Outcome::is_success));
    assert_eq!(world.counts(), (1, 40), "webhooks of equal settings share their token");
    // The webhooks are read anew, and nothing is asked again.
    let anew = route_of(world.at("token"), "se:cret", ClientCredentials::Basic);
    assert!(send_by(&transport, Some(&anew), (&hook, WebhookSource::Toml), 20_000).await.is_success());
    assert_eq!(world.counts(), (1, 41));
    let other = route_of(world.at("token"), "se:cret", ClientCredentials::Body);
    assert!(send_by(&transport, Some(&other), (&hook, WebhookSource::Toml), 20_000).await.is_success());
    assert_eq!(world.counts().0, 2, "other settings, another token");
}

#[tokio::test]
async fn a_401_renews_the_token_once() {
    let world = World::start().await;
    let transport = transport(Policy::default(), Vec::new());
    let route = route_of(world.at("token"), "se:cret", ClientCredentials::Basic);
    let hook = world.at("hook");
    let send = || send_by(&transport, Some(&route), (&hook, WebhookSource::Toml), 20_000);
    assert!(send().await.is_success());
    // The receiver forgets the token; many notice at once.
    world.seen.takes.store(2, Ordering::SeqCst);
    let outcomes = join_all((0..10).map(|_| send())).await;
    assert!(outcomes.iter().all(Outcome::is_success), "{outcomes:?}");
    assert_eq!(world.counts(), (2, 1 + 10 + 10));
    // A receiver that takes none is asked twice, and that is the attempt's outcome.
    world.seen.takes.store(99, Ordering::SeqCst);
    assert_eq!(send().await.status(), Some(401));
    assert_eq!(world.counts(), (3, 23));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires_and_no_request_is_lost_to_it() {
    let world = World::start().await;
    world.seen.life.store(2, Ordering::SeqCst);
    let transport = transport(Policy::default(), Vec::new());
    let route = route_of(world.at("token"), "se:cret", ClientCredentials::Basic);
    let hook = world.at("hook");
    for sent in 1..=2 {
        assert!(send_by(&transport, Some(&route), (&hook, WebhookSource::Toml), 20_000).await.is_success());
        assert_eq!(
            world.counts(),
            (sent, sent),
            "a token that is about to expire was used, or a good one was not"
        );
        // Of two seconds the last half of one is kept as a margin.
        tokio::time::sleep(Duration::from_millis(1600)).await;
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_sent_and_the_reason_names_the_setting() {
    let world = World::start().await;
    let transport = transport(Policy::default(), Vec::new());
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}/", silent.local_addr().unwrap());
    let place = format!("127.0.0.1:{}", world.base.port().unwrap());
    for (url, secret, words) in [
        (world.at("token"), "wrong", "HTTP 401, invalid_client"),
        (world.at("nowhere"), "se:cret", "HTTP 404"),
        (world.at("text"), "se:cret", "its answer has no access_token"),
        (world.at("endless"), "se:cret", "its answer is longer than 65536 bytes"),
        (format!("http://{gone}/").parse().unwrap(), "se:cret", "connection refused"),
        (silent.parse().unwrap(), "se:cret", "the attempt's time ran out"),
    ] {
        let is_here = url.as_str().contains(&place);
        let route = route_of(url, secret, ClientCredentials::Basic);
        let outcome = send_by(&transport, Some(&route), (&world.at("hook"), WebhookSource::Toml), 3000).await;
        let Outcome::Unreachable { by: UnreachableBy::Token, reason } = outcome else {
            panic!("{outcome:?}")
        };
        assert!(reason.starts_with("no access token from 127.0.0.1:"), "{reason}");
        assert!(reason.contains("(setting: auth.token_url): ") && reason.contains(words), "{reason}");
        assert!(!reason.contains("hunter2"), "{reason}");
        assert!(!is_here || reason.contains(&place), "{reason}");
    }
    assert_eq!(world.counts(), (0, 0));
}

#[tokio::test]
async fn a_webhook_of_the_database_asks_no_endpoint_that_it_may_not_reach() {
    let world = World::start().await;
    let policy = Policy { allow_http: true, allow_networks: Vec::new(), ..Policy::default() };
    let transport = transport(policy, Vec::new());
    let url: Url = "https://hooks.example.com/".parse().unwrap();
    let by_name = format!("http://localhost:{}/token", world.base.port().unwrap()).parse().unwrap();
    for (token_url, start) in [
        (world.at("token"), "auth.token_url: 127.0.0.1 is a special address (loopback)"),
        (by_name, "no access token from localhost"),
    ] {
        let route = route_of(token_url, "se:cret", ClientCredentials::Basic);
        let outcome = send_by(&transport, Some(&route), (&url, WebhookSource::Database), 3000).await;
        let reason = outcome.describe();
        assert!(reason.starts_with(start) && reason.contains("security.allow_networks"), "{reason}");
    }
    assert_eq!(world.counts(), (0, 0));
}
