//! `[server]`: where walhook itself is asked.

use std::net::{Ipv4Addr, SocketAddr};

use secrecy::SecretString;

use super::node::{Node, Table};
use super::problem::Fault;

const PORT: u16 = 8787;

/// The HTTP server for health, metrics and the API.
#[derive(Debug, Clone)]
pub struct Server {
    /// The address it listens on.
    pub listen: SocketAddr,
    /// The key that may do everything; `None`: there is none.
    pub admin_token: Option<SecretString>,
}

pub(super) fn read(mut table: Table<'_>) -> Server {
    let listen = table.get("listen", |node| node.parse("an address, as a string", address));
    let server = Server {
        listen: listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))),
        admin_token: table.get("admin_token", Node::secret),
    };
    table.finish();
    server
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
