//! What stands for a masked value.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Mask;

/// Stands for what is not shown; its length says nothing of the value's.
const STARS: &str = "***";
/// How many characters `partial` shows at the end.
const SHOWN: usize = 4;
/// The shortest value of which it shows them.
const SHOWN_OF: usize = 10;

/// The key of [`Mask::Hash`]. Its `Debug` tells nothing (invariant I12).
#[derive(Clone)]
pub struct MaskKey(Arc<Hmac<Sha256>>);

impl MaskKey {
    /// Makes a key of a text's UTF-8 bytes.
    ///
    /// # Panics
    ///
    /// Never: HMAC takes keys of any length.
    pub fn new(text: &str) -> Self {
        Self(Arc::new(Hmac::new_from_slice(text.as_bytes()).expect("HMAC takes keys of any length")))
    }

    fn hash(&self, text: &[u8]) -> String {
        let mut mac = Hmac::clone(&self.0);
        mac.update(text);
        hex::encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaskKey(..)")
    }
}

impl PartialEq for MaskKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash(b"") == other.hash(b"")
    }
}

impl Eq for MaskKey {}

/// What a value in Postgres text form leaves as; `None` is null.
pub(super) fn masked(mask: Mask, key: Option<&MaskKey>, text: &[u8]) -> Option<String> {
    match mask {
        Mask::Redact => Some("[redacted]".to_owned()),
        Mask::Hash => Some(key.map_or_else(|| hex::encode(Sha256::digest(text)), |key| key.hash(text))),
        Mask::Partial => Some(partial(&String::from_utf8_lossy(text))),
        Mask::Null => None,
    }
}

/// The first character and the domain of an e-mail address, the last four characters of another text that is long
/// enough for that, nothing of a short one.
fn partial(text: &str) -> String {
    if let Some((name, domain)) = text.split_once('@')
        && domain.contains('.')
        && !domain.contains(['@', ' '])
    {
        let first = name.chars().next().filter(|_| name.chars().count() > 1);
        return first.into_iter().collect::<String>() + STARS + "@" + domain;
    }
    let count = text.chars().count();
    if count < SHOWN_OF {
        return STARS.to_owned();
    }
    STARS.chars().chain(text.chars().skip(count - SHOWN)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_shows_an_end_and_of_an_address_its_domain() {
        let check = |text: &str, expect: &str| assert_eq!(partial(text), expect, "{text}");
        check("4111111111111111", "***1111");
        check("+49 30 1234567", "***4567");
        check("größe äöüß", "***äöüß");
        check("ada@example.com", "a***@example.com");
        check("a@example.com", "***@example.com");
        check("@example.com", "***@example.com");
        check("123456789", "***");
        check("1234567890", "***7890");
        check("", "***");
        check("a@b", "***");
        check("call me @ noon. please", "***ease");
        check("one@two@example.com", "***.com");
    }

    #[test]
    fn a_hash_under_a_key_is_the_published_hmac_and_without_one_a_plain_digest() {
        // RFC 4231, test case 2.
        let key = MaskKey::new("Jefe");
        let expect = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let text = b"what do ya want for nothing?";
        assert_eq!(masked(Mask::Hash, Some(&key), text).as_deref(), Some(expect));
        let plain = masked(Mask::Hash, None, b"abc");
        assert_eq!(
            plain.as_deref(),
            Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
        assert_eq!(masked(Mask::Null, Some(&key), text), None);
        assert_eq!((key.clone() == MaskKey::new("Jefe"), key == MaskKey::new("jefe")), (true, false));
        assert_eq!(format!("{:?}", MaskKey::new("hunter2")), "MaskKey(..)");
    }
}
