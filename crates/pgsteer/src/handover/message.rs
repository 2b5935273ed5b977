//! The messages of a handover, as JSON.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;
use pgsteer_wire::startup::CancelKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::channel::{Channel, Packet};
use crate::proxy::flow::{Flow, Tail};
use crate::proxy::moved::{LoginsLeft, Moved, MovedClient, MovedSession};

/// The longest time from an offer to its reader, which is the start of a process.
const TRANSIT_MAX: Duration = Duration::from_secs(10);

/// The maximum number of client addresses in a packet. One takes 70 bytes at most.
const ADDRESSES_AT_ONCE: usize = 1_000;

/// From the old process to the new one.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToNew {
    /// The first message.
    Offer(Offer),
    /// The listening sockets, one file for each address.
    Listeners {
        /// The addresses.
        addresses: Vec<SocketAddr>,
        /// The generation of the new process's [`Standing`] that was accepted.
        generation: u64,
    },
    /// The history, as a file. Only for a process that asks for it.
    History,
    /// The number of connections of client addresses; the next message continues it. Only for a process
    /// that takes it.
    Connections {
        /// The address and the number.
        counts: Vec<(IpAddr, usize)>,
    },
    /// A client that waits, and its connection as a file.
    Client(ClientState),
    /// An established session: the connection of the client and that of the server as files.
    Session(SessionState),
    /// All established sessions and clients that wait have been sent. The sessions of logins in progress
    /// follow.
    SessionsLeft(LoginsLeft),
}

/// What the old process has.
#[derive(Debug, Deserialize, Serialize)]
pub struct Offer {
    /// [`super::VERSION`] of the old process.
    pub version: u32,
    /// The addresses on which it listens.
    pub addresses: Vec<SocketAddr>,
    /// The positions of its clients in the order of arrival are below this.
    pub first_ticket: u64,
    /// Its time when it sends this.
    #[serde(default)]
    pub now: Moment,
    /// The time of day then.
    #[serde(default = "SystemTime::now")]
    pub sent_at: SystemTime,
    /// The orders of operators in force, as they are stored; none from an older version.
    #[serde(default)]
    pub orders: Option<String>,
}

/// From the new process to the old one.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToOld {
    /// The new process cannot take over.
    Refusal {
        /// Why.
        why: String,
    },
    /// What the new process knows of the cluster.
    Standing(Standing),
    /// The new process accepts clients.
    Accepting,
    /// Clients and sessions go on in the new process.
    Arrived {
        /// How many, since the begin.
        count: usize,
    },
}

/// Members and open gates of a Snapshot.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The generation of the Snapshot.
    pub generation: u64,
    /// The names of the members.
    pub members: Vec<String>,
    /// The service and the member of each open gate.
    pub open: Vec<(String, String)>,
    /// The process can read a history.
    #[serde(default)]
    pub takes_history: bool,
    /// The process takes [`ToNew::Connections`].
    #[serde(default)]
    pub takes_connections: bool,
}

/// A client that waits.
#[derive(Debug, Deserialize, Serialize)]
pub struct ClientState {
    service: String,
    sent: String,
    asked_for_tls: bool,
    asked_for_gss: bool,
    age_us: u64,
    waited_us: Option<u64>,
    ticket: Option<u64>,
}

/// An established session.
#[derive(Debug, Deserialize, Serialize)]
pub struct SessionState {
    service: String,
    member: String,
    host: String,
    port: u16,
    age_us: u64,
    is_opaque: bool,
    key: Option<String>,
    tail: Tail,
    to_server: String,
    to_client: String,
    #[serde(default)]
    user: Option<Box<str>>,
    #[serde(default)]
    database: Option<Box<str>>,
}

/// A packet that is no message of the handover.
#[derive(Debug, Error)]
pub enum MessageError {
    /// The packet was cut by the kernel.
    #[error("the kernel has cut a packet of the handover; the limit of open files may be too low")]
    Cut,
    /// It cannot be parsed.
    #[error("a packet of the handover cannot be read: {0}")]
    Malformed(String),
    /// The number of files differs from the expected one.
    #[error("a packet of the handover has {found} files instead of {expected}")]
    Files {
        /// The number of files in the packet.
        found: usize,
        /// The number that its message needs.
        expected: usize,
    },
}

