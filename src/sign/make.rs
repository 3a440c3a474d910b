//! New secrets, of the system's random source.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::SigningKey;
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use super::key::SigningKind;

/// Standard Webhooks asks for 24 to 64.
const KEY_BYTES: usize = 32;

/// What a secret is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `whsec_` and the base64 of 32 bytes: HMAC-SHA256, both sides hold it.
    Shared,
    /// `whsk_` and the base64 of an ed25519 key, private and public half in 64 bytes; receivers hold `whpk_`.
    Ed25519,
}

/// The system has no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct MakeError;

impl Shape {
    /// The shape that a secret's successor has; a text without a prefix is followed by a `whsec_`.
    pub fn of(secret: &SecretString) -> Self {
        if secret.expose_secret().starts_with("whsk_") { Self::Ed25519 } else { Self::Shared }
    }
}

/// Makes a secret that nobody has had before.
pub fn new_secret(shape: Shape) -> Result<SecretString, MakeError> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| MakeError)?;
    let text = |prefix: &str, key: &[u8]| {
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(key));
        SecretString::from([prefix, encoded.as_str()].concat())
    };
    Ok(match shape {
        Shape::Shared => text("whsec_", bytes.as_slice()),
        Shape::Ed25519 => {
            let pair = Zeroizing::new(SigningKey::from_bytes(&bytes).to_keypair_bytes());
            text("whsk_", pair.as_slice())
        }
    })
}

/// What a receiver verifies with: `whpk_` and the base64 of the public half. `None` for a secret that is no `whsk_`.
pub fn public_half(secret: &SecretString) -> Option<String> {
    match SigningKind::parse(0, secret.expose_secret()) {
        Ok(SigningKind::Ed25519(key)) => {
            Some(format!("whpk_{}", BASE64_STANDARD.encode(key.verifying_key().as_bytes())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Signer, check, verify};
    use super::*;
    use crate::domain::SignatureScheme;

    #[test]
    fn new_secrets_are_new_and_of_the_length_that_is_asked_for() {
        for (shape, prefix, bytes) in [(Shape::Shared, "whsec_", 32), (Shape::Ed25519, "whsk_", 64)] {
            let made = [new_secret(shape).unwrap(), new_secret(shape).unwrap()];
            let (first, second) = (made[0].expose_secret(), made[1].expose_secret());
            assert_ne!(first, second);
            let key = BASE64_STANDARD.decode(first.strip_prefix(prefix).unwrap()).unwrap();
            assert_eq!(key.len(), bytes);
            assert_eq!(Shape::of(&made[0]), shape);
            let [first, _] = made;
            assert_eq!(check(&[first.into()], &SignatureScheme::Standard), Ok(()));
        }
        assert_eq!(Shape::of(&"a text without a prefix".into()), Shape::Shared);
    }

    #[test]
    fn a_receiver_verifies_with_the_public_half() {
        let secret = new_secret(Shape::Ed25519).unwrap();
        let public = public_half(&secret).unwrap();
        assert!(public.starts_with("whpk_"), "{public}");
        let mut headers = http::HeaderMap::new();
        headers.insert("webhook-id", http::HeaderValue::from_static("dlv_1"));
        headers.insert("webhook-timestamp", http::HeaderValue::from(7));
        headers.extend(Signer::new(&[secret]).unwrap().headers("dlv_1", 7, b"{}"));
        assert_eq!(verify(&[public.into()], &headers, b"{}", 7, Duration::from_secs(5)), Ok(()));
        assert_eq!(public_half(&new_secret(Shape::Shared).unwrap()), None);
        assert_eq!(public_half(&"whsk_AAAA".into()), None);
    }
}
