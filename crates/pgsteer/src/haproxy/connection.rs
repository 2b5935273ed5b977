//! One exchange with a socket of the Runtime API: a line of commands, and the whole answer.
//!
//! Each exchange has a connection of its own. A kept one would stay with the old process after a reload of
//! HAProxy, and the old process would not end because of it. A new connection
//! costs little beside that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::settings::HaproxySocket;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::answer::AnswerError;
use crate::lookup;

/// The maximum size of an answer.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why an exchange failed.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The socket does not exist.
    #[error("there is no such socket: does HAProxy run, and is this its `stats socket`?")]
    NoSocket,
    /// This process may not open it.
    #[error(
        "pgsteer may not open it: add its user to the group of the socket (`group` and `mode 660` of `stats socket`)"
    )]
    Forbidden,
    /// Its host name has no address.
    #[error("its host name has no address: {0}")]
    Unresolved(Arc<str>),
    /// HAProxy does not listen.
    #[error("the connection is refused: HAProxy does not run")]
    Refused,
    /// Another error of the system.
    #[error("{0}")]
    System(io::Error),
    /// There was no answer in time.
    #[error("no answer within {} s (timeout_seconds in [haproxy])", .0.as_secs_f64())]
    Timeout(Duration),
    /// The answer is too long.
    #[error("the answer has more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    /// The answer is not HAProxy's, or is a refusal.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl From<io::Error> for ExchangeError {
    fn from(error: io::Error) -> ExchangeError {
        match error.kind() {
            io::ErrorKind::NotFound => ExchangeError::NoSocket,
            io::ErrorKind::PermissionDenied => ExchangeError::Forbidden,
            io::ErrorKind::ConnectionRefused => ExchangeError::Refused,
            _ => ExchangeError::System(error),
        }
    }
}

/// Sends `line`, and returns the answer.
///
/// # Errors
/// No connection, no answer within `limit`, or an answer that is too long.
pub async fn exchange(
    socket: &HaproxySocket,
    limit: Duration,
    line: &str,
) -> Result<String, ExchangeError> {
    let addresses = addresses(socket).await?;
    let whole = async {
        match socket {
            HaproxySocket::Unix(path) => talk(UnixStream::connect(path).await?, line).await,
            HaproxySocket::Tcp(at) => {
                let found = addresses.iter().map(|ip| SocketAddr::new(*ip, at.port()));
                let stream = TcpStream::connect(found.collect::<Vec<_>>().as_slice()).await?;
                stream.set_nodelay(true)?;
                talk(stream, line).await
            }
        }
    };
    timeout(limit, whole).await.unwrap_or(Err(ExchangeError::Timeout(limit)))
}

/// The addresses of a TCP socket. A lookup does not count against the limit of the exchange, because a name
/// server may be slow, and it occupies no thread of this runtime.
async fn addresses(socket: &HaproxySocket) -> Result<Vec<IpAddr>, ExchangeError> {
    match socket {
        HaproxySocket::Unix(_) => Ok(Vec::new()),
        HaproxySocket::Tcp(at) => match at.ip() {
            Some(ip) => Ok(vec![ip]),
            None => lookup::addresses(at.host()).await.map_err(ExchangeError::Unresolved),
        },
    }
}

/// HAProxy closes the connection after its answer to the line.
async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
) -> Result<String, ExchangeError> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    (&mut stream).take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).await?;
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(ExchangeError::TooLong);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
