//! The client's side of a session up to the point where bytes flow freely.

use std::io;
use std::time::Duration;

use pgsteer_wire::error::ErrorFields;
use pgsteer_wire::startup::{CancelKey, First, StartupError, first, is_whole_hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

/// One read takes at most this much before the first packet is whole: most packets fit, and
/// what somebody says ahead of time shows.
const READ_BYTES: u64 = 1024;

/// What a client is answered that asks for encryption that is not to be had.
const NO_ENCRYPTION: &[u8] = b"N";

/// The alert of a TLS server that has a problem of its own: fatal, `internal_error` (RFC 8446, 6.2).
const TLS_INTERNAL_ERROR: &[u8] = &[0x15, 3, 3, 0, 2, 2, 80];

/// How long a client may take to read its refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A client connection and what was read of it ahead.
#[derive(Debug)]
pub struct Client {
    /// The connection.
    pub stream: TcpStream,
    /// Bytes that were read and belong to what comes next.
    pub ahead: Vec<u8>,
    asked_for_tls: bool,
    asked_for_gss: bool,
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// To log in, with this startup packet.
    Login(Vec<u8>),
    /// To know whether the server does TLS.
    Tls,
    /// TLS at once; its hello is in `ahead`.
    DirectTls,
    /// To cancel a query of another connection.
    Cancel(CancelKey),
}

/// Why nothing comes of a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It went away, or it broke.
    #[error("the client is gone: {0}")]
    Gone(#[from] io::Error),
    /// What it says is no PostgreSQL.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// It asks for encryption again and again, or talks before it has the answer.
    #[error("the client does not wait for the answer to its request for encryption")]
    Impatient,
}

impl Client {
    /// A client that has just connected.
    pub fn new(stream: TcpStream) -> Client {
        Client { stream, ahead: Vec::new(), asked_for_tls: false, asked_for_gss: false }
    }

    /// Reads until it is clear what the client wants.
    pub async fn wish(&mut self) -> Result<Wish, ClientError> {
        loop {
            match first(&self.ahead)? {
                First::Incomplete(_) => self.read_more().await?,
                First::DirectTls => return Ok(Wish::DirectTls),
                First::Cancel { key, .. } => return Ok(Wish::Cancel(key)),
                First::Startup { len } => {
                    let rest = self.ahead.split_off(len);
                    return Ok(Wish::Login(std::mem::replace(&mut self.ahead, rest)));
                }
                First::SslRequest => {
                    let asked_before = std::mem::replace(&mut self.asked_for_tls, true);
                    self.take_request(asked_before)?;
                    return Ok(Wish::Tls);
                }
                First::GssEncRequest => {
                    let asked_before = std::mem::replace(&mut self.asked_for_gss, true);
                    self.take_request(asked_before)?;
                    self.stream.write_all(NO_ENCRYPTION).await?;
                }
            }
        }
    }

    /// Reads the client's TLS hello into `ahead`, as far as its first record goes.
    pub async fn hello(&mut self) -> Result<(), ClientError> {
        while !is_whole_hello(&self.ahead) {
            self.read_more().await?;
        }
        Ok(())
    }

    /// Tells the client that TLS is not to be had here.
    pub async fn deny_tls(&mut self) -> io::Result<()> {
        self.stream.write_all(NO_ENCRYPTION).await
    }

    /// Tells the client why nothing comes of it. One that does not read it is left alone.
    pub async fn refuse(&mut self, fields: &ErrorFields<'_>) {
        self.pass_on_refusal(&fields.to_fatal()).await;
    }

    /// The same, in the words of a server.
    pub async fn pass_on_refusal(&mut self, message: &[u8]) {
        let told = async {
            self.stream.write_all(message).await?;
            self.stream.shutdown().await
        };
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, told).await;
    }

    /// Refuses a client that has started TLS without asking. What it has sent is taken out first: a
    /// socket that is closed with bytes unread resets the connection, and the alert may be lost.
    pub async fn refuse_tls(&mut self) {
        let mut unread = [0; 4096];
        // A ClientHello has 16 KB at most.
        for _ in 0..4 {
            if !matches!(self.stream.try_read(&mut unread), Ok(1..)) {
                break;
            }
        }
        self.pass_on_refusal(TLS_INTERNAL_ERROR).await;
    }

    /// Waits until the client has gone away. What it says meanwhile is left unread.
    pub async fn gone(&self) {
        /// A client that talks while it is parked hides its end behind its bytes: look again.
        const LOOK_AGAIN: Duration = Duration::from_millis(500);
        loop {
            match self.stream.ready(Interest::READABLE).await {
                Ok(ready) if ready.is_read_closed() || ready.is_error() => return,
                Ok(_) => match self.stream.peek(&mut [0; 1]).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
                },
                Err(_) => return,
            }
        }
    }

    fn take_request(&mut self, asked_before: bool) -> Result<(), ClientError> {
        const REQUEST_BYTES: usize = 8;
        // Bytes behind the request were sent before its answer: somebody may have put them there.
        if asked_before || self.ahead.len() > REQUEST_BYTES {
            return Err(ClientError::Impatient);
        }
        self.ahead.clear();
        Ok(())
    }

    /// Reads what is there, at least one byte.
    async fn read_more(&mut self) -> io::Result<()> {
        let mut limited = (&mut self.stream).take(READ_BYTES);
        match limited.read_buf(&mut self.ahead).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
