//! One bounded HTTP request: connect, send, read the whole answer, close. Or, for a watch, a
//! streamed answer that is read line by line.
//!
//! Patroni speaks HTTP/1.0 and closes after each answer (Python's `BaseHTTPRequestHandler`), so
//! there is no connection to keep. Requests to etcd are rare.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, StatusCode, Version};
use pgsteer_core::claim::Failure;
use pgsteer_core::names::Endpoint;
use pgsteer_core::settings::Verify;
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dial::{self, Transport};
use super::prompt::Prompt;
use super::{Gone, Task};
use crate::base::{Base, strange};
use crate::by_name::ByName;
use crate::exchange::{self, Answer, Unanswered, exchange, whole};
use crate::tls::{self, Trust};

/// The maximum size of an answer's body in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The maximum size of one line of a streamed answer in bytes.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The kernel detects a host that went down without closing its connections within the sum of
/// these.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;

/// The time limit for the check of a server that closed the connection without an answer.
const LOOK_LIMIT: Duration = Duration::from_millis(250);

/// The maximum time that the request for a member's role waits for another request to the same
/// Patroni.
pub const TURN_WAIT: Duration = Duration::from_millis(200);

/// The certificates that are trusted unless files are configured.
const SYSTEM: Trust<'static> = Trust { verify: Verify::Full, ca_file: None };

/// Sends requests with a time limit.
#[derive(Clone)]
pub struct Client {
    limit: Duration,
    /// The time limit for a connection, and for the acknowledgement of sent data. It distinguishes
    /// a host that is down from a server that is slow to answer.
    connect_limit: Duration,
    /// The TLS configuration. It is built at the start from the configured files. Without files it
    /// is built from the system's trust store at the first request to an `https` address, because
    /// reading the store costs time and memory.
    tls: OnceLock<Result<Arc<ClientConfig>, Arc<str>>>,
    /// One lock for each endpoint, held while a request by [`Client::get`] is under way there.
    /// Patroni answers with five threads, and several pgsteers may send it requests.
    turns: Arc<ByName<Endpoint, Turn>>,
}

type Turn = tokio::sync::Mutex<()>;

/// The answer to a request for a stream.
pub enum Following {
    /// The stream.
    Lines(Lines),
    /// The server refused the request.
    Refused {
        /// The status, not 200.
        status: StatusCode,
        /// The body.
        body: Bytes,
    },
}

/// A streamed answer, read line by line.
pub struct Lines {
    body: Incoming,
    unread: BytesMut,
    /// How many bytes of it are known to contain no line end.
    looked_at: usize,
    base: Base,
    /// Drives the connection. Dropped together with the stream.
    _connection: Task,
}

impl Lines {
    /// Waits for the next line, without a time limit. Cancel safe.
    ///
    /// # Errors
    /// The connection failed, the answer has ended, or the line is too long.
    pub async fn next(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(line);
            }
            if self.unread.len() > LINE_BYTES_MAX {
                let peer = self.base.url().clone();
                return Err(Failure::TooLarge { peer, bytes_max: LINE_BYTES_MAX });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.unread.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()))
                }
                Some(Err(err)) => return Err(failure(&err, &self.base)),
                None => return Err(Failure::Closed(self.base.url().clone())),
            }
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let found = self.unread[self.looked_at..].iter().position(|byte| *byte == b'\n');
        let Some(end) = found.map(|at| self.looked_at + at) else {
            self.looked_at = self.unread.len();
            return None;
        };
        self.looked_at = 0;
        // Does not copy the rest, so that many short lines take no longer than one long line.
        Some(self.unread.split_to(end + 1).to_vec())
    }
}

impl Client {
    /// A client whose answers have to be complete within `limit`. `tls` is the TLS configuration
    /// from the configured files; without it the system's trust store is used.
    pub fn new(limit: Duration, tls: Option<Arc<ClientConfig>>) -> Client {
        let cell = OnceLock::new();
        if let Some(config) = tls {
            // A new cell is empty, so this cannot fail.
            let _ = cell.set(Ok(config));
        }
        Client { limit, connect_limit: limit, tls: cell, turns: Arc::default() }
    }

    /// The same client with a shorter limit for the connection.
    pub fn with_connect_limit(self, connect_limit: Duration) -> Client {
        Client { connect_limit, ..self }
    }

    /// The time after which a request counts as late.
    pub fn late_after(&self) -> Duration {
        self.connect_limit
    }

