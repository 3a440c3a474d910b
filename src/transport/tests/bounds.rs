//! What an attempt may hold of somebody else: bytes, sockets, threads that look names up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use url::Url;

use super::super::encoding::encode;
use super::super::{Lookups, Policy, Transport};
use super::rig::{Receiver, Script, bounded, route, send, send_by, transport};
use super::tls::{acceptor, at, pem};
use crate::domain::{
    Auth, ClientCredentials, Coding, Compression, Connection, OAuth2, Outcome, Proxy, ProxyKind, RefusedBy,
    TimeoutStage, UnreachableBy, WebhookSource, limits,
};
use crate::tasks::{Role, Tasks};

/// What the system holds of a connection, both ends together, at the most.
pub(super) const SOCKET_BUFFERS: usize = 12 * 1024 * 1024;
const ENDLESS_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An attempt with all the time it wants at a receiver that writes for ever, and what that could write.
async fn written_to(script: Script) -> (Outcome, usize) {
    let receiver = Receiver::start(script).await;
    let transport = transport(Policy::default(), Vec::new());
    let outcome = send(&transport, &receiver.url("/"), WebhookSource::Toml, 60_000).await;
    until("its connection is closed", || receiver.open() == 0).await;
    (outcome, receiver.written())
}

#[tokio::test]
async fn an_answer_without_an_end_is_held_to_what_is_read_of_it() {
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000)).leak().as_bytes();
    let (outcome, written) = written_to(Script::Repeat(ENDLESS_HEAD, chunk, Duration::ZERO)).await;
    assert!(matches!(outcome, Outcome::Responded { status: 200, .. }), "{outcome:?}");
    assert!(written > limits::RESPONSE_BYTES, "{written}");
    assert!(written < limits::RESPONSE_BYTES + SOCKET_BUFFERS, "{written} bytes were taken");
    let huge = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
    let (outcome, written) = written_to(Script::Repeat(huge, chunk, Duration::ZERO)).await;
    assert!(matches!(outcome, Outcome::Responded { status: 200, .. }), "{outcome:?}");
    assert!(written < limits::RESPONSE_BYTES + SOCKET_BUFFERS, "{written} bytes were taken");
    let head = Script::Repeat(b"HTTP/1.1 200 OK\r\nx: ", &[b'a'; 16 * 1024], Duration::ZERO);
    let (outcome, written) = written_to(head).await;
    assert!(matches!(outcome, Outcome::Unreachable { by: UnreachableBy::Protocol, .. }), "{outcome:?}");
    assert!(written < limits::RESPONSE_BYTES + SOCKET_BUFFERS, "{written} bytes were taken");
}

#[tokio::test]
async fn a_bomb_is_kept_as_it_came_and_never_unpacked() {
    let zeros = bytes::Bytes::from(vec![0; 10 * 1024 * 1024]);
    let (bomb, coding) = encode(&zeros, Compression { coding: Some(Coding::Gzip), threshold: 0 }).await;
    assert_eq!(coding, Some(Coding::Gzip));
    assert!(bomb.len() < 64 * 1024, "{}", bomb.len());
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len())
            .into_bytes();
    answer.extend_from_slice(&bomb);
    let receiver = Receiver::start(Script::Answer(answer.leak())).await;
    let transport = transport(Policy::default(), Vec::new());
    let outcome = send(&transport, &receiver.url("/"), WebhookSource::Toml, 60_000).await;
    assert_eq!(outcome, Outcome::Responded { status: 200, retry_after: None, body: bomb.slice(..16) });
}

fn token_from(token_url: Url) -> super::super::Route {
    let oauth2 = OAuth2 {
        token_url,
        client_id: "client".to_owned(),
        client_secret: "secret".into(),
        credentials: ClientCredentials::Basic,
        scope: None,
        audience: None,
    };
    route(Some(Auth::OAuth2(oauth2)), Connection::default())
}

