//! TLS errors as sentences with a remedy.

use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// The maximum number of names of a certificate in an error.
const NAMES_SHOWN_MAX: usize = 5;

/// The cause of `error` and a remedy. The caller names the peer.
pub fn sentence(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::PeerIncompatible(_) => {
            format!(
                "no TLS version or cipher suite in common ({error}): allow TLS 1.2 or 1.3 there"
            )
        }
        other => other.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "its certificate has expired: renew it".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired on {}: renew it", date(*not_after))
        }
        CertificateError::NotValidYet => {
            "its certificate is not valid yet: compare the clocks of both hosts".to_owned()
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            let from = date(*not_before);
            format!("its certificate is valid from {from} on: compare the clocks of both hosts")
        }
        CertificateError::UnknownIssuer => {
            "its certificate was issued by an authority that is not trusted here: set ca_file to the \
             certificate of that authority, or to the server's own"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "its certificate is not signed by the authority that it names: set ca_file to the one that \
             issued it"
                .to_owned()
        }
        CertificateError::NotValidForName => {
            format!("its certificate does not name this host: {NAME_REMEDY}")
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = names(presented);
            let expected = expected.to_str();
            format!("its certificate {names}, and has to name {expected}: {NAME_REMEDY}")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not meant for servers: issue it with extendedKeyUsage = serverAuth, or \
             without extendedKeyUsage"
                .to_owned()
        }
        other => of_other(&other.to_string()),
    }
}

const NAME_REMEDY: &str = "connect by a name in it, issue it with that name as subjectAltName, or \
                           verify the authority alone (verify = \"ca\"; sslmode = \"verify-ca\" in [check])";

/// Errors of webpki, which rustls returns as text.
fn of_other(text: &str) -> String {
    if text.contains("UnsupportedCertVersion") {
        "its certificate is X.509 version 1, which cannot be verified: issue it as version 3, as openssl \
         x509 -req does with -extfile, or do without verification (verify = \"none\"; sslmode = \"require\" \
         in [check])"
            .to_owned()
    } else if text.contains("CaUsedAsEndEntity") {
        "its certificate is that of an authority: put this very certificate into ca_file, or issue one \
         with CA:FALSE"
            .to_owned()
    } else {
        format!("its certificate cannot be used: {text}")
    }
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the server requires a client certificate: set cert_file and key_file".to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => format!(
            "the server refuses the client certificate ({alert:?}): it must be valid now, and issued by \
             an authority that the server trusts; set cert_file and key_file"
        ),
        AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion => format!(
            "the server refuses the handshake ({alert:?}): it needs a client certificate (cert_file, \
             key_file), or no TLS version or cipher suite is in common"
        ),
        other => format!("the server ended the handshake ({other:?})"),
    }
}

fn names(presented: &[String]) -> String {
    match presented {
        [] => "names no host (it has no subjectAltName)".to_owned(),
        few if few.len() <= NAMES_SHOWN_MAX => format!("is for {}", few.join(", ")),
        many => {
            let more = many.len() - NAMES_SHOWN_MAX;
            format!("is for {} and {more} more", many[..NAMES_SHOWN_MAX].join(", "))
        }
    }
}

fn date(time: UnixTime) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(time.as_secs());
    humantime::format_rfc3339_seconds(time).to_string()
}
