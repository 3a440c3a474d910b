//! Other senders' signatures, against values that Python's `hmac` made.

use http::{HeaderMap, HeaderName};

use super::*;
use crate::domain::{CustomSignature, Encoding, HashAlgorithm, SignedPart};

const FIRST: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SECOND: &str = "a second secret, of plain text";
const BODY: &str = r#"{"type":"order.updated","name":"Zoë"}"#;

fn signed(scheme: &SignatureScheme, secrets: &[&str]) -> HeaderMap {
    let secrets: Vec<SigningSecret> =
        secrets.iter().map(|secret| SecretString::from(*secret).into()).collect();
    let what = Signed {
        id: "dlv_0001",
        event_type: "order.updated",
        unix_seconds: 1_614_265_330,
        body: BODY.as_bytes(),
    };
    let mut headers = HeaderMap::new();
    Signer::with_scheme(&secrets, scheme).unwrap().sign(&what, &mut headers).unwrap();
    headers
}

/// These headers are there, and beside them the two that every signed request has.
#[track_caller]
fn check(scheme: &SignatureScheme, expect: &[(&str, &str)]) {
    let headers = signed(scheme, &[FIRST, SECOND]);
    for (name, value) in expect {
        assert_eq!(headers.get(*name).map(|v| v.to_str().unwrap()), Some(*value), "{name}");
    }
    assert_eq!(headers.len(), expect.len() + 2, "{headers:?}");
    let standard = signed(&SignatureScheme::Standard, &[FIRST, SECOND]);
    for name in [SIGNATURE, PLAIN_SIGNATURE] {
        assert_eq!(headers.get(&name), standard.get(&name));
    }
}

fn custom(custom: CustomSignature) -> SignatureScheme {
    SignatureScheme::Custom(Box::new(custom))
}

#[test]
fn each_named_signature_is_what_pythons_hmac_makes() {
    check(&SignatureScheme::Standard, &[]);
    check(
        &SignatureScheme::Github,
        &[
            (
                "x-hub-signature-256",
                "sha256=e44849af57b1e40a4a07528b5cc6a0180b7ac12665cb54c88e55f54f0634526f",
            ),
            ("x-github-event", "order.updated"),
            ("x-github-delivery", "dlv_0001"),
        ],
    );
    check(
        &SignatureScheme::Stripe,
        &[(
            "stripe-signature",
            "t=1614265330,v1=17b97d456b1029f1f0fe4c6ee8eff53526ffd47cc857cc77b3d9d626bd214990,v1=746156f48d7d494c91eda71beb1e4b221e5313338190c2d4a8263ecf89f03d0d",
        )],
    );
    check(
        &SignatureScheme::Shopify,
        &[
            ("x-shopify-hmac-sha256", "5EhJr1ex5ApKB1KLXMagGAt6wSZly1TIjlX1TwY0Um8="),
            ("x-shopify-topic", "order.updated"),
            ("x-shopify-webhook-id", "dlv_0001"),
        ],
    );
    check(
        &SignatureScheme::Svix,
        &[
            ("svix-id", "dlv_0001"),
            ("svix-timestamp", "1614265330"),
            (
                "svix-signature",
                "v1,zsWX35JwEtsAUB5G0Jk0NPzTn9V5cU3FJtcGDEpuvjE= v1,UrYvbzDaO76KqADUvm0qBt2u66FwuMVGBI6o8m8peP8=",
            ),
        ],
    );
}

#[test]
fn a_custom_signature_has_its_own_header_hash_encoding_prefix_and_content() {
    let slack = CustomSignature {
        header: HeaderName::from_static("x-slack-signature"),
        algorithm: HashAlgorithm::Sha256,
        encoding: Encoding::Hex,
        prefix: "v0=".to_owned(),
        content: vec![
            SignedPart::Literal("v0:".to_owned()),
            SignedPart::Timestamp,
            SignedPart::Literal(":".to_owned()),
            SignedPart::Body,
        ],
        timestamp_header: Some(HeaderName::from_static("x-slack-request-timestamp")),
    };
    check(
        &custom(slack.clone()),
        &[
            ("x-slack-signature", "v0=a5db097651a463a54ea3a661912fa9a85a9d1fc374fc5b565056600a1dd1ab92"),
            ("x-slack-request-timestamp", "1614265330"),
        ],
    );
    let old = CustomSignature {
        header: HeaderName::from_static("x-hub-signature"),
        algorithm: HashAlgorithm::Sha1,
        prefix: "sha1=".to_owned(),
        content: vec![SignedPart::Body],
        timestamp_header: None,
        ..slack.clone()
    };
    check(&custom(old), &[("x-hub-signature", "sha1=5fb0ad0facc5e07f570c0b45ce993008322300c1")]);
    let long = CustomSignature {
        header: HeaderName::from_static("x-acme"),
        algorithm: HashAlgorithm::Sha512,
        encoding: Encoding::Base64,
        prefix: String::new(),
        content: vec![
            SignedPart::Id,
            SignedPart::Literal(".".to_owned()),
            SignedPart::Event,
            SignedPart::Literal(".".to_owned()),
            SignedPart::Body,
        ],
        timestamp_header: None,
    };
    check(
        &custom(long),
        &[(
            "x-acme",
            "A/xfanYsZ6Na8Xn35NxzYKC3NNTkIAjt2JesWI0lcppG8FK6sv1wDo353UrmRUu2li1JwWWPyv9QNdqmwXoD9Q==",
        )],
    );
}

#[test]
fn a_scheme_needs_secrets_of_its_kind() {
    let refused = |secrets: &[&str], scheme| {
        let secrets: Vec<SigningSecret> =
            secrets.iter().map(|secret| SecretString::from(*secret).into()).collect();
        Signer::with_scheme(&secrets, &scheme).unwrap_err()
    };
    let pair = "whsk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(refused(&[], SignatureScheme::Github), SignError::NoSecret);
    assert_eq!(refused(&[FIRST, pair], SignatureScheme::Stripe), SignError::NotSymmetric { index: 1 });
    assert!(signed(&SignatureScheme::Svix, &[pair])["svix-signature"].to_str().unwrap().starts_with("v1a,"));
}
