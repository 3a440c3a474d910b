//! TLS: HTTP/2 where both can, names and issuers checked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use url::Url;

use super::super::Policy;
use super::super::{Transport, check_authorities, check_identity};
use super::rig::{route, send, send_by, transport};
use crate::domain::{Connection, Identity, Outcome, TlsVersion, UnreachableBy, Verification, WebhookSource};
use crate::tasks::{Role, Tasks};

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            if let Ok((stream, peer)) = self.tcp.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A receiver that answers with the HTTP version it was spoken to in; its port and the certificate to trust.
pub(super) async fn receiver(name: &str, protocols: &[&str]) -> (u16, CertificateDer<'static>) {
    receiver_of(name, protocols, rustls::ALL_VERSIONS, None).await
}

/// The same, which speaks these versions, and with `clients` only to those whose certificate this one issued.
async fn receiver_of(
    name: &str,
    protocols: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
    clients: Option<&CertificateDer<'static>>,
) -> (u16, CertificateDer<'static>) {
    let (acceptor, certificate) = acceptor(name, protocols, versions, clients);
    (serve(acceptor).await, certificate)
}

async fn serve(acceptor: TlsAcceptor) -> u16 {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let listener = TlsListener { tcp, acceptor };
    let version = |request: Request| async move { format!("{:?}", request.version()) };
    let (tasks, _) = Tasks::new();
    tasks.spawn("receiver", Role::Passing, async move {
        let served = axum::serve(listener, Router::new().route("/", post(version))).await;
        drop(served);
    });
    port
}

/// The receiver's side of TLS, and the certificate to trust.
pub(super) fn acceptor(
    name: &str,
    protocols: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
    clients: Option<&CertificateDer<'static>>,
) -> (TlsAcceptor, CertificateDer<'static>) {
    acceptor_of((name, 2001..=2090), protocols, versions, clients)
}

/// The same with a certificate that is valid from the beginning of one year to that of another.
fn acceptor_of(
    (name, years): (&str, std::ops::RangeInclusive<i32>),
    protocols: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
    clients: Option<&CertificateDer<'static>>,
) -> (TlsAcceptor, CertificateDer<'static>) {
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(*years.start(), 1, 1);
    params.not_after = rcgen::date_time_ymd(*years.end(), 1, 1);
    let certificate = params.self_signed(&signing_key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.clone()).unwrap();
            let provider = Arc::clone(&provider);
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
        }
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), certificate)
}

pub(super) fn at(port: u16) -> Url {
    format!("https://localhost:{port}/").parse().unwrap()
}

async fn check_version(protocols: &[&str], expect: &str) {
    let (port, certificate) = receiver("localhost", protocols).await;
    let transport = transport(Policy::default(), vec![certificate]);
    for _ in 0..3 {
        match send(&transport, &at(port), WebhookSource::Toml, 3000).await {
            Outcome::Responded { status: 200, body, .. } => assert_eq!(body, expect),
            other => panic!("{other:?}"),
        }
    }
    let probed = transport.probe(&at(port), WebhookSource::Toml, None, Duration::from_secs(3)).await;
    assert_eq!(probed.map(|address| address.map(|address| address.port())), Ok(Some(port)));
}

#[tokio::test]
async fn http2_is_spoken_where_the_receiver_can_and_http1_elsewhere() {
    check_version(&["h2", "http/1.1"], "HTTP/2.0").await;
    check_version(&["http/1.1"], "HTTP/1.1").await;
    check_version(&[], "HTTP/1.1").await;
}

#[tokio::test]
async fn a_certificate_of_another_name_or_an_unknown_issuer_is_refused() {
    let (port, certificate) = receiver("elsewhere.test", &["h2"]).await;
    for (roots, words) in [(vec![certificate], "not valid for name"), (Vec::new(), "UnknownIssuer")] {
        let transport = transport(Policy::default(), roots);
        let outcome = send(&transport, &at(port), WebhookSource::Toml, 3000).await;
        let Outcome::Unreachable { by: UnreachableBy::Tls, reason } = outcome else { panic!("{outcome:?}") };
        assert!(reason.starts_with(&format!("TLS with localhost:{port}")), "{reason}");
        assert!(reason.contains(words), "{reason}");
        let probed = transport.probe(&at(port), WebhookSource::Toml, None, Duration::from_secs(3)).await;
        assert!(matches!(probed, Err(Outcome::Unreachable { by: UnreachableBy::Tls, .. })), "{probed:?}");
    }
}

