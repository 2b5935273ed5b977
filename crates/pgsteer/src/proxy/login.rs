//! The login: a client and a member agree, watched, and repeatable elsewhere while it can be.
//!
//! An early login runs at a member that is still promoting. The client is on hold meanwhile: what
//! the server says last is held back until the gate opens, and then until the server has told,
//! asked by a Sync, that it is promoted.

use std::cell::Cell;
use std::future::pending;
use std::time::Duration;

use pgsteer_core::claim::Role;
use pgsteer_core::wire::error::sqlstate;
use pgsteer_core::wire::login::{
    LOGIN_BYTES_MAX, LoginError, LoginWatch, Progress, Ready, SYNC, answer_len, is_repeatable,
};
use pgsteer_core::wire::startup::CancelKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::Service;
use super::client::Client;
use super::hold::{Connected, Vain};
use super::pump::{Tail, tail};
use super::queue::Turn;

/// A member has so many times the time for a connection to say its first word. It is generous:
/// with `trust` that word is ReadyForQuery, and a backend may wait for a lock before it. A member
/// that is frozen is left earlier, as soon as its gate is shut.
const FIRST_WORD_TIMEOUTS: u32 = 5;

const READ_BYTES: usize = 8 * 1024;

/// One client's login, over as many members as it takes.
#[derive(Debug)]
pub struct Login {
    startup: Vec<u8>,
    /// What the client has said after its startup packet.
    said: Vec<u8>,
    /// What the client was shown of a server's answers.
    shown: Vec<u8>,
    /// It cannot go on at another member, whatever was shown.
    is_bound: bool,
}

/// How one attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client is logged in, and has the server's burst.
    Ready {
        /// The key for cancelling its queries.
        key: Option<CancelKey>,
        /// The end of the burst.
        tail: Tail,
    },
    /// The server refused the login. `raw` is its answer, of which nothing has gone out.
    Refused {
        /// What the server sent.
        raw: Vec<u8>,
        /// Another member may well accept: why this one does not.
        retry: Option<String>,
    },
    /// This member will not do, or not any more; with the reason.
    Elsewhere(String),
    /// The client was on hold with an early login, and in vain.
    Vain(Vain),
    /// The client went away, broke the protocol, or took too long.
    Over,
}

/// When an early login is one no more.
#[derive(Debug)]
pub struct Opening<O, S> {
    /// Ends when the gate of the member is open to all workers.
    pub opened: O,
    /// Ends when it is open no more; waited for from then on.
    pub deserted: S,
    /// How long the login may take from then on.
    pub limit: Duration,
}

impl Login {
    /// A login with this startup packet.
    pub fn new(startup: Vec<u8>) -> Login {
        Login { startup, said: Vec::new(), shown: Vec::new(), is_bound: false }
    }

    /// The startup packet.
    pub fn startup(&self) -> &[u8] {
        &self.startup
    }

    /// The client has seen nothing that another member would not say as well.
    pub fn can_start_again(&self) -> bool {
        !self.is_bound && is_repeatable(&self.shown)
    }

    /// Tries to log the client in at the member that it is connected to. `deserted` ends when
    /// that member is none to begin with any more: as long as it has not said a word, the client
    /// is then better off elsewhere.
    pub async fn attempt(
        &mut self,
        service: &Service,
        client: &mut Client,
        connected: &mut Connected,
        deserted: impl Future<Output = ()>,
    ) -> Outcome {
        let Connected { server, seat, turn, .. } = connected;
        let mut relay = self.relay(service, client, server, false);
        let logging_in = async {
            match relay.run(client, server, turn, deserted).await {
                Ok(ready) => relay.deliver(ready, client).await,
                Err(outcome) => outcome,
            }
        };
        tokio::select! {
            biased;
            _ = seat.ending() => self.left("its gate was shut during the login"),
            outcome = logging_in => outcome,
        }
    }

