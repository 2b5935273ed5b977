//! Socket options and dialing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pgsteer_core::config::ProxyConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Probes of keepalive before a connection is given up, and one every so many parts of the
/// idle time.
const KEEPALIVE_PROBES: u32 = 3;

/// The kernel counts in whole seconds and takes none for an error.
const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Sets what every connection of the proxy has: no delay, keepalive, an end to waiting for
/// acknowledgements. It ends connections to hosts that are gone, which say nothing.
pub fn tune(stream: &TcpStream, proxy: &ProxyConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(proxy.keepalive)
        .with_interval((proxy.keepalive / KEEPALIVE_PROBES).max(KEEPALIVE_INTERVAL_MIN))
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(proxy.user_timeout))
}

/// Dials the addresses in their order; the error is that of the last.
pub async fn dial(addresses: &[SocketAddr], proxy: &ProxyConfig) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                tune(&stream, proxy)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
