//! `[security]`: what webhooks that the operator did not write may target, and the key of masked values.

use std::net::IpAddr;

use ipnet::IpNet;

use super::node::{Node, Table};
use super::problem::Fault;
use crate::domain::MaskKey;

const NETWORKS: usize = 1000;
const MASK_KEY_BYTES: usize = 16;

/// What webhooks from the API or the database are allowed beyond public https, and what hashes are made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// Plain http.
    pub allow_http: bool,
    /// Networks that are private, loopback, link-local or otherwise not public.
    pub allow_networks: Vec<IpNet>,
    /// The key of columns that are masked by hash.
    pub mask_key: Option<MaskKey>,
}

pub(super) fn read(mut table: Table<'_>) -> Security {
    let networks = |node: Node<'_>| {
        let items = node.list(NETWORKS)?.into_iter();
        Some(items.filter_map(|item| item.parse("a network, as a string", network)).collect())
    };
    let security = Security {
        allow_http: table.get("allow_http", Node::boolean).unwrap_or_default(),
        allow_networks: table.get("allow_networks", networks).unwrap_or_default(),
        mask_key: table.get("mask_key", mask_key),
    };
    table.finish();
    security
}

/// A key that nobody guesses.
fn mask_key(node: Node<'_>) -> Option<MaskKey> {
    let mut key = None;
    node.checked_secret(|text| {
        if text.len() < MASK_KEY_BYTES {
            return Err(Fault::new(format!("the key is shorter than {MASK_KEY_BYTES} bytes"))
                .hint("Make one with: openssl rand -base64 32"));
        }
        key = Some(MaskKey::new(text));
        Ok(())
    });
    key
}

/// A CIDR, or an address as the network of itself.
fn network(text: &str) -> Result<IpNet, Fault> {
    let single = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(single).map_err(|_| {
        Fault::new(format!("expected a network, found \"{}\"", text.escape_debug()))
            .detail("A network is written \"10.0.0.0/8\", \"fd00::/8\" or, for one address, \"10.1.2.3\".")
    })
}