    /// Requests `path` below `base`. `known` are the addresses of its host if a lookup has already
    /// found them. Otherwise the host is looked up here, and the limit does not include the lookup.
    ///
    /// Waits for another request to the same endpoint, [`TURN_WAIT`] at most: a member list that
    /// hangs with its DCS must not delay the request for the role.
    pub async fn get(&self, base: &Base, known: &[IpAddr], path: &str) -> Result<Answer, Failure> {
        self.get_in_turn(base, known, path, TURN_WAIT).await
    }

    /// Same as [`Client::get`], for a request that is not urgent: waits until the other request
    /// ends.
    pub async fn get_at_leisure(&self, base: &Base, path: &str) -> Result<Answer, Failure> {
        self.get_in_turn(base, &[], path, self.limit).await
    }

    async fn get_in_turn(
        &self,
        base: &Base,
        known: &[IpAddr],
        path: &str,
        wait: Duration,
    ) -> Result<Answer, Failure> {
        let turn = self.turns.of(base.endpoint());
        let _turn = tokio::time::timeout(wait, turn.lock()).await;
        let request = Request::get(base.path_to(path)).version(Version::HTTP_10);
        let request = request.body(Full::default());
        let addresses = addresses(base, known).await?;
        self.within_limit(base, self.exchange(base, &addresses, request)).await
    }

    /// Same as [`Client::get`]. If the server closes the connection without an answer, checks
    /// whether it speaks PostgreSQL's protocol: the two ports of a member are easily confused.
    pub async fn get_or_name(
        &self,
        base: &Base,
        known: &[IpAddr],
        path: &str,
    ) -> Result<Answer, Failure> {
        let answer = self.get(base, known, path).await;
        self.named(base, known, answer).await
    }

    /// Same as [`Client::get_or_name`], for a request that is not urgent.
    pub async fn get_or_name_at_leisure(&self, base: &Base, path: &str) -> Result<Answer, Failure> {
        let answer = self.get_at_leisure(base, path).await;
        self.named(base, &[], answer).await
    }

    async fn named(
        &self,
        base: &Base,
        known: &[IpAddr],
        answer: Result<Answer, Failure>,
    ) -> Result<Answer, Failure> {
        let failure = match answer {
            Err(failure @ Failure::Closed(_)) => failure,
            other => return other,
        };
        let limit = self.connect_limit.min(LOOK_LIMIT);
        let looking = async {
            let addresses = addresses(base, known).await.ok()?;
            let port = base.endpoint().port();
            let stream = dial::connect(&addresses, port, base.url(), limit).await.ok()?;
            speaks_postgresql(stream).await.ok()
        };
        match tokio::time::timeout(limit, looking).await {
            Ok(Some(true)) => Err(Failure::Malformed(Arc::from(format!(
                "{} answers as PostgreSQL or PgBouncer: give the port of Patroni's REST API there \
                 (8008 unless it was changed)",
                base.url()
            )))),
            Ok(_) | Err(_) => Err(failure),
        }
    }

    /// Posts a request as JSON to `path` below `base`. `token` authenticates it.
    pub async fn post(
        &self,
        base: &Base,
        path: &str,
        question: String,
        token: Option<&str>,
    ) -> Result<Answer, Failure> {
        let request = posted(base, path, question, token);
        let addresses = addresses(base, &[]).await?;
        self.within_limit(base, self.exchange(base, &addresses, request)).await
    }

    /// Same as [`Client::post`], for an answer that is streamed while the connection lives.
    pub async fn follow(
        &self,
        base: &Base,
        path: &str,
        question: String,
        token: Option<&str>,
    ) -> Result<Following, Failure> {
        let request = posted(base, path, question, token);
        let addresses = addresses(base, &[]).await?;
        self.within_limit(base, self.begin_to_follow(base, &addresses, request)).await
    }

