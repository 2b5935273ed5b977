//! The relay of one login between a client and one member.
//!
//! The server receives the startup packet and one answer to each of its authentication requests, and
//! nothing else before the login is complete. A client may send more ahead of time, a query even. If
//! the server executed it and then closed the connection, pgsteer could not repeat the login at
//! another member without executing the query twice.

use std::time::Duration;

use pgsteer_wire::error::is_server_full;
use pgsteer_wire::login::{
    LOGIN_BYTES_MAX, LoginError, LoginWatch, Progress, Ready, SYNC, answer_len,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::{Login, Outcome};
use crate::proxy::client::Client;
use crate::proxy::flow::tail;
use crate::proxy::guard::Guard;
use crate::proxy::queue::Slot;

const READ_BYTES: usize = 8 * 1024;

/// The relay of one login.
pub struct Relay<'a> {
    login: &'a mut Login,
    guard: Guard<'a>,
    rules: Rules,
    watch: LoginWatch,
    /// How many of the bytes that the client has received this server has sent too.
    matched: usize,
    /// How many of the client's bytes behind the startup packet this server has received.
    sent: usize,
    /// How many answers to authentication requests these bytes contain.
    answers: usize,
}

/// The rules of one relay.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A server that reports a standby in its login is refused.
    pub refuses_standby: bool,
    /// Bytes of the client stay in its socket after the server has accepted it.
    pub ends_client_input: bool,
    /// The time limit for the first answer of the server.
    pub first_answer_limit: Duration,
}

/// Why a relay has ended before the server was ready.
#[derive(Debug)]
pub enum RelayError {
    /// The server has refused the login.
    Refused(Refused),
    /// The server has closed the connection.
    Closed,
    /// The server cannot be used, with the reason.
    Failed(String),
    /// The client has disconnected, has violated the protocol, or cannot receive an error any more.
    Abandoned,
}

/// A login that the server has refused.
#[derive(Debug)]
pub struct Refused {
    /// The SQLSTATE.
    pub sqlstate: String,
    /// The message.
    pub message: String,
    /// All bytes of the server that the client has not received; the error is at their end.
    pub raw: Vec<u8>,
    /// The server has no free connection at all, not only for this user or this database.
    pub is_full: bool,
}

