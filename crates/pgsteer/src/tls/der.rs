//! The public key of a certificate of any version, as DER.
//!
//! webpki reads version 3 only, and `openssl x509 -req` without extensions creates version 1. This module
//! verifies nothing.

use rustls::pki_types::SubjectPublicKeyInfoDer;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// `[0] EXPLICIT`, the version; absent from version 1.
const VERSION: u8 = 0xa0;

/// The SubjectPublicKeyInfo of the certificate (RFC 5280, section 4.1); none if the bytes are not a certificate.
pub fn public_key(certificate: &[u8]) -> Option<SubjectPublicKeyInfoDer<'_>> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate.content, SEQUENCE).map(|(tbs, _)| (tbs.content, ()))?;
    if let Some((_, behind)) = element(rest, VERSION) {
        rest = behind;
    }
    // Serial number, signature algorithm, issuer, validity, subject.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
        (_, rest) = element(rest, tag)?;
    }
    let (key, _) = element(rest, SEQUENCE)?;
    Some(SubjectPublicKeyInfoDer::from(key.whole))
}

struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

/// The first element of `bytes` and the bytes behind it, if the element has this tag.
fn element(bytes: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first != tag {
        return None;
    }
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    let (whole, _) = bytes.split_at_checked(bytes.len() - behind.len())?;
    Some((Element { whole, content }, behind))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    const GOOD: &[u8] = include_bytes!("../../tests/certificates/good.crt");
    const V1: &[u8] = include_bytes!("../../tests/certificates/v1.crt");

    #[test]
    fn certificates_of_one_key_have_one_public_key_in_every_version() {
        let [good, v1] = [GOOD, V1].map(|pem| CertificateDer::from_pem_slice(pem).unwrap());
        let key = public_key(&good).unwrap();
        assert_eq!(Some(&key), public_key(&v1).as_ref());
        // An ECDSA key on P-256: a sequence of 89 bytes.
        assert_eq!((key.len(), key[0], key[1]), (91, SEQUENCE, 89));
    }

    #[test]
    fn truncated_or_invalid_bytes_are_not_a_certificate() {
        let good = CertificateDer::from_pem_slice(GOOD).unwrap();
        for end in 0..good.len() {
            assert_eq!(public_key(&good[..end]), None, "{end}");
        }
        for bytes in [&[][..], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], b"-----BEGIN"] {
            assert_eq!(public_key(bytes), None);
        }
    }
}
