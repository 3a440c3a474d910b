//! Tokens of walhook's own: JSON Web Tokens (RFC 7519) in JWS compact form (RFC 7515), one an attempt.
//!
//! A token is good for one attempt and a short while: `jti` is the delivery's id and the second it was made in, `exp` is
//! `iat` plus the lifetime. Where a claim is named for it, the body's SHA-256 stands in the token too, so that a token that
//! was caught cannot carry another body.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{digest, hmac};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};

use crate::domain::{Jwt, JwtAlgorithm};

/// The shortest key of HS256, in bytes (RFC 7518, section 3.2).
const HMAC_KEY_BYTES: usize = 32;

/// Why a key cannot sign tokens; the key itself is never told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// HS256 wants as many bytes as its hash has.
    #[error("a key of HS256 has at least {HMAC_KEY_BYTES} bytes, this one has {bytes}")]
    TooShort {
        /// How many there are.
        bytes: usize,
    },
    /// There is no PEM block of a private key.
    #[error("the key is no private key in PEM (a block that begins with -----BEGIN PRIVATE KEY-----)")]
    NotPem,
    /// It is a private key in an older form.
    #[error(
        "the key of {algorithm} must be in PKCS #8 (-----BEGIN PRIVATE KEY-----); openssl pkcs8 -topk8 -nocrypt makes it so"
    )]
    NotPkcs8 {
        /// What it was to sign with.
        algorithm: &'static str,
    },
    /// It is a private key of another kind.
    #[error("the key is not one of {algorithm} ({why})")]
    WrongKey {
        /// What it was to sign with.
        algorithm: &'static str,
        /// What the library says.
        why: String,
    },
    /// Signing failed, which a key that was read does not do.
    #[error("the token cannot be signed")]
    Signing,
}

enum Key {
    Hmac(hmac::Key),
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

/// A key and what tokens made with it say. Its `Debug` tells neither.
pub struct JwtSigner {
    key: Key,
    /// The encoded header, with the dot behind it.
    head: String,
    /// The claims that never change.
    claims: Map<String, Value>,
    lifetime_seconds: i64,
    body_claim: Option<String>,
    random: SystemRandom,
}

impl fmt::Debug for JwtSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSigner").finish_non_exhaustive()
    }
}

impl JwtSigner {
    /// Reads the key, and prepares what every token says.
    pub fn new(jwt: &Jwt) -> Result<Self, JwtError> {
        let mut header = Map::new();
        header.insert("alg".to_owned(), jwt.algorithm.as_str().into());
        header.insert("typ".to_owned(), "JWT".into());
        if let Some(key_id) = &jwt.key_id {
            header.insert("kid".to_owned(), key_id.as_str().into());
        }
        let mut claims = Map::new();
        for (claim, text) in [("iss", &jwt.issuer), ("sub", &jwt.subject)] {
            if let Some(text) = text {
                claims.insert(claim.to_owned(), text.as_str().into());
            }
        }
        match jwt.audience.as_slice() {
            [] => {}
            [one] => drop(claims.insert("aud".to_owned(), one.as_str().into())),
            several => drop(claims.insert("aud".to_owned(), several.into())),
        }
        Ok(Self {
            key: Key::read(jwt)?,
            head: format!("{}.", encoded(&header)),
            claims,
            lifetime_seconds: i64::try_from(jwt.lifetime.as_secs()).unwrap_or(i64::MAX),
            body_claim: jwt.body_claim.clone(),
            random: SystemRandom::new(),
        })
    }

    /// A token for one attempt at `unix_seconds` to deliver `body` under `id`.
    pub fn token(&self, id: &str, unix_seconds: i64, body: &[u8]) -> Result<String, JwtError> {
        let mut claims = self.claims.clone();
        claims.insert("iat".to_owned(), unix_seconds.into());
        claims.insert("exp".to_owned(), unix_seconds.saturating_add(self.lifetime_seconds).into());
        claims.insert("jti".to_owned(), format!("{id}.{unix_seconds}").into());
        if let Some(name) = &self.body_claim {
            claims.insert(name.clone(), hex::encode(digest::digest(&digest::SHA256, body)).into());
        }
        let mut token = format!("{}{}", self.head, encoded(&claims));
        let signature = self.key.sign(token.as_bytes(), &self.random)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl Key {
    fn read(jwt: &Jwt) -> Result<Self, JwtError> {
        let text = jwt.key.expose_secret();
        let algorithm = jwt.algorithm.as_str();
        if jwt.algorithm == JwtAlgorithm::Hs256 {
            if text.len() < HMAC_KEY_BYTES {
                return Err(JwtError::TooShort { bytes: text.len() });
            }
            return Ok(Self::Hmac(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())));
        }
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| JwtError::NotPem)?;
        let wrong = |why: ring::error::KeyRejected| JwtError::WrongKey { algorithm, why: why.to_string() };
        match (jwt.algorithm, &der) {
            (JwtAlgorithm::Rs256, PrivateKeyDer::Pkcs1(key)) => RsaKeyPair::from_der(key.secret_pkcs1_der())
                .map(|key| Self::Rsa(Box::new(key)))
                .map_err(wrong),
            (JwtAlgorithm::Rs256, PrivateKeyDer::Pkcs8(key)) => {
                RsaKeyPair::from_pkcs8(key.secret_pkcs8_der())
                    .map(|key| Self::Rsa(Box::new(key)))
                    .map_err(wrong)
            }
            (JwtAlgorithm::Es256, PrivateKeyDer::Pkcs8(key)) => {
                let (kind, der) = (&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der());
                let key = EcdsaKeyPair::from_pkcs8(kind, der, &SystemRandom::new());
                key.map(|key| Self::Ecdsa(Box::new(key))).map_err(wrong)
            }
            (JwtAlgorithm::EdDsa, PrivateKeyDer::Pkcs8(key)) => {
                let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
                key.map(|key| Self::Ed25519(Box::new(key))).map_err(wrong)
            }
            _ => Err(JwtError::NotPkcs8 { algorithm }),
        }
    }

