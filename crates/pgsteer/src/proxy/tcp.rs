//! Socket options and dialling.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pgsteer_core::settings::ProxyConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Probes of keepalive before a connection is given up, and one every so many parts of the
/// idle time.
const KEEPALIVE_PROBES: u32 = 3;

/// The kernel counts in whole seconds and takes none for an error.
const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Sets what every connection of the proxy has: no delay, and keepalive, which ends idle
/// connections to hosts that are gone and say nothing.
///
/// No end to waiting for acknowledgements: with `TCP_USER_TIMEOUT` the kernel gives up a peer that
/// acknowledges everything and only has not read for so long, as a server does whose COPY waits
/// for a lock (Linux, `tcp_probe_timer`). Of members that are gone the gates know.
pub fn tune(stream: &TcpStream, proxy: &ProxyConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(proxy.keepalive)
        .with_interval((proxy.keepalive / KEEPALIVE_PROBES).max(KEEPALIVE_INTERVAL_MIN))
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// The same for a client, who may have such an end if the operator wants one.
pub fn tune_client(stream: &TcpStream, proxy: &ProxyConfig) -> io::Result<()> {
    tune(stream, proxy)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(proxy.user_timeout))
}

/// Connects to the first of `addresses` that accepts within `limit`.
pub async fn dial(
    addresses: &[SocketAddr],
    limit: Duration,
    proxy: &ProxyConfig,
) -> io::Result<TcpStream> {
    let stream = crate::dial::connect(addresses, limit).await?;
    tune(&stream, proxy)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_reads_nothing_for_a_while_keeps_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = ProxyConfig { user_timeout: Duration::from_secs(1), ..ProxyConfig::default() };
        let server = dial(&[address], Duration::from_secs(5), &proxy).await.unwrap();
        let (busy, _) = listener.accept().await.unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        tune_client(&client, &ProxyConfig::default()).unwrap();
        let (slow, _) = listener.accept().await.unwrap();
        for stream in [&server, &client] {
            stream.writable().await.unwrap();
            while stream.try_write(&[0; 65_536]).is_ok() {}
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        for stream in [&server, &client] {
            assert_eq!(stream.take_error().unwrap().map(|error| error.kind()), None);
        }
        drop((busy, slow));
    }
}
