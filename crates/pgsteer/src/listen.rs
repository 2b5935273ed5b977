//! Listening sockets: how they are bound, and what may be done if they cannot be.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// Connections that the kernel keeps until they are accepted. It caps this at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// A listening socket that does not block.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Not SO_REUSEPORT: it would let a second pgsteer take half of the clients in silence.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What may be done about a port that cannot be had, where that is known; to be put behind the
/// error.
pub fn remedy(error: &io::Error, address: SocketAddr) -> String {
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!("; is another program there? `ss -ltnp 'sport = :{port}'` tells which")
        }
        ErrorKind::AddrNotAvailable => "; it is not an address of this machine".to_owned(),
        ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE, or choose another".to_owned()
        }
        _ => String::new(),
    }
}
