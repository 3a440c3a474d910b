//! Through proxies: HTTP CONNECT and SOCKS 5, with the address policy applied to what they are asked for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::super::{Policy, Route};
use super::rig::{Receiver, Script, route, send_by, transport};
use super::tls;
use crate::domain::{Connection, Outcome, Proxy, ProxyKind, RefusedBy, UnreachableBy, WebhookSource};
use crate::tasks::{Role, Tasks};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A proxy that lets `me` with `pass word` in, opens every tunnel to one receiver, and remembers what it was asked for.
struct Tunnels {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnels {
    async fn start(kind: ProxyKind, receiver: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (tasks, _) = Tasks::new();
        let (connected, remembered) = (tasks.clone(), Arc::clone(&asked));
        tasks.spawn("proxy", Role::Passing, async move {
            while let Ok((stream, _)) = listener.accept().await {
                let remembered = Arc::clone(&remembered);
                connected.spawn("tunnel", Role::Passing, async move {
                    let ended = match kind {
                        ProxyKind::Http => http(stream, receiver, &remembered).await,
                        ProxyKind::Socks5 => socks(stream, receiver, &remembered).await,
                    };
                    drop(ended);
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn route(&self, kind: ProxyKind, password: &str) -> Route {
        self.route_with(kind, password, Connection::default())
    }

    fn route_with(&self, kind: ProxyKind, password: &str, connection: Connection) -> Route {
        let proxy = Proxy {
            kind,
            host: self.address.ip().to_string(),
            port: self.address.port(),
            credentials: Some(("me".to_owned(), password.into())),
        };
        route(None, Connection { proxy: Some(proxy), ..connection })
    }
}

async fn http(
    mut stream: TcpStream,
    receiver: SocketAddr,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    asked.lock().unwrap().push(head.lines().next().unwrap().to_owned());
    if !head.contains("proxy-authorization: Basic bWU6cGFzcyB3b3Jk\r\n") {
        return stream.write_all(b"HTTP/1.1 407 No\r\n\r\n").await;
    }
    if head.contains("forbidden.test") {
        return stream.write_all(b"HTTP/1.1 403 No\r\n\r\n").await;
    }
    stream.write_all(b"HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut TcpStream::connect(receiver).await?).await.map(drop)
}

async fn socks(
    mut stream: TcpStream,
    receiver: SocketAddr,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).await?;
    assert_eq!(greeting, [5, 1, 2]);
    stream.write_all(&[5, 2]).await?;
    let mut login = [0; 14];
    stream.read_exact(&mut login).await?;
    let is_known = login == *b"\x01\x02me\x09pass word";
    stream.write_all(&[1, u8::from(!is_known)]).await?;
    if !is_known {
        return Ok(());
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let host = match head[3] {
        1 => Ipv4Addr::from(stream.read_u32().await?).to_string(),
        3 => {
            let mut name = vec![0; usize::from(stream.read_u8().await?)];
            stream.read_exact(&mut name).await?;
            String::from_utf8(name).unwrap()
        }
        _ => "an IPv6 address".to_owned(),
    };
    let port = stream.read_u16().await?;
    asked.lock().unwrap().push(format!("{host}:{port}"));
    let reply = if host == "forbidden.test" { 2 } else { 0 };
    stream.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    copy_bidirectional(&mut stream, &mut TcpStream::connect(receiver).await?).await.map(drop)
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

async fn check(kind: ProxyKind, asked_by_name: &str, asked_by_address: &str) {
    let receiver = Receiver::start(Script::Answer(OK)).await;
    let tunnels = Tunnels::start(kind, receiver.address).await;
    let allowed = Policy {
        allow_http: true,
        allow_networks: vec!["127.0.0.0/8".parse().unwrap()],
        ..Policy::default()
    };
    let transport = transport(allowed, Vec::new());
    let route = tunnels.route(kind, "pass word");

    // A name that only the proxy knows, and a second delivery on the same connection.
    for _ in 0..2 {
        let target = url("http://receiver.test:81/hook");
        let outcome = send_by(&transport, Some(&route), (&target, WebhookSource::Toml), 5000).await;
        assert!(outcome.is_success(), "{outcome:?}");
    }
    assert_eq!(tunnels.asked(), [asked_by_name]);
    assert_eq!((receiver.connections(), receiver.requests()), (1, 2));

    // Of the database's webhooks the proxy gets the address that was checked.
    let guarded = tunnels.route(kind, "pass word");
    let target = url("http://localhost:81/hook");
    let outcome = send_by(&transport, Some(&guarded), (&target, WebhookSource::Database), 5000).await;
    assert!(outcome.is_success(), "{outcome:?}");
    let asked = tunnels.asked();
    assert!(
        asked.last().is_some_and(|last| last == asked_by_address || last.contains(":1]:81")),
        "{asked:?}"
    );

    let target = url("http://forbidden.test/");
    let outcome = send_by(&transport, Some(&route), (&target, WebhookSource::Toml), 5000).await;
    let Outcome::Unreachable { by: UnreachableBy::Connect, reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("(setting: proxy) opened no connection to forbidden.test:80"), "{reason}");

    let stranger = tunnels.route(kind, "hunter2!!");
    let outcome = send_by(&transport, Some(&stranger), (&target, WebhookSource::Toml), 5000).await;
    let reason = format!("the proxy {} (setting: proxy) wants other credentials", tunnels.address);
    assert_eq!(outcome, Outcome::Unreachable { by: UnreachableBy::Connect, reason });
}

#[tokio::test]
async fn http_connect_carries_deliveries_to_the_name_or_to_the_address_that_was_checked() {
    check(ProxyKind::Http, "CONNECT receiver.test:81 HTTP/1.1", "CONNECT 127.0.0.1:81 HTTP/1.1").await;
}

#[tokio::test]
async fn socks5_carries_deliveries_to_the_name_or_to_the_address_that_was_checked() {
    check(ProxyKind::Socks5, "receiver.test:81", "127.0.0.1:81").await;
}

#[tokio::test]
async fn tls_and_http2_are_spoken_with_the_receiver_through_the_tunnel() {
    for (protocols, expect) in [(&["h2", "http/1.1"][..], "HTTP/2.0"), (&["http/1.1"], "HTTP/1.1")] {
        let (port, certificate) = tls::receiver("localhost", protocols).await;
        let receiver = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let tunnels = Tunnels::start(ProxyKind::Http, receiver).await;
        let transport = transport(Policy::default(), Vec::new());
        let ca = Connection { ca: Some(tls::pem(&certificate).into()), ..Connection::default() };
        let route = tunnels.route_with(ProxyKind::Http, "pass word", ca);
        let target = url("https://localhost/");
        for _ in 0..3 {
            let outcome = send_by(&transport, Some(&route), (&target, WebhookSource::Toml), 5000).await;
            let Outcome::Responded { status: 200, body, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!(body, expect);
        }
        assert_eq!(tunnels.asked(), ["CONNECT localhost:443 HTTP/1.1"]);
        let probed =
            transport.probe(&target, WebhookSource::Toml, Some(&route), Duration::from_secs(5)).await;
        assert_eq!(probed, Ok(None));
        let untrusting = tunnels.route(ProxyKind::Http, "pass word");
        let outcome = send_by(&transport, Some(&untrusting), (&target, WebhookSource::Toml), 5000).await;
        assert!(matches!(outcome, Outcome::Unreachable { by: UnreachableBy::Tls, .. }), "{outcome:?}");
        assert!(outcome.describe().contains("(setting: tls.ca"), "{outcome:?}");
    }
}

#[tokio::test]
async fn the_address_policy_holds_behind_a_proxy_and_the_proxy_is_not_even_asked() {
    let receiver = Receiver::start(Script::Answer(OK)).await;
    for kind in [ProxyKind::Http, ProxyKind::Socks5] {
        let tunnels = Tunnels::start(kind, receiver.address).await;
        let transport = transport(
            Policy { allow_http: true, allow_networks: Vec::new(), ..Policy::default() },
            Vec::new(),
        );
        let route = tunnels.route(kind, "pass word");
        for target in
            ["http://localhost/", "http://127.0.0.1/", "http://0x7f.1/", "http://[::ffff:127.0.0.1]/"]
        {
            let outcome =
                send_by(&transport, Some(&route), (&url(target), WebhookSource::Database), 5000).await;
            let Outcome::Refused { by: RefusedBy::Address(_), reason } = outcome else {
                panic!("{outcome:?}")
            };
            assert!(reason.contains("security.allow_networks"), "{reason}");
            let probed = transport
                .probe(&url(target), WebhookSource::Database, Some(&route), Duration::from_secs(3))
                .await;
            assert!(matches!(probed, Err(Outcome::Refused { .. })), "{target}: {probed:?}");
        }
        assert!(tunnels.asked().is_empty());
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_proxy_that_misbehaves_ends_the_attempt_in_time_with_a_reason() {
    let transport = transport(Policy::default(), Vec::new());
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endless = Script::Repeat(b"HTTP/1.1 200 OK\r\nx: ", &[b'a'; 1024], Duration::ZERO);
    let cases = [
        (
            Receiver::start(Script::Close(b"SSH-2.0-OpenSSH\r\n\r\n")).await.address,
            "does not answer like a proxy",
        ),
        (Receiver::start(Script::Close(b"HTTP/1.1 200 OK\r\n")).await.address, "it hung up"),
        (Receiver::start(endless).await.address, "its answer has no end"),
        (Receiver::start(Script::Hang(b"HTTP/1.1 2")).await.address, "timed out while connecting"),
        (free, "cannot be reached"),
    ];
    for (address, words) in cases {
        let proxy = Proxy {
            kind: ProxyKind::Http,
            host: address.ip().to_string(),
            port: address.port(),
            credentials: None,
        };
        let route = route(None, Connection { proxy: Some(proxy), ..Connection::default() });
        let target = url("http://receiver.test/");
        let outcome = send_by(&transport, Some(&route), (&target, WebhookSource::Toml), 1000).await;
        assert!(outcome.describe().contains(words), "{outcome:?} has no {words:?}");
    }
}