#[tokio::test]
async fn https_to_a_plain_http_port_is_a_tls_failure() {
    let transport = transport(Policy::default(), Vec::new());

    let talks_first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = talks_first.local_addr().unwrap().port();
    let (tasks, _) = Tasks::new();
    tasks.spawn("plain", Role::Passing, async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = talks_first.accept().await.unwrap();
        let read = stream.read(&mut [0; 512]).await.unwrap();
        assert!(read > 0);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let outcome = send(&transport, &at(port), WebhookSource::Toml, 3000).await;
    let Outcome::Unreachable { by: UnreachableBy::Tls, reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("plain http"), "{reason}");
}

pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    armoured("CERTIFICATE", certificate)
}

fn key_pem(key: &rcgen::KeyPair) -> secrecy::SecretString {
    armoured("PRIVATE KEY", &key.serialize_der()).into()
}

fn armoured(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// How an attempt by these settings ends: the HTTP version that the receiver saw, or the reason.
async fn outcome_by(transport: &Transport, port: u16, connection: Connection) -> Result<String, String> {
    let route = route(None, connection);
    match send_by(transport, Some(&route), (&at(port), WebhookSource::Toml), 3000).await {
        Outcome::Responded { status: 200, body, .. } => Ok(String::from_utf8(body.to_vec()).unwrap()),
        other => Err(other.describe()),
    }
}

#[tokio::test]
async fn an_authority_of_the_configurations_is_trusted_beside_the_systems_or_instead() {
    let (port, certificate) = receiver("localhost", &["h2"]).await;
    let (_, stranger) = receiver("localhost", &["h2"]).await;
    let transport = transport(Policy::default(), Vec::new());
    let ca = |certificate| Connection { ca: Some(pem(certificate).into()), ..Connection::default() };
    let pinned =
        |certificate| Connection { pinned_ca: Some(pem(certificate).into()), ..Connection::default() };
    assert_eq!(outcome_by(&transport, port, ca(&certificate)).await, Ok("HTTP/2.0".to_owned()));
    assert_eq!(outcome_by(&transport, port, pinned(&certificate)).await, Ok("HTTP/2.0".to_owned()));
    for wrong in [ca(&stranger), pinned(&stranger)] {
        let reason = outcome_by(&transport, port, wrong).await.unwrap_err();
        assert!(reason.starts_with(&format!("TLS with localhost:{port}")), "{reason}");
    }
    let both = Connection { ca: Some(pem(&certificate).into()), ..pinned(&stranger) };
    assert!(outcome_by(&transport, port, both).await.is_err(), "a pinned authority is the only one");
}

#[tokio::test]
async fn verification_that_is_switched_off_takes_any_certificate() {
    let (port, _) = receiver("elsewhere.test", &["http/1.1"]).await;
    let transport = transport(Policy::default(), Vec::new());
    let any = Connection { verification: Verification::Skipped, ..Connection::default() };
    assert_eq!(outcome_by(&transport, port, any).await, Ok("HTTP/1.1".to_owned()));
    assert!(!send(&transport, &at(port), WebhookSource::Toml, 3000).await.is_success());
}

#[tokio::test]
async fn a_receiver_below_the_oldest_version_is_refused() {
    let old = &[&rustls::version::TLS12];
    let (port, certificate) = receiver_of("localhost", &[], old, None).await;
    let transport = transport(Policy::default(), vec![certificate.clone()]);
    let from =
        |min_version| Connection { min_version, ca: Some(pem(&certificate).into()), ..Connection::default() };
    assert!(outcome_by(&transport, port, from(TlsVersion::Tls12)).await.is_ok());
    let reason = outcome_by(&transport, port, from(TlsVersion::Tls13)).await.unwrap_err();
    assert!(reason.contains("TLS with localhost"), "{reason}");
}

#[tokio::test]
async fn mutual_tls_shows_the_webhooks_own_certificate() {
    let client = rcgen::generate_simple_self_signed(["walhook".to_owned()]).unwrap();
    let (port, certificate) =
        receiver_of("localhost", &["h2"], rustls::ALL_VERSIONS, Some(client.cert.der())).await;
    let transport = transport(Policy::default(), vec![certificate]);
    let identity = Identity { certificate: pem(client.cert.der()).into(), key: key_pem(&client.signing_key) };
    let with = Connection { identity: Some(identity.clone()), ..Connection::default() };
    assert_eq!(outcome_by(&transport, port, with).await, Ok("HTTP/2.0".to_owned()));
    let without = send(&transport, &at(port), WebhookSource::Toml, 3000).await;
    assert!(without.describe().ends_with("CertificateRequired (setting: tls.certificate)"), "{without:?}");

    let now = crate::clock::Clock::system().now();
    assert_eq!(check_identity(&identity, now), Ok(()));
    let other = rcgen::generate_simple_self_signed(["walhook".to_owned()]).unwrap();
    let mixed = Identity { key: key_pem(&other.signing_key), ..identity };
    assert_eq!(check_identity(&mixed, now), Err("the key is not the certificate's".to_owned()));
}

#[test]
fn what_has_expired_and_what_is_no_certificate_is_told() {
    let now = crate::clock::Clock::system().now();
    let key = rcgen::KeyPair::generate().unwrap();
    let made = |year: i32| {
        let mut params = rcgen::CertificateParams::new(["walhook".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        pem(params.self_signed(&key).unwrap().der())
    };
    let expired = check_authorities(&made(2002), now);
    assert_eq!(expired, Err("the certificates have expired; the last at 2002-01-01T00:00:00Z".to_owned()));
    assert_eq!(check_authorities(&format!("{}{}", made(2002), made(2090)), now), Ok(()));
    let identity = Identity { certificate: made(2002).into(), key: key_pem(&key) };
    let expired = check_identity(&identity, now);
    assert_eq!(expired, Err("the client certificate has expired at 2002-01-01T00:00:00Z".to_owned()));
    assert!(check_authorities("hunter2", now).unwrap_err().starts_with("there is no certificate in PEM"));
    let no_key = Identity { certificate: made(2090).into(), key: "hunter2".into() };
    assert!(check_identity(&no_key, now).unwrap_err().starts_with("the key is no private key in PEM"));
}

#[test]
fn an_authority_that_is_not_valid_yet_is_told() {
    let now = crate::clock::Clock::system().now();
    let key = rcgen::KeyPair::generate().unwrap();
    let made = |from: i32, to: i32| {
        let mut params = rcgen::CertificateParams::new(["walhook".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        pem(params.self_signed(&key).unwrap().der())
    };
    let early = "none of the certificates is valid before 2089-01-01T00:00:00Z".to_owned();
    assert_eq!(check_authorities(&made(2089, 2090), now), Err(early.clone()));
    assert_eq!(check_authorities(&format!("{}{}", made(2001, 2002), made(2089, 2090)), now), Err(early));
    assert_eq!(check_authorities(&format!("{}{}", made(2089, 2090), made(2001, 2090)), now), Ok(()));
}

#[tokio::test]
async fn a_receivers_certificate_of_the_wrong_time_or_name_is_told_with_the_settings_to_look_at() {
    let transport = transport(Policy::default(), Vec::new());
    for (name, from, to, words, settings) in [
        ("localhost", 2001, 2002, "expired", "settings: url, and tls.ca or tls.pinned_ca"),
        ("localhost", 2089, 2090, "not valid yet", "settings: url, and tls.ca or tls.pinned_ca"),
        ("elsewhere.test", 2001, 2090, "not valid for name", "setting: url, whose host"),
    ] {
        let (acceptor, certificate) = acceptor_of((name, from..=to), &[], rustls::ALL_VERSIONS, None);
        let port = serve(acceptor).await;
        for connection in [
            Connection { ca: Some(pem(&certificate).into()), ..Connection::default() },
            Connection { pinned_ca: Some(pem(&certificate).into()), ..Connection::default() },
        ] {
            let reason = outcome_by(&transport, port, connection).await.unwrap_err();
            assert!(reason.contains(words) && reason.contains(settings), "{reason}");
        }
    }
}

#[tokio::test]
async fn ten_thousand_webhooks_of_equal_settings_share_one_client() {
    let (port, certificate) = receiver("localhost", &["h2"]).await;
    let transport = transport(Policy::default(), Vec::new());
    let ordinary = transport.shared.routes.doors();
    let text: Arc<str> = pem(&certificate).into();
    let routes: Vec<_> = (0..10_000)
        .map(|_| route(None, Connection { ca: Some(Arc::clone(&text)), ..Connection::default() }))
        .collect();
    for route in &routes {
        route.way(&transport.shared.routes, WebhookSource::Toml).unwrap();
    }
    assert_eq!(transport.shared.routes.doors(), ordinary + 1);
    let outcome = send_by(&transport, routes.last(), (&at(port), WebhookSource::Toml), 3000).await;
    assert!(outcome.is_success(), "{outcome:?}");
    routes[0].way(&transport.shared.routes, WebhookSource::Toml).unwrap();
    let guarded = route(None, Connection { ca: Some(text), ..Connection::default() });
    guarded.way(&transport.shared.routes, WebhookSource::Database).unwrap();
    assert_eq!(transport.shared.routes.doors(), ordinary + 2, "the guarded never share with the trusted");
}
