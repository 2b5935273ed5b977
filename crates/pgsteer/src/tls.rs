//! TLS towards servers: whom to trust, and who we are.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tracing::warn;

/// Whose certificate a server may show.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Anybody's: the connection is private, but nobody knows with whom.
    Anyone,
    /// One that names the host and that an authority of the system has signed.
    System,
    /// One that names the host and that an authority in this PEM file has signed.
    Authorities(&'a Path),
}

/// The certificate and the key that we show to a server.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// PEM file with the certificate and those between it and its authority.
    pub cert_file: &'a Path,
    /// PEM file with its key.
    pub key_file: &'a Path,
}

/// Reads the files and makes a client's configuration of them.
///
/// # Errors
/// A file that cannot be read or holds something else than it should; the message names it.
pub fn client_config(
    trust: Trust<'_>,
    identity: Option<Identity<'_>>,
) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?;
    let builder = match trust {
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        }
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::Authorities(file) => builder.with_root_certificates(roots_in(file)?),
    };
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = read_identity(identity)?;
            builder.with_client_auth_cert(chain, key).with_context(|| not_a_pair(identity))?
        }
    };
    Ok(Arc::new(config))
}

/// The name that a server's certificate has to bear: a host name or an address.
///
/// # Errors
/// `host` is neither.
pub fn server_name(host: &str) -> anyhow::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| anyhow!("`{host}` is no name that a certificate could bear"))
}

fn system_roots() -> anyhow::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for err in &found.errors {
        warn!("a certificate of the system's trust store cannot be used: {err}");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        bail!("the system's trust store has no certificates; name a file with `ca_file`");
    }
    Ok(roots)
}

fn roots_in(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for cert in read_certs(file)? {
        roots
            .add(cert)
            .with_context(|| format!("{}: not the certificate of an authority", file.display()))?;
    }
    Ok(roots)
}

type Chain = Vec<CertificateDer<'static>>;

fn read_identity(identity: Identity<'_>) -> anyhow::Result<(Chain, PrivateKeyDer<'static>)> {
    let chain = read_certs(identity.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(identity.key_file)
        .map_err(|err| anyhow!("{}: no usable key: {err}", identity.key_file.display()))?;
    Ok((chain, key))
}

fn read_certs(file: &Path) -> anyhow::Result<Chain> {
    let certs = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Chain, _>>)
        .map_err(|err| anyhow!("{}: no usable certificate: {err}", file.display()))?;
    if certs.is_empty() {
        bail!("{}: no certificate in it", file.display());
    }
    Ok(certs)
}

fn not_a_pair(identity: Identity<'_>) -> String {
    format!(
        "{} and {} are not a certificate and its key",
        identity.cert_file.display(),
        identity.key_file.display()
    )
}

/// Takes any certificate, as libpq does for `sslmode=require` without a root certificate.
/// The signatures of the handshake are still checked: who shows a certificate has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
