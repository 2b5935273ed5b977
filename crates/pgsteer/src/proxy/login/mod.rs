//! The login: a client and a member agree, watched, and repeatable elsewhere while it can be.
//!
//! An early login runs at a member that is still promoting. The client is on hold meanwhile: what
//! the server says last is held back until the gate opens, and then until the server has told,
//! asked by a Sync, that it is promoted.

mod relay;

use std::cell::Cell;
use std::time::Duration;

use pgsteer_wire::login::is_repeatable;
use pgsteer_wire::startup::CancelKey;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::sleep;

use self::relay::Relay;
use super::Service;
use super::capacity::Refusal;
use super::client::Client;
use super::guard::Guard;
use super::hold::Connected;
use super::pump::Tail;
use super::vain::Vain;

/// One client's login, over as many members as it takes.
#[derive(Debug)]
pub struct Login {
    startup: Vec<u8>,
    /// What the client has sent behind its startup packet: answers, and what it sent ahead of time.
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
    /// The member takes no more sessions at present, and the client has seen nothing of that.
    Full {
        /// How it refuses.
        cause: Refusal,
        /// In its own words.
        why: String,
    },
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
        guard: Guard<'_>,
        client: &mut Client,
        connected: &mut Connected,
        deserted: impl Future<Output = ()>,
    ) -> Outcome {
        let Connected { server, seat, slot, .. } = connected;
        let mut relay = self.relay(service, guard, client, server, false);
        let logging_in = async {
            match relay.run(client, server, slot, deserted).await {
                Ok(ready) => relay.deliver(ready, client, server).await,
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
        guard: Guard<'_>,
        client: &mut Client,
        connected: &mut Connected,
        opening: Opening<impl Future<Output = Result<(), Vain>>, impl Future<Output = ()>>,
    ) -> Outcome {
        let Connected { server, seat, slot, held, .. } = connected;
        let mut relay = self.relay(service, guard, client, server, true);
        let Opening { opened, deserted, limit } = opening;
        let (slot, is_logged_in) = (Cell::new(slot.take()), Cell::new(false));
        let (open, is_open) = oneshot::channel();
        let until_given_up = async {
            if let Err(vain) = opened.await {
                return Some(Outcome::Vain(vain));
            }
            seat.admit();
            *held = None;
            // A slow client must not keep others waiting.
            if !is_logged_in.get() {
                drop(slot.take());
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
                    if let Some(slot) = slot.take() {
                        slot.answered();
                    }
                    relay.deliver(ready, client, server).await
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
        guard: Guard<'a>,
        client: &mut Client,
        server: &TcpStream,
        is_early: bool,
    ) -> Relay<'a> {
        self.said.append(&mut client.ahead);
        // A pooler's word on the role is as old as its own connection.
        let is_pooler = |port| server.peer_addr().is_ok_and(|address| address.port() == port);
        let believed = !service.config.pooler_port.is_some_and(is_pooler);
        Relay::new(self, service, guard, believed, is_early)
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

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::rc::Rc;
    use std::sync::Arc;

    use pgsteer_core::claim::Role;
    use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
    use pgsteer_core::settings::ServiceConfig;
    use pgsteer_wire::error::ErrorFields;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::proxy::seat::{Ending, Place, Registry};
    use crate::stats::MemberStats;

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
                service: Service::alone(name, config),
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
            let capacity = &self.service.capacity;
            let permit = capacity.take_early(seat.member()).unwrap();
            let (slot, sticking, held) = (None, None, None);
            let mut connected = Connected { server, slot, seat, permit, sticking, held };
            let end = async {
                sleep(patience).await;
                self.registry.end(|_, _| Some(Ending::Shutdown));
                pending::<()>().await;
            };
            tokio::select! {
                outcome = self.login.attempt(&self.service, Guard::NONE, &mut self.ours, &mut connected, pending()) => outcome,
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
