//! The relay of one attempt at one member: what client and server send, and where it goes.
//!
//! A server receives the startup packet and one answer to each of its requests for authentication,
//! and nothing else before the login is done. Clients may send more ahead of time, a query even. A
//! server that executed it and then broke off would leave pgsteer unable to start the login again
//! elsewhere without executing it twice.

use std::cell::Cell;
use std::future::pending;

use pgsteer_core::claim::Role;
use pgsteer_wire::error::{is_server_full, sqlstate};
use pgsteer_wire::login::{
    LOGIN_BYTES_MAX, LoginError, LoginWatch, Progress, Ready, SYNC, answer_len,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::{Login, Outcome};
use crate::proxy::Service;
use crate::proxy::capacity::Refusal;
use crate::proxy::client::Client;
use crate::proxy::guard::Guard;
use crate::proxy::pump::tail;
use crate::proxy::queue::Slot;

/// A member has so many times the time for a connection to say its first word. It is generous:
/// with `trust` that word is ReadyForQuery, and a backend may wait for a lock before it. A member
/// that is frozen is left earlier, as soon as its gate is shut.
const FIRST_WORD_TIMEOUTS: u32 = 5;

const READ_BYTES: usize = 8 * 1024;

/// One attempt at one member.
pub struct Relay<'a> {
    login: &'a mut Login,
    service: &'a Service,
    guard: Guard<'a>,
    /// What it says of its role in the login is true.
    believed: bool,
    watch: LoginWatch,
    /// How much of what the client was shown this server has said as well.
    echoed: usize,
    /// It began before the gate was open.
    is_early: bool,
    /// How many of the client's bytes behind the startup packet this server was sent.
    sent: usize,
    /// How many answers to its requests are in them.
    answers: usize,
}

