//! The verification of a server's certificate: whole, without its names, or none.
//!
//! This is the only use of rustls' `danger` interface. Two things differ from rustls' own verifier.
//! A certificate that stands in `ca_file` itself is accepted although it is that of an authority:
//! `openssl req -x509` makes such, and libpq and curl accept them. And names, or all, can be left
//! unverified if the operator says so. The handshake's signature is always verified, so the server
//! has the key of the certificate that it shows.

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

/// Verifies servers' certificates.
#[derive(Debug)]
pub struct Verifier {
    verify: Verify,
    roots: RootCertStore,
    /// The certificates of `ca_file`, each of which may be a server's own.
    own: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Certificates that lead to one of `roots`, or that are one of `own`.
    pub fn new(
        verify: Verify,
        roots: RootCertStore,
        own: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Verifier {
        Verifier { verify, roots, own, provider }
    }

    /// Any certificate, as libpq does for `sslmode=require`.
    pub fn of_nothing(provider: Arc<CryptoProvider>) -> Verifier {
        Verifier::new(Verify::None, RootCertStore::empty(), Vec::new(), provider)
    }

    /// The certificate leads to a trusted one, or is one. webpki looks at its dates before it looks at
    /// the rest, so that one in `ca_file` has to be valid now as well.
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
            // A certificate of version 1 can be left unverified, but not parsed.
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
