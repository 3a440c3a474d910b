//! TLS: HTTP/2 where both can, names and issuers checked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::post;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use url::Url;

use super::super::Policy;
use super::rig::{send, transport};
use crate::domain::{Outcome, UnreachableBy, WebhookSource};
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
async fn receiver(name: &str, protocols: &[&str]) -> (u16, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let certificate = made.cert.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let listener = TlsListener { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) };
    let version = |request: Request| async move { format!("{:?}", request.version()) };
    let (tasks, _) = Tasks::new();
    tasks.spawn("receiver", Role::Passing, async move {
        let served = axum::serve(listener, Router::new().route("/", post(version))).await;
        drop(served);
    });
    (port, certificate)
}

fn at(port: u16) -> Url {
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
    let probed = transport.probe(&at(port), WebhookSource::Toml, Duration::from_secs(3)).await;
    assert_eq!(probed.map(|address| address.port()), Ok(port));
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
        let probed = transport.probe(&at(port), WebhookSource::Toml, Duration::from_secs(3)).await;
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
