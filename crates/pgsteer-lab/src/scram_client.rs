//! A small PostgreSQL client: SCRAM login and single statements on tokio, so that hundreds can wait
//! at once.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{self, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::member::APP;

/// A PostgreSQL session of the application's user.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: BytesMut,
}

/// Why a request of a client failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The connection failed: no listener, or no route.
    Refused,
    /// The other side closed the connection without an error message.
    Closed,
    /// The server or the proxy answered with this SQLSTATE.
    Sqlstate(String),
    /// The answer is not valid in the protocol.
    Malformed,
}

/// The values of the first row of an answer.
pub type Row = Vec<Option<String>>;

impl Client {
    /// Connects and logs in as the application, to its database.
    pub async fn login(addr: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(addr).await.map_err(|_| Failure::Refused)?;
        stream.set_nodelay(true).map_err(closed)?;
        let mut client = Self { stream, buffer: BytesMut::with_capacity(1024) };
        let mut startup = BytesMut::new();
        frontend::startup_message([("user", APP), ("database", APP)], &mut startup)
            .map_err(malformed)?;
        client.send(&startup).await?;
        client.authenticate().await?;
        client.until_ready().await?;
        Ok(client)
    }

    /// Runs one statement and returns the first row of its answer.
    pub async fn ask(&mut self, sql: &str) -> Result<Row, Failure> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message).map_err(malformed)?;
        self.send(&message).await?;
        self.until_ready().await
    }

    /// Waits until the other side ends the session.
    pub async fn ended(&mut self) -> Failure {
        loop {
            match self.next().await {
                Ok(Message::ErrorResponse(body)) => return refusal(&body),
                Ok(_) => {}
                Err(failure) => return failure,
            }
        }
    }

    /// Sends Terminate before it closes.
    pub async fn leave(mut self) {
        let mut message = BytesMut::new();
        frontend::terminate(&mut message);
        // The server may already be gone.
        let _ = self.send(&message).await;
    }

    async fn authenticate(&mut self) -> Result<(), Failure> {
        let mut scram = ScramSha256::new(APP.as_bytes(), ChannelBinding::unsupported());
        loop {
            let mut reply = BytesMut::new();
            match self.next().await? {
                Message::AuthenticationSasl(_) => {
                    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut reply)
                        .map_err(malformed)?;
                }
                Message::AuthenticationSaslContinue(body) => {
                    scram.update(body.data()).map_err(malformed)?;
                    frontend::sasl_response(scram.message(), &mut reply).map_err(malformed)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    scram.finish(body.data()).map_err(malformed)?;
                }
                Message::AuthenticationOk => return Ok(()),
                Message::ErrorResponse(body) => return Err(refusal(&body)),
                _ => return Err(Failure::Malformed),
            }
            self.send(&reply).await?;
        }
    }

    async fn until_ready(&mut self) -> Result<Row, Failure> {
        let mut row = None;
        let mut refused = None;
        loop {
            match self.next().await {
                Ok(Message::DataRow(body)) if row.is_none() => row = Some(values(&body)?),
                Ok(Message::ErrorResponse(body)) => refused = Some(refusal(&body)),
                Ok(Message::ReadyForQuery(_)) => {
                    return refused.map_or(Ok(row.unwrap_or_default()), Err);
                }
                Ok(_) => {}
                // The end of the stream follows a FATAL error.
                Err(failure) => return Err(refused.unwrap_or(failure)),
            }
        }
    }

    async fn next(&mut self) -> Result<Message, Failure> {
        loop {
            if let Some(message) = Message::parse(&mut self.buffer).map_err(malformed)? {
                return Ok(message);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(Failure::Closed),
                Ok(_) => {}
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).await.map_err(closed)
    }
}

impl Failure {
    /// The failure as a short label for the tables.
    pub fn label(&self) -> String {
        match self {
            Self::Refused => "refused".to_owned(),
            Self::Closed => "closed".to_owned(),
            Self::Sqlstate(code) => code.clone(),
            Self::Malformed => "malformed".to_owned(),
        }
    }
}

fn values(body: &backend::DataRowBody) -> Result<Row, Failure> {
    let buffer = body.buffer();
    let text = |range: Option<std::ops::Range<usize>>| {
        range.map(|range| String::from_utf8_lossy(&buffer[range]).into_owned())
    };
    body.ranges().map(|range| Ok(text(range))).collect().map_err(malformed)
}

fn refusal(body: &ErrorResponseBody) -> Failure {
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        if field.type_() == b'C' {
            return Failure::Sqlstate(String::from_utf8_lossy(field.value_bytes()).into_owned());
        }
    }
    Failure::Malformed
}

fn closed(_: io::Error) -> Failure {
    Failure::Closed
}

fn malformed(_: io::Error) -> Failure {
    Failure::Malformed
}
