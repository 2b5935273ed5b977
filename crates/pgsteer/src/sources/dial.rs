//! Dialling: a TCP connection to the first address that answers, and its errors in the
//! core's words.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::Failure;
use pgsteer_core::names::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// The most addresses of one host. A name server may return thousands.
const ADDRESSES_MAX: usize = 16;

/// How long the resolver of the system may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);

/// A connection, encrypted or not.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Connects to the first of `addresses` that accepts, in their order. Each gets an equal
/// share of what is left of `limit`, so that a dead one cannot starve those behind it.
pub async fn connect(
    addresses: &[IpAddr],
    port: u16,
    peer: &Arc<str>,
    limit: Duration,
) -> Result<TcpStream, Failure> {
    let end = Instant::now() + limit;
    let mut last = Failure::Unresolved(peer.clone());
    for (done, address) in addresses.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let others = u32::try_from(addresses.len() - done).unwrap_or(u32::MAX);
        let dialling = TcpStream::connect(SocketAddr::new(*address, port));
        last = match timeout(left / others, dialling).await {
            Ok(Ok(stream)) => match stream.set_nodelay(true) {
                Ok(()) => return Ok(stream),
                Err(err) => failure(&err, peer),
            },
            Ok(Err(err)) => failure(&err, peer),
            Err(_) => timed_out(peer, limit),
        };
    }
    Err(last)
}

/// The addresses of `endpoint`'s host: itself if it is one, else the first [`ADDRESSES_MAX`] that the
/// system's resolver returns.
pub async fn resolve(endpoint: &Endpoint) -> Result<Vec<IpAddr>, Failure> {
    if let Some(address) = endpoint.ip() {
        return Ok(vec![address]);
    }
    let host = endpoint.host();
    let unresolved = |why: &str| Failure::Unresolved(Arc::from(format!("{host}: {why}")));
    let looking = tokio::net::lookup_host((host, endpoint.port()));
    match timeout(LOOKUP_LIMIT, looking).await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in found.map(|socket| socket.ip()) {
                if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            if addresses.is_empty() {
                return Err(unresolved("no address"));
            }
            Ok(addresses)
        }
        Ok(Err(err)) => Err(unresolved(&err.to_string())),
        Err(_) => Err(unresolved(&format!("no answer within {LOOKUP_LIMIT:?}"))),
    }
}

/// An error of a socket, or of TLS over one, in the core's words.
pub fn failure(err: &io::Error, peer: &Arc<str>) -> Failure {
    let tls = err.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        // What came is no record of TLS at all.
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            return Failure::Tls(Arc::from(format!("{peer} does not seem to speak TLS")));
        }
        Some(tls) => return Failure::Tls(Arc::from(format!("{peer}: {tls}"))),
        None => {}
    }
    match err.kind() {
        ErrorKind::ConnectionRefused => Failure::Refused(peer.clone()),
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::WriteZero => Failure::Closed(peer.clone()),
        _ => Failure::Network(Arc::from(format!("{peer}: {err}"))),
    }
}

/// Nobody answered within `limit`.
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
    use crate::tls::{self, Trust};

    const LIMIT: Duration = Duration::from_secs(5);

    fn peer() -> Arc<str> {
        Arc::from("pg-1:5432")
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = ["127.0.0.9", "127.0.0.1"].map(|text| text.parse().unwrap());
        let stream = connect(&addresses, port, &peer(), LIMIT).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), addresses[1]);
    }

    #[tokio::test]
    async fn a_refused_connection_says_by_whom() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let failure = connect(&[address.ip()], address.port(), &peer(), LIMIT).await;
        assert_eq!(failure.unwrap_err(), Failure::Refused(peer()));
    }

    #[tokio::test]
    async fn whoever_answers_a_hello_in_clear_does_not_seem_to_speak_tls() {
        let address = fake::server(|mut stream, _| async move {
            let mut hello = [0; 16 * 1024];
            assert!(stream.read(&mut hello).await.unwrap() > 0);
            fake::drip(&mut stream, b"<!DOCTYPE HTML>").await;
        })
        .await;
        let stream = TcpStream::connect(address).await.unwrap();
        let config = tls::client_config(Trust::Anyone, None).unwrap();
        let name = tls::server_name("pg-1").unwrap();
        let err = TlsConnector::from(config).connect(name, stream).await.unwrap_err();
        let clear = Failure::Tls(Arc::from("pg-1:5432 does not seem to speak TLS"));
        assert_eq!(failure(&err, &peer()), clear);
    }

    #[tokio::test]
    async fn a_literal_address_needs_no_resolver_and_a_bad_name_says_which() {
        let literal = Endpoint::new("::1", 5432).unwrap();
        assert_eq!(resolve(&literal).await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        let bad = Endpoint::new("no such host", 5432).unwrap();
        let failure = resolve(&bad).await.unwrap_err();
        assert!(matches!(failure, Failure::Unresolved(_)), "{failure:?}");
        assert!(failure.to_string().contains("no such host"), "{failure}");
    }
}
