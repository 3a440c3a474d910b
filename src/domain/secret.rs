//! What webhooks sign with, and what their secrets are encrypted with. No `Debug` shows either (invariant I12).

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

/// A secret of a webhook. The first of a webhook's secrets is the current one and has no end.
#[derive(Debug, Clone)]
pub struct SigningSecret {
    /// Its text, with its prefix.
    pub text: SecretString,
    /// When it stops signing, to the second; `None`: it does not.
    pub until: Option<Timestamp>,
}

impl From<SecretString> for SigningSecret {
    fn from(text: SecretString) -> Self {
        Self { text, until: None }
    }
}

/// A key of XChaCha20-Poly1305, for what is secret in the database. Its bytes are wiped with its last copy.
#[derive(Clone)]
pub struct EncryptionKey {
    bytes: Arc<Zeroizing<[u8; Self::BYTES]>>,
    id: KeyId,
}

/// The name of an [`EncryptionKey`] in what it has encrypted: eight hexadecimal digits, which tell nothing of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 4]);

impl EncryptionKey {
    /// How many bytes a key has.
    pub const BYTES: usize = 32;

    /// A key of these bytes.
    pub fn new(bytes: Zeroizing<[u8; Self::BYTES]>) -> Self {
        let digest =
            Sha256::new().chain_update(b"walhook encryption key id\0").chain_update(*bytes).finalize();
        let mut id = [0; 4];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self { bytes: Arc::new(bytes), id: KeyId(id) }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; Self::BYTES] {
        &self.bytes
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey(..)")
    }
}

impl PartialEq for EncryptionKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&**other.bytes).into()
    }
}

impl Eq for EncryptionKey {}

impl KeyId {
    /// Reads one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 4];
        hex::decode_to_slice(text, &mut id).ok()?;
        Some(Self(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i12_neither_a_secret_nor_a_key_shows_in_debug() {
        let key = EncryptionKey::new(Zeroizing::new([7; 32]));
        let secret = SigningSecret { text: "hunter2".into(), until: Some(Timestamp::UNIX_EPOCH) };
        let told = format!("{key:?} {secret:?}");
        assert!(told.starts_with("EncryptionKey(..) SigningSecret"), "{told}");
        assert!(!told.contains("hunter2") && !told.contains("7, 7"), "{told}");
    }

    #[test]
    fn a_key_is_named_the_same_for_ever() {
        let id = EncryptionKey::new(Zeroizing::new([7; 32])).id();
        // Python: hashlib.sha256(b"walhook encryption key id\0" + b"\7" * 32).hexdigest()[:8]
        assert_eq!(id.to_string(), "21d98ad7");
        assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        assert_eq!((KeyId::parse("c0ffee"), KeyId::parse("zzzzzzzz")), (None, None));
        assert_ne!(EncryptionKey::new(Zeroizing::new([8; 32])).id(), id);
    }
}
