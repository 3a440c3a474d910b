//! `auth = { kind = "…", … }`: how walhook proves itself to a receiver beside its signatures.
//!
//! What never changes (a bearer token, a password, an API key) becomes a header of the webhook, here and once.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;

use super::Part;
use super::headers::{header_name, header_value};
use super::node::{Node, Table};
use super::problem::Fault;
use super::webhooks::target;
use crate::domain::{Auth, ClientCredentials, Jwt, JwtAlgorithm, OAuth2, SigningSecret, WebhookSource};

const AUDIENCES: usize = 20;
const SCOPES: usize = 100;
const TEXT_BYTES: usize = 1024;
const LIFETIME: Duration = Duration::from_secs(60);
const LIFETIMES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// Claims that walhook sets itself.
const OWN_CLAIMS: [&str; 7] = ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"];

/// What an `auth` comes to.
pub(super) enum Proof {
    /// A header that is the same at every attempt.
    Header(HeaderName, HeaderValue),
    /// Something that is made anew.
    Made(Auth),
}

impl Proof {
    /// The header it stands in.
    pub fn header(&self) -> &HeaderName {
        match self {
            Self::Header(name, _) => name,
            Self::Made(_) => &AUTHORIZATION,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Bearer,
    Basic,
    Header,
    Jwt,
    OAuth2,
}

const KINDS: [(&str, Kind); 5] = [
    ("bearer", Kind::Bearer),
    ("basic", Kind::Basic),
    ("header", Kind::Header),
    ("jwt", Kind::Jwt),
    ("oauth2", Kind::OAuth2),
];

pub(super) fn read(node: Node<'_>, source: WebhookSource, allow_http: bool) -> Option<Proof> {
    let mut table = node.table()?;
    let kind = table.require(
        "kind",
        "how walhook proves itself: \"bearer\", \"basic\", \"header\", \"jwt\" or \"oauth2\"",
        |node| node.word(&KINDS),
    )?;
    let proof = match kind {
        Kind::Bearer => bearer(&mut table),
        Kind::Basic => basic(&mut table),
        Kind::Header => own_header(&mut table),
        Kind::Jwt => jwt(&mut table).map(|jwt| Proof::Made(Auth::Jwt(jwt))),
        Kind::OAuth2 => {
            let http = source == WebhookSource::Toml || allow_http;
            oauth2(&mut table, http).map(|oauth2| Proof::Made(Auth::OAuth2(oauth2)))
        }
    };
    table.finish();
    proof
}

fn bearer(table: &mut Table<'_>) -> Option<Proof> {
    let mut value = None;
    table.require("token", "the token, a secret", |node| {
        node.checked_secret(|text| {
            value = Some(header_value(&format!("Bearer {}", one_word(text)?))?);
            Ok(())
        })
    })?;
    value.map(|value| Proof::Header(AUTHORIZATION, value))
}

fn basic(table: &mut Table<'_>) -> Option<Proof> {
    let username = table.require("username", "the user's name", |node| {
        node.checked_secret(|text| {
            if text.contains(':') || text.chars().any(char::is_control) {
                return Err(
                    "a user name of basic authentication has no colon and no control character".into()
                );
            }
            Ok(())
        })
    });
    let password = table.require("password", "the password, a secret", |node| {
        node.checked_secret(|text| {
            if text.chars().any(char::is_control) {
                return Err("a password of basic authentication has no control character".into());
            }
            Ok(())
        })
    });
    let (username, password) = (username?, password?);
    let both = BASE64_STANDARD.encode(format!("{}:{}", username.expose_secret(), password.expose_secret()));
    header_value(&format!("Basic {both}")).ok().map(|value| Proof::Header(AUTHORIZATION, value))
}

fn own_header(table: &mut Table<'_>) -> Option<Proof> {
    let name = table.require("name", "the header's name, such as \"x-api-key\"", |node| {
        node.parse("the name of a header, as a string", header_name)
    });
    let mut value = None;
    table.require("value", "the header's value, a secret", |node| {
        node.checked_secret(|text| {
            value = Some(header_value(text)?);
            Ok(())
        })
    });
    Some(Proof::Header(name?, value?))
}

fn jwt(table: &mut Table<'_>) -> Option<Jwt> {
    let algorithms = [
        ("HS256", JwtAlgorithm::Hs256),
        ("RS256", JwtAlgorithm::Rs256),
        ("ES256", JwtAlgorithm::Es256),
        ("EdDSA", JwtAlgorithm::EdDsa),
    ];
    let algorithm = table
        .require("algorithm", "\"HS256\", \"RS256\", \"ES256\" or \"EdDSA\"", |node| node.word(&algorithms));
    let key = table.require("key", "the shared secret of HS256, or a private key in PEM", Node::secret);
    let key_id = table.get("key_id", plain);
    let issuer = table.get("issuer", plain);
    let subject = table.get("subject", plain);
    let audience = table
        .get("audience", |node| Some(node.list_or_one(AUDIENCES)?.into_iter().filter_map(plain).collect()));
    let lifetime = table.get("lifetime", |node| node.duration(LIFETIMES));
    let body_claim = table.get("body_claim", |node| {
        node.parse("the name of a claim, as a string", |text| {
            if OWN_CLAIMS.contains(&text) {
                return Err(Fault::new(format!("the claim {text} has a meaning of its own"))
                    .hint("\"body_sha256\" would be valid."));
            }
            within_bytes(text)
        })
    });
    let jwt = Jwt {
        algorithm: algorithm?,
        key: key?,
        key_id,
        issuer,
        subject,
        audience: audience.unwrap_or_default(),
        lifetime: lifetime.unwrap_or(LIFETIME),
        body_claim,
    };
    if let Err(complaint) = (table.doc.checks.reach)(Part::Jwt(&jwt)) {
        table.doc.report(&table.path.key("key"), Fault::new(complaint.message));
    }
    Some(jwt)
}

fn oauth2(table: &mut Table<'_>, allow_http: bool) -> Option<OAuth2> {
    let token_url = table.require("token_url", "where access tokens are asked for", |node| {
        node.parse("a URL, as a string", |text| {
            let url = target(text)?;
            if url.scheme() == "http" && !allow_http {
                return Err(Fault::new("plain http is not allowed to webhooks from the database")
                    .hint("Use https, or have the operator set security.allow_http = true."));
            }
            Ok(url)
        })
    });
    let client_id = table.require("client_id", "the client's id", Node::secret);
    let client_secret = table.require("client_secret", "the client's secret", Node::secret);
    let places = [("basic", ClientCredentials::Basic), ("body", ClientCredentials::Body)];
    let credentials = table.get("credentials", |node| node.word(&places));
    let scope = table.get("scope", |node| {
        let words: Vec<String> = node.list_or_one(SCOPES)?.into_iter().filter_map(plain).collect();
        (!words.is_empty()).then(|| words.join(" "))
    });
    let audience = table.get("audience", plain);
    Some(OAuth2 {
        token_url: token_url?,
        client_id: client_id?.expose_secret().to_owned(),
        client_secret: client_secret?,
        credentials: credentials.unwrap_or(ClientCredentials::Basic),
        scope,
        audience,
    })
}

fn plain(node: Node<'_>) -> Option<String> {
    node.parse("a string", within_bytes)
}

fn within_bytes(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.len() > TEXT_BYTES || text.chars().any(char::is_control) {
        return Err(Fault::new(format!("expected 1 to {TEXT_BYTES} bytes without control characters")));
    }
    Ok(text.to_owned())
}

fn one_word(text: &str) -> Result<&str, Fault> {
    if text.contains(char::is_whitespace) {
        return Err(Fault::new("a bearer token has no spaces and no line ends")
            .detail("The word Bearer comes before it by itself."));
    }
    Ok(text)
}

/// The secrets of a webhook with what its `signature` wants of them.
pub(super) fn check_secrets(
    doc: &super::document::Document<'_>,
    path: &super::path::Path,
    secrets: &[SigningSecret],
    scheme: &crate::domain::SignatureScheme,
) {
    if let Err(complaint) = (doc.checks.reach)(Part::Secrets(secrets, scheme)) {
        doc.report(path, Fault::new(complaint.message));
    }
}
