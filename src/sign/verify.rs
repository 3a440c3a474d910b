//! Verification of Standard Webhooks signatures, as `walhook listen` does it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};

use super::SignError;
use super::key::{HmacSha256, SigningKind, decode, hmac_over};
use crate::domain::limits;

/// Why a request is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A header is not there, or no readable text.
    #[error("the header {0} is missing or unreadable")]
    MissingHeader(&'static str),
    /// `webhook-timestamp` is no number of seconds.
    #[error("webhook-timestamp is no number of seconds")]
    BadTimestamp,
    /// The request is too old, or from the future.
    #[error("webhook-timestamp is {by_seconds} seconds off; {tolerance_seconds} are tolerated")]
    OutOfTolerance {
        /// How far the timestamp is from now.
        by_seconds: u64,
        /// How far it may be.
        tolerance_seconds: u64,
    },
    /// No entry was made with a known key over these bytes.
    #[error("no signature matches: another secret, or the body was changed on its way")]
    NoMatch,
    /// The secrets on this side cannot verify.
    #[error("a secret on this side cannot verify")]
    Secret(#[source] SignError),
}

enum VerifyingKind {
    Symmetric(HmacSha256),
    Ed25519(Box<VerifyingKey>),
}

/// Verifies a request by the Standard Webhooks rules: one entry of `webhook-signature` made with one of the secrets
/// is enough. Secrets are those that sign; of an ed25519 pair the public half (`whpk_…`) does too. Comparing takes the
/// same time whatever differs.
pub fn verify(
    secrets: &[SecretString],
    headers: &HeaderMap,
    body: &[u8],
    now_unix_seconds: i64,
    tolerance: Duration,
) -> Result<(), VerifyError> {
    let text = |name: &'static str| {
        headers.get(name).and_then(|value| value.to_str().ok()).ok_or(VerifyError::MissingHeader(name))
    };
    let (id, timestamp, signatures) =
        (text("webhook-id")?, text("webhook-timestamp")?, text("webhook-signature")?);
    let seconds: i64 = timestamp.parse().map_err(|_| VerifyError::BadTimestamp)?;
    let by_seconds = now_unix_seconds.abs_diff(seconds);
    if by_seconds > tolerance.as_secs() {
        return Err(VerifyError::OutOfTolerance { by_seconds, tolerance_seconds: tolerance.as_secs() });
    }
    let head = format!("{id}.{timestamp}.");
    let mut found = Choice::from(0);
    for (index, secret) in secrets.iter().enumerate() {
        let key = VerifyingKind::parse(index, secret.expose_secret()).map_err(VerifyError::Secret)?;
        for entry in signatures.split(' ').take(limits::SIGNATURES) {
            found |= key.matches(entry, head.as_bytes(), body);
        }
    }
    if bool::from(found) { Ok(()) } else { Err(VerifyError::NoMatch) }
}

impl VerifyingKind {
    fn parse(index: usize, secret: &str) -> Result<Self, SignError> {
        if let Some(encoded) = secret.strip_prefix("whpk_") {
            let bytes = decode(encoded).ok_or(SignError::BadSecretKey { index })?;
            let key = bytes.as_slice().try_into().ok().and_then(|key| VerifyingKey::from_bytes(key).ok());
            return key.map(|key| Self::Ed25519(Box::new(key))).ok_or(SignError::BadSecretKey { index });
        }
        Ok(match SigningKind::parse(index, secret)? {
            SigningKind::Symmetric(key) => Self::Symmetric(key),
            SigningKind::Ed25519(key) => Self::Ed25519(Box::new(key.verifying_key())),
        })
    }