impl<'a> Relay<'a> {
    /// A relay of `login` to a member that has received nothing yet.
    pub fn new(login: &'a mut Login, guard: Guard<'a>, rules: Rules) -> Relay<'a> {
        let watch = LoginWatch::default();
        Relay { login, guard, rules, watch, matched: 0, sent: 0, answers: 0 }
    }

    /// Relays the login until the server is ready. `slot` is released at the server's first answer.
    /// `gate_shut` completes when the gate of the member is shut; a server that has sent nothing by
    /// then is given up, because another member may answer sooner.
    ///
    /// # Errors
    /// The server does not become ready.
    pub async fn run(
        &mut self,
        client: &mut Client,
        server: &mut TcpStream,
        slot: &mut Option<Slot>,
        gate_shut: impl Future<Output = ()>,
    ) -> Result<Ready, RelayError> {
        self.guard.pass().await;
        server.write_all(&self.login.startup).await?;
        let first_answer_limit = self.rules.first_answer_limit;
        let first_answer_by = Instant::now() + first_answer_limit;
        tokio::pin!(gate_shut);
        let mut has_answered = false;
        let (mut from_server, mut from_client) = (Vec::new(), Zeroizing::new(Vec::new()));
        loop {
            from_server.clear();
            from_client.clear();
            from_server.reserve(READ_BYTES);
            from_client.reserve(READ_BYTES);
            tokio::select! {
                read = server.read_buf(&mut from_server) => {
                    has_answered = true;
                    if let Some(slot) = slot.take() {
                        slot.answered();
                    }
                    if read? == 0 {
                        return Err(RelayError::Closed);
                    }
                    if let Some(ready) = self.handle_server(&from_server, client).await? {
                        return Ok(ready);
                    }
                    self.send_answers(server).await?;
                }
                read = client.stream.read_buf(&mut *from_client), if self.reads_client() => {
                    if !matches!(read, Ok(1..)) {
                        return Err(RelayError::Abandoned);
                    }
                    self.login.client_bytes.extend_from_slice(&from_client);
                    if self.login.client_bytes.len() > LOGIN_BYTES_MAX {
                        return Err(RelayError::Abandoned);
                    }
                    self.send_answers(server).await?;
                }
                () = sleep_until(first_answer_by), if !has_answered => {
                    let why = format!("no answer to the login within {first_answer_limit:?}");
                    return Err(RelayError::Failed(why));
                }
                () = &mut gate_shut, if !has_answered => {
                    let why = "its gate was shut before it answered the login";
                    return Err(RelayError::Failed(why.to_owned()));
                }
            }
        }
    }

    /// Holds back the burst of a server that is ready, without its ReadyForQuery. The next
    /// ReadyForQuery ends the login. Messages that followed the first one are handled here.
    ///
    /// # Errors
    /// These messages end the login.
    pub async fn hold_back(&mut self, ready: Ready, client: &mut Client) -> Result<(), RelayError> {
        let (watch, rest) = ready.hold_back();
        self.watch = watch;
        self.handle_unrequested(&rest, client).await
    }

    /// Reads the next bytes of a server whose burst is held back. Safe to cancel.
    ///
    /// # Errors
    /// The connection is closed or broken.
    pub async fn read(server: &mut TcpStream) -> Result<Vec<u8>, RelayError> {
        let mut read = Vec::with_capacity(READ_BYTES);
        match server.read_buf(&mut read).await? {
            0 => Err(RelayError::Closed),
            _ => Ok(read),
        }
    }

    /// Handles bytes that the server has sent while its burst is held back and no Sync was sent.
    ///
    /// # Errors
    /// The server has refused the session, or has sent ReadyForQuery without a Sync.
    pub async fn handle_unrequested(
        &mut self,
        bytes: &[u8],
        client: &mut Client,
    ) -> Result<(), RelayError> {
        match self.handle_server(bytes, client).await? {
            Some(_) => Err(RelayError::Abandoned),
            None => Ok(()),
        }
    }

    /// Sends a Sync to a server whose burst is held back, and waits for its ReadyForQuery. A server that
    /// was promoted reports that in front of it.
    ///
    /// # Errors
    /// The server does not become ready.
    pub async fn synchronize(
        &mut self,
        client: &mut Client,
        server: &mut TcpStream,
    ) -> Result<Ready, RelayError> {
        self.guard.pass().await;
        server.write_all(&SYNC).await?;
        loop {
            let read = Relay::read(server).await?;
            if let Some(ready) = self.handle_server(&read, client).await? {
                return Ok(ready);
            }
        }
    }

    /// Forwards the burst to the client, if this server is permitted. After that the server receives the
    /// bytes that the client has sent ahead of time.
    pub async fn deliver(
        &mut self,
        ready: Ready,
        client: &mut Client,
        server: &mut TcpStream,
    ) -> Outcome {
        if self.rules.refuses_standby && ready.in_hot_standby == Some(true) {
            return Outcome::MemberFailed("its login reports that it is a standby".to_owned());
        }
        let new = self.not_forwarded(&ready.burst);
        let Some(new) = new.filter(|_| self.matched == self.login.forwarded.len()) else {
            self.login.is_bound = true;
            return Outcome::MemberFailed(OTHER_AUTHENTICATION.to_owned());
        };
        self.login.is_bound = true;
        let delivered = async {
            client.stream.write_all(new).await?;
            self.guard.pass().await;
            server.write_all(&self.login.client_bytes[self.sent..]).await
        };
        match delivered.await {
            Ok(()) => Outcome::Ready { key: ready.key, tail: tail(new) },
            Err(_) => Outcome::Abandoned,
        }
    }

    fn reads_client(&self) -> bool {
        !(self.rules.ends_client_input && self.watch.is_authenticated())
    }

    /// Sends the client's answer to each authentication request, and nothing else.
    async fn send_answers(&mut self, server: &mut TcpStream) -> Result<(), RelayError> {
        while self.answers < self.watch.requests()
            && let Some(len) = answer_len(&self.login.client_bytes[self.sent..])
        {
            self.guard.pass().await;
            let answer = &self.login.client_bytes[self.sent..self.sent + len];
            server.write_all(answer).await?;
            self.sent += len;
            self.answers += 1;
        }
        Ok(())
    }

    async fn handle_server(
        &mut self,
        bytes: &[u8],
        client: &mut Client,
    ) -> Result<Option<Ready>, RelayError> {
        match self.watch.take(bytes) {
            Ok(Progress::Going { forward }) => {
                self.forward(&forward, client).await?;
                Ok(None)
            }
            Ok(Progress::Refused { sqlstate, message, raw }) => {
                // The request and the refusal of its answer may arrive together.
                let is_full = is_server_full(&raw);
                let raw = self.not_forwarded(&raw).map(<[u8]>::to_vec).unwrap_or(raw);
                Err(RelayError::Refused(Refused { sqlstate, message, raw, is_full }))
            }
            Ok(Progress::Ready(ready)) => Ok(Some(ready)),
            Err(LoginError::OutOfTurn) => Err(RelayError::Abandoned),
            Err(error) => Err(RelayError::Failed(error.to_string())),
        }
    }

    /// Forwards `bytes` to the client, without those that it has received from another server.
    async fn forward(&mut self, bytes: &[u8], client: &mut Client) -> Result<(), RelayError> {
        let Some(new) = self.not_forwarded(bytes) else {
            // The client answers a request that this member does not send. No other try would differ, so
            // the client has to connect again.
            self.login.is_bound = true;
            return Err(RelayError::Failed(OTHER_AUTHENTICATION.to_owned()));
        };
        if new.is_empty() {
            return Ok(());
        }
        self.login.forwarded.extend_from_slice(new);
        self.matched += new.len();
        client.stream.write_all(new).await.map_err(|_| RelayError::Abandoned)
    }

    /// The part of `bytes` that the client has not received; none if it has received other bytes.
    fn not_forwarded<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let forwarded = &self.login.forwarded[self.matched..];
        let (known, new) = bytes.split_at(forwarded.len().min(bytes.len()));
        if !forwarded.starts_with(known) {
            return None;
        }
        self.matched += known.len();
        Some(new)
    }
}

const OTHER_AUTHENTICATION: &str =
    "it requests another authentication method than the member before it";

impl From<std::io::Error> for RelayError {
    fn from(error: std::io::Error) -> RelayError {
        RelayError::Failed(error.to_string())
    }
}
