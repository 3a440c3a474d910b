//! Signatures: the only place where key bytes are exposed.
//!
//! Outgoing requests carry two schemes. `webhook-signature` is Standard Webhooks: over `id.timestamp.body`, one
//! entry per secret, so that a receiver that knows either of two secrets goes on verifying while they are rotated.
//! `x-webhook-signature` is the one-line check people write themselves: hex HMAC over the body alone, keyed with the
//! first secret's text as it stands in the configuration.
//!
//! | secret | key | entry |
//! | --- | --- | --- |
//! | `whsec_…` | the base64-decoded rest | `v1,` HMAC-SHA256 |
//! | `whsk_…` | ed25519 secret key, 32 or 64 bytes in base64 | `v1a,` ed25519 |
//! | anything else | its UTF-8 bytes | `v1,` HMAC-SHA256 |
//!
//! Every secret but the first may have an end, after which it signs no more: [`Timed`]. New ones are made in [`make`].
//!
//! A webhook may add the signature of another sender ([`compatible`]) and a token of its own making ([`jwt`]).
//!
//! Neither keys nor secrets appear in a `Debug`, an error or a log (invariant I12).

mod compatible;
#[cfg(test)]
mod compatible_tests;
mod jwt;
mod key;
mod make;
#[cfg(test)]
mod vector_tests;
mod verify;

use std::fmt;

use hmac::Mac;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use compatible::Compatible;
pub use compatible::Signed;
pub use jwt::{JwtError, JwtSigner};
use key::{HmacSha256, SigningKind, hmac_over};
pub use make::{MakeError, Shape, new_secret, public_half};
pub use verify::{VerifyError, verify};

use crate::domain::{SignatureScheme, SigningSecret};

/// The Standard Webhooks signature header.
pub const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// The hex signature over the body alone.
pub const PLAIN_SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");

/// The shortest key of Standard Webhooks, in bytes.
const MIN_KEY_BYTES: usize = 24;
/// The longest key behind a `whsec_`, in bytes.
const MAX_KEY_BYTES: usize = 64;

/// Whether these secrets make the signatures of this scheme, with keys as long as Standard Webhooks wants them. For a
/// receiver that was written for another scheme, a text without prefix may be as short as it has always been.
pub fn check(secrets: &[SigningSecret], scheme: &SignatureScheme) -> Result<(), SignError> {
    Signer::with_scheme(secrets, scheme)?;
    for (index, secret) in secrets.iter().enumerate() {
        let text = secret.text.expose_secret();
        let is_standard = matches!(scheme, SignatureScheme::Standard | SignatureScheme::Svix);
        let (bytes, longest) = match text.strip_prefix("whsec_") {
            Some(encoded) => (key::decode(encoded).map_or(0, |key| key.len()), MAX_KEY_BYTES),
            None if is_standard && !text.starts_with("whsk_") => (text.len(), usize::MAX),
            None => continue,
        };
        if !(MIN_KEY_BYTES..=longest).contains(&bytes) {
            return Err(SignError::Length { index, bytes });
        }
    }
    Ok(())
}

/// A secret that cannot sign. `index` counts the webhook's secrets from 0; the secret itself is never told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// There is no text.
    #[error("secret {index} is empty")]
    Empty {
        /// Which secret.
        index: usize,
    },
    /// What follows `whsec_` is no base64, or nothing.
    #[error("secret {index} starts with whsec_ and must go on with a base64-encoded key")]
    BadSymmetric {
        /// Which secret.
        index: usize,
    },
    /// What follows `whsk_` is no ed25519 secret key.
    #[error(
        "secret {index} starts with whsk_ and must go on with a base64-encoded ed25519 secret key of 32 or 64 bytes"
    )]
    BadSecretKey {
        /// Which secret.
        index: usize,
    },
    /// `whpk_` is the receiver's half.
    #[error("secret {index} is a public key (whpk_); signing takes the secret key (whsk_)")]
    PublicKey {
        /// Which secret.
        index: usize,
    },
    /// The key is no key of Standard Webhooks by its length.
    #[error(
        "secret {index} makes a key of {bytes} bytes; a key has {MIN_KEY_BYTES} to {MAX_KEY_BYTES} (whsec_ and the output of openssl rand -base64 32)"
    )]
    Length {
        /// Which secret.
        index: usize,
        /// How many bytes its key has.
        bytes: usize,
    },
    /// A scheme that signs by a shared secret met a key pair.
    #[error("secret {index} is an ed25519 key (whsk_); this signature is an HMAC and takes a shared secret")]
    NotSymmetric {
        /// Which secret.
        index: usize,
    },
    /// There is nothing to sign with.
    #[error("there is no secret to sign with")]
    NoSecret,
}

