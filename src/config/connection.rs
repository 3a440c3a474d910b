//! `tls = { … }` and `proxy`: how connections to receivers are made.
//!
//! `[delivery]` sets what holds for all; a webhook adds to that. What would weaken or lend out the operator's own means is
//! not for everybody: a certificate of walhook's is a webhook's own, verification is switched off in the file alone and
//! one webhook at a time, and a proxy is named in the file.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

use super::Part;
use super::document::Origin;
use super::node::{Node, Table};
use super::problem::Fault;
use crate::domain::{Connection, Identity, Proxy, ProxyKind, TlsVersion, Verification, WebhookSource};

const SOCKS_PORT: u16 = 1080;

/// Reads what `[delivery]` says for every webhook.
pub(super) fn defaults(table: &mut Table<'_>) -> Arc<Connection> {
    let (ca, min_version) = table
        .section("tls", |mut tls| {
            let common = common(&mut tls);
            tls.finish();
            common
        })
        .unwrap_or_default();
    let proxy = table.get("proxy", proxy).and_then(Choice::proxy);
    let min_version = min_version.unwrap_or_default();
    Arc::new(Connection { ca, min_version, proxy, ..Connection::default() })
}

/// Reads what a webhook says for itself; where that is nothing, the defaults are shared.
pub(super) fn own(table: &mut Table<'_>, base: &Arc<Connection>, source: WebhookSource) -> Arc<Connection> {
    let is_set = table.has("tls") || (source == WebhookSource::Toml && table.has("proxy"));
    let mut connection = Connection::clone(base);
    table.section("tls", |mut tls| {
        let (ca, min_version) = common(&mut tls);
        if let Some(ca) = ca {
            connection.ca = Some(ca);
        }
        connection.min_version = min_version.unwrap_or(base.min_version);
        connection.pinned_ca = tls.get("pinned_ca", authorities);
        connection.identity = identity(&mut tls);
        connection.verification = tls.get("insecure_skip_verify", verification).unwrap_or_default();
        tls.finish();
    });
    if source == WebhookSource::Toml
        && let Some(proxy) = table.get("proxy", proxy)
    {
        connection.proxy = proxy.proxy();
    }
    if is_set { Arc::new(connection) } else { Arc::clone(base) }
}

fn common(tls: &mut Table<'_>) -> (Option<Arc<str>>, Option<TlsVersion>) {
    let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    (tls.get("ca", authorities), tls.get("min_version", |node| node.word(&versions)))
}

/// One or more certificates in PEM.
fn authorities(node: Node<'_>) -> Option<Arc<str>> {
    let (doc, path) = (node.doc, node.path.clone());
    let text = node.long_text()?;
    if let Err(complaint) = (doc.checks.reach)(Part::Authorities(&text)) {
        doc.report(&path, Fault::new(complaint.message));
    }
    Some(text.into())
}

fn identity(tls: &mut Table<'_>) -> Option<Identity> {
    let certificate = tls.get("certificate", Node::long_text);
    let key = tls.get("key", Node::secret);
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let identity = Identity { certificate: certificate.into(), key };
            if let Err(complaint) = (tls.doc.checks.reach)(Part::Identity(&identity)) {
                tls.doc.report(&tls.path.key("certificate"), Fault::new(complaint.message));
            }
            Some(identity)
        }
        (None, None) => None,
        (certificate, _) => {
            let (there, missing) =
                if certificate.is_some() { ("certificate", "key") } else { ("key", "certificate") };
            tls.refuse(format!("{there} is set without {missing}: a client certificate needs both"));
            None
        }
    }
}

fn verification(node: Node<'_>) -> Option<Verification> {
    if matches!(node.doc.origin, Origin::Row(_)) {
        let fault = Fault::new("a webhook of the database cannot switch verification off");
        node.refuse(fault.hint("Set tls.ca to the authority that issued the receiver's certificate."));
        return None;
    }
    Some(if node.boolean()? { Verification::Skipped } else { Verification::Full })
}

/// What `proxy` says.
enum Choice {
    /// "none".
    Direct,
    Through(Proxy),
}

impl Choice {
    fn proxy(self) -> Option<Proxy> {
        match self {
            Self::Direct => None,
            Self::Through(proxy) => Some(proxy),
        }
    }
}

fn proxy(node: Node<'_>) -> Option<Choice> {
    let mut found = None;
    node.checked_secret(|text| {
        found = Some(if text == "none" { Choice::Direct } else { Choice::Through(proxy_url(text)?) });
        Ok(())
    })?;
    found
}

/// What is refused says nothing of the URL: it may hold a password.
fn proxy_url(text: &str) -> Result<Proxy, Fault> {
    let detail = "A proxy is written \"http://proxy.internal:3128\", \"socks5://user:password@proxy.internal:1080\", or \"none\".";
    let refused = |message: String| Fault::new(message).detail(detail);
    let url = Url::parse(text).map_err(|error| refused(format!("not a valid URL: {error}")))?;
    let kind = match url.scheme() {
        "http" => ProxyKind::Http,
        "socks5" | "socks5h" => ProxyKind::Socks5,
        _ => return Err(refused("expected a URL of http or socks5".to_owned())),
    };
    let host = match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(host) => host.to_string(),
        None => String::new(),
    };
    if host.is_empty() {
        return Err(refused("the URL has no host".to_owned()));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(refused("a proxy's URL ends with its port".to_owned()));
    }
    let decoded = |part: &str| {
        percent_decode_str(part)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned)
            .ok()
            .filter(|text| !text.chars().any(char::is_control) && text.len() <= 255)
            .ok_or_else(|| refused("the user name or the password cannot be used".to_owned()))
    };
    let credentials = if url.username().is_empty() {
        None
    } else {
        let password = SecretString::from(decoded(url.password().unwrap_or_default())?);
        if kind == ProxyKind::Socks5 && password.expose_secret().is_empty() {
            return Err(refused("the user name has no password".to_owned()));
        }
        Some((decoded(url.username())?, password))
    };
    let port = url.port_or_known_default().unwrap_or(SOCKS_PORT);
    Ok(Proxy { kind, host, port, credentials })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_url_of_http_or_socks5_with_nothing_behind_its_port() {
        let place = |text: &str| proxy_url(text).map(|proxy| (proxy.kind, proxy.place()));
        assert_eq!(place("http://proxy:3128"), Ok((ProxyKind::Http, "proxy:3128".to_owned())));
        assert_eq!(place("http://proxy"), Ok((ProxyKind::Http, "proxy:80".to_owned())));
        assert_eq!(place("socks5://[::1]"), Ok((ProxyKind::Socks5, "[::1]:1080".to_owned())));
        assert_eq!(place("socks5h://proxy:9/"), Ok((ProxyKind::Socks5, "proxy:9".to_owned())));
        for wrong in
            ["proxy:3128", "https://proxy", "http://proxy/path", "ftp://proxy", "http://a:%00@proxy", ""]
        {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn i12_a_proxys_password_is_decoded_and_never_told() {
        let proxy = proxy_url("socks5://me:hunt%2Fer2@proxy").unwrap();
        let (user, password) = proxy.credentials.as_ref().unwrap();
        assert_eq!((user.as_str(), password.expose_secret()), ("me", "hunt/er2"));
        assert!(!format!("{proxy:?}").contains("er2"));
        let fault = proxy_url("http://me:hunter2@proxy/path").unwrap_err();
        assert!(!format!("{fault:?}").contains("hunter2"));
    }
}