    fn matches(&self, entry: &str, head: &[u8], body: &[u8]) -> Choice {
        let Some((version, encoded)) = entry.split_once(',') else { return Choice::from(0) };
        let Ok(given) = STANDARD.decode(encoded) else { return Choice::from(0) };
        match (self, version) {
            (Self::Symmetric(key), "v1") => hmac_over(key, &[head, body]).as_ref().ct_eq(&given),
            (Self::Ed25519(key), "v1a") => {
                let good = Signature::from_slice(&given)
                    .and_then(|signature| key.verify_strict(&[head, body].concat(), &signature));
                Choice::from(u8::from(good.is_ok()))
            }
            _ => Choice::from(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::Signer;
    use super::*;

    const NOW: i64 = 1_700_000_000;
    const MINUTES: Duration = Duration::from_secs(300);
    const PAIR: &str = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const PUBLIC: &str = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

    fn secrets(texts: &[&str]) -> Vec<SecretString> {
        texts.iter().map(|text| SecretString::from(*text)).collect()
    }

    fn signed(with: &[&str], body: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.extend(Signer::new(&secrets(with)).unwrap().headers("dlv_1", NOW, body));
        headers.insert("webhook-id", HeaderValue::from_static("dlv_1"));
        headers.insert("webhook-timestamp", HeaderValue::from(NOW));
        headers
    }

    fn check(with: &[&str], known: &[&str], body: &[u8], now: i64, expect: &Result<(), VerifyError>) {
        let headers = signed(with, b"{}");
        assert_eq!(verify(&secrets(known), &headers, body, now, MINUTES), *expect, "{known:?}");
    }

    #[test]
    fn one_shared_secret_of_several_is_enough() {
        check(&["a", "whsec_c2VjcmV0"], &["whsec_c2VjcmV0"], b"{}", NOW, &Ok(()));
        check(&["a", "b"], &["x", "b"], b"{}", NOW, &Ok(()));
        check(&[PAIR], &[PAIR], b"{}", NOW, &Ok(()));
        check(&["a", PAIR], &[PUBLIC], b"{}", NOW, &Ok(()));
    }

    #[test]
    fn another_secret_or_body_does_not_match() {
        check(&["a"], &["b"], b"{}", NOW, &Err(VerifyError::NoMatch));
        check(&["a"], &["a"], b"{ }", NOW, &Err(VerifyError::NoMatch));
        check(&[PAIR], &["a"], b"{}", NOW, &Err(VerifyError::NoMatch));
        check(&["a"], &[PUBLIC], b"{}", NOW, &Err(VerifyError::NoMatch));
        check(&["a"], &[], b"{}", NOW, &Err(VerifyError::NoMatch));
    }

    #[test]
    fn old_and_future_requests_are_refused() {
        check(&["a"], &["a"], b"{}", NOW + 300, &Ok(()));
        let off = VerifyError::OutOfTolerance { by_seconds: 301, tolerance_seconds: 300 };
        check(&["a"], &["a"], b"{}", NOW + 301, &Err(off.clone()));
        check(&["a"], &["a"], b"{}", NOW - 301, &Err(off));
    }

    #[test]
    fn what_other_peoples_library_signs_verifies_here() {
        let mut headers = signed(&["a"], b"{}");
        let theirs =
            standardwebhooks::Webhook::new("whsec_c2VjcmV0").unwrap().sign("dlv_1", NOW, b"{}").unwrap();
        headers.insert("webhook-signature", HeaderValue::try_from(theirs).unwrap());
        assert_eq!(verify(&secrets(&["whsec_c2VjcmV0"]), &headers, b"{}", NOW, MINUTES), Ok(()));
        assert_eq!(verify(&secrets(&["a"]), &headers, b"{}", NOW, MINUTES), Err(VerifyError::NoMatch));
    }

    #[test]
    fn a_missing_header_is_named() {
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let mut headers = signed(&["a"], b"{}");
            headers.remove(name);
            let error = verify(&secrets(&["a"]), &headers, b"{}", NOW, MINUTES).unwrap_err();
            assert_eq!(error, VerifyError::MissingHeader(name));
        }
    }

    #[test]
    fn a_signature_over_another_id_does_not_match() {
        let mut headers = signed(&["a"], b"{}");
        headers.insert("webhook-id", HeaderValue::from_static("dlv_2"));
        assert_eq!(verify(&secrets(&["a"]), &headers, b"{}", NOW, MINUTES), Err(VerifyError::NoMatch));
    }
}
