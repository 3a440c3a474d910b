//! Webhooks of the database reach only what `[security]` lets them reach.

use std::time::Duration;

use super::super::Policy;
use super::rig::{Receiver, Script, send, transport};
use crate::domain::{Outcome, RefusedBy, WebhookSource};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn policy(allow_networks: &[&str]) -> Policy {
    Policy {
        allow_http: true,
        allow_networks: allow_networks.iter().map(|n| n.parse().unwrap()).collect(),
        ..Policy::default()
    }
}

#[tokio::test]
async fn loopback_is_refused_in_every_spelling_and_nothing_is_sent() {
    let receiver = Receiver::start(Script::Answer(OK)).await;
    let transport = transport(policy(&["10.0.0.0/8"]), Vec::new());
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::1]",
        "[::]",
        "１２７.0.0.1",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2606:4700::5efe:7f00:1]",
        "017700000001",
        "0x7F000001",
        "127.0.1",
        "127%2E0%2E0%2E1",
        "%31%32%37.0.0.1",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "%6cocalhost",
        "ⓛocalhost",
    ] {
        let url = format!("http://{host}:{}/", receiver.address.port()).parse().unwrap();
        match send(&transport, &url, WebhookSource::Database, 3000).await {
            Outcome::Refused { by: RefusedBy::Address(_), reason } => {
                assert!(reason.contains("security.allow_networks"), "{host}: {reason}");
            }
            other => panic!("{host}: {other:?}"),
        }
        let probed = transport.probe(&url, WebhookSource::Database, None, Duration::from_secs(3)).await;
        assert!(matches!(probed, Err(Outcome::Refused { .. })), "{host}: {probed:?}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn what_is_no_host_is_no_url() {
    for host in [
        "[fe80::1%25lo]",
        "[fe80::1%lo]",
        "127.0.0.1%00",
        "256.0.0.1",
        "0x100000000",
        "1.2.3.4.5",
        "[::1",
        "a b",
    ] {
        let parsed = format!("http://{host}/").parse::<url::Url>();
        assert!(parsed.is_err(), "{host}: {parsed:?}");
    }
}

#[tokio::test]
async fn the_reason_names_the_address_and_its_class() {
    let transport = transport(policy(&[]), Vec::new());
    let url = "https://169.254.169.254/latest/meta-data?x=1".parse().unwrap();
    let outcome = send(&transport, &url, WebhookSource::Database, 3000).await;
    let expect = "169.254.169.254 is a special address (link-local): \
        not allowed for this webhook unless security.allow_networks has it";
    assert_eq!(outcome.describe(), expect);
    let url = "https://localhost/".parse().unwrap();
    let outcome = send(&transport, &url, WebhookSource::Database, 3000).await;
    assert!(outcome.describe().starts_with("localhost is "), "{outcome:?}");
    assert!(outcome.describe().contains("special address (loopback)"), "{outcome:?}");
}

#[tokio::test]
async fn an_allowed_network_is_reached_by_address_and_by_name() {
    let receiver = Receiver::start(Script::Answer(OK)).await;
    let transport = transport(policy(&["127.0.0.0/8"]), Vec::new());
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}/", receiver.address.port()).parse().unwrap();
        let outcome = send(&transport, &url, WebhookSource::Database, 3000).await;
        assert!(outcome.is_success(), "{host}: {outcome:?}");
    }
    let probed =
        transport.probe(&receiver.url("/"), WebhookSource::Database, None, Duration::from_secs(3)).await;
    assert_eq!(probed, Ok(Some(receiver.address)));
}

#[tokio::test]
async fn a_connection_of_a_trusted_webhook_is_not_lent_to_a_guarded_one() {
    let receiver = Receiver::start(Script::Answer(OK)).await;
    let transport = transport(policy(&[]), Vec::new());
    let url = format!("http://localhost:{}/", receiver.address.port()).parse().unwrap();
    assert!(send(&transport, &url, WebhookSource::Toml, 3000).await.is_success());
    let outcome = send(&transport, &url, WebhookSource::Database, 3000).await;
    assert!(matches!(outcome, Outcome::Refused { by: RefusedBy::Address(_), .. }), "{outcome:?}");
    assert_eq!(receiver.requests(), 1);
}

#[tokio::test]
async fn plain_http_and_foreign_schemes_are_refused() {
    let transport = transport(Policy::default(), Vec::new());
    let url = "http://example.com/".parse().unwrap();
    let outcome = send(&transport, &url, WebhookSource::Database, 3000).await;
    let Outcome::Refused { by: RefusedBy::PlainHttp, reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("security.allow_http"), "{reason}");
    for source in [WebhookSource::Toml, WebhookSource::Database] {
        let outcome = send(&transport, &"ftp://example.com/".parse().unwrap(), source, 3000).await;
        assert!(matches!(outcome, Outcome::Refused { by: RefusedBy::Request, .. }), "{outcome:?}");
    }
}
