//! Signatures that other senders make, beside those of Standard Webhooks: a receiver that was written for one of them
//! need not change.
//!
//! | name | headers | over | key |
//! | --- | --- | --- | --- |
//! | `github` | `x-hub-signature-256: sha256=HEX`, `x-github-event`, `x-github-delivery` | body | the first secret's text |
//! | `stripe` | `stripe-signature: t=SECONDS,v1=HEX`, one `v1` a secret | `timestamp.body` | each secret's text, `whsec_` included |
//! | `shopify` | `x-shopify-hmac-sha256: BASE64`, `x-shopify-topic`, `x-shopify-webhook-id` | body | the first secret's text |
//! | `svix` | `svix-id`, `svix-timestamp`, `svix-signature` | as `webhook-signature` | as there |
//! | a table | a header of its name | what `content` says | the first secret's text |

use http::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use secrecy::ExposeSecret as _;

use super::{SIGNATURE, SignError, Timed};
use crate::domain::{CustomSignature, Encoding, HashAlgorithm, SignatureScheme, SignedPart, SigningSecret};

const HUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const GITHUB_EVENT: HeaderName = HeaderName::from_static("x-github-event");
const GITHUB_DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");
const STRIPE_SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");
const SHOPIFY_SIGNATURE: HeaderName = HeaderName::from_static("x-shopify-hmac-sha256");
const SHOPIFY_TOPIC: HeaderName = HeaderName::from_static("x-shopify-topic");
const SHOPIFY_ID: HeaderName = HeaderName::from_static("x-shopify-webhook-id");
const SVIX_ID: HeaderName = HeaderName::from_static("svix-id");
const SVIX_TIMESTAMP: HeaderName = HeaderName::from_static("svix-timestamp");
const SVIX_SIGNATURE: HeaderName = HeaderName::from_static("svix-signature");

/// What is signed at one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The delivery's id.
    pub id: &'a str,
    /// The event's type.
    pub event_type: &'a str,
    /// What `webhook-timestamp` says.
    pub unix_seconds: i64,
    /// The body's bytes before compression.
    pub body: &'a [u8],
}

/// A scheme with its keys.
pub(super) enum Compatible {
    Github(hmac::Key),
    Stripe(Vec<Timed<hmac::Key>>),
    Shopify(hmac::Key),
    Svix,
    Custom(hmac::Key, Box<CustomSignature>),
}

impl Compatible {
    /// `None` for a webhook that signs by Standard Webhooks alone.
    pub(super) fn of(scheme: &SignatureScheme, secrets: &[SigningSecret]) -> Result<Option<Self>, SignError> {
        if *scheme == SignatureScheme::Standard {
            return Ok(None);
        }
        let Some(first) = secrets.first() else { return Err(SignError::NoSecret) };
        let by_text = !matches!(scheme, SignatureScheme::Svix);
        let is_key_pair = |secret: &SigningSecret| secret.text.expose_secret().starts_with("whsk_");
        if let Some(index) = secrets.iter().position(is_key_pair).filter(|_| by_text) {
            return Err(SignError::NotSymmetric { index });
        }
        let key = |secret: &SigningSecret, algorithm| {
            hmac::Key::new(algorithm, secret.text.expose_secret().as_bytes())
        };
        Ok(Some(match scheme {
            SignatureScheme::Standard | SignatureScheme::Svix => Self::Svix,
            SignatureScheme::Github => Self::Github(key(first, hmac::HMAC_SHA256)),
            SignatureScheme::Shopify => Self::Shopify(key(first, hmac::HMAC_SHA256)),
            SignatureScheme::Stripe => {
                let timed = |secret: &SigningSecret| Timed::new(key(secret, hmac::HMAC_SHA256), secret.until);
                Self::Stripe(secrets.iter().map(timed).collect())
            }
            SignatureScheme::Custom(custom) => {
                let algorithm = match custom.algorithm {
                    HashAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    HashAlgorithm::Sha256 => hmac::HMAC_SHA256,
                    HashAlgorithm::Sha512 => hmac::HMAC_SHA512,
                };
                Self::Custom(key(first, algorithm), custom.clone())
            }
        }))
    }

    /// Adds the scheme's headers to those of Standard Webhooks.
    pub(super) fn add(
        &self,
        signed: &Signed<'_>,
        headers: &mut HeaderMap,
    ) -> Result<(), http::header::InvalidHeaderValue> {
        match self {
            Self::Github(key) => {
                let signature = text(Encoding::Hex, &mac(key, &[signed.body]));
                headers.insert(HUB_SIGNATURE, HeaderValue::try_from(format!("sha256={signature}"))?);
                headers.insert(GITHUB_EVENT, HeaderValue::from_bytes(signed.event_type.as_bytes())?);
                headers.insert(GITHUB_DELIVERY, HeaderValue::from_str(signed.id)?);
            }
            Self::Stripe(keys) => {
                let head = format!("{}.", signed.unix_seconds);
                let mut value = format!("t={}", signed.unix_seconds);
                for key in keys.iter().filter_map(|key| key.at(signed.unix_seconds)) {
                    value.push_str(",v1=");
                    value.push_str(&text(Encoding::Hex, &mac(key, &[head.as_bytes(), signed.body])));
                }
                headers.insert(STRIPE_SIGNATURE, HeaderValue::try_from(value)?);
            }
            Self::Shopify(key) => {
                let signature = text(Encoding::Base64, &mac(key, &[signed.body]));
                headers.insert(SHOPIFY_SIGNATURE, HeaderValue::try_from(signature)?);
                headers.insert(SHOPIFY_TOPIC, HeaderValue::from_bytes(signed.event_type.as_bytes())?);
                headers.insert(SHOPIFY_ID, HeaderValue::from_str(signed.id)?);
            }
            Self::Svix => {
                headers.insert(SVIX_ID, HeaderValue::from_str(signed.id)?);
                headers.insert(SVIX_TIMESTAMP, HeaderValue::from(signed.unix_seconds));
                if let Some(signature) = headers.get(SIGNATURE).cloned() {
                    headers.insert(SVIX_SIGNATURE, signature);
                }
            }
            Self::Custom(key, custom) => {
                let timestamp = signed.unix_seconds.to_string();
                let parts: Vec<&[u8]> = custom
                    .content
                    .iter()
                    .map(|part| match part {
                        SignedPart::Body => signed.body,
                        SignedPart::Id => signed.id.as_bytes(),
                        SignedPart::Timestamp => timestamp.as_bytes(),
                        SignedPart::Event => signed.event_type.as_bytes(),
                        SignedPart::Literal(text) => text.as_bytes(),
                    })
                    .collect();
                let signature = text(custom.encoding, &mac(key, &parts));
                let value = HeaderValue::try_from(format!("{}{signature}", custom.prefix))?;
                headers.insert(custom.header.clone(), value);
                if let Some(name) = &custom.timestamp_header {
                    headers.insert(name.clone(), HeaderValue::from(signed.unix_seconds));
                }
            }
        }
        Ok(())
    }
}

fn mac(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}

fn text(encoding: Encoding, tag: &hmac::Tag) -> String {
    use base64::Engine as _;
    match encoding {
        Encoding::Hex => hex::encode(tag.as_ref()),
        Encoding::Base64 => base64::engine::general_purpose::STANDARD.encode(tag.as_ref()),
    }
}
