//! Socket options and dialling.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pgsteer_core::settings::ProxyConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Keepalive probes without an answer before the kernel closes a connection. The interval between them
/// is the idle time divided by this number unless the configuration has one.
const KEEPALIVE_PROBES: u32 = 3;

/// The kernel accepts whole seconds only, and at least one.
const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Sets the options of every connection: no delay, and keepalive, which closes idle connections to
/// hosts that do not answer any more.
///
/// `TCP_USER_TIMEOUT` is not set: the kernel applies it also to a peer that acknowledges all packets but
/// does not read, as a server whose COPY waits for a lock (Linux, `tcp_probe_timer`). The gates end
/// sessions to members that do not answer.
///
/// # Errors
/// The kernel refuses an option.
pub fn tune(stream: &TcpStream, proxy: &ProxyConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let interval = proxy.keepalive_interval.unwrap_or(proxy.keepalive / KEEPALIVE_PROBES);
    let keepalive = TcpKeepalive::new()
        .with_time(proxy.keepalive)
        .with_interval(interval.max(KEEPALIVE_INTERVAL_MIN))
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Same as [`tune`], and sets `TCP_USER_TIMEOUT` to `user_timeout_seconds` of the configuration.
///
/// # Errors
/// The kernel refuses an option.
pub fn tune_client(stream: &TcpStream, proxy: &ProxyConfig) -> io::Result<()> {
    tune(stream, proxy)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(proxy.user_timeout))
}

/// Connects to the first of `addresses` that accepts within `limit`.
///
/// # Errors
/// No address accepts a connection.
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
    async fn keepalive_probes_have_the_configured_interval_or_a_third_of_the_idle_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (keepalive_interval, seconds) in [(None, 20), (Some(Duration::from_secs(7)), 7)] {
            let keepalive = Duration::from_secs(60);
            let proxy = ProxyConfig { keepalive, keepalive_interval, ..ProxyConfig::default() };
            let stream = dial(&[address], Duration::from_secs(5), &proxy).await.unwrap();
            let interval = SockRef::from(&stream).tcp_keepalive_interval().unwrap();
            assert_eq!(interval, Duration::from_secs(seconds));
        }
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_for_a_while_keeps_the_connection() {
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
