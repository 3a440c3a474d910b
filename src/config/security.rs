//! `[security]`: what webhooks that the operator did not write may target.

use std::net::IpAddr;

use ipnet::IpNet;

use super::node::{Node, Table};
use super::problem::Fault;

const NETWORKS: usize = 1000;

/// What webhooks from the API or the database are allowed beyond public https.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// Plain http.
    pub allow_http: bool,
    /// Networks that are private, loopback, link-local or otherwise not public.
    pub allow_networks: Vec<IpNet>,
}

pub(super) fn read(mut table: Table<'_>) -> Security {
    let networks = |node: Node<'_>| {
        let items = node.list(NETWORKS)?.into_iter();
        Some(items.filter_map(|item| item.parse("a network, as a string", network)).collect())
    };
    let security = Security {
        allow_http: table.get("allow_http", Node::boolean).unwrap_or_default(),
        allow_networks: table.get("allow_networks", networks).unwrap_or_default(),
    };
    table.finish();
    security
}

/// A CIDR, or an address as the network of itself.
fn network(text: &str) -> Result<IpNet, Fault> {
    let single = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(single).map_err(|_| {
        Fault::new(format!("expected a network, found \"{}\"", text.escape_debug()))
            .detail("A network is written \"10.0.0.0/8\", \"fd00::/8\" or, for one address, \"10.1.2.3\".")
    })
}