    /// The same at a member whose gate is not open yet.
    pub async fn attempt_early(
        &mut self,
        service: &Service,
        client: &mut Client,
        connected: &mut Connected,
        opening: Opening<impl Future<Output = Result<(), Vain>>, impl Future<Output = ()>>,
    ) -> Outcome {
        let Connected { server, seat, turn, held } = connected;
        let mut relay = self.relay(service, client, server, true);
        let Opening { opened, deserted, limit } = opening;
        let (turn, is_logged_in) = (Cell::new(turn.take()), Cell::new(false));
        let (open, is_open) = oneshot::channel();
        let until_given_up = async {
            if let Err(vain) = opened.await {
                return Some(Outcome::Vain(vain));
            }
            seat.admit();
            *held = None;
            // A client that is slow does not keep others waiting any more.
            if !is_logged_in.get() {
                drop(turn.take());
            }
            let _ = open.send(());
            tokio::select! {
                () = sleep(limit) => Some(Outcome::Over),
                () = deserted => None,
            }
        };
        let logging_in = async {
            match relay.run_early(client, server, &is_logged_in, is_open).await {
                Ok(ready) => {
                    if let Some(turn) = turn.take() {
                        turn.heard();
                    }
                    match relay.deliver(ready, client).await {
                        ready @ Outcome::Ready { .. } => relay.catch_up(server, ready).await,
                        other => other,
                    }
                }
                Err(outcome) => outcome,
            }
        };
        tokio::select! {
            biased;
            _ = seat.ending() => self.left("it did not become the primary"),
            outcome = until_given_up => {
                outcome.unwrap_or_else(|| self.left("its gate was shut during the login"))
            }
            outcome = logging_in => outcome,
        }
    }

    fn relay<'a>(
        &'a mut self,
        service: &'a Service,
        client: &mut Client,
        server: &TcpStream,
        is_early: bool,
    ) -> Relay<'a> {
        self.said.append(&mut client.ahead);
        // A pooler's word on the role is as old as its own connection.
        let is_pooler = |port| server.peer_addr().is_ok_and(|address| address.port() == port);
        let believed = !service.config.pooler_port.is_some_and(is_pooler);
        let watch = LoginWatch::default();
        Relay { login: self, service, believed, watch, echoed: 0, is_early, sent: 0, answers: 0 }
    }

    /// The client had to leave the member.
    fn left(&self, why: &str) -> Outcome {
        match self.is_bound {
            // It has a part of the burst, which no word of ours can follow.
            true => Outcome::Over,
            false => Outcome::Elsewhere(why.to_owned()),
        }
    }
}

/// One attempt at one member.
struct Relay<'a> {
    login: &'a mut Login,
    service: &'a Service,
    /// What it says of its role in the login is true.
    believed: bool,
    watch: LoginWatch,
    /// How much of what the client was shown this server has said as well.
    echoed: usize,
    /// It began before the gate was open.
    is_early: bool,
    /// How much of what the client has said this server was told, if it is early.
    sent: usize,
    /// How many answers to its questions are in that.
    answers: usize,
}

