//! Clients and sessions that leave this process, because another process of pgsteer takes over.
//!
//! A client moves while it waits and has received nothing. A session moves between two reads of its
//! pump: the bytes that one side has sent and the other has not accepted move with it. A login in
//! progress does not move; its session moves as soon as it is established.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
use pgsteer_wire::startup::CancelKey;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::capacity::Permits;
use super::flow::Flow;

/// A client or a session on its way to another process.
#[derive(Debug)]
pub enum Moved {
    /// A client without a session.
    Client(MovedClient),
    /// An established session.
    Session(Box<MovedSession>),
}

/// Where clients and sessions are sent that move.
pub type Exit = mpsc::Sender<Moved>;

/// A client that has received nothing but the answer to a request for encryption.
#[derive(Debug)]
pub struct MovedClient {
    /// Its connection.
    pub stream: TcpStream,
    /// The service whose port it has connected to.
    pub service: ServiceName,
    /// The bytes that it has sent, an unanswered request included.
    pub sent: Vec<u8>,
    /// It has requested TLS, and was answered.
    pub asked_for_tls: bool,
    /// It has requested GSS encryption, and was answered.
    pub asked_for_gss: bool,
    /// How long ago it connected.
    pub age: Duration,
    /// How long it has been on hold; none if it has not asked for a member yet.
    pub waited: Option<Duration>,
    /// Its position in the order of arrival.
    pub ticket: Option<u64>,
}

/// An established session.
#[derive(Debug)]
pub struct MovedSession {
    /// The connection of the client.
    pub client: TcpStream,
    /// The connection to the member.
    pub server: TcpStream,
    /// The service.
    pub service: ServiceName,
    /// The member.
    pub member: MemberName,
    /// The endpoint of the member's PostgreSQL when it was dialled.
    pub postgres: Endpoint,
    /// How long ago the client connected.
    pub age: Duration,
    /// The bytes cannot be read, because the session uses TLS.
    pub is_opaque: bool,
    /// The key that cancels its queries, if it is known.
    pub key: Option<CancelKey>,
    /// The state of the pump.
    pub flow: Flow,
    /// The user of its login, if it is known.
    pub user: Option<Box<str>>,
    /// The database of its login, if it is known.
    pub database: Option<Box<str>>,
}

/// What logins in progress occupy in a process whose other clients and sessions have moved. Their
/// sessions may follow.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct LoginsLeft {
    /// The permits of each service.
    #[serde(default)]
    pub permits: BTreeMap<ServiceName, Permits>,
    /// The number of connections of each client address.
    #[serde(default)]
    pub connections: Vec<(IpAddr, usize)>,
}

/// The receiver has gone: the takeover has failed, and the client stays here.
pub struct NotMoved(pub Moved);

/// Sends `moved` away.
///
/// # Errors
/// The receiver has gone; `moved` is returned.
pub async fn send(exit: Option<Exit>, moved: Moved) -> Result<(), NotMoved> {
    match exit {
        Some(exit) => exit.send(moved).await.map_err(|refused| NotMoved(refused.0)),
        None => Err(NotMoved(moved)),
    }
}

impl Moved {
    /// The service of the client.
    pub fn service(&self) -> &ServiceName {
        match self {
            Moved::Client(client) => &client.service,
            Moved::Session(session) => &session.service,
        }
    }

    /// The connection of the client.
    pub fn client(&self) -> &TcpStream {
        match self {
            Moved::Client(client) => &client.stream,
            Moved::Session(session) => &session.client,
        }
    }
}
