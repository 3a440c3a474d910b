//! `[security]`: what webhooks that the operator did not write may target, the key of masked values, and the keys of what
//! is secret in the database.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use ipnet::IpNet;
use secrecy::zeroize::Zeroizing;

use super::node::{Node, Table};
use super::problem::Fault;
use crate::domain::{EncryptionKey, MaskKey};

const NETWORKS: usize = 1000;
const MASK_KEY_BYTES: usize = 16;
const ENCRYPTION_KEYS: usize = 10;

/// What webhooks from the API or the database are allowed beyond public https, and what hashes are made with,
/// and what secrets in the database are encrypted with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// Plain http.
    pub allow_http: bool,
    /// Networks that are private, loopback, link-local or otherwise not public.
    pub allow_networks: Vec<IpNet>,
    /// What tenants' webhooks from the API or the database are allowed (`[security.tenants]`).
    pub tenants: Allowed,
    /// The key of columns that are masked by hash.
    pub mask_key: Option<MaskKey>,
    /// The keys of what is secret in the database: the first encrypts, all decrypt. Empty: it stands there as text.
    pub encryption_keys: Vec<EncryptionKey>,
}

/// What is allowed beyond public https.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Plain http.
    pub allow_http: bool,
    /// Networks that are not public.
    pub allow_networks: Vec<IpNet>,
}

fn allowed(mut table: Table<'_>) -> Allowed {
    let allowed = Allowed {
        allow_http: table.get("allow_http", Node::boolean).unwrap_or_default(),
        allow_networks: table.get("allow_networks", networks).unwrap_or_default(),
    };
    table.finish();
    allowed
}

fn networks(node: Node<'_>) -> Option<Vec<IpNet>> {
    let items = node.list(NETWORKS)?.into_iter();
    Some(items.filter_map(|item| item.parse("a network, as a string", network)).collect())
}

pub(super) fn read(mut table: Table<'_>) -> Security {
    let security = Security {
        allow_http: table.get("allow_http", Node::boolean).unwrap_or_default(),
        allow_networks: table.get("allow_networks", networks).unwrap_or_default(),
        tenants: table.section("tenants", allowed).unwrap_or_default(),
        mask_key: table.get("mask_key", mask_key),
        encryption_keys: table.get("encryption_key", encryption_keys).unwrap_or_default(),
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

/// One key, or a list of different ones.
fn encryption_keys(node: Node<'_>) -> Option<Vec<EncryptionKey>> {
    let (doc, path) = (node.doc, node.path.clone());
    let items = node.list_or_one(ENCRYPTION_KEYS)?;
    if items.is_empty() {
        let fault = Fault::new("expected at least one key, found none");
        doc.report(&path, fault.hint("Leave the key out, and secrets in the database stand there as text."));
    }
    let mut keys: Vec<EncryptionKey> = Vec::with_capacity(items.len());
    for node in items {
        let mut key = None;
        node.checked_secret(|text| {
            let read = encryption_key(text)?;
            if keys.iter().any(|other| other.id() == read.id()) {
                return Err(Fault::new(format!("this key ({}) stands in the list already", read.id())));
            }
            key = Some(read);
            Ok(())
        });
        keys.extend(key);
    }
    Some(keys)
}

/// 32 bytes in base64 (also that of URLs, also without padding) or hexadecimal.
fn encryption_key(text: &str) -> Result<EncryptionKey, Fault> {
    let text = text.trim();
    let engines = [&BASE64_STANDARD, &BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE, &BASE64_URL_SAFE_NO_PAD];
    let of_base64 = || engines.iter().find_map(|engine| engine.decode(text).ok());
    let bytes = hex::decode(text).ok().or_else(of_base64).map(Zeroizing::new);
    let wanted = "a key is 32 bytes in base64 or hexadecimal";
    let hint = "Make one with: openssl rand -base64 32";
    let Some(bytes) = bytes else {
        return Err(Fault::new(format!("{wanted}, and this is neither")).hint(hint));
    };
    let exact: Result<[u8; EncryptionKey::BYTES], _> = bytes.as_slice().try_into();
    let Ok(exact) = exact else {
        return Err(Fault::new(format!("{wanted}, and this has {} bytes", bytes.len())).hint(hint));
    };
    Ok(EncryptionKey::new(Zeroizing::new(exact)))
}

/// A CIDR, or an address as the network of itself.
fn network(text: &str) -> Result<IpNet, Fault> {
    let single = |_| text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(single).map_err(|_| {
        Fault::new(format!("expected a network, found \"{}\"", text.escape_debug()))
            .detail("A network is written \"10.0.0.0/8\", \"fd00::/8\" or, for one address, \"10.1.2.3\".")
    })
}
