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

const READ_BYTES: usize = 8 * 1024;

/// One client's login, over as many members as it takes.
#[derive(Debug)]
pub struct Login {
    startup: Vec<u8>,
    /// What the client has said after its startup packet.
    said: Vec<u8>,
    /// What the client was shown of a server's answers.
    shown: Vec<u8>,
}

/// How one attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client is logged in, and has the server's burst.
    Ready(Option<CancelKey>),
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
        Login { startup, said: Vec::new(), shown: Vec::new() }
    }

    /// The startup packet.
    pub fn startup(&self) -> &[u8] {
        &self.startup
    }

    /// The client has seen nothing that another member would not say as well.
    pub fn can_start_again(&self) -> bool {
        is_repeatable(&self.shown)
    }

    /// Tries to log the client in at the member that it is connected to.
    pub async fn attempt(
        &mut self,
        service: &Service,
        client: &mut Client,
        connected: &mut Connected,
    ) -> Outcome {
        let Connected { server, seat } = connected;
        self.said.append(&mut client.ahead);
        let relay = Relay { login: self, service, watch: LoginWatch::default(), echoed: 0 };
        tokio::select! {
            biased;
            _ = seat.ending() => Outcome::Elsewhere("its gate was shut during the login".to_owned()),
            outcome = relay.run(client, server) => outcome,
        }
    }
}

/// One attempt at one member.
struct Relay<'a> {
    login: &'a mut Login,
    service: &'a Service,
    watch: LoginWatch,
    /// How much of what the client was shown this server has said as well.
    echoed: usize,
}

impl Relay<'_> {
    async fn run(mut self, client: &mut Client, server: &mut tokio::net::TcpStream) -> Outcome {
        let opening = [&self.login.startup[..], &self.login.said[..]].concat();
        if let Err(error) = server.write_all(&opening).await {
            return Outcome::Elsewhere(error.to_string());
        }
        let first_word_by = Instant::now() + self.service.config.connect_timeout;
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
                    let limit = self.service.config.connect_timeout;
                    return Outcome::Elsewhere(format!("no answer to the login within {limit:?}"));
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
        let known = &self.login.shown[self.echoed..];
        let (echo, new) = forward.split_at(known.len().min(forward.len()));
        if !known.starts_with(echo) {
            let why = "it asks for another authentication than the member before";
            self.login.shown.extend_from_slice(new);
            return Err(Outcome::Elsewhere(why.to_owned()));
        }
        self.echoed += echo.len();
        if new.is_empty() {
            return Ok(());
        }
        self.login.shown.extend_from_slice(new);
        self.echoed += new.len();
        client.stream.write_all(new).await.map_err(|_| Outcome::Over)
    }

    fn refused(&self, state: &str, message: &str, raw: Vec<u8>) -> Outcome {
        let why = || format!("{message} ({state})");
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
        // A pooler's word on the role is as old as its own connection.
        let believed = self.service.config.pooler_port.is_none();
        let wants_primary = self.service.config.role == Role::Primary;
        if wants_primary && believed && ready.in_hot_standby == Some(true) {
            return Outcome::Elsewhere("its login says that it is a standby".to_owned());
        }
        if self.echoed < self.login.shown.len() {
            let why = "it asks for less authentication than the member before";
            return Outcome::Elsewhere(why.to_owned());
        }
        match client.stream.write_all(&ready.burst).await {
            Ok(()) => Outcome::Ready(ready.key),
            Err(_) => Outcome::Over,
        }
    }
}

fn closed() -> Outcome {
    Outcome::Elsewhere("it closed the connection during the login".to_owned())
}
