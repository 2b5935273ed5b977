//! Dialling for the sources: connections, and their errors as the core's failures.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::Failure;
use pgsteer_core::names::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::{lookup, tls};

/// A connection, encrypted or not.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Connects to the first of `addresses` that accepts within `limit`.
pub async fn connect(
    addresses: &[IpAddr],
    port: u16,
    peer: &Arc<str>,
    limit: Duration,
) -> Result<TcpStream, Failure> {
    if addresses.is_empty() {
        return Err(Failure::Unresolved(peer.clone()));
    }
    let addresses: Vec<SocketAddr> =
        addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
    let failed = |err: io::Error| match err.kind() {
        ErrorKind::TimedOut => Failure::Unreachable { peer: peer.clone(), limit },
        _ => failure(&err, peer),
    };
    let stream = crate::dial::connect(&addresses, limit).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// Returns the addresses of `endpoint`'s host to dial now: the host itself if it is an address,
/// else the result of a lookup. The lookup may continue after this function has returned.
pub async fn resolve(endpoint: &Endpoint) -> Result<Vec<IpAddr>, Failure> {
    match endpoint.ip() {
        Some(address) => Ok(vec![address]),
        None => named(endpoint, lookup::addresses(endpoint.host()).await),
    }
}

/// Same as [`resolve`], but waits for the end of a lookup, even of a late one.
pub async fn look_up(endpoint: &Endpoint) -> Result<Vec<IpAddr>, Failure> {
    match endpoint.ip() {
        Some(address) => Ok(vec![address]),
        None => named(endpoint, lookup::look_up(endpoint.host()).await),
    }
}

fn named(endpoint: &Endpoint, answer: lookup::Answer) -> Result<Vec<IpAddr>, Failure> {
    answer.map_err(|why| Failure::Unresolved(Arc::from(format!("{}: {why}", endpoint.host()))))
}

/// Converts an error of a socket, or of TLS over a socket, to a failure.
pub fn failure(err: &io::Error, peer: &Arc<str>) -> Failure {
    let tls = err.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        // The received bytes are not a TLS record.
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            return Failure::Tls(Arc::from(format!("{peer} does not answer with TLS")));
        }
        Some(tls) => return Failure::Tls(Arc::from(format!("{peer}: {}", tls::sentence(tls)))),
        None => {}
    }
    match err.kind() {
        ErrorKind::ConnectionRefused => Failure::Refused(peer.clone()),
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::WriteZero => Failure::Closed(peer.clone()),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Failure::Network(Arc::from(
            format!("no route to {peer}: its host or network is down, or a firewall rejects it"),
        )),
        _ => Failure::Network(Arc::from(format!("{peer}: {err}"))),
    }
}

/// The failure for a `peer` that did not answer within `limit`.
pub fn timed_out(peer: &Arc<str>, limit: Duration) -> Failure {
    Failure::Timeout { peer: peer.clone(), limit }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::sources::fake;
    use crate::tls::Trust;

    const LIMIT: Duration = Duration::from_secs(5);

    fn peer() -> Arc<str> {
        Arc::from("pg-1:5432")
    }

    #[tokio::test]
    async fn a_refused_connection_names_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let failure = connect(&[address.ip()], address.port(), &peer(), LIMIT).await;
        assert_eq!(failure.unwrap_err(), Failure::Refused(peer()));
    }

    #[tokio::test]
    async fn a_plain_answer_to_a_tls_hello_is_reported_as_no_tls() {
        let address = fake::server(|mut stream, _| async move {
            let mut hello = [0; 16 * 1024];
            assert!(stream.read(&mut hello).await.unwrap() > 0);
            fake::drip(&mut stream, b"<!DOCTYPE HTML>").await;
        })
        .await;
        let stream = TcpStream::connect(address).await.unwrap();
        let config = tls::client_config(Trust::ANY, None).unwrap();
        let name = tls::server_name("pg-1").unwrap();
        let err = TlsConnector::from(config).connect(name, stream).await.unwrap_err();
        let clear = Failure::Tls(Arc::from("pg-1:5432 does not answer with TLS"));
        assert_eq!(failure(&err, &peer()), clear);
    }

    #[tokio::test]
    async fn a_literal_address_needs_no_resolver_and_an_error_names_the_bad_name() {
        let literal = Endpoint::new("::1", 5432).unwrap();
        assert_eq!(resolve(&literal).await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        let bad = Endpoint::new("no such host", 5432).unwrap();
        let failure = resolve(&bad).await.unwrap_err();
        assert!(matches!(failure, Failure::Unresolved(_)), "{failure:?}");
        assert!(failure.to_string().contains("no such host"), "{failure}");
    }
}
