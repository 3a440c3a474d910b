//! A receiver of HTTP/2 behind TLS, with a certificate of its own making.

use std::sync::Arc;

use base64::Engine as _;
use http_body_util::BodyExt as _;
use walhook::tasks::{Role, Tasks};

/// A receiver of HTTP/2 alone: its port, and its certificate in PEM.
pub async fn speaks_http2() -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("the key of the certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (tasks, _) = Tasks::new();
    let connected = tasks.clone();
    tasks.spawn("http2", Role::Passing, async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connected.spawn("connection", Role::Passing, async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = |request: hyper::Request<hyper::body::Incoming>| async move {
                    let whole = request.into_body().collect().await?;
                    drop(whole);
                    Ok::<_, hyper::Error>(hyper::Response::new(String::from("taken")))
                };
                let io = hyper_util::rt::TokioIo::new(stream);
                let serving = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                let ended = serving.serve_connection(io, hyper::service::service_fn(answer)).await;
                drop(ended);
            });
        }
    });
    let text = base64::prelude::BASE64_STANDARD.encode(made.cert.der());
    (port, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"))
}