/// A webhook's secrets, ready to sign. Its `Debug` tells only how many there are.
pub struct Signer {
    keys: Vec<Timed<SigningKind>>,
    plain: Option<HmacSha256>,
    compatible: Option<Compatible>,
}

/// A key that may have an end. Where it has none, asking costs one comparison of numbers that are at hand.
struct Timed<K> {
    key: K,
    /// Unix seconds from which on it does not sign.
    until: i64,
}

impl<K> Timed<K> {
    fn new(key: K, until: Option<Timestamp>) -> Self {
        Self { key, until: until.map_or(i64::MAX, Timestamp::as_second) }
    }

    /// The key, unless its time is over.
    fn at(&self, unix_seconds: i64) -> Option<&K> {
        (unix_seconds < self.until).then_some(&self.key)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Signer {
    /// Prepares keys without an end. No secrets make a signer that adds no headers.
    pub fn new(secrets: &[SecretString]) -> Result<Self, SignError> {
        let secrets: Vec<_> = secrets.iter().cloned().map(SigningSecret::from).collect();
        Self::with_scheme(&secrets, &SignatureScheme::Standard)
    }

    /// Prepares the keys of a webhook, which may sign as another sender does, too.
    pub fn with_scheme(secrets: &[SigningSecret], scheme: &SignatureScheme) -> Result<Self, SignError> {
        let key = |(index, secret): (usize, &SigningSecret)| {
            let key = SigningKind::parse(index, secret.text.expose_secret())?;
            Ok(Timed::new(key, secret.until))
        };
        let keys = secrets.iter().enumerate().map(key).collect::<Result<Vec<_>, _>>()?;
        let plain = secrets.first().map(|first| key::hmac_key(first.text.expose_secret().as_bytes()));
        Ok(Self { keys, plain, compatible: Compatible::of(scheme, secrets)? })
    }

    /// Adds every signature of one attempt. Fails where the event's type or the id cannot stand in a header.
    pub fn sign(
        &self,
        signed: &Signed<'_>,
        headers: &mut HeaderMap,
    ) -> Result<(), http::header::InvalidHeaderValue> {
        headers.extend(self.headers(signed.id, signed.unix_seconds, signed.body));
        match &self.compatible {
            None => Ok(()),
            Some(compatible) => compatible.add(signed, headers),
        }
    }

    /// The signature headers of one attempt: `unix_seconds` is what `webhook-timestamp` says, `body` the bytes before
    /// compression.
    ///
    /// # Panics
    ///
    /// Never: base64 and hex make header values.
    pub fn headers(&self, id: &str, unix_seconds: i64, body: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
        let Some(plain) = &self.plain else { return Vec::new() };
        let head = format!("{id}.{unix_seconds}.");
        let mut entries = String::new();
        for key in self.keys.iter().filter_map(|key| key.at(unix_seconds)) {
            if !entries.is_empty() {
                entries.push(' ');
            }
            key.sign(head.as_bytes(), body, &mut entries);
        }
        let over_body = hex::encode(hmac_over(plain, &[body]).finalize().into_bytes());
        let value = |text: String| HeaderValue::try_from(text).expect("base64 and hex are plain ASCII");
        vec![(SIGNATURE, value(entries)), (PLAIN_SIGNATURE, value(format!("sha256={over_body}")))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn signer(secrets: &[&str]) -> Result<Signer, SignError> {
        Signer::new(&secrets.iter().map(|s| SecretString::from(*s)).collect::<Vec<_>>())
    }

    fn header(secrets: &[&str], name: &HeaderName) -> String {
        let headers = signer(secrets).unwrap().headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, BODY);
        headers.iter().find(|(n, _)| n == name).unwrap().1.to_str().unwrap().to_owned()
    }

    /// The vector published with the Standard Webhooks libraries.
    #[test]
    fn the_published_vector_comes_out() {
        let expect = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(header(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], &SIGNATURE), expect);
    }

    #[test]
    fn every_secret_signs_and_the_first_makes_the_hex_signature_with_its_text() {
        let both = header(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "plain text"], &SIGNATURE);
        let entries: Vec<_> = both.split(' ').collect();
        assert_eq!(entries, [entries[0], &header(&["plain text"], &SIGNATURE)]);
        let plain = header(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "other"], &PLAIN_SIGNATURE);
        assert_eq!(plain, "sha256=80ec8a89ce3cd22133a1066caecb4d04fea7467657c8514d717ec42c38a5c94c");
    }

