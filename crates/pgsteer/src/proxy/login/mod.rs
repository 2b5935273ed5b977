//! The login of a client at a member. pgsteer reads it, and can repeat it at another member while the
//! client has received nothing that differs there.

mod early;
mod relay;

use pgsteer_core::claim::Role;
use pgsteer_wire::error::sqlstate;
use pgsteer_wire::login::is_repeatable;
use pgsteer_wire::startup::CancelKey;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

pub use self::early::GateWatch;
use self::relay::{Refused, Relay, RelayError, Rules};
use super::capacity::Refusal;
use super::client::Client;
use super::connected::Connected;
use super::flow::Tail;
use super::guard::Guard;
use super::hold_error::HoldError;
use super::service::Service;

/// The time limit for the first answer of a member, in multiples of `connect_timeout`. It is long: with
/// `trust` the first answer is ReadyForQuery, and a backend may wait for a lock before it. A member that
/// is frozen is given up earlier, as soon as its gate is shut.
const FIRST_ANSWER_TIMEOUTS: u32 = 5;

/// One client's login, over as many members as it takes.
#[derive(Debug)]
pub struct Login {
    startup: Vec<u8>,
    /// The bytes of the client behind its startup packet: answers, and bytes sent ahead of time. An answer may
    /// be a password, so they are erased.
    client_bytes: Zeroizing<Vec<u8>>,
    /// The bytes of servers that the client has received.
    forwarded: Vec<u8>,
    /// The login cannot be repeated at another member, even if `forwarded` is empty.
    is_bound: bool,
}

/// The end of one attempt at one member.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client is logged in, and has received the server's burst.
    Ready {
        /// The key that cancels its queries.
        key: Option<CancelKey>,
        /// The end of the burst.
        tail: Tail,
    },
    /// The server has refused the login. The client has received nothing of `raw`.
    Refused {
        /// The bytes of the server.
        raw: Vec<u8>,
        /// The reason to try another member, if there is one.
        retry: Option<String>,
    },
    /// This member cannot be used, with the reason.
    MemberFailed(String),
    /// The member accepts no more sessions at present, and the client has received nothing of that.
    Full {
        /// How the member refuses logins.
        cause: Refusal,
        /// The member's message.
        why: String,
    },
    /// The hold of the client has ended during an early login.
    HoldEnded(HoldError),
    /// The client has disconnected, has violated the protocol, takes too long, or cannot receive an
    /// error any more.
    Abandoned,
}

impl Login {
    /// A login with this startup packet.
    pub fn new(startup: Vec<u8>) -> Login {
        let client_bytes = Zeroizing::new(Vec::new());
        Login { startup, client_bytes, forwarded: Vec::new(), is_bound: false }
    }

    /// The startup packet.
    pub fn startup(&self) -> &[u8] {
        &self.startup
    }

    /// All bytes that the client has sent: its startup packet and those behind it.
    pub fn into_sent(self) -> Vec<u8> {
        let Login { mut startup, mut client_bytes, .. } = self;
        startup.append(&mut client_bytes);
        startup
    }

    /// Returns true if the client has received nothing of any attempt, so that the login can start again
    /// in another process.
    pub fn can_move(&self) -> bool {
        self.forwarded.is_empty() && self.can_start_again()
    }

    /// Returns true if every byte that the client has received is the same at any member.
    pub fn can_start_again(&self) -> bool {
        !self.is_bound && is_repeatable(&self.forwarded)
    }

    /// Tries to log the client in at the connected member. `gate_shut` completes when the gate of the
    /// member is shut; the client then leaves a member that has sent nothing yet.
    pub async fn attempt(
        &mut self,
        service: &Service,
        guard: Guard<'_>,
        client: &mut Client,
        connected: &mut Connected,
        gate_shut: impl Future<Output = ()>,
    ) -> Outcome {
        let Connected { server, seat, slot, .. } = connected;
        self.client_bytes.append(&mut client.ahead);
        let rules = Rules {
            refuses_standby: service.config.role == Role::Primary && !is_pooler(service, server),
            ends_client_input: false,
            first_answer_limit: service.config.connect_timeout * FIRST_ANSWER_TIMEOUTS,
        };
        let mut relay = Relay::new(self, guard, rules);
        let logging_in = async {
            let ready = relay.run(client, server, slot, gate_shut).await?;
            Ok(relay.deliver(ready, client, server).await)
        };
        let ended = tokio::select! {
            biased;
            _ = seat.ending() => None,
            ended = logging_in => Some(ended),
        };
        match ended {
            None => self.leave("its gate was shut during the login"),
            Some(Ok(outcome)) => outcome,
            Some(Err(RelayError::Refused(refused))) => self.refused(service, refused),
            Some(Err(RelayError::Closed)) => {
                Outcome::MemberFailed("it closed the connection during the login".to_owned())
            }
            Some(Err(RelayError::Failed(why))) => Outcome::MemberFailed(why),
            Some(Err(RelayError::Abandoned)) => Outcome::Abandoned,
        }
    }

