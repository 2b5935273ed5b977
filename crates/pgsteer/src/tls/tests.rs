//! Handshakes with certificates like those of tutorials (`tests/certificates`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

/// A server with the certificate `cert` of any version. It may require a client certificate.
fn server_config(cert: &str, requires_client: bool) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = read_certs(&file(cert)).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("leaf.key")).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let roots = Arc::new(roots(&read_certs(&file("ca.crt")).unwrap(), &file("ca.crt")).unwrap());
    let builder = if requires_client {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    Arc::new(builder.with_cert_resolver(Arc::new(resolver)))
}

/// The result of a handshake and of the first byte behind it, with the error as its sentence.
async fn handshake(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = TlsAcceptor::from(server).accept(stream).await {
            let _ = stream.write_all(b"!").await;
            let _ = stream.shutdown().await;
        }
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let exchange = async {
        let name = server_name("127.0.0.1").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, stream).await?;
        stream.read_u8().await
    };
    let explained = |error: io::Error| {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        tls.map_or_else(|| error.to_string(), sentence)
    };
    exchange.await.map(drop).map_err(explained)
}

async fn verified(cert: &str, ca_file: &str, verify: Verify) -> Result<(), String> {
    let ca_file = file(ca_file);
    let ca_file = (verify != Verify::None).then_some(&*ca_file);
    let client = client_config(Trust { verify, ca_file }, None).unwrap();
    handshake(server_config(cert, false), client).await
}

#[tokio::test]
async fn certificates_are_accepted_according_to_the_verification_mode() {
    for (cert, ca_file, verify) in [
        ("good.crt", "ca.crt", Verify::Full),
        ("own-san.crt", "own-san.crt", Verify::Full),
        ("own.crt", "own.crt", Verify::Ca),
        ("elsewhere.crt", "ca.crt", Verify::Ca),
        ("nameless.crt", "ca.crt", Verify::Ca),
        // The certificate itself is in the file, and not its authority.
        ("good.crt", "good.crt", Verify::Full),
        ("v1.crt", "", Verify::None),
        ("expired.crt", "", Verify::None),
        ("own.crt", "", Verify::None),
    ] {
        assert_eq!(
            verified(cert, ca_file, verify).await,
            Ok(()),
            "{cert} by {ca_file}, {verify:?}"
        );
    }
}

#[tokio::test]
async fn an_error_names_the_cause_and_a_remedy() {
    for (cert, ca_file, verify, words) in [
        (
            "own.crt",
            "own.crt",
            Verify::Full,
            &["names no host", "127.0.0.1", "verify = \"ca\""][..],
        ),
        ("nameless.crt", "ca.crt", Verify::Full, &["names no host", "subjectAltName"]),
        (
            "elsewhere.crt",
            "ca.crt",
            Verify::Full,
            &["pg-9.example", "10.0.0.9", "has to name 127.0.0.1"],
        ),
        ("expired.crt", "ca.crt", Verify::Ca, &["expired on 2021-01-01T00:00:00Z", "renew it"]),
        ("own-expired.crt", "own-expired.crt", Verify::Ca, &["expired on 2021-01-01", "renew it"]),
        ("good.crt", "own.crt", Verify::Ca, &["not trusted here", "set ca_file"]),
        ("own-san.crt", "own.crt", Verify::Ca, &["ca_file"]),
        ("own-san.crt", "ca.crt", Verify::Ca, &["this very certificate into ca_file"]),
        ("v1.crt", "ca.crt", Verify::Ca, &["X.509 version 1", "-extfile", "verify = \"none\""]),
    ] {
        let sentence = verified(cert, ca_file, verify).await.unwrap_err();
        for word in words {
            assert!(sentence.contains(word), "{cert} by {ca_file}, {verify:?}: {sentence}");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_of_any_version_is_sent_and_a_missing_one_is_an_error() {
    let ca_file = file("ca.crt");
    let trust = Trust { verify: Verify::Full, ca_file: Some(&ca_file) };
    let key_file = file("leaf.key");
    let with = |cert: &str| {
        let cert_file = file(cert);
        let identity = Identity { cert_file: &cert_file, key_file: &key_file };
        client_config(trust, Some(identity)).unwrap()
    };
    let server = || server_config("good.crt", true);
    assert_eq!(handshake(server(), with("good.crt")).await, Ok(()));
    let none = handshake(server(), client_config(trust, None).unwrap()).await.unwrap_err();
    assert!(none.contains("requires a client certificate: set cert_file"), "{none}");
    // rustls refuses it, and so does this server; OpenSSL accepts it.
    let old = handshake(server(), with("v1.crt")).await.unwrap_err();
    assert!(old.contains("the server refuses the client certificate"), "{old}");
}

#[test]
fn a_key_that_is_not_that_of_the_certificate_is_refused_with_both_files() {
    for cert in ["good.crt", "v1.crt"] {
        let (cert_file, key_file) = (file(cert), file("other.key"));
        let identity = Identity { cert_file: &cert_file, key_file: &key_file };
        let message = client_config(Trust::ANY, Some(identity)).unwrap_err().to_string();
        for word in [cert, "other.key", "are not a certificate and its key"] {
            assert!(message.contains(word), "{message}");
        }
    }
}
