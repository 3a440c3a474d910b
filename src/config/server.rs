//! `[server]`: where walhook itself is asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use secrecy::SecretString;
use url::{Origin, Url};

use super::flow::rate_limit;
use super::node::{Node, Table};
use super::problem::Fault;
use crate::domain::RateLimit;

const PORT: u16 = 8787;

/// The HTTP server for health, metrics and the API.
#[derive(Debug, Clone)]
pub struct Server {
    /// The address it listens on.
    pub listen: SocketAddr,
    /// The key that may do everything; `None`: there is none.
    pub admin_token: Option<SecretString>,
    /// How many requests one key may make; `None`: as many as it likes.
    pub rate_limit: Option<RateLimit>,
    /// The web pages that may use the API: their origins, or `*` for any.
    pub cors_origins: Vec<String>,
}

/// Enough for whoever has work to do.
const RATE: RateLimit = RateLimit { count: 1000, per: Duration::from_secs(1) };
const ORIGINS: usize = 100;

pub(super) fn read(mut table: Table<'_>) -> Server {
    let listen = table.get("listen", |node| node.parse("an address, as a string", address));
    let rate_limit = if table.take_false("rate_limit") {
        None
    } else {
        Some(table.get("rate_limit", rate_limit).unwrap_or(RATE))
    };
    let origins = |node: Node<'_>| {
        let items = node.list(ORIGINS)?.into_iter();
        Some(items.filter_map(|item| item.parse("an origin, as a string", origin)).collect())
    };
    let server = Server {
        listen: listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))),
        admin_token: table.get("admin_token", Node::secret),
        rate_limit,
        cors_origins: table.get("cors_origins", origins).unwrap_or_default(),
    };
    table.finish();
    server
}

/// As browsers write it (RFC 6454): scheme, host and, where it is not the scheme's own, port.
fn origin(text: &str) -> Result<String, Fault> {
    let read = || Some(Url::parse(text).ok()?.origin()).filter(Origin::is_tuple);
    if text == "*" || read().is_some_and(|origin| origin.ascii_serialization() == text) {
        return Ok(text.to_owned());
    }
    let fault = Fault::new(format!("expected an origin, found \"{}\"", text.escape_debug())).detail(
        "An origin is written \"https://app.example.com\" or \"http://localhost:3000\"; \"*\" is every one.",
    );
    Err(match read() {
        Some(origin) => fault.hint(format!("Write \"{}\".", origin.ascii_serialization())),
        None => fault,
    })
}

fn address(text: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| {
        let fault = Fault::new(format!("expected an address and a port, found \"{}\"", text.escape_debug()))
            .detail("An address is written \"127.0.0.1:8787\" or \"[::1]:8787\".");
        match text.rsplit_once(':') {
            Some(("localhost", port)) => fault.hint(format!("Write \"127.0.0.1:{port}\".")),
            Some(("" | "*", port)) => {
                fault.hint(format!("For every address of the machine, write \"0.0.0.0:{port}\"."))
            }
            _ => fault,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_as_browsers_write_it_or_every_one() {
        for right in ["*", "https://app.example.com", "http://localhost:3000", "https://[::1]:8443"] {
            assert_eq!(origin(right).ok().as_deref(), Some(right));
        }
        for wrong in [
            "",
            "app.example.com",
            "https://app.example.com/",
            "https://APP.example.com",
            "null",
            "https://*.example.com/a",
            "https://a.example.com:443",
        ] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }
}