    async fn within_limit<T>(
        &self,
        base: &Base,
        answering: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.limit, answering).await {
            Ok(answer) => answer,
            Err(_) => Err(dial::timed_out(base.url(), self.limit)),
        }
    }

    async fn exchange(
        &self,
        base: &Base,
        addresses: &[IpAddr],
        request: hyper::http::Result<Request<Full<Bytes>>>,
    ) -> Result<Answer, Failure> {
        let request = addressed(request, base)?;
        let transport = self.open(base, addresses).await?;
        let answer = exchange(transport, request, BODY_BYTES_MAX).await;
        answer.map_err(|why| unanswered(why, base))
    }

    async fn begin_to_follow(
        &self,
        base: &Base,
        addresses: &[IpAddr],
        request: hyper::http::Result<Request<Full<Bytes>>>,
    ) -> Result<Following, Failure> {
        let request = addressed(request, base)?;
        let transport = self.open(base, addresses).await?;
        let opened = exchange::open(transport).await;
        let (mut sender, connection) = opened.map_err(|err| failure(&err, base))?;
        let connection = Task::spawn(async {
            // The reader of the answer gets this error too.
            let _ = connection.await;
            Gone
        });
        let response = sender.send_request(request).await.map_err(|err| failure(&err, base))?;
        let status = response.status();
        let body = response.into_body();
        Ok(match status {
            StatusCode::OK => Following::Lines(Lines {
                body,
                unread: BytesMut::new(),
                looked_at: 0,
                base: base.clone(),
                _connection: connection,
            }),
            _ => {
                let body = whole(body, BODY_BYTES_MAX).await;
                Following::Refused { status, body: body.map_err(|why| unanswered(why, base))? }
            }
        })
    }

    async fn open(&self, base: &Base, addresses: &[IpAddr]) -> Result<Box<dyn Transport>, Failure> {
        let port = base.endpoint().port();
        let stream = dial::connect(addresses, port, base.url(), self.connect_limit).await?;
        // Without keepalive everything works, but a host that is down is detected later.
        let _ = keep_alive(&stream);
        if self.connect_limit < self.limit {
            let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.connect_limit));
        }
        let stream = Prompt(stream);
        if !base.is_https() {
            return Ok(Box::new(stream));
        }
        let refused =
            |err: &dyn std::fmt::Display| Failure::Tls(Arc::from(format!("{}: {err}", base.url())));
        let config = self.tls_config().map_err(|err| refused(&err))?;
        let name = tls::server_name(base.host()).map_err(|err| refused(&err))?;
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|err| dial::failure(&err, base.url()))?;
        Ok(Box::new(stream))
    }

    fn tls_config(&self) -> Result<Arc<ClientConfig>, Arc<str>> {
        self.tls
            .get_or_init(|| {
                tls::client_config(SYSTEM, None).map_err(|err| Arc::from(format!("{err:#}")))
            })
            .clone()
    }
}

/// The addresses to connect to: `known`, or else the result of a lookup. The server's time limit
/// does not include the lookup.
async fn addresses<'a>(base: &Base, known: &'a [IpAddr]) -> Result<Cow<'a, [IpAddr]>, Failure> {
    match known {
        [] => dial::resolve(base.endpoint()).await.map(Cow::Owned),
        known => Ok(Cow::Borrowed(known)),
    }
}

fn posted(
    base: &Base,
    path: &str,
    question: String,
    token: Option<&str>,
) -> hyper::http::Result<Request<Full<Bytes>>> {
    let mut request = Request::post(base.path_to(path))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(question))?;
    if let Some(token) = token {
        let mut token = HeaderValue::from_str(token)?;
        token.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, token);
    }
    Ok(request)
}

/// Builds the request, with its `Host` header.
fn addressed(
    request: hyper::http::Result<Request<Full<Bytes>>>,
    base: &Base,
) -> Result<Request<Full<Bytes>>, Failure> {
    let wrong =
        |err: hyper::http::Error| Failure::Malformed(Arc::from(format!("{}: {err}", base.url())));
    let mut request = request.map_err(wrong)?;
    let host = HeaderValue::from_str(&base.endpoint().to_string());
    request.headers_mut().insert(HOST, host.map_err(|err| wrong(err.into()))?);
    Ok(request)
}

/// Sends an SSLRequest (PostgreSQL documentation, "SSL Session Encryption"). Returns true if the
/// server answers with one byte.
async fn speaks_postgresql(mut stream: TcpStream) -> io::Result<bool> {
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    Ok(matches!(stream.read_u8().await?, b'S' | b'N'))
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn unanswered(why: Unanswered, base: &Base) -> Failure {
    match why {
        Unanswered::Http(err) => failure(&err, base),
        Unanswered::TooLarge { bytes_max } => {
            Failure::TooLarge { peer: base.url().clone(), bytes_max }
        }
    }
}

fn failure(err: &hyper::Error, base: &Base) -> Failure {
    if let Some(io) = err.source().and_then(|inner| inner.downcast_ref::<io::Error>()) {
        return dial::failure(io, base.url());
    }
    if err.is_incomplete_message() || err.is_closed() || err.is_canceled() {
        return Failure::Closed(base.url().clone());
    }
    strange(base, &err.to_string())
}
