//! TLS: which certificates of servers are accepted, which client certificate is sent, and which one
//! the pages have.

mod der;
mod sentence;
#[cfg(test)]
mod tests;
mod verifier;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use pgsteer_core::settings::Verify;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tracing::warn;

pub use self::sentence::sentence;
use self::verifier::Verifier;

/// Which certificates of servers are accepted.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// What is verified.
    pub verify: Verify,
    /// The PEM file of the authorities, or of the certificates of the servers. The default is the trust
    /// store of the system.
    pub ca_file: Option<&'a Path>,
}

#[cfg(test)]
impl Trust<'_> {
    /// Any certificate: the connection is encrypted, but the server is not verified.
    pub const ANY: Trust<'static> = Trust { verify: Verify::None, ca_file: None };
}

/// A certificate of ours and its key.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The PEM file with the certificate and the intermediate certificates.
    pub cert_file: &'a Path,
    /// The PEM file with the key.
    pub key_file: &'a Path,
}

/// The TLS configuration of a client with these files.
///
/// # Errors
/// A file cannot be read or has the wrong content; the message names it.
pub fn client_config(
    trust: Trust<'_>,
    identity: Option<Identity<'_>>,
) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own_key = match identity {
        Some(identity) => Some(read_identity(identity, &provider)?),
        None => None,
    };
    let verifier = match (trust.verify, trust.ca_file) {
        (Verify::None, _) => Verifier::of_nothing(provider.clone()),
        (verify, None) => Verifier::new(verify, system_roots()?, Vec::new(), provider.clone()),
        (verify, Some(file)) => {
            let certs = read_certs(file)?;
            Verifier::new(verify, roots(&certs, file)?, certs, provider.clone())
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("cannot configure TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(Arc::new(match own_key {
        None => builder.with_no_client_auth(),
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
    }))
}

/// The TLS configuration of a server with this certificate.
///
/// # Errors
/// A file cannot be read or has the wrong content; the message names it.
pub fn server_config(identity: Identity<'_>) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = read_identity(identity, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("cannot configure TLS")?
        .with_no_client_auth();
    Ok(Arc::new(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)))))
}

/// The name that the certificate of a server has to contain: a host name or an address.
///
/// # Errors
/// `host` is neither.
pub fn server_name(host: &str) -> anyhow::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(|_| {
        anyhow!("`{host}` is neither a host name nor an address, so no certificate can contain it")
    })
}

fn system_roots() -> anyhow::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for err in &found.errors {
        warn!("a certificate of the system's trust store cannot be used: {err}");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        bail!("the system's trust store has no certificates: set `ca_file`");
    }
    Ok(roots)
}

fn roots(certs: &[CertificateDer<'static>], file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for cert in certs {
        roots
            .add(cert.clone())
            .with_context(|| format!("{}: a certificate in it cannot be used", file.display()))?;
    }
    Ok(roots)
}

type Chain = Vec<CertificateDer<'static>>;

/// The certificate and key of `identity`. The server decides whether it accepts them: it may accept an X.509
/// version 1 certificate, which rustls cannot parse.
fn read_identity(
    identity: Identity<'_>,
    provider: &rustls::crypto::CryptoProvider,
) -> anyhow::Result<CertifiedKey> {
    let chain = read_certs(identity.cert_file)?;
    let key_file = identity.key_file.display();
    let key = PrivateKeyDer::from_pem_file(identity.key_file)
        .map_err(|err| anyhow!("{key_file}: no usable key: {err}"))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|err| anyhow!("{key_file}: no usable key: {err}"))?;
    let of_cert = chain.first().and_then(|cert| der::public_key(cert));
    if let (Some(of_cert), Some(of_key)) = (of_cert, key.public_key())
        && of_cert != of_key
    {
        bail!(
            "{} and {key_file} are not a certificate and its key: their public keys differ",
            identity.cert_file.display()
        );
    }
    Ok(CertifiedKey::new(chain, key))
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
