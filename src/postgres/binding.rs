//! What binds a SCRAM exchange to the server's certificate (`tls-server-end-point`, RFC 5929 section 4.1).
//!
//! The certificate's hash, by the hash function of its signature; MD5 and SHA-1 become SHA-256. Where the signature
//! has no single hash (Ed25519, PSS with parameters unread), there is no binding. Only the certificate's outermost
//! DER is walked: `SEQUENCE { tbs SEQUENCE, algorithm SEQUENCE { OID, … }, … }`.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// PKCS #1 signatures: 1.2.840.113549.1.1.x
const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
/// ECDSA with SHA-2: 1.2.840.10045.4.3.x
const ECDSA: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03];

/// The hash that names a certificate (DER), where its signature defines one.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (outer, _) = element(certificate, 0x30)?;
    let (_, after_body) = element(outer, 0x30)?;
    let (algorithm, _) = element(after_body, 0x30)?;
    let (oid, _) = element(algorithm, 0x06)?;
    let (last, family) = oid.split_last()?;
    match (family, last) {
        (RSA, 4 | 5 | 11) | (ECDSA, 2) => Some(Sha256::digest(certificate).to_vec()),
        (RSA, 12) | (ECDSA, 3) => Some(Sha384::digest(certificate).to_vec()),
        (RSA, 13) | (ECDSA, 4) => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// The content of the first element, which must have this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&short, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let (length, rest) = if short < 0x80 {
        (usize::from(short), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(short & 0x7F))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |sum, digit| (sum << 8) | usize::from(*digit)), rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(oid: &[u8]) -> Vec<u8> {
        let len = |n: usize| u8::try_from(n).unwrap();
        let mut inner = vec![0x30, 2, 5, 0, 0x30, len(oid.len() + 2), 6, len(oid.len())];
        inner.extend_from_slice(oid);
        let mut whole = vec![0x30, 0x81, len(inner.len())];
        whole.extend_from_slice(&inner);
        whole
    }

    #[test]
    fn the_signature_chooses_the_hash() {
        let with = |family: &[u8], last: u8| end_point(&certificate(&[family, &[last]].concat()));
        assert_eq!(with(RSA, 11).map(|hash| hash.len()), Some(32));
        assert_eq!(with(ECDSA, 3).map(|hash| hash.len()), Some(48));
        assert_eq!(with(RSA, 13).map(|hash| hash.len()), Some(64));
        assert_eq!(with(&[0x2B, 0x65], 0x70), None);
    }

    #[test]
    fn cut_certificates_have_no_binding() {
        let whole = certificate(&[RSA, &[11]].concat());
        for end in 0..whole.len() {
            assert_eq!(end_point(&whole[..end]), None);
        }
    }
}
