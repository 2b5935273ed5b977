//! The connection of a client, up to the established session.

use std::io;
use std::time::Duration;

use pgsteer_wire::error::ErrorFields;
use pgsteer_wire::startup::{CancelKey, First, StartupError, first, is_whole_hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

/// The maximum size of one read. Most first packets fit, and bytes that a client has sent ahead of time
/// are noticed.
const READ_BYTES: u64 = 1024;

/// The answer to a request for encryption that is not available.
const NO_ENCRYPTION: &[u8] = b"N";

/// The alert of a TLS server that has a problem of its own: fatal, `internal_error` (RFC 8446, 6.2).
const TLS_INTERNAL_ERROR: &[u8] = &[0x15, 3, 3, 0, 2, 2, 80];

/// The time limit for sending an error to a client.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection of a client, and the bytes that were read ahead.
#[derive(Debug)]
pub struct Client {
    /// The connection.
    pub stream: TcpStream,
    /// Bytes that were read and belong to the next packet.
    pub ahead: Vec<u8>,
    /// It has requested TLS.
    pub asked_for_tls: bool,
    /// It has requested GSS encryption.
    pub asked_for_gss: bool,
}

/// A request of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientRequest {
    /// A login with this startup packet.
    Login(Vec<u8>),
    /// SSLRequest: does the server support TLS?
    Tls,
    /// TLS from the first byte; the ClientHello is in `ahead`.
    DirectTls,
    /// A cancel request for another connection.
    Cancel(CancelKey),
}

/// Why a client has sent no request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It has disconnected.
    #[error("the client is gone: {0}")]
    Gone(#[from] io::Error),
    /// Its bytes are not of the PostgreSQL protocol.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// It has requested encryption twice, or has sent more before the answer.
    #[error("the client sent data before the answer to its request for encryption")]
    Impatient,
}

impl Client {
    /// A client that has just connected.
    pub fn new(stream: TcpStream) -> Client {
        Client { stream, ahead: Vec::new(), asked_for_tls: false, asked_for_gss: false }
    }

    /// Reads the next request.
    ///
    /// # Errors
    /// The client has disconnected or has violated the protocol.
    pub async fn request(&mut self) -> Result<ClientRequest, ClientError> {
        loop {
            match first(&self.ahead)? {
                First::Incomplete(_) => self.read_more().await?,
                First::DirectTls => return Ok(ClientRequest::DirectTls),
                First::Cancel { key, .. } => return Ok(ClientRequest::Cancel(key)),
                First::Startup { len } => {
                    let rest = self.ahead.split_off(len);
                    return Ok(ClientRequest::Login(std::mem::replace(&mut self.ahead, rest)));
                }
                First::SslRequest => {
                    let asked_before = std::mem::replace(&mut self.asked_for_tls, true);
                    self.handle_encryption_request(asked_before)?;
                    return Ok(ClientRequest::Tls);
                }
                First::GssEncRequest => {
                    let asked_before = std::mem::replace(&mut self.asked_for_gss, true);
                    self.handle_encryption_request(asked_before)?;
                    self.stream.write_all(NO_ENCRYPTION).await?;
                }
            }
        }
    }

    /// Reads the first record of the client's TLS handshake into `ahead`.
    ///
    /// # Errors
    /// The client has disconnected.
    pub async fn read_hello(&mut self) -> Result<(), ClientError> {
        while !is_whole_hello(&self.ahead) {
            self.read_more().await?;
        }
        Ok(())
    }

    /// Sends the answer that TLS is not available.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn deny_tls(&mut self) -> io::Result<()> {
        self.stream.write_all(NO_ENCRYPTION).await
    }

    /// Sends an error and closes the sending side. Gives up after [`REFUSAL_TIMEOUT`].
    pub async fn refuse(&mut self, fields: &ErrorFields<'_>) {
        self.send_refusal(&fields.to_fatal()).await;
    }

    /// Same as [`Client::refuse`], with the bytes of an ErrorResponse.
    pub async fn send_refusal(&mut self, message: &[u8]) {
        let sent = async {
            self.stream.write_all(message).await?;
            self.stream.shutdown().await
        };
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, sent).await;
    }

    /// Refuses a client that has begun TLS without a request. Its bytes are read first: closing a socket
    /// with unread bytes resets the connection, and the alert may be lost.
    pub async fn refuse_tls(&mut self) {
        let mut unread = [0; 4096];
        // A ClientHello has 16 KB at most.
        for _ in 0..4 {
            if !matches!(self.stream.try_read(&mut unread), Ok(1..)) {
                break;
            }
        }
        self.send_refusal(TLS_INTERNAL_ERROR).await;
    }

    /// Waits until the client has disconnected. Bytes that it sends meanwhile stay unread.
    pub async fn gone(&self) {
        /// Unread bytes hide the end of the connection, so it is checked again at this interval.
        const CHECK_INTERVAL: Duration = Duration::from_millis(500);
        loop {
            match self.stream.ready(Interest::READABLE).await {
                Ok(ready) if ready.is_read_closed() || ready.is_error() => return,
                Ok(_) => match self.stream.peek(&mut [0; 1]).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => tokio::time::sleep(CHECK_INTERVAL).await,
                },
                Err(_) => return,
            }
        }
    }

    fn handle_encryption_request(&mut self, asked_before: bool) -> Result<(), ClientError> {
        const REQUEST_BYTES: usize = 8;
        // Bytes behind the request were sent before the answer. An attacker may have injected them
        // (CVE-2021-23214).
        if asked_before || self.ahead.len() > REQUEST_BYTES {
            return Err(ClientError::Impatient);
        }
        self.ahead.clear();
        Ok(())
    }

    /// Reads at least one byte.
    async fn read_more(&mut self) -> io::Result<()> {
        let mut limited = (&mut self.stream).take(READ_BYTES);
        match limited.read_buf(&mut self.ahead).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