    fn sign(&self, message: &[u8], random: &SystemRandom) -> Result<Vec<u8>, JwtError> {
        match self {
            Self::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            Self::Ecdsa(key) => {
                let signed = key.sign(random, message).map_err(|_| JwtError::Signing)?;
                Ok(signed.as_ref().to_vec())
            }
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, random, message, &mut signature)
                    .map_err(|_| JwtError::Signing)?;
                Ok(signature)
            }
        }
    }
}

fn encoded(object: &Map<String, Value>) -> String {
    // A map of strings, numbers and lists of strings is always JSON.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(object).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Made with `openssl genpkey`, for these tests alone.
    const EC: &str = include_str!("testdata/es256.pem");
    const RSA: &str = include_str!("testdata/rs256.pem");
    const ED: &str = include_str!("testdata/eddsa.pem");
    const SHARED: &str = "a shared secret of at least 32 bytes";

    fn jwt(algorithm: JwtAlgorithm, key: &str) -> Jwt {
        Jwt {
            algorithm,
            key: key.into(),
            key_id: Some("key-1".to_owned()),
            issuer: Some("walhook".to_owned()),
            subject: None,
            audience: vec!["https://crm.example.com".to_owned()],
            lifetime: Duration::from_secs(60),
            body_claim: Some("body_sha256".to_owned()),
        }
    }

    fn part(token: &str, at: usize) -> Value {
        let part = token.split('.').nth(at).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn a_token_says_who_to_whom_when_and_what() {
        let signer = JwtSigner::new(&jwt(JwtAlgorithm::Hs256, SHARED)).unwrap();
        let token = signer.token("dlv_1", 1_700_000_000, b"{}").unwrap();
        assert_eq!(part(&token, 0), serde_json::json!({ "alg": "HS256", "typ": "JWT", "kid": "key-1" }));
        let expect = serde_json::json!({
            "iss": "walhook", "aud": "https://crm.example.com", "iat": 1_700_000_000, "exp": 1_700_000_060,
            "jti": "dlv_1.1700000000",
            "body_sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        });
        assert_eq!(part(&token, 1), expect);
        let mut several = jwt(JwtAlgorithm::Hs256, SHARED);
        several.audience.push("other".to_owned());
        several.body_claim = None;
        let token = JwtSigner::new(&several).unwrap().token("dlv_1", 1, b"").unwrap();
        assert_eq!(part(&token, 1)["aud"], serde_json::json!(["https://crm.example.com", "other"]));
        assert!(part(&token, 1).get("body_sha256").is_none());
    }

    #[test]
    fn each_algorithm_wants_a_key_of_its_own_kind() {
        let check = |algorithm, key: &str, expect: Result<(), &str>| {
            let made = JwtSigner::new(&jwt(algorithm, key)).map(drop).map_err(|error| error.to_string());
            match (made, expect) {
                (Ok(()), Ok(())) => {}
                (Err(words), Err(expect)) => assert!(words.contains(expect), "{words}"),
                (made, expect) => panic!("{algorithm:?}: {made:?}, not {expect:?}"),
            }
        };
        check(JwtAlgorithm::Hs256, SHARED, Ok(()));
        check(JwtAlgorithm::Es256, EC, Ok(()));
        check(JwtAlgorithm::Rs256, RSA, Ok(()));
        check(JwtAlgorithm::EdDsa, ED, Ok(()));
        check(JwtAlgorithm::Hs256, "short", Err("at least 32 bytes, this one has 5"));
        check(JwtAlgorithm::Es256, "no pem", Err("no private key in PEM"));
        check(JwtAlgorithm::Es256, RSA, Err("not one of ES256"));
        check(JwtAlgorithm::Rs256, ED, Err("not one of RS256"));
        check(JwtAlgorithm::EdDsa, EC, Err("not one of EdDSA"));
    }

    #[test]
    fn i12_neither_debug_nor_an_error_shows_the_key() {
        let signer = JwtSigner::new(&jwt(JwtAlgorithm::Hs256, SHARED)).unwrap();
        assert_eq!(format!("{signer:?}"), "JwtSigner { .. }");
        let error = JwtSigner::new(&jwt(JwtAlgorithm::Es256, SHARED)).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("shared"));
    }
}
