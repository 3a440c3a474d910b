//! How a receiver is reached, and how walhook proves itself to it. All of it is checked; what is secret stays so.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use url::Url;

/// Everything about the way to a receiver that is not its URL.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// What is made anew for attempts. Bearer tokens, passwords and API keys are headers of the webhook.
    pub auth: Option<Auth>,
    /// Signatures beside those of Standard Webhooks.
    pub signature: SignatureScheme,
    /// TLS and proxy; shared by webhooks that set nothing of their own.
    pub connection: Arc<Connection>,
}

/// Authentication that is made anew.
#[derive(Debug, Clone)]
pub enum Auth {
    /// A JSON Web Token of walhook's own (RFC 7519), made for each attempt.
    Jwt(Jwt),
    /// An access token by the client credentials grant (RFC 6749, section 4.4).
    OAuth2(OAuth2),
}

/// How a token is signed (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl JwtAlgorithm {
    /// The word in a token's header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// What a token says, and what it is signed with.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// How it is signed.
    pub algorithm: JwtAlgorithm,
    /// The text of the secret for HS256, else a private key in PEM.
    pub key: SecretString,
    /// `kid` in the header.
    pub key_id: Option<String>,
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`: a string where there is one, a list where there are several.
    pub audience: Vec<String>,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
    /// The claim that holds the body's SHA-256 in hex, where one does.
    pub body_claim: Option<String>,
}

/// Where the client id and the secret stand in a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCredentials {
    /// In an `authorization: Basic` header.
    Basic,
    /// Among the form's fields.
    Body,
}

/// How an access token is asked for.
#[derive(Debug, Clone)]
pub struct OAuth2 {
    /// The token endpoint.
    pub token_url: Url,
    /// The client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// Where both stand.
    pub credentials: ClientCredentials,
    /// `scope`: words with spaces between them.
    pub scope: Option<String>,
    /// `audience`.
    pub audience: Option<String>,
}

/// Signatures that other senders make, for receivers that were written for those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SignatureScheme {
    /// None beside those that are always made.
    #[default]
    Standard,
    /// GitHub's.
    Github,
    /// Stripe's.
    Stripe,
    /// Shopify's.
    Shopify,
    /// Svix's own header names for Standard Webhooks.
    Svix,
    /// One of the receiver's own.
    Custom(Box<CustomSignature>),
}

/// The hash under an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-1: only for receivers that know nothing else.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a signature's bytes become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// A piece of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedPart {
    /// The body's bytes.
    Body,
    /// The delivery's id.
    Id,
    /// Unix seconds of the attempt.
    Timestamp,
    /// The event's type.
    Event,
    /// Text as it stands.
    Literal(String),
}

/// An HMAC in a header of any name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomSignature {
    /// The header.
    pub header: http::HeaderName,
    /// The hash.
    pub algorithm: HashAlgorithm,
    /// The signature's form.
    pub encoding: Encoding,
    /// What stands before it in the header.
    pub prefix: String,
    /// What is signed, in this order.
    pub content: Vec<SignedPart>,
    /// A header for the timestamp, where the receiver looks for one of its own.
    pub timestamp_header: Option<http::HeaderName>,
}

/// The oldest TLS version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Whether a receiver's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// It is.
    #[default]
    Full,
    /// It is not: whoever stands between can read and change everything.
    Skipped,
}

/// A client certificate for mutual TLS.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, with its intermediates behind it, in PEM.
    pub certificate: Arc<str>,
    /// Its private key, in PEM.
    pub key: SecretString,
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP CONNECT (RFC 9110, section 9.3.6).
    Http,
    /// SOCKS 5 (RFC 1928, with RFC 1929).
    Socks5,
}

/// A proxy between walhook and receivers.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// What it speaks.
    pub kind: ProxyKind,
    /// Its host: a name, or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User name and password.
    pub credentials: Option<(String, SecretString)>,
}

/// TLS and proxy. Equal ones share their connections.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Certificates in PEM that are trusted beside the system's.
    pub ca: Option<Arc<str>>,
    /// Certificates in PEM that are trusted instead of the system's.
    pub pinned_ca: Option<Arc<str>>,
    /// What walhook shows of itself.
    pub identity: Option<Identity>,
    /// The oldest version.
    pub min_version: TlsVersion,
    /// Whether the receiver's certificate is checked.
    pub verification: Verification,
    /// The way there.
    pub proxy: Option<Proxy>,
}

/// A digest of settings, secrets included, that tells equal ones without showing any.
pub type Fingerprint = [u8; 32];

/// Collects fields, each with its length, so that no two lists of fields look alike.
#[derive(Default)]
struct Fields(Sha256);

impl Fields {
    fn add(&mut self, field: Option<&[u8]>) {
        let length = field.map_or(u64::MAX, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX - 1));
        self.0.update(length.to_be_bytes());
        self.0.update(field.unwrap_or_default());
    }

    fn text(&mut self, field: Option<&str>) {
        self.add(field.map(str::as_bytes));
    }

    fn end(self) -> Fingerprint {
        self.0.finalize().into()
    }
}

impl Connection {
    /// Whether nothing is set.
    pub fn is_plain(&self) -> bool {
        let Self { ca, pinned_ca, identity, min_version, verification, proxy } = self;
        ca.is_none()
            && pinned_ca.is_none()
            && identity.is_none()
            && proxy.is_none()
            && *min_version == TlsVersion::default()
            && *verification == Verification::default()
    }

    /// Tells equal settings.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fields = Fields::default();
        fields.text(self.ca.as_deref());
        fields.text(self.pinned_ca.as_deref());
        fields.text(self.identity.as_ref().map(|identity| &*identity.certificate));
        fields.text(self.identity.as_ref().map(|identity| identity.key.expose_secret()));
        fields.add(Some(&[
            u8::from(self.min_version == TlsVersion::Tls13),
            u8::from(self.verification == Verification::Skipped),
        ]));
        if let Some(proxy) = &self.proxy {
            fields.add(Some(&[u8::from(proxy.kind == ProxyKind::Socks5)]));
            fields.text(Some(&proxy.host));
            fields.add(Some(&proxy.port.to_be_bytes()));
            fields.text(proxy.credentials.as_ref().map(|(user, _)| user.as_str()));
            fields.text(proxy.credentials.as_ref().map(|(_, password)| password.expose_secret()));
        }
        fields.end()
    }

    /// The way to a token endpoint: as to the receiver, but its certificate is always checked, and one authority
    /// pinned for the receiver does not shut out the others.
    #[must_use]
    pub fn for_tokens(&self) -> Self {
        let ca = match (&self.ca, &self.pinned_ca) {
            (Some(ca), Some(pinned)) => Some(format!("{ca}\n{pinned}").into()),
            (ca, pinned) => ca.clone().or_else(|| pinned.clone()),
        };
        Self { ca, pinned_ca: None, verification: Verification::Full, ..self.clone() }
    }
}

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl OAuth2 {
    /// Tells equal settings.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fields = Fields::default();
        fields.text(Some(self.token_url.as_str()));
        fields.text(Some(&self.client_id));
        fields.text(Some(self.client_secret.expose_secret()));
        fields.add(Some(&[u8::from(self.credentials == ClientCredentials::Body)]));
        fields.text(self.scope.as_deref());
        fields.text(self.audience.as_deref());
        fields.end()
    }
}

impl Proxy {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn place(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_equal_exactly_when_every_field_is() {
        let proxy = |password: &str| Proxy {
            kind: ProxyKind::Http,
            host: "proxy".to_owned(),
            port: 3128,
            credentials: Some(("user".to_owned(), SecretString::from(password))),
        };
        let identity = |key: &str| Identity { certificate: "c".into(), key: SecretString::from(key) };
        let all = [
            Connection::default(),
            Connection { ca: Some("a".into()), ..Connection::default() },
            Connection { pinned_ca: Some("a".into()), ..Connection::default() },
            Connection { min_version: TlsVersion::Tls13, ..Connection::default() },
            Connection { verification: Verification::Skipped, ..Connection::default() },
            Connection { proxy: Some(proxy("one")), ..Connection::default() },
            Connection { proxy: Some(proxy("two")), ..Connection::default() },
            Connection { identity: Some(identity("k")), ..Connection::default() },
            Connection { identity: Some(identity("l")), ..Connection::default() },
        ];
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(one == other, at == other_at, "{at} {other_at}");
            }
        }
        assert_eq!(all.each_ref().map(Connection::is_plain).iter().filter(|plain| **plain).count(), 1);
        assert!(all[0].is_plain());
    }

    #[test]
    fn i12_debug_shows_no_password_and_no_key() {
        let proxy = Proxy {
            kind: ProxyKind::Socks5,
            host: "::1".to_owned(),
            port: 1080,
            credentials: Some(("user".to_owned(), SecretString::from("hunter2"))),
        };
        assert_eq!(proxy.place(), "[::1]:1080");
        let identity = Identity { certificate: "c".into(), key: SecretString::from("hunter2") };
        let connection = Connection { proxy: Some(proxy), identity: Some(identity), ..Connection::default() };
        assert!(!format!("{connection:?}").contains("hunter2"));
    }
}
