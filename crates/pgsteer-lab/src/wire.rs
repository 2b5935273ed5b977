//! A very small PostgreSQL client: login without a password, simple queries, and the Sync whose
//! answer contains the role.
//!
//! Every call has a deadline, the login too, because the lab connects to frozen and unplugged
//! members.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::{backend, frontend};

/// The rows of a query. Every value is text as PostgreSQL prints it.
pub type Rows = Vec<Vec<Option<String>>>;

/// A logged-in session.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    buffer: BytesMut,
    in_hot_standby: bool,
    read_only: bool,
    cancel_key: [i32; 2],
}

impl Session {
    /// Connects and logs in. A server that does not answer causes an error of kind `TimedOut`.
    pub fn connect(
        addr: SocketAddr,
        user: &str,
        database: &str,
        limit: Duration,
    ) -> io::Result<Self> {
        Self::connect_within(addr, user, database, limit, limit)
    }

    /// Same as [`Session::connect`] with separate limits for the TCP connection and the login.
    pub fn connect_within(
        addr: SocketAddr,
        user: &str,
        database: &str,
        connect_limit: Duration,
        login_limit: Duration,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, connect_limit)?;
        let deadline = Instant::now() + login_limit;
        stream.set_nodelay(true)?;
        let mut session = Self {
            stream,
            buffer: BytesMut::with_capacity(4096),
            in_hot_standby: false,
            read_only: false,
            cancel_key: [0; 2],
        };
        let parameters =
            [("user", user), ("database", database), ("application_name", "pgsteer-lab")];
        let mut message = BytesMut::new();
        frontend::startup_message(parameters, &mut message)?;
        session.stream.write_all(&message)?;
        session.read_until_ready(deadline)?;
        Ok(session)
    }

    /// Runs one or more statements as one simple query. Returns the rows of all statements in one
    /// list.
    pub fn query(&mut self, sql: &str, limit: Duration) -> io::Result<Rows> {
        let deadline = Instant::now() + limit;
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message)?;
        self.stream.write_all(&message)?;
        self.read_until_ready(deadline)
    }

    /// Returns whether the server takes writes now. This is the cheapest probe: five bytes, and
    /// PostgreSQL sends `in_hot_standby` before the answer if it has changed.
    pub fn ask_writable(&mut self, limit: Duration) -> io::Result<bool> {
        let mut message = BytesMut::new();
        frontend::sync(&mut message);
        self.stream.write_all(&message)?;
        self.await_ready(limit)
    }

    /// Waits again for an answer that did not arrive before the limit of an earlier call.
    pub fn await_ready(&mut self, limit: Duration) -> io::Result<bool> {
        self.read_until_ready(Instant::now() + limit)?;
        Ok(self.is_writable())
    }

    /// Returns the state in the last answer.
    pub fn is_writable(&self) -> bool {
        !self.in_hot_standby && !self.read_only
    }

    /// The process id and the secret key for a cancel request.
    pub fn cancel_key(&self) -> [i32; 2] {
        self.cancel_key
    }

    /// Sends a cancel request to `addr` for the running query of the session with this key.
    pub fn cancel(addr: SocketAddr, [process_id, secret]: [i32; 2]) -> io::Result<()> {
        let mut stream = TcpStream::connect(addr)?;
        let mut message = BytesMut::new();
        frontend::cancel_request(process_id, secret, &mut message);
        stream.write_all(&message)?;
        // The server closes the connection after it has handled the request.
        stream.read(&mut [0; 1]).map(drop)
    }

    fn read_until_ready(&mut self, deadline: Instant) -> io::Result<Rows> {
        let mut rows = Rows::new();
        let mut refusal = None;
        loop {
            while let Some(message) = backend::Message::parse(&mut self.buffer)? {
                match message {
                    backend::Message::ReadyForQuery(_) => return refusal.map_or(Ok(rows), Err),
                    backend::Message::ParameterStatus(body) => {
                        self.note(body.name()?, body.value()?)
                    }
                    backend::Message::BackendKeyData(body) => {
                        self.cancel_key = [body.process_id(), body.secret_key()];
                    }
                    backend::Message::DataRow(body) => rows.push(values(&body)?),
                    backend::Message::ErrorResponse(body) => refusal = Some(server_error(&body)?),
                    backend::Message::AuthenticationCleartextPassword
                    | backend::Message::AuthenticationMd5Password(_)
                    | backend::Message::AuthenticationSasl(_) => {
                        return Err(io::Error::other("the server asks for a password"));
                    }
                    _ => {}
                }
            }
            // The end of the stream follows a FATAL error, without a ReadyForQuery.
            match self.read_more(deadline) {
                Ok(()) => {}
                Err(error) => return Err(refusal.unwrap_or(error)),
            }
        }
    }

    fn note(&mut self, name: &str, value: &str) {
        match name {
            "in_hot_standby" => self.in_hot_standby = value == "on",
            "default_transaction_read_only" => self.read_only = value == "on",
            _ => {}
        }
    }

    fn read_more(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            // Linux reports the timeout of a socket as WouldBlock.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(error) => Err(error),
        }
    }
}

fn values(body: &backend::DataRowBody) -> io::Result<Vec<Option<String>>> {
    let buffer = body.buffer();
    body.ranges()
        .map(|range| Ok(range.map(|range| String::from_utf8_lossy(&buffer[range]).into_owned())))
        .collect()
}

fn server_error(body: &backend::ErrorResponseBody) -> io::Result<io::Error> {
    let mut code = String::new();
    let mut text = String::new();
    let mut fields = body.fields();
    while let Some(field) = fields.next()? {
        let value = String::from_utf8_lossy(field.value_bytes());
        match field.type_() {
            b'C' => code = value.into_owned(),
            b'M' => text = value.into_owned(),
            _ => {}
        }
    }
    Ok(io::Error::other(format!("{code}: {text}")))
}
