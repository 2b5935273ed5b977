//! The tether's side of the protocol: sends and receives whole messages, all bounded.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use pgsteer_core::claim::{Failure, Speaker};
use pgsteer_core::text::clean;
use pgsteer_wire::error::sqlstate;
use pgsteer_wire::excerpt::excerpt;
use postgres_protocol::message::backend::{ErrorResponseBody, Header, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::sources::dial::{self, Transport};

/// The maximum size of one message in bytes. The answers to the tether's queries have less than a
/// hundred.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The minimum length that four bytes of text yield when they are read as a length. It
/// distinguishes a protocol that greets in text, as HTTP and SSH do, from a message that is only
/// large.
const TEXT_LENGTH_MIN: i32 = 0x2020_2020;

/// A connection that speaks PostgreSQL's protocol.
pub struct Connection {
    transport: Box<dyn Transport>,
    peer: Arc<str>,
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl Connection {
    /// The connection to `peer` over `transport`.
    pub fn new(transport: Box<dyn Transport>, peer: Arc<str>) -> Connection {
        Connection { transport, peer, incoming: BytesMut::new(), outgoing: BytesMut::new() }
    }

    /// Sends the messages that `build` writes.
    pub async fn send(
        &mut self,
        build: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), Failure> {
        self.outgoing.clear();
        build(&mut self.outgoing).map_err(|err| self.nonsense(&err.to_string()))?;
        let written = async {
            self.transport.write_all(&self.outgoing).await?;
            self.transport.flush().await
        };
        let written = written.await;
        written.map_err(|err| dial::failure(&err, &self.peer))
    }

    /// Returns the next message of any kind. Cancel safe.
    pub async fn receive(&mut self) -> Result<Message, Failure> {
        loop {
            if let Some(message) = self.parse()? {
                return Ok(message);
            }
            let read = self.transport.read_buf(&mut self.incoming).await;
            match read {
                Ok(0) => return Err(Failure::Closed(self.peer.clone())),
                Ok(_) => {}
                Err(err) => return Err(dial::failure(&err, &self.peer)),
            }
        }
    }

    /// Same as [`Connection::receive`]. If no message has arrived by `late`, sends the end of a
    /// line, because an HTTP server waits for it before it answers.
    pub async fn receive_or_end_line(&mut self, late: Instant) -> Result<Message, Failure> {
        if let Ok(received) = timeout_at(late, self.receive()).await {
            return received;
        }
        let written = self.transport.write_all(END_OF_LINE).await;
        written.map_err(|err| dial::failure(&err, &self.peer))?;
        self.receive().await
    }

    /// Sends Terminate and closes. Without Terminate the server would log a line.
    pub async fn close(mut self) {
        let goodbye = self.send(|buf| {
            postgres_protocol::message::frontend::terminate(buf);
            Ok(())
        });
        // Errors are ignored, because the connection is closed anyway.
        let _ = goodbye.await;
    }

    /// The server's address, as `HOST:PORT`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Converts an ErrorResponse of the peer to a failure.
    pub fn refused(&self, body: &ErrorResponseBody) -> Failure {
        self.failed(Refusal::of(body))
    }

    /// Converts a refusal of the peer to a failure.
    pub fn failed(&self, refusal: Refusal) -> Failure {
        refusal.of_server(self.peer.clone())
    }

    /// The failure for a peer that answers, but violates PostgreSQL's protocol.
    pub fn nonsense(&self, how: &str) -> Failure {
        nonsense(&self.peer, how)
    }

    fn parse(&mut self) -> Result<Option<Message>, Failure> {
        let header = Header::parse(&self.incoming);
        let Some(header) = header.map_err(|err| self.garbage(&err))? else {
            return Ok(None);
        };
        if header.len() >= TEXT_LENGTH_MIN {
            return Err(self.garbage(&"not a message of the PostgreSQL protocol"));
        }
        if usize::try_from(header.len()).map_or(true, |len| len > MESSAGE_BYTES_MAX) {
            let peer = self.peer.clone();
            return Err(Failure::TooLarge { peer, bytes_max: MESSAGE_BYTES_MAX });
        }
        let message = Message::parse(&mut self.incoming);
        message.map_err(|err| self.nonsense(&err.to_string()))
    }

    fn garbage(&self, err: &dyn fmt::Display) -> Failure {
        if is_http(&self.incoming) {
            return http(&self.peer);
        }
        self.nonsense(&format!("{err}, `{}`", excerpt(&self.incoming)))
    }
}

/// The end of an HTTP request line. An HTTP server waits for it before it answers an invalid
/// request.
pub const END_OF_LINE: &[u8] = b"\r\n\r\n";

/// Returns true if `bytes` are the beginning of an HTTP answer. For HTTP 0.9, which Python's server
/// uses to answer an invalid request, that is the page itself.
pub fn is_http(bytes: &[u8]) -> bool {
    bytes.starts_with(b"H") || bytes.starts_with(b"<")
}

/// The failure for a `peer` that is an HTTP server.
pub fn http(peer: &Arc<str>) -> Failure {
    Failure::Malformed(Arc::from(format!(
        "{peer} answers as an HTTP server: give the port of PostgreSQL or PgBouncer there, not that of \
         Patroni's REST API"
    )))
}

/// The failure for a `peer` that answers, but violates PostgreSQL's protocol.
pub fn nonsense(peer: &Arc<str>, how: &str) -> Failure {
    Failure::Malformed(Arc::from(format!("{peer} answers, but not as PostgreSQL does: {how}")))
}

/// The content of an ErrorResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE; empty if the server sends none.
    sqlstate: String,
    message: String,
    /// The server ends the session.
    pub is_fatal: bool,
}

impl Refusal {
    /// Reads an ErrorResponse (PostgreSQL documentation, "Error and Notice Message Fields").
    pub fn of(body: &ErrorResponseBody) -> Refusal {
        let mut refusal =
            Refusal { sqlstate: String::new(), message: String::new(), is_fatal: false };
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            let text = String::from_utf8_lossy(field.value_bytes());
            match field.type_() {
                // `V` is never translated; servers send it since 9.6.
                b'V' => refusal.is_fatal = matches!(&*text, "FATAL" | "PANIC"),
                b'C' => refusal.sqlstate = clean(&text).into_owned(),
                b'M' => refusal.message = clean(&text).into_owned(),
                _ => {}
            }
        }
        refusal
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)
    }
}

impl Refusal {
    /// Converts it to the failure of the server at `HOST:PORT`.
    pub fn of_server(self, at: Arc<str>) -> Failure {
        let by = Speaker::postgres(at);
        let state = Arc::from(self.sqlstate);
        let message = Arc::from(self.message);
        match &*state {
            sqlstate::ADMIN_SHUTDOWN | sqlstate::CRASH_SHUTDOWN | sqlstate::CANNOT_CONNECT_NOW => {
                Failure::Unavailable { by, sqlstate: state, message }
            }
            _ => Failure::LoginRefused { by, sqlstate: state, message },
        }
    }
}