#[tokio::test]
async fn a_token_endpoint_that_drips_breaks_off_or_never_ends_costs_no_more_than_the_attempt() {
    let target = Receiver::start(Script::Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000)).leak().as_bytes();
    let drip = Script::Repeat(ENDLESS_HEAD, b"1\r\n{\r\n", Duration::from_millis(20));
    let half = Script::HalfClose(b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{\"access_token\":");
    let endless = Script::Repeat(ENDLESS_HEAD, chunk, Duration::ZERO);
    for (script, timeout_ms, words) in [
        (drip, 400, "the attempt's time ran out"),
        (half, 60_000, "its answer broke off"),
        (endless, 60_000, "its answer is longer than 65536 bytes"),
    ] {
        let endpoint = Receiver::start(script).await;
        let transport = transport(Policy::default(), Vec::new());
        let route = token_from(endpoint.url("/token"));
        let to = (&target.url("/"), WebhookSource::Toml);
        let outcome = send_by(&transport, Some(&route), to, timeout_ms).await;
        let Outcome::Unreachable { by: UnreachableBy::Token, reason } = outcome else {
            panic!("{outcome:?}")
        };
        assert!(reason.contains(words) && reason.contains("auth.token_url"), "{reason}");
        assert!(endpoint.written() < limits::TOKEN_ANSWER_BYTES + SOCKET_BUFFERS);
    }
    assert_eq!(target.connections(), 0);
}

