//! Secrets as keys.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use ring::hmac;
use secrecy::zeroize::Zeroizing;

use super::SignError;

/// A key of HMAC-SHA256, taken in once. ring's, because it comes with TLS anyway and has code of its own for processors
/// without SHA instructions, where SHA-256 was a tenth of the sidecar's time.
pub(super) type HmacSha256 = hmac::Key;

/// A key of `webhook-signature`.
pub(super) enum SigningKind {
    /// `v1`.
    Symmetric(HmacSha256),
    /// `v1a`.
    Ed25519(Box<SigningKey>),
}

impl SigningKind {
    pub(super) fn parse(index: usize, secret: &str) -> Result<Self, SignError> {
        if secret.is_empty() {
            return Err(SignError::Empty { index });
        }
        if let Some(encoded) = secret.strip_prefix("whsec_") {
            let key = decode(encoded).filter(|key| !key.is_empty());
            let key = key.ok_or(SignError::BadSymmetric { index })?;
            return Ok(Self::Symmetric(hmac_key(&key)));
        }
        if let Some(encoded) = secret.strip_prefix("whsk_") {
            let key = decode(encoded).and_then(|key| ed25519(&key));
            return key.map(|key| Self::Ed25519(Box::new(key))).ok_or(SignError::BadSecretKey { index });
        }
        if secret.starts_with("whpk_") {
            return Err(SignError::PublicKey { index });
        }
        Ok(Self::Symmetric(hmac_key(secret.as_bytes())))
    }

    /// Appends `v1,…` or `v1a,…` over `head` and `body`.
    pub(super) fn sign(&self, head: &[u8], body: &[u8], out: &mut String) {
        match self {
            Self::Symmetric(key) => {
                out.push_str("v1,");
                STANDARD.encode_string(hmac_over(key, &[head, body]), out);
            }
            Self::Ed25519(key) => {
                out.push_str("v1a,");
                STANDARD.encode_string(key.sign(&[head, body].concat()).to_bytes(), out);
            }
        }
    }
}

/// A key of any length, ready for use.
pub(super) fn hmac_key(key: &[u8]) -> HmacSha256 {
    hmac::Key::new(hmac::HMAC_SHA256, key)
}

/// HMAC over the parts in a row.
pub(super) fn hmac_over(key: &HmacSha256, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}

/// Base64 with or without its padding.
pub(super) fn decode(encoded: &str) -> Option<Zeroizing<Vec<u8>>> {
    STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded)).ok().map(Zeroizing::new)
}

/// A seed of 32 bytes, or seed and public key in 64.
fn ed25519(key: &[u8]) -> Option<SigningKey> {
    if let Ok(seed) = <&[u8; 32]>::try_from(key) {
        return Some(SigningKey::from_bytes(seed));
    }
    SigningKey::from_keypair_bytes(key.try_into().ok()?).ok()
}