    /// The outcome of a refused login: the client receives the error, waits, or tries another member.
    fn refused(&self, service: &Service, refused: Refused) -> Outcome {
        let Refused { sqlstate: state, message, raw, is_full } = refused;
        let why = format!("{message} ({state})");
        let can_start_again = self.can_start_again();
        match &*state {
            sqlstate::CANNOT_CONNECT_NOW if can_start_again => {
                Outcome::Full { cause: Refusal::Unavailable, why }
            }
            sqlstate::CANNOT_CONNECT_NOW | sqlstate::ADMIN_SHUTDOWN | sqlstate::CRASH_SHUTDOWN => {
                Outcome::MemberFailed(why)
            }
            // The limit of a user or of a database is the operator's, so the client receives the error.
            sqlstate::TOO_MANY_CONNECTIONS if is_full && can_start_again => {
                Outcome::Full { cause: Refusal::Full, why }
            }
            // Another replica may have a free connection.
            sqlstate::TOO_MANY_CONNECTIONS if service.config.role == Role::Replica => {
                Outcome::Refused { raw, retry: can_start_again.then_some(why) }
            }
            _ => Outcome::Refused { raw, retry: None },
        }
    }

    /// The outcome of a login that has to leave its member.
    fn leave(&self, why: &str) -> Outcome {
        if self.is_bound {
            // The client has received a part of the burst, and no error can follow that.
            Outcome::Abandoned
        } else {
            Outcome::MemberFailed(why.to_owned())
        }
    }
}

/// Returns true if `server` is the pooler of the service. The role in its login is as old as its own
/// server connection.
fn is_pooler(service: &Service, server: &TcpStream) -> bool {
    let is_port = |port| server.peer_addr().is_ok_and(|address| address.port() == port);
    service.config.pooler_port.is_some_and(is_port)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
    use pgsteer_core::settings::ServiceConfig;
    use pgsteer_wire::error::ErrorFields;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;
    use crate::proxy::seat::{Assignment, Ending, Registry};
    use crate::stats::MemberStats;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A client that logs in, and its service.
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

        /// An attempt at a member that sends `answer` and closes the connection. The seat is ended after `patience`.
        async fn attempt(&mut self, answer: &[u8], patience: Duration) -> Outcome {
            let (mut member, server) = pair().await;
            member.write_all(answer).await.unwrap();
            member.shutdown().await.unwrap();
            let assignment = Assignment {
                service: self.service.name.clone(),
                member: MemberName::new("n1").unwrap(),
                postgres: Endpoint::new("n1", 5432).unwrap(),
            };
            let seat = self.registry.take(assignment, Arc::new(MemberStats::default()));
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

        async fn received(mut self) -> Vec<u8> {
            drop(self.ours);
            let mut received = Vec::new();
            self.client.read_to_end(&mut received).await.unwrap();
            received
        }
    }

    #[tokio::test]
    async fn a_request_of_an_earlier_member_is_not_forwarded_again() {
        for (answer, expected) in [
            (burst(), [cleartext(), burst()].concat()),
            (refusal("28P01"), [cleartext(), refusal("28P01")].concat()),
        ] {
            let mut rig = Rig::new().await;
            assert!(matches!(rig.attempt(&cleartext(), LIMIT).await, Outcome::MemberFailed(_)));
            assert!(rig.login.can_start_again());
            match rig.attempt(&[cleartext(), answer].concat(), LIMIT).await {
                Outcome::Ready { key: None, tail } => assert_eq!(&tail, b"Z\0\0\0\x05I"),
                Outcome::Refused { raw, retry: None } => rig.ours.send_refusal(&raw).await,
                other => panic!("{other:?}"),
            }
            assert_eq!(rig.received().await, expected);
        }
    }

    #[tokio::test]
    async fn a_client_that_answers_another_request_has_to_connect_again() {
        for other in
            [message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"), message(b'R', b"\0\0"), burst()]
        {
            let mut rig = Rig::new().await;
            rig.attempt(&cleartext(), LIMIT).await;
            assert!(matches!(rig.attempt(&other, LIMIT).await, Outcome::MemberFailed(_)));
            assert!(!rig.login.can_start_again());
            assert_eq!(rig.received().await, cleartext());
        }
    }

    #[tokio::test]
    async fn a_client_that_has_received_a_part_of_the_burst_goes_to_no_other_member() {
        let mut rig = Rig::new().await;
        // A client that reads nothing, and whose buffers are almost full.
        while rig.ours.stream.try_write(&[0; 4096]).is_ok() {}
        let outcome = rig.attempt(&burst(), Duration::from_millis(300)).await;
        assert_eq!(outcome, Outcome::Abandoned);
        assert!(!rig.login.can_start_again());
    }
}
