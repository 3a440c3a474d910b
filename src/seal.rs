//! Secrets at rest: what the database holds of them is text that only our keys open.
//!
//! ```text
//! whenc_v1.KEY.BASE64        KEY: which key, eight hexadecimal digits (domain::KeyId)
//!                            BASE64 (RFC 4648, section 4): 24 bytes of nonce, the ciphertext, 16 bytes of tag
//! ```
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) with a fresh random nonce each time. The associated data name the form,
//! the column and the webhook, so that a text that is moved to another row or column does not open there.
//!
//! Keys come in a list: the first one seals, all of them open. So a key is replaced by putting its successor before it,
//! sealing everything anew, and taking it out.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::zeroize::Zeroizing;

use crate::domain::{EncryptionKey, KeyId};

/// What sealed text begins with, whatever its version.
const PREFIX: &str = "whenc_";
const VERSION: &str = "v1";
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Where a text belongs: nowhere else does it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home<'a> {
    /// The webhook.
    pub webhook: &'a str,
    /// The column of its row.
    pub column: &'a str,
}

/// Why a text cannot be sealed or opened. Tells nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no key at all.
    #[error("it is encrypted (key {key}), and security.encryption_key is not set")]
    NoKey {
        /// The key it was sealed with.
        key: KeyId,
    },
    /// The key is not among ours.
    #[error("it is encrypted with key {key}, which is not among those of security.encryption_key ({ours})")]
    UnknownKey {
        /// The key it was sealed with.
        key: KeyId,
        /// Those that we have, with commas.
        ours: String,
    },
    /// It was sealed for another place, or is no longer what it was.
    #[error(
        "it cannot be decrypted: it was encrypted for another webhook or column, or was changed since (key {key} of \
         security.encryption_key)"
    )]
    Refused {
        /// The key it was sealed with.
        key: KeyId,
    },
    /// It begins like a sealed text and is none.
    #[error("it begins with {PREFIX} and is no encrypted text of a form that this version knows")]
    Malformed,
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// It is too long to be sealed.
    #[error("it is too long to be encrypted")]
    TooLong,
}

/// Whether a text says of itself that it is sealed.
pub fn is_sealed(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The key that a sealed text names.
pub fn key_of(text: &str) -> Result<KeyId, SealError> {
    parts(text).map(|(key, _)| key)
}

/// Seals a text for its place.
pub fn seal(key: &EncryptionKey, home: Home<'_>, text: &str) -> Result<String, SealError> {
    let mut bytes = vec![0; NONCE_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SealError::Random)?;
    let nonce = XNonce::try_from(bytes.as_slice()).map_err(|_| SealError::Random)?;
    let payload = Payload { msg: text.as_bytes(), aad: &home.associated() };
    bytes.extend(cipher(key).encrypt(&nonce, payload).map_err(|_| SealError::TooLong)?);
    Ok(format!("{PREFIX}{VERSION}.{}.{}", key.id(), BASE64_STANDARD.encode(bytes)))
}

/// Opens a sealed text at its place, with whichever of the keys it names.
pub fn open(keys: &[EncryptionKey], home: Home<'_>, text: &str) -> Result<Zeroizing<String>, SealError> {
    let (id, bytes) = parts(text)?;
    let known = keys.iter().find(|key| key.id() == id);
    let Some(key) = known else {
        let ours: Vec<String> = keys.iter().map(|key| key.id().to_string()).collect();
        let none = SealError::NoKey { key: id };
        return Err(if ours.is_empty() {
            none
        } else {
            SealError::UnknownKey { key: id, ours: ours.join(", ") }
        });
    };
    let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES).ok_or(SealError::Malformed)?;
    let nonce = XNonce::try_from(nonce).map_err(|_| SealError::Malformed)?;
    let payload = Payload { msg: sealed, aad: &home.associated() };
    let opened = cipher(key).decrypt(&nonce, payload).map_err(|_| SealError::Refused { key: id })?;
    // What does not become text is handed back, to be wiped like the rest.
    let text = String::from_utf8(opened).map_err(|error| drop(Zeroizing::new(error.into_bytes())));
    text.map(Zeroizing::new).map_err(|()| SealError::Refused { key: id })
}

fn cipher(key: &EncryptionKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.bytes().into())
}

/// The key's name, and nonce, ciphertext and tag.
fn parts(text: &str) -> Result<(KeyId, Vec<u8>), SealError> {
    let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(VERSION));
    let (id, encoded) =
        rest.and_then(|rest| rest.strip_prefix('.')?.split_once('.')).ok_or(SealError::Malformed)?;
    let id = KeyId::parse(id).ok_or(SealError::Malformed)?;
    let bytes = BASE64_STANDARD.decode(encoded).ok().filter(|bytes| bytes.len() >= NONCE_BYTES + TAG_BYTES);
    Ok((id, bytes.ok_or(SealError::Malformed)?))
}