/// Sends one message with its files.
///
/// # Errors
/// The other process has gone or does not read.
pub async fn send<T: Serialize>(
    channel: &Channel,
    message: &T,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    channel.send(&serde_json::to_vec(message)?, files).await
}

/// Reads the message of a packet.
///
/// # Errors
/// The packet was cut, or is no such message.
pub fn read<T: for<'a> Deserialize<'a>>(packet: &Packet) -> Result<T, MessageError> {
    if packet.is_cut {
        return Err(MessageError::Cut);
    }
    serde_json::from_slice(&packet.bytes)
        .map_err(|error| MessageError::Malformed(error.to_string()))
}

/// Returns the files of a packet if there are `N`.
///
/// # Errors
/// There are more or fewer; all are closed.
pub fn files<const N: usize>(files: Vec<OwnedFd>) -> Result<[OwnedFd; N], MessageError> {
    let found = files.len();
    files.try_into().map_err(|_| MessageError::Files { found, expected: N })
}

impl Offer {
    /// The time of the old process now. If it seems to have been on its way for more than 10 s, the clock of
    /// the machine was set, and that time does not count.
    pub fn time(&self) -> Moment {
        let transit = SystemTime::now().duration_since(self.sent_at).unwrap_or_default();
        self.now + if transit <= TRANSIT_MAX { transit } else { Duration::ZERO }
    }
}

impl Standing {
    /// Members and open gates of `snapshot`.
    pub fn of(snapshot: &Snapshot) -> Standing {
        let open = snapshot.services.iter().flat_map(|(service, state)| {
            state.open().map(move |member| (service.to_string(), member.to_string()))
        });
        Standing {
            generation: snapshot.generation,
            members: snapshot.members.keys().map(ToString::to_string).collect(),
            open: open.collect(),
            takes_history: true,
            takes_connections: true,
        }
    }

    /// What `new` does not know yet of this; none if the new process can take over. A service that the
    /// new configuration does not have is of no concern, nor is a reader's gate that is open only there.
    pub fn missing_in(&self, new: &Standing, is_write: impl Fn(&str) -> bool) -> Option<String> {
        if let Some(member) = self.members.iter().find(|member| !new.members.contains(member)) {
            return Some(format!("the new process does not know member {member} yet"));
        }
        let of_write = |standing: &Standing| -> Vec<(String, String)> {
            standing.open.iter().filter(|(service, _)| is_write(service)).cloned().collect()
        };
        let (ours, theirs) = (of_write(self), of_write(new));
        if ours != theirs {
            let names = |open: &[(String, String)]| match open {
                [] => "none".to_owned(),
                open => {
                    open.iter().map(|(_, member)| member.as_str()).collect::<Vec<_>>().join(", ")
                }
            };
            return Some(format!(
                "the open write gate is {} here and {} in the new process",
                names(&ours),
                names(&theirs)
            ));
        }
        let closed = self.open.iter().find(|gate| !new.open.contains(gate))?;
        Some(format!("the {} gate of {} is not open in the new process yet", closed.0, closed.1))
    }
}

impl ToNew {
    /// The messages with the number of connections of each client address.
    pub fn connections(counts: &[(IpAddr, usize)]) -> impl Iterator<Item = ToNew> {
        let message = |counts: &[(IpAddr, usize)]| ToNew::Connections { counts: counts.to_vec() };
        counts.chunks(ADDRESSES_AT_ONCE).map(message)
    }

    /// The message for a client or a session. [`files_of`] are its files.
    pub fn of(moved: &Moved) -> ToNew {
        match moved {
            Moved::Client(client) => ToNew::Client(ClientState {
                service: client.service.to_string(),
                sent: STANDARD.encode(&client.sent),
                asked_for_tls: client.asked_for_tls,
                asked_for_gss: client.asked_for_gss,
                age_us: micros(client.age),
                waited_us: client.waited.map(micros),
                ticket: client.ticket,
            }),
            Moved::Session(session) => ToNew::Session(SessionState {
                service: session.service.to_string(),
                member: session.member.to_string(),
                host: session.postgres.host().to_owned(),
                port: session.postgres.port(),
                age_us: micros(session.age),
                is_opaque: session.is_opaque,
                key: session.key.as_ref().map(|key| STANDARD.encode(key.as_bytes())),
                tail: session.flow.tail,
                to_server: STANDARD.encode(&session.flow.to_server),
                to_client: STANDARD.encode(&session.flow.to_client),
                user: session.user.clone(),
                database: session.database.clone(),
            }),
        }
    }
}

