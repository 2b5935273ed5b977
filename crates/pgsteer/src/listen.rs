//! Listening sockets: how a port is bound, what can be done if it cannot be bound, and how
//! connections are accepted.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tokio::net::TcpStream;

/// Connections that the kernel queues until they are accepted. The kernel limits this to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// The pause after a failed accept. Most accepts fail because no file descriptor is free; without
/// the pause the same accept would fail again at once and use a whole CPU.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port cannot be bound.
#[derive(Debug, Error)]
#[error("{user} cannot listen on {address}: {cause}; {}", self.advice())]
pub struct ListenError {
    /// The part of pgsteer that needs the port, as `service write`.
    user: String,
    /// The option that sets the address.
    option: String,
    address: SocketAddr,
    cause: io::Error,
}

/// Listening sockets that exist already: bound before anything else runs, or taken over from another
/// process of pgsteer. Those that nothing takes are closed with it.
#[derive(Debug, Default)]
pub struct Listeners(BTreeMap<SocketAddr, TcpListener>);

impl Listeners {
    /// The sockets of the service manager (sd_listen_fds(3)), each by the address on which it listens.
    ///
    /// # Errors
    /// The kernel refuses to configure one.
    pub fn activated() -> io::Result<Listeners> {
        let mut listeners = Listeners::default();
        // Without the process id the variable may be that of another process.
        if std::env::var("LISTEN_PID").ok() != Some(std::process::id().to_string()) {
            return Ok(listeners);
        }
        let mut handed = ListenFd::from_env();
        for index in 0..handed.len() {
            let listener = match handed.take_tcp_listener(index) {
                Ok(Some(listener)) => listener,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!("a socket of the service manager is not used: {error}");
                    continue;
                }
            };
            // Programs that pgsteer starts do not need it.
            fcntl_setfd(&listener, FdFlags::CLOEXEC)?;
            listener.set_nonblocking(true)?;
            listeners.add(listener.local_addr()?, listener);
        }
        Ok(listeners)
    }

    /// Adds all sockets of `others`.
    pub fn merge(&mut self, others: Listeners) {
        self.0.extend(others.0);
    }

    /// The addresses of all sockets.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.keys().copied()
    }

    /// Adds a socket that listens on `address`.
    pub fn add(&mut self, address: SocketAddr, listener: TcpListener) {
        self.0.insert(address, listener);
    }

    /// Returns true if a socket for `address` is there.
    pub fn contain(&self, address: SocketAddr) -> bool {
        self.0.contains_key(&address)
    }

    /// Takes the socket that listens on `address`.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.0.remove(&address)
    }
}

/// Binds `address` for `user`. The error names both, and `option`, which sets the address.
///
/// A port is bound at the start, before anything else runs, so that pgsteer ends at once if the port
/// is taken. The socket does not block.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr, user: &str, option: &str) -> Result<TcpListener, ListenError> {
    bind_socket(address).map_err(|cause| ListenError {
        user: user.to_owned(),
        option: option.to_owned(),
        address,
        cause,
    })
}

fn bind_socket(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // SO_REUSEPORT is not set: a second pgsteer would receive half of the clients without an error.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl ListenError {
    fn advice(&self) -> String {
        let ListenError { option, address, .. } = self;
        match self.cause.kind() {
            ErrorKind::AddrInUse => format!(
                "another program listens there, `ss -ltnp 'sport = :{}'` shows which: stop it, or \
                 choose another address with {option}",
                address.port()
            ),
            ErrorKind::AddrNotAvailable => format!(
                "it is not an address of this machine, `ip address` lists those: set {option}"
            ),
            ErrorKind::PermissionDenied => format!(
                "a port below 1024 requires CAP_NET_BIND_SERVICE: grant it, or choose another port \
                 with {option}"
            ),
            _ => format!("choose another address with {option}"),
        }
    }
}

/// Accepts one connection. After each failure it calls `on_failure` and pauses for
/// [`ACCEPT_PAUSE`].
pub async fn accept(
    listener: &tokio::net::TcpListener,
    mut on_failure: impl FnMut(&io::Error),
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                on_failure(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_user_the_address_and_the_option() {
        let taken = bind(([127, 0, 0, 1], 0).into(), "service a", "--a").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address, "service b", "--b").unwrap_err().to_string();
        assert!(error.starts_with(&format!("service b cannot listen on {address}: ")), "{error}");
        assert!(error.contains(&format!("ss -ltnp 'sport = :{}'", address.port())), "{error}");
        assert!(error.ends_with("choose another address with --b"), "{error}");
        // From a block that RFC 5737 reserves for documentation.
        let error = bind(([192, 0, 2, 1], 5000).into(), "service b", "--b").unwrap_err();
        assert!(error.to_string().contains("it is not an address of this machine"), "{error}");
    }
}