    #[test]
    fn the_hex_signature_is_that_of_any_hmac_tool() {
        let body = b"The quick brown fox jumps over the lazy dog";
        let headers = signer(&["key"]).unwrap().headers("id", 1, body);
        let expect = "sha256=f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8";
        assert_eq!(headers[1].1, expect);
    }

    #[test]
    fn a_secret_signs_until_its_end_and_no_longer() {
        let ends: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        let secrets =
            [("a current secret of many bytes", None), ("an older secret of many bytes", Some(ends))];
        let secrets = secrets.map(|(text, until)| SigningSecret { text: text.into(), until });
        let entries = |scheme: &SignatureScheme, name: &str, mark: char, unix_seconds| {
            let mut headers = HeaderMap::new();
            let what = Signed { id: "dlv_1", event_type: "order.created", unix_seconds, body: BODY };
            Signer::with_scheme(&secrets, scheme).unwrap().sign(&what, &mut headers).unwrap();
            headers[name].to_str().unwrap().split(mark).count()
        };
        let (before, after) = (ends.as_second() - 1, ends.as_second());
        for (at, expect) in [(before, 2), (after, 1), (after + 86_400, 1)] {
            assert_eq!(entries(&SignatureScheme::Standard, "webhook-signature", ' ', at), expect, "{at}");
            assert_eq!(entries(&SignatureScheme::Svix, "svix-signature", ' ', at), expect, "{at}");
            // A timestamp, then a signature each.
            assert_eq!(entries(&SignatureScheme::Stripe, "stripe-signature", ',', at), 1 + expect, "{at}");
        }
        let signer = Signer::with_scheme(&secrets, &SignatureScheme::Standard).unwrap();
        let alone = Signer::new(&[secrets[0].text.clone()]).unwrap();
        assert_eq!(signer.headers("dlv_1", after, BODY), alone.headers("dlv_1", after, BODY));
    }

    #[test]
    fn no_secrets_make_no_headers() {
        assert!(signer(&[]).unwrap().headers("id", 1, BODY).is_empty());
    }

    #[test]
    fn bad_secrets_are_refused_without_being_told() {
        let check = |secret: &str, expect: SignError| {
            let error = signer(&["fine", secret]).unwrap_err();
            assert_eq!(error, expect);
            assert!(!error.to_string().contains("AAAA"));
        };
        check("", SignError::Empty { index: 1 });
        check("whsec_", SignError::BadSymmetric { index: 1 });
        check("whsec_AAAA!", SignError::BadSymmetric { index: 1 });
        check("whsk_AAAA", SignError::BadSecretKey { index: 1 });
        check("whpk_AAAA", SignError::PublicKey { index: 1 });
    }

    #[test]
    fn i12_debug_tells_no_key() {
        let text = format!("{:?}", signer(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "hunter2"]).unwrap());
        assert_eq!(text, "Signer { keys: 2, .. }");
    }

    /// `standardwebhooks` reads the clock itself, so the wall time comes from the system's clock here too.
    #[test]
    fn other_peoples_library_verifies_what_we_sign() {
        let now = crate::clock::Clock::system().unix_seconds();
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let mut headers = http::HeaderMap::new();
        headers.extend(signer(&["an older one", secret]).unwrap().headers("dlv_1", now, BODY));
        headers.insert("webhook-id", HeaderValue::from_static("dlv_1"));
        headers.insert("webhook-timestamp", HeaderValue::from(now));
        let theirs = standardwebhooks::Webhook::new(secret).unwrap();
        theirs.verify(BODY, &headers).unwrap();
        assert!(theirs.verify(b"{}", &headers).is_err());
        let raw = standardwebhooks::Webhook::from_bytes(b"an older one".to_vec()).unwrap();
        raw.verify(BODY, &headers).unwrap();
    }
}