impl Relay<'_> {
    /// Passes on what client and server say, until the server is ready.
    async fn run(
        &mut self,
        client: &mut Client,
        server: &mut TcpStream,
        turn: &mut Option<Turn>,
        deserted: impl Future<Output = ()>,
    ) -> Result<Ready, Outcome> {
        let said = if self.is_early { &[][..] } else { &self.login.said[..] };
        let opening = [&self.login.startup[..], said].concat();
        server.write_all(&opening).await.map_err(broken)?;
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
                    if let Some(turn) = turn.take() {
                        turn.heard();
                    }
                    if read.map_err(broken)? == 0 {
                        return Err(self.closed());
                    }
                    if let Some(ready) = self.on_server(&from_server, client).await? {
                        return Ok(ready);
                    }
                    self.pass_on(&[], server).await?;
                }
                read = client.stream.read_buf(&mut from_client), if self.may_talk() => {
                    if !matches!(read, Ok(1..)) {
                        return Err(Outcome::Over);
                    }
                    self.login.said.extend_from_slice(&from_client);
                    if self.login.said.len() > LOGIN_BYTES_MAX {
                        return Err(Outcome::Over);
                    }
                    self.pass_on(&from_client, server).await?;
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
    async fn run_early(
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
        server.write_all(&SYNC).await.map_err(broken)?;
        loop {
            let heard = self.hear(server).await?;
            if let Some(ready) = self.on_server(&heard, client).await? {
                return Ok(ready);
            }
        }
    }

    /// Tells the server what the client has just said. Before the gate is open that is an answer to
    /// each of its questions and nothing else: what a client sends behind its password in the same
    /// breath would be done at a standby, or by a primary that nobody is to be led to yet.
    async fn pass_on(&mut self, new: &[u8], server: &mut TcpStream) -> Result<(), Outcome> {
        if !self.is_early {
            return server.write_all(new).await.map_err(broken);
        }
        while self.answers < self.watch.questions()
            && let Some(len) = answer_len(&self.login.said[self.sent..])
        {
            let answer = &self.login.said[self.sent..self.sent + len];
            server.write_all(answer).await.map_err(broken)?;
            self.sent += len;
            self.answers += 1;
        }
        Ok(())
    }

    /// The login is `done`, and the server is told what has waited for that.
    async fn catch_up(&mut self, server: &mut TcpStream, done: Outcome) -> Outcome {
        match server.write_all(&self.login.said[self.sent..]).await {
            Ok(()) => done,
            Err(_) => Outcome::Over,
        }
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

    /// What the client says may go to the server. Before the gate is open that is nothing but the
    /// answer to a question.
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
            Err(error @ (LoginError::TooLong | LoginError::Malformed)) => {
                Err(Outcome::Elsewhere(error.to_string()))
            }
            // What it has asked was done or not, and must not be done once more.
            Err(LoginError::OutOfTurn) => Err(Outcome::Over),
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
        let raw = self.unseen(&raw).map(<[u8]>::to_vec).unwrap_or(raw);
        match state {
            sqlstate::CANNOT_CONNECT_NOW | sqlstate::ADMIN_SHUTDOWN | sqlstate::CRASH_SHUTDOWN => {
                Outcome::Elsewhere(why())
            }
            // What a standby refuses the primary that it will be may not.
            _ if self.is_early => Outcome::Elsewhere(why()),
            // A full replica is no reason to turn a reader away while another has room.
            sqlstate::TOO_MANY_CONNECTIONS if self.service.config.role == Role::Replica => {
                let retry = self.login.can_start_again().then(why);
                Outcome::Refused { raw, retry }
            }
            _ => Outcome::Refused { raw, retry: None },
        }
    }

    /// Shows the client that the server is ready, if it is one for it.
    async fn deliver(&mut self, ready: Ready, client: &mut Client) -> Outcome {
        let wants_primary = self.service.config.role == Role::Primary;
        if wants_primary && self.believed && ready.in_hot_standby == Some(true) {
            return Outcome::Elsewhere("its login says that it is a standby".to_owned());
        }
        let new = self.unseen(&ready.burst);
        let Some(new) = new.filter(|_| self.echoed == self.login.shown.len()) else {
            return self.asks_otherwise();
        };
        self.login.is_bound = true;
        match client.stream.write_all(new).await {
            Ok(()) => Outcome::Ready { key: ready.key, tail: tail(new) },
            Err(_) => Outcome::Over,
        }
    }
}

