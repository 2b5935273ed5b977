//! The verification of a server's certificate: complete, without the name, or none.
//!
//! This is the only use of rustls' `danger` interface. There are two differences to the verifier of
//! rustls. A certificate in `ca_file` itself is accepted although it is that of an authority: `openssl req
//! -x509` creates such certificates, and libpq and curl accept them. And the operator can turn off the
//! verification of the name, or of the whole certificate. The signature of the handshake is always
//! verified, so the server has the key of its certificate.

use std::sync::Arc;

use pgsteer_core::settings::Verify;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::der;

/// Verifies the certificates of servers.
#[derive(Debug)]
pub struct Verifier {
    verify: Verify,
    roots: RootCertStore,
    /// The certificates of `ca_file`, each of which may be that of a server.
    own: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Accepts certificates that one of `roots` has issued, and those in `own`.
    pub fn new(
        verify: Verify,
        roots: RootCertStore,
        own: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Verifier {
        Verifier { verify, roots, own, provider }
    }

    /// Accepts any certificate, as libpq does with `sslmode=require`.
    pub fn of_nothing(provider: Arc<CryptoProvider>) -> Verifier {
        Verifier::new(Verify::None, RootCertStore::empty(), Vec::new(), provider)
    }

    /// Verifies the issuer, or that the certificate is in `ca_file`. webpki checks the dates first, so a
    /// certificate in `ca_file` has to be valid now as well.
    fn verify_origin(
        &self,
        server: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verified = verify_server_cert_signed_by_trust_anchor(
            parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        );
        match verified {
            Err(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_),
            )) if self.own.contains(server) => Ok(()),
            other => other,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.verify != Verify::None {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            self.verify_origin(end_entity, &parsed, intermediates, now)?;
            if self.verify == Verify::Full {
                verify_server_name(&parsed, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match der::public_key(cert) {
            // A certificate of version 1 cannot be parsed, so its key is read separately.
            Some(key) if self.verify == Verify::None => {
                verify_tls13_signature_with_raw_key(message, &key, dss, algorithms)
            }
            _ => verify_tls13_signature(message, cert, dss, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