/// A server that says these bytes to everybody, again and again where there is a pause, whatever it is told.
async fn blurting(bytes: &'static [u8], pause: Option<Duration>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tasks, _) = Tasks::new();
    let connected = tasks.clone();
    tasks.spawn("blurting", Role::Passing, async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            connected.spawn("connection", Role::Passing, async move {
                while stream.write_all(bytes).await.is_ok() {
                    tokio::time::sleep(pause.unwrap_or(Duration::from_secs(3600))).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_socks_proxy_that_talks_garbage_or_drips_ends_the_attempt_in_time() {
    let transport = transport(Policy::default(), Vec::new());
    let every = |milliseconds| Some(Duration::from_millis(milliseconds));
    for (bytes, pause, words) in [
        (b"SSH-2.0-OpenSSH\r\n".as_slice(), None, "it does not speak SOCKS 5"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", every(0), "it does not speak SOCKS 5"),
        (b"\x05\x00\x05\x00\x00\x63", None, "its answer has an unknown kind of address"),
        (b"\x05\xff", None, "wants other credentials"),
        (b"\x05", None, "timed out while connecting"),
        (b"\x05\x00\x05\x00\x00\x03\xff", None, "timed out while connecting"),
    ] {
        let address = blurting(bytes, pause).await;
        let host = address.ip().to_string();
        let proxy = Proxy { kind: ProxyKind::Socks5, host, port: address.port(), credentials: None };
        let route = route(None, Connection { proxy: Some(proxy), ..Connection::default() });
        let target = "http://receiver.test/".parse().unwrap();
        let began = Instant::now();
        let outcome = send_by(&transport, Some(&route), (&target, WebhookSource::Toml), 1000).await;
        assert!(outcome.describe().contains(words), "{bytes:?}: {outcome:?} has no {words:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

/// A receiver that ends the TLS handshake of its first connection only: its port, its certificate, its open sockets.
async fn only_once() -> (u16, rustls::pki_types::CertificateDer<'static>, Arc<AtomicUsize>) {
    let (acceptor, certificate) = acceptor("localhost", &["http/1.1"], rustls::ALL_VERSIONS, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stuck = Arc::new(AtomicUsize::new(0));
    let (tasks, _) = Tasks::new();
    let (connected, count) = (tasks.clone(), Arc::clone(&stuck));
    tasks.spawn("receiver", Role::Passing, async move {
        let (first, _) = listener.accept().await.unwrap();
        let mut first = acceptor.accept(first).await.unwrap();
        connected.spawn("first", Role::Passing, async move {
            let mut read = [0; 4096];
            while first.read(&mut read).await.is_ok_and(|read| read > 0) {
                // Time for a second request to begin a connection of its own.
                tokio::time::sleep(Duration::from_millis(200)).await;
                first.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        });
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            count.fetch_add(1, Ordering::SeqCst);
            connected.spawn("stuck", Role::Passing, async move {
                silent(stream).await;
                count.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (port, certificate, stuck)
}

/// Reads to the end of the connection and says nothing.
async fn silent(mut stream: TcpStream) {
    let mut read = [0; 4096];
    while stream.read(&mut read).await.is_ok_and(|read| read > 0) {}
}

async fn check_no_socket_stays(
    transport: &Transport,
    by: Option<&super::super::Route>,
    port: u16,
    stuck: &AtomicUsize,
) {
    let url = at(port);
    let one = || send_by(transport, by, (&url, WebhookSource::Toml), 30_000);
    assert!(one().await.is_success());
    for _ in 0..3 {
        let (first, second) = tokio::join!(one(), one());
        assert!(first.is_success() && second.is_success(), "{first:?} {second:?}");
    }
    until("a connection was begun that was not needed", || stuck.load(Ordering::SeqCst) > 0).await;
    until("its socket is closed", || stuck.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_connection_that_was_begun_and_is_not_needed_any_more_does_not_stay_for_ever() {
    let (port, certificate, stuck) = only_once().await;
    let within = Duration::from_secs(2);
    let transport = bounded(Policy::default(), vec![certificate], Lookups::of_the_system(), within);
    check_no_socket_stays(&transport, None, port, &stuck).await;
}

/// An HTTP proxy that connects to this port, whatever it is asked for.
async fn proxy_to(port: u16) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tasks, _) = Tasks::new();
    let connected = tasks.clone();
    tasks.spawn("proxy", Role::Passing, async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            connected.spawn("tunnel", Role::Passing, async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut head).await.unwrap() > 0);
                }
                let mut onward = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let ended = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
                drop(ended);
            });
        }
    });
    Proxy { kind: ProxyKind::Http, host: address.ip().to_string(), port: address.port(), credentials: None }
}

#[tokio::test]
async fn nor_does_one_through_a_proxy() {
    let (port, certificate, stuck) = only_once().await;
    let within = Duration::from_secs(2);
    let transport = bounded(Policy::default(), Vec::new(), Lookups::of_the_system(), within);
    let (ca, proxy) = (Some(pem(&certificate).into()), Some(proxy_to(port).await));
    let route = route(None, Connection { ca, proxy, ..Connection::default() });
    check_no_socket_stays(&transport, Some(&route), port, &stuck).await;
}

#[tokio::test]
async fn a_connection_that_takes_too_long_timed_out_while_connecting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let within = Duration::from_millis(200);
    let transport = bounded(Policy::default(), Vec::new(), Lookups::of_the_system(), within);
    let behind = route(None, Connection { proxy: Some(proxy_to(port).await), ..Connection::default() });
    for by in [None, Some(&behind)] {
        let outcome = send_by(&transport, by, (&at(port), WebhookSource::Toml), 60_000).await;
        assert_eq!(outcome, Outcome::TimedOut { stage: TimeoutStage::Connect });
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_never_resolves_ends_the_attempt_after_its_own_time() {
    let (go_on, wait) = mpsc::channel::<()>();
    let (wait, asked) = (Mutex::new(wait), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let lookups = Lookups::by(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        wait.lock().unwrap().recv().unwrap_or(());
        Ok(Vec::new())
    });
    let room = lookups.room();
    let transport = bounded(Policy::default(), Vec::new(), lookups.clone(), limits::CONNECT_TIMEOUT);
    let url = "https://silent.test/".parse().unwrap();
    let began = Instant::now();
    let (outcome, ()) = tokio::join!(send(&transport, &url, WebhookSource::Toml, 60_000), async {
        while asked.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
        tokio::time::advance(limits::DNS_TIMEOUT).await;
    });
    let reason = "the name silent.test did not resolve within 5 s".to_owned();
    assert_eq!(outcome, Outcome::Unreachable { by: UnreachableBy::Dns, reason });
    assert_eq!(began.elapsed(), limits::DNS_TIMEOUT);
    assert_eq!(lookups.room().0, room.0 - 1);
    drop(go_on);
    while lookups.room() != room {
        std::thread::sleep(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_tenant_is_not_told_what_a_name_resolves_to_nor_whether_it_does() {
    let lookups = Lookups::by(|name| match name {
        "inside.test" => Ok(vec![([10, 1, 2, 3], 0).into()]),
        "allowed.test" => Ok(vec![([127, 0, 0, 1], 0).into()]),
        "empty.test" => Ok(Vec::new()),
        _ => Err(std::io::Error::other("no such name")),
    });
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let policy =
        Policy { allow_http: true, allow_networks: vec!["127.0.0.0/8".parse().unwrap()], for_tenants: true };
    let transport = bounded(policy, Vec::new(), lookups, limits::CONNECT_TIMEOUT);
    let told = async |host: &str| {
        let url = format!("http://{host}:{free}/").parse().unwrap();
        send(&transport, &url, WebhookSource::Tenant, 10_000).await
    };
    for host in ["inside.test", "empty.test", "nowhere.test"] {
        let outcome = told(host).await;
        let Outcome::Refused { by, reason } = &outcome else { panic!("{host}: {outcome:?}") };
        assert_eq!(matches!(by, RefusedBy::Address(_)), host == "inside.test", "for the audit alone");
        let expect = format!(
            "{host} is not on the public internet, as seen from here: not allowed for this webhook unless \
             security.tenants.allow_networks has it"
        );
        assert_eq!(*reason, expect);
    }
    let refused = told("allowed.test").await;
    assert_eq!(refused.describe(), format!("connection refused by allowed.test:{free}"));
}