fn broken(error: std::io::Error) -> Outcome {
    Outcome::Elsewhere(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use pgsteer_core::config::ServiceConfig;
    use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
    use pgsteer_core::wire::error::ErrorFields;
    use tokio::net::TcpListener;

    use super::*;
    use crate::proxy::seat::{Ending, Place, Registry};
    use crate::stats::{MemberStats, ServiceStats};

    const LIMIT: Duration = Duration::from_secs(5);

    /// A client in its login, and a member that has answered in one piece.
    struct Rig {
        login: Login,
        service: Service,
        registry: Rc<Registry>,
        ours: Client,
        client: TcpStream,
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind][..], &len, body].concat()
    }

    fn cleartext() -> Vec<u8> {
        message(b'R', &[0, 0, 0, 3])
    }

    fn burst() -> Vec<u8> {
        [message(b'R', &[0; 4]), message(b'Z', b"I")].concat()
    }

    fn refusal(sqlstate: &str) -> Vec<u8> {
        ErrorFields { sqlstate, message: "no", detail: "", hint: "" }.to_fatal()
    }

    impl Rig {
        async fn new() -> Rig {
            let (client, ours) = pair().await;
            let config = ServiceConfig::new(([127, 0, 0, 1], 0).into(), Role::Primary);
            let name = ServiceName::new("write").unwrap();
            Rig {
                login: Login::new(b"startup".to_vec()),
                service: Service { name, config, stats: Arc::new(ServiceStats::default()) },
                registry: Rc::default(),
                ours: Client::new(ours),
                client,
            }
        }

        /// An attempt at a member that says `answer` and closes, told to end after `patience`.
        async fn attempt(&mut self, answer: &[u8], patience: Duration) -> Outcome {
            let (mut member, server) = pair().await;
            member.write_all(answer).await.unwrap();
            member.shutdown().await.unwrap();
            let place = Place {
                service: self.service.name.clone(),
                member: MemberName::new("n1").unwrap(),
                postgres: Endpoint::new("n1", 5432).unwrap(),
            };
            let seat = self.registry.take(place, Arc::new(MemberStats::default()));
            let mut connected = Connected { server, turn: None, seat, held: None };
            let end = async {
                sleep(patience).await;
                self.registry.end(|_, _| Some(Ending::Shutdown));
                pending::<()>().await;
            };
            tokio::select! {
                outcome = self.login.attempt(&self.service, &mut self.ours, &mut connected, pending()) => outcome,
                () = end => unreachable!(),
            }
        }

        async fn shown(mut self) -> Vec<u8> {
            drop(self.ours);
            let mut shown = Vec::new();
            self.client.read_to_end(&mut shown).await.unwrap();
            shown
        }
    }

    #[tokio::test]
    async fn a_question_known_from_another_member_is_not_repeated_whatever_it_comes_with() {
        for (answer, expected) in [
            (burst(), [cleartext(), burst()].concat()),
            (refusal("28P01"), [cleartext(), refusal("28P01")].concat()),
        ] {
            let mut rig = Rig::new().await;
            assert!(matches!(rig.attempt(&cleartext(), LIMIT).await, Outcome::Elsewhere(_)));
            assert!(rig.login.can_start_again());
            match rig.attempt(&[cleartext(), answer].concat(), LIMIT).await {
                Outcome::Ready { key: None, tail } => assert_eq!(&tail, b"Z\0\0\0\x05I"),
                Outcome::Refused { raw, retry: None } => rig.ours.pass_on_refusal(&raw).await,
                other => panic!("{other:?}"),
            }
            assert_eq!(rig.shown().await, expected);
        }
    }

    #[tokio::test]
    async fn a_client_that_answers_another_question_has_to_begin_anew() {
        for other in
            [message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"), message(b'R', b"\0\0"), burst()]
        {
            let mut rig = Rig::new().await;
            rig.attempt(&cleartext(), LIMIT).await;
            assert!(matches!(rig.attempt(&other, LIMIT).await, Outcome::Elsewhere(_)));
            assert!(!rig.login.can_start_again());
            assert_eq!(rig.shown().await, cleartext());
        }
    }

    #[tokio::test]
    async fn a_client_that_has_a_part_of_the_burst_is_not_led_elsewhere() {
        let mut rig = Rig::new().await;
        // A client that reads nothing, and whose buffers have room for the beginning at most.
        while rig.ours.stream.try_write(&[0; 4096]).is_ok() {}
        let outcome = rig.attempt(&burst(), Duration::from_millis(300)).await;
        assert_eq!(outcome, Outcome::Over);
        assert!(!rig.login.can_start_again());
    }
}
