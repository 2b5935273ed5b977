//! The login: a client and a member agree, watched, and repeatable elsewhere while it can be.

use pgsteer_core::claim::Role;
use pgsteer_core::wire::error::sqlstate;
use pgsteer_core::wire::login::{
    LOGIN_BYTES_MAX, LoginError, LoginWatch, Progress, Ready, is_repeatable,
};
use pgsteer_core::wire::startup::CancelKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::Service;
use super::client::Client;
use super::hold::Connected;
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
    /// The client went away, broke the protocol, or took too long.
    Over,
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
        let Connected { server, seat, turn } = connected;
        self.said.append(&mut client.ahead);
        // A pooler's word on the role is as old as its own connection.
        let is_pooler = |port| server.peer_addr().is_ok_and(|address| address.port() == port);
        let believed = !service.config.pooler_port.is_some_and(is_pooler);
        let relay =
            Relay { login: self, service, believed, watch: LoginWatch::default(), echoed: 0 };
        tokio::select! {
            biased;
            // The client has a part of the burst, which no word of ours can follow.
            _ = seat.ending() => match self.is_bound {
                true => Outcome::Over,
                false => Outcome::Elsewhere("its gate was shut during the login".to_owned()),
            },
            outcome = relay.run(client, server, turn, deserted) => outcome,
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
}

impl Relay<'_> {
    async fn run(
        mut self,
        client: &mut Client,
        server: &mut tokio::net::TcpStream,
        turn: &mut Option<Turn>,
        deserted: impl Future<Output = ()>,
    ) -> Outcome {
        let opening = [&self.login.startup[..], &self.login.said[..]].concat();
        if let Err(error) = server.write_all(&opening).await {
            return Outcome::Elsewhere(error.to_string());
        }
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
                    match read {
                        Ok(0) => return closed(),
                        Err(error) => return Outcome::Elsewhere(error.to_string()),
                        Ok(_) => {}
                    }
                    if let Some(outcome) = self.on_server(&from_server, client).await {
                        return outcome;
                    }
                }
                read = client.stream.read_buf(&mut from_client) => {
                    if !matches!(read, Ok(1..)) {
                        return Outcome::Over;
                    }
                    self.login.said.extend_from_slice(&from_client);
                    if self.login.said.len() > LOGIN_BYTES_MAX {
                        return Outcome::Over;
                    }
                    if let Err(error) = server.write_all(&from_client).await {
                        return Outcome::Elsewhere(error.to_string());
                    }
                }
                () = sleep_until(first_word_by), if !has_spoken => {
                    let why = format!("no answer to the login within {first_word_limit:?}");
                    return Outcome::Elsewhere(why);
                }
                () = &mut deserted, if !has_spoken => {
                    let why = "its gate was shut before it answered the login";
                    return Outcome::Elsewhere(why.to_owned());
                }
            }
        }
    }

    async fn on_server(&mut self, bytes: &[u8], client: &mut Client) -> Option<Outcome> {
        match self.watch.take(bytes) {
            Ok(Progress::Going { forward }) => self.show(&forward, client).await.err(),
            Ok(Progress::Refused { sqlstate, message, raw }) => {
                Some(self.refused(&sqlstate, &message, raw))
            }
            Ok(Progress::Ready(ready)) => Some(self.ready(ready, client).await),
            Err(error @ (LoginError::TooLong | LoginError::Malformed)) => {
                Some(Outcome::Elsewhere(error.to_string()))
            }
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
            // A full replica is no reason to turn a reader away while another has room.
            sqlstate::TOO_MANY_CONNECTIONS if self.service.config.role == Role::Replica => {
                let retry = self.login.can_start_again().then(why);
                Outcome::Refused { raw, retry }
            }
            _ => Outcome::Refused { raw, retry: None },
        }
    }

    async fn ready(&mut self, ready: Ready, client: &mut Client) -> Outcome {
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

fn closed() -> Outcome {
    Outcome::Elsewhere("it closed the connection during the login".to_owned())
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use pgsteer_core::config::ServiceConfig;
    use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
    use pgsteer_core::wire::error::ErrorFields;
    use tokio::net::{TcpListener, TcpStream};

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
            let mut connected = Connected { server, turn: None, seat };
            let end = async {
                tokio::time::sleep(patience).await;
                self.registry.end(|_| Some(Ending::Shutdown));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                outcome = self.login.attempt(&self.service, &mut self.ours, &mut connected, std::future::pending()) => outcome,
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