impl<'a> Relay<'a> {
    /// A relay of `login` to a member whose word on its role is `believed`. If it `is_early` the
    /// gate of the member is not open yet.
    pub fn new(
        login: &'a mut Login,
        service: &'a Service,
        guard: Guard<'a>,
        believed: bool,
        is_early: bool,
    ) -> Relay<'a> {
        let watch = LoginWatch::default();
        Relay { login, service, guard, believed, watch, echoed: 0, is_early, sent: 0, answers: 0 }
    }

    /// Passes on what client and server say, until the server is ready.
    pub async fn run(
        &mut self,
        client: &mut Client,
        server: &mut TcpStream,
        slot: &mut Option<Slot>,
        deserted: impl Future<Output = ()>,
    ) -> Result<Ready, Outcome> {
        self.guard.pass().await;
        server.write_all(&self.login.startup).await.map_err(broken)?;
        let first_word_limit = self.service.config.connect_timeout * FIRST_WORD_TIMEOUTS;
        let first_word_by = Instant::now() + first_word_limit;
        tokio::pin!(deserted);
        let mut has_spoken = false;
        let (mut from_server, mut from_client) = (Vec::new(), Vec::new());
        loop {
            from_server.clear();
            from_client.clear();
            from_server.reserve(READ_BYTES);
            from_client.reserve(READ_BYTES);
            tokio::select! {
                read = server.read_buf(&mut from_server) => {
                    has_spoken = true;
                    if let Some(slot) = slot.take() {
                        slot.answered();
                    }
                    if read.map_err(broken)? == 0 {
                        return Err(self.closed());
                    }
                    if let Some(ready) = self.on_server(&from_server, client).await? {
                        return Ok(ready);
                    }
                    self.send_answers(server).await?;
                }
                read = client.stream.read_buf(&mut from_client), if self.may_talk() => {
                    if !matches!(read, Ok(1..)) {
                        return Err(Outcome::Over);
                    }
                    self.login.said.extend_from_slice(&from_client);
                    if self.login.said.len() > LOGIN_BYTES_MAX {
                        return Err(Outcome::Over);
                    }
                    self.send_answers(server).await?;
                }
                () = sleep_until(first_word_by), if !has_spoken => {
                    let why = format!("no answer to the login within {first_word_limit:?}");
                    return Err(Outcome::Elsewhere(why));
                }
                () = &mut deserted, if !has_spoken => {
                    let why = "its gate was shut before it answered the login";
                    return Err(Outcome::Elsewhere(why.to_owned()));
                }
            }
        }
    }

    /// Logs the client in, waits until the gate is open, and asks the server once more.
    pub async fn run_early(
        &mut self,
        client: &mut Client,
        server: &mut TcpStream,
        is_logged_in: &Cell<bool>,
        is_open: oneshot::Receiver<()>,
    ) -> Result<Ready, Outcome> {
        let ready = self.run(client, server, &mut None, pending()).await?;
        let (watch, mut heard) = ready.hold_back();
        self.watch = watch;
        is_logged_in.set(true);
        tokio::pin!(is_open);
        // As long as the gate is shut. That it is ready nobody has asked the server meanwhile.
        loop {
            if self.on_server(&heard, client).await?.is_some() {
                return Err(Outcome::Over);
            }
            heard = tokio::select! {
                biased;
                _ = &mut is_open => break,
                () = client.gone() => return Err(Outcome::Over),
                heard = self.hear(server) => heard?,
            };
        }
        self.guard.pass().await;
        server.write_all(&SYNC).await.map_err(broken)?;
        loop {
            let heard = self.hear(server).await?;
            if let Some(ready) = self.on_server(&heard, client).await? {
                return Ok(ready);
            }
        }
    }

    /// Sends the server the client's answer to each of its requests, and no byte more.
    async fn send_answers(&mut self, server: &mut TcpStream) -> Result<(), Outcome> {
        while self.answers < self.watch.requests()
            && let Some(len) = answer_len(&self.login.said[self.sent..])
        {
            self.guard.pass().await;
            let answer = &self.login.said[self.sent..self.sent + len];
            server.write_all(answer).await.map_err(broken)?;
            self.sent += len;
            self.answers += 1;
        }
        Ok(())
    }

    /// What the server says next.
    async fn hear(&self, server: &mut TcpStream) -> Result<Vec<u8>, Outcome> {
        let mut heard = Vec::with_capacity(READ_BYTES);
        match server.read_buf(&mut heard).await.map_err(broken)? {
            0 => Err(self.closed()),
            _ => Ok(heard),
        }
    }

    fn closed(&self) -> Outcome {
        let when = if self.is_early { "before it was the primary" } else { "during the login" };
        Outcome::Elsewhere(format!("it closed the connection {when}"))
    }

    /// The client may have to answer a request. An early login that is accepted waits for its gate,
    /// and what the client sends meanwhile stays in its socket.
    fn may_talk(&self) -> bool {
        !(self.is_early && self.watch.is_authenticated())
    }

    async fn on_server(
        &mut self,
        bytes: &[u8],
        client: &mut Client,
    ) -> Result<Option<Ready>, Outcome> {
        match self.watch.take(bytes) {
            Ok(Progress::Going { forward }) => {
                self.show(&forward, client).await?;
                Ok(None)
            }
            Ok(Progress::Refused { sqlstate, message, raw }) => {
                Err(self.refused(&sqlstate, &message, raw))
            }
            Ok(Progress::Ready(ready)) => Ok(Some(ready)),
            Err(LoginError::OutOfTurn) => Err(Outcome::Over),
            Err(error) => Err(Outcome::Elsewhere(error.to_string())),
        }
    }

    /// Shows the client what the server says, unless it has seen it from another one.
    async fn show(&mut self, forward: &[u8], client: &mut Client) -> Result<(), Outcome> {
        let Some(new) = self.unseen(forward) else { return Err(self.asks_otherwise()) };
        if new.is_empty() {
            return Ok(());
        }
        self.login.shown.extend_from_slice(new);
        self.echoed += new.len();
        client.stream.write_all(new).await.map_err(|_| Outcome::Over)
    }

    /// What the client has not seen yet of `bytes`; none if it was shown something else.
    fn unseen<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let known = &self.login.shown[self.echoed..];
        let (echo, new) = bytes.split_at(known.len().min(bytes.len()));
        if !known.starts_with(echo) {
            return None;
        }
        self.echoed += echo.len();
        Some(new)
    }

    /// The client has begun to answer a question that this member does not ask. It would be the
    /// same at every further try, so the client has to begin anew.
    fn asks_otherwise(&mut self) -> Outcome {
        self.login.is_bound = true;
        Outcome::Elsewhere("it asks for another authentication than the member before".to_owned())
    }

    fn refused(&mut self, state: &str, message: &str, raw: Vec<u8>) -> Outcome {
        let why = || format!("{message} ({state})");
        // The question and the refusal of its answer may come in one piece.
        let is_full = is_server_full(&raw);
        let raw = self.unseen(&raw).map(<[u8]>::to_vec).unwrap_or(raw);
        match state {
            sqlstate::CANNOT_CONNECT_NOW if !self.is_early && self.login.can_start_again() => {
                Outcome::Full { cause: Refusal::Unavailable, why: why() }
            }
            sqlstate::CANNOT_CONNECT_NOW | sqlstate::ADMIN_SHUTDOWN | sqlstate::CRASH_SHUTDOWN => {
                Outcome::Elsewhere(why())
            }
            // What a standby refuses the primary that it will be may not.
            _ if self.is_early => Outcome::Elsewhere(why()),
            // A limit of the user or of the database is the operator's own, and the client reads it.
            sqlstate::TOO_MANY_CONNECTIONS if is_full && self.login.can_start_again() => {
                Outcome::Full { cause: Refusal::Full, why: why() }
            }
            // A full replica is no reason to turn a reader away while another has room.
            sqlstate::TOO_MANY_CONNECTIONS if self.service.config.role == Role::Replica => {
                let retry = self.login.can_start_again().then(why);
                Outcome::Refused { raw, retry }
            }
            _ => Outcome::Refused { raw, retry: None },
        }
    }

    /// Shows the client that the server is ready, if it is one for it. Then the server receives what
    /// the client has sent ahead of time.
    pub async fn deliver(
        &mut self,
        ready: Ready,
        client: &mut Client,
        server: &mut TcpStream,
    ) -> Outcome {
        let wants_primary = self.service.config.role == Role::Primary;
        if wants_primary && self.believed && ready.in_hot_standby == Some(true) {
            return Outcome::Elsewhere("its login says that it is a standby".to_owned());
        }
        let new = self.unseen(&ready.burst);
        let Some(new) = new.filter(|_| self.echoed == self.login.shown.len()) else {
            return self.asks_otherwise();
        };
        self.login.is_bound = true;
        let delivered = async {
            client.stream.write_all(new).await?;
            self.guard.pass().await;
            server.write_all(&self.login.said[self.sent..]).await
        };
        match delivered.await {
            Ok(()) => Outcome::Ready { key: ready.key, tail: tail(new) },
            Err(_) => Outcome::Over,
        }
    }
}

fn broken(error: std::io::Error) -> Outcome {
    Outcome::Elsewhere(error.to_string())
}
