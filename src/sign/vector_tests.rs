//! The vectors that the libraries of Standard Webhooks are tested with (`tests/signatures/vectors.json` names library and
//! file), and the bounds of a key.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue};
use secrecy::SecretString;
use serde::Deserialize;

use super::*;
use crate::domain::{SignatureScheme, SigningSecret};

const VECTORS: &str = include_str!("../../tests/signatures/vectors.json");

#[derive(Deserialize)]
struct Vector {
    library: String,
    from: String,
    secret: String,
    id: String,
    timestamp: i64,
    body: String,
    signature: String,
    refused: Vec<String>,
}

fn headers(vector: &Vector, signature: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_str(&vector.id).unwrap());
    headers.insert("webhook-timestamp", HeaderValue::from(vector.timestamp));
    headers.insert("webhook-signature", HeaderValue::from_str(signature).unwrap());
    headers
}

#[test]
fn the_vectors_of_the_libraries_of_seven_languages_come_out_and_are_believed() {
    let vectors: Vec<Vector> = serde_json::from_str(VECTORS).unwrap();
    let libraries: HashSet<_> = vectors.iter().map(|vector| vector.library.split(',').next()).collect();
    assert!(libraries.len() >= 7, "{libraries:?}");
    for vector in &vectors {
        let library = format!("{} ({})", vector.library, vector.from);
        let secrets = [SecretString::from(vector.secret.as_str())];
        let (id, body) = (vector.id.as_str(), vector.body.as_bytes());
        let signed = Signer::new(&secrets).unwrap().headers(id, vector.timestamp, body);
        assert_eq!(signed[0], (SIGNATURE, HeaderValue::from_str(&vector.signature).unwrap()), "{library}");
        let believed = |signature: &str, body: &[u8]| {
            verify(&secrets, &headers(vector, signature), body, vector.timestamp, Duration::from_secs(300))
        };
        assert_eq!(believed(&vector.signature, body), Ok(()), "{library}");
        assert_eq!(believed(&vector.signature, b"another"), Err(VerifyError::NoMatch), "{library}");
        for refused in &vector.refused {
            assert_eq!(believed(refused, body), Err(VerifyError::NoMatch), "{library}: {refused}");
            // Each entry is tried, wherever the good one stands.
            for both in [format!("{refused} {}", vector.signature), format!("{} {refused}", vector.signature)]
            {
                assert_eq!(believed(&both, body), Ok(()), "{library}: {both}");
            }
        }
    }
}

#[test]
fn a_key_has_24_to_64_bytes() {
    let checked = |text: String, scheme: &SignatureScheme| {
        check(&[SigningSecret { text: text.into(), until: None }], scheme)
    };
    for bytes in [0, 1, 23, 24, 25, 63, 64, 65, 1000] {
        let prefixed = format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]));
        let expect = match bytes {
            0 => Err(SignError::BadSymmetric { index: 0 }),
            24..=64 => Ok(()),
            _ => Err(SignError::Length { index: 0, bytes }),
        };
        for scheme in [SignatureScheme::Standard, SignatureScheme::Svix, SignatureScheme::Github] {
            assert_eq!(checked(prefixed.clone(), &scheme), expect, "{bytes}");
        }
    }
    // A text without prefix is its own bytes, and may be longer; for another scheme it is as the receiver has it.
    for (bytes, is_long_enough) in [(23, false), (24, true), (64, true), (65, true)] {
        let text = "k".repeat(bytes);
        let expect = if is_long_enough { Ok(()) } else { Err(SignError::Length { index: 0, bytes }) };
        assert_eq!(checked(text.clone(), &SignatureScheme::Standard), expect, "{bytes}");
        assert_eq!(checked(text, &SignatureScheme::Github), Ok(()), "{bytes}");
    }
}