/// The files of a client or a session.
pub fn files_of(moved: &Moved) -> Vec<BorrowedFd<'_>> {
    match moved {
        Moved::Client(client) => vec![client.stream.as_fd()],
        Moved::Session(session) => vec![session.client.as_fd(), session.server.as_fd()],
    }
}

impl ClientState {
    /// The client, with the file of its packet.
    ///
    /// # Errors
    /// A value is invalid.
    pub fn into_moved(self, packet_files: Vec<OwnedFd>) -> Result<Moved, MessageError> {
        let [client] = files(packet_files)?;
        Ok(Moved::Client(MovedClient {
            stream: TcpStream::from(client),
            service: ServiceName::new(&self.service).map_err(malformed)?,
            sent: decode(&self.sent)?,
            asked_for_tls: self.asked_for_tls,
            asked_for_gss: self.asked_for_gss,
            age: Duration::from_micros(self.age_us),
            waited: self.waited_us.map(Duration::from_micros),
            ticket: self.ticket,
        }))
    }
}

impl SessionState {
    /// The session, with the files of its packet.
    ///
    /// # Errors
    /// A value is invalid.
    pub fn into_moved(self, packet_files: Vec<OwnedFd>) -> Result<Moved, MessageError> {
        let [client, server] = files(packet_files)?;
        let key = self.key.as_deref().map(decode).transpose()?;
        let session = MovedSession {
            client: TcpStream::from(client),
            server: TcpStream::from(server),
            service: ServiceName::new(&self.service).map_err(malformed)?,
            member: MemberName::new(&self.member).map_err(malformed)?,
            postgres: Endpoint::new(&self.host, self.port).map_err(malformed)?,
            age: Duration::from_micros(self.age_us),
            is_opaque: self.is_opaque,
            key: key.as_deref().and_then(CancelKey::new),
            flow: Flow {
                tail: self.tail,
                to_server: decode(&self.to_server)?,
                to_client: decode(&self.to_client)?,
            },
            user: self.user,
            database: self.database,
        };
        Ok(Moved::Session(Box::new(session)))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn decode(text: &str) -> Result<Vec<u8>, MessageError> {
    STANDARD.decode(text).map_err(malformed)
}

fn malformed(error: impl ToString) -> MessageError {
    MessageError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message as versions before [`LoginsLeft`] have it.
    #[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Older {
        SessionsLeft,
    }

    #[test]
    fn the_end_of_the_sessions_is_understood_by_older_versions_and_of_them() {
        let name = |text| MemberName::new(text).unwrap();
        let permits = [(name("n1"), 2), (name("n2"), 1)].into();
        let logins = LoginsLeft {
            permits: [(ServiceName::new("write").unwrap(), permits)].into(),
            connections: vec![([10, 0, 0, 1].into(), 3)],
        };
        let text = serde_json::to_vec(&ToNew::SessionsLeft(logins.clone())).unwrap();
        assert_eq!(serde_json::from_slice::<Older>(&text).unwrap(), Older::SessionsLeft);
        let ToNew::SessionsLeft(read) = serde_json::from_slice(&text).unwrap() else { panic!() };
        assert_eq!(read, logins);
        let older = serde_json::to_vec(&Older::SessionsLeft).unwrap();
        let ToNew::SessionsLeft(read) = serde_json::from_slice(&older).unwrap() else { panic!() };
        assert_eq!(read, LoginsLeft::default());
    }

    #[test]
    fn the_largest_packet_of_addresses_fits() {
        let address = IpAddr::from([0xffff; 8]);
        let counts = vec![(address, usize::MAX); ADDRESSES_AT_ONCE + 1];
        let messages: Vec<ToNew> = ToNew::connections(&counts).collect();
        assert_eq!(messages.len(), 2);
        let bytes = serde_json::to_vec(&messages[0]).unwrap().len();
        assert!(bytes <= 70 * ADDRESSES_AT_ONCE, "{bytes}");
    }
}