impl Home<'_> {
    /// The associated data. Zero bytes stand between, which no text of Postgres holds.
    fn associated(&self) -> Vec<u8> {
        format!("walhook.webhooks {VERSION}\0{}\0{}", self.column, self.webhook).into_bytes()
    }
}

impl SealError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoKey { .. } => "Set security.encryption_key to the key that it was encrypted with.",
            Self::UnknownKey { .. } => {
                "Add that key behind the first one of security.encryption_key: the first encrypts, all decrypt."
            }
            Self::Refused { .. } | Self::Malformed => {
                "Write the column anew, as plain text; `walhook secrets encrypt` then encrypts it where it stands."
            }
            Self::Random => "See what is wrong with the system's random source, getrandom(2).",
            Self::TooLong => "Shorten it.",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOME: Home<'_> = Home { webhook: "crm", column: "secret" };
    const TEXT: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn key(byte: u8) -> EncryptionKey {
        EncryptionKey::new(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn what_is_sealed_opens_with_any_key_of_the_list_and_says_with_which() {
        let sealed = seal(&key(1), HOME, TEXT).unwrap();
        assert!(is_sealed(&sealed) && !is_sealed(TEXT));
        assert_eq!(key_of(&sealed), Ok(key(1).id()));
        assert!(sealed.starts_with(&format!("whenc_v1.{}.", key(1).id())), "{sealed}");
        assert_eq!(open(&[key(2), key(1)], HOME, &sealed).unwrap().as_str(), TEXT);
        assert_ne!(seal(&key(1), HOME, TEXT).unwrap(), sealed, "the nonce is a fresh one");
    }

    /// Made in Python: `HChaCha20` as the draft has it, then `ChaCha20Poly1305` of the package `cryptography`.
    #[test]
    fn text_that_another_implementation_sealed_opens() {
        let sealed = "whenc_v1.21d98ad7.AAECAwQFBgcICQoLDA0ODxAREhMUFRYX33/Y4JlDFsNulrg13qXk9S6kbGB+omc1y1T70cCF+6VPX8MNpuOvR6FD99MXQ6RTtPCqmGWU";
        assert_eq!(open(&[key(7)], HOME, sealed).unwrap().as_str(), TEXT);
    }

    #[test]
    fn nothing_opens_elsewhere_or_changed_or_without_its_key() {
        let sealed = seal(&key(1), HOME, TEXT).unwrap();
        let refused = Err(SealError::Refused { key: key(1).id() });
        for home in [Home { webhook: "crm2", ..HOME }, Home { column: "auth", ..HOME }] {
            assert_eq!(open(&[key(1)], home, &sealed), refused, "{home:?}");
        }
        assert_eq!(open(&[], HOME, &sealed), Err(SealError::NoKey { key: key(1).id() }));
        let ours = format!("{}, {}", key(2).id(), key(3).id());
        let unknown = Err(SealError::UnknownKey { key: key(1).id(), ours });
        assert_eq!(open(&[key(2), key(3)], HOME, &sealed), unknown);
        // Under another key's name.
        let renamed = sealed.replace(&key(1).id().to_string(), &key(2).id().to_string());
        assert_eq!(open(&[key(2)], HOME, &renamed), Err(SealError::Refused { key: key(2).id() }));
        let (head, encoded) = sealed.rsplit_once('.').unwrap();
        let bytes = BASE64_STANDARD.decode(encoded).unwrap();
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            let bent = format!("{head}.{}", BASE64_STANDARD.encode(bent));
            assert_eq!(open(&[key(1)], HOME, &bent), refused, "byte {at}");
        }
    }

    #[test]
    fn text_that_only_begins_so_is_told_apart() {
        let short = BASE64_STANDARD.encode([0; NONCE_BYTES + TAG_BYTES - 1]);
        let id = key(1).id();
        let short = format!("whenc_v1.{id}.{short}");
        for text in ["whenc_", "whenc_v2.00000000.AAAA", "whenc_v1.00000000", "whenc_v1.zz.AAAA", &short] {
            assert_eq!(open(&[key(1)], HOME, text), Err(SealError::Malformed), "{text}");
        }
    }

    #[test]
    fn i12_no_error_tells_the_text_or_the_key() {
        let sealed = seal(&key(1), HOME, TEXT).unwrap();
        let elsewhere = open(&[key(1)], Home { webhook: "x", ..HOME }, &sealed).unwrap_err();
        let told = format!("{elsewhere} {elsewhere:?}");
        assert!(!told.contains("whsec_") && !told.contains(TEXT) && !told.contains("010101"), "{told}");
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_no_text_panics(text in ".*", noise in "(whenc_v1\\.[0-9a-f]{8}\\.)?[A-Za-z0-9+/=]{0,90}") {
            let sealed = seal(&key(1), HOME, &text).unwrap();
            let opened = open(&[key(1)], HOME, &sealed).unwrap();
            prop_assert_eq!(opened.as_str(), text.as_str());
            prop_assert!(open(&[key(1)], HOME, &noise).is_err());
        }
    }
}
