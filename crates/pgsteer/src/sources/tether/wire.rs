//! The tether's side of the wire: whole messages out, whole messages in, all of it bounded.

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

/// The most bytes of one message. What the tether asks for has less than a hundred.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The least length that four bytes of text make when they are read as one. A protocol that
/// greets in text, as HTTP and SSH do, is told from a message that is merely large by that.
const TEXT_LENGTH_MIN: i32 = 0x2020_2020;

/// A connection on which both sides speak PostgreSQL's protocol.
pub struct Connection {
    transport: Box<dyn Transport>,
    peer: Arc<str>,
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl Connection {
    /// The connection over `transport` to `peer`.
    pub fn new(transport: Box<dyn Transport>, peer: Arc<str>) -> Connection {
        Connection { transport, peer, incoming: BytesMut::new(), outgoing: BytesMut::new() }
    }

    /// Sends what `build` writes.
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

    /// The next message, whatever it is. Losing the race of a `select!` loses nothing.
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

    /// The next message, as [`Connection::receive`]. If none has come by `late`, a server for HTTP is
    /// made to answer, which would wait for the end of a line.
    pub async fn receive_or_end_line(&mut self, late: Instant) -> Result<Message, Failure> {
        if let Ok(received) = timeout_at(late, self.receive()).await {
            return received;
        }
        let written = self.transport.write_all(END_OF_LINE).await;
        written.map_err(|err| dial::failure(&err, &self.peer))?;
        self.receive().await
    }

    /// Says goodbye. The server would notice anyway; this spares it a line in its log.
    pub async fn close(mut self) {
        let goodbye = self.send(|buf| {
            postgres_protocol::message::frontend::terminate(buf);
            Ok(())
        });
        // Whether it was heard makes no difference any more.
        let _ = goodbye.await;
    }

    /// Who is at the other end, as `HOST:PORT`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The failure that an ErrorResponse of the peer is.
    pub fn refused(&self, body: &ErrorResponseBody) -> Failure {
        self.failed(Refusal::of(body))
    }

    /// The failure that a refusal of the peer is.
    pub fn failed(&self, refusal: Refusal) -> Failure {
        refusal.of_server(self.peer.clone())
    }

    /// The peer answers, but not as PostgreSQL does.
    pub fn nonsense(&self, how: &str) -> Failure {
        nonsense(&self.peer, how)
    }

    fn parse(&mut self) -> Result<Option<Message>, Failure> {
        let header = Header::parse(&self.incoming);
        let Some(header) = header.map_err(|err| self.garbage(&err))? else {
            return Ok(None);
        };
        if header.len() >= TEXT_LENGTH_MIN {
            return Err(self.garbage(&"no message of PostgreSQL"));
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

/// Ends a line of HTTP. A server for HTTP waits for it before it answers what is no request.
pub const END_OF_LINE: &[u8] = b"\r\n\r\n";

/// `bytes` are the beginning of an answer of HTTP; of the old 0.9, as Python's server sends it to
/// what is no request, the page itself.
pub fn is_http(bytes: &[u8]) -> bool {
    bytes.starts_with(b"H") || bytes.starts_with(b"<")
}

/// `peer` is a server for HTTP.
pub fn http(peer: &Arc<str>) -> Failure {
    Failure::Malformed(Arc::from(format!(
        "{peer} answers as an HTTP server: give the port of PostgreSQL or PgBouncer there, not that of \
         Patroni's REST API"
    )))
}

/// `peer` answers, but not as PostgreSQL does.
pub fn nonsense(peer: &Arc<str>, how: &str) -> Failure {
    Failure::Malformed(Arc::from(format!("{peer} answers, but not as PostgreSQL does: {how}")))
}

/// What an ErrorResponse says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE; empty if the server tells none.
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
                // `V` is never translated; it is sent since 9.6.
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
    /// The failure that it is, of the server at `HOST:PORT`.
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
