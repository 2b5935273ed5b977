//! Listing and ending sessions by what is known of their clients.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use pgsteer_core::names::{MemberName, ServiceName};

/// The client of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFacts {
    /// Its address.
    pub address: SocketAddr,
    /// The user of its startup packet, cleaned; none inside TLS.
    pub user: Option<Box<str>>,
    /// The database of its startup packet, cleaned; none inside TLS.
    pub database: Option<Box<str>>,
    /// It uses TLS, which ends at the member.
    pub is_tls: bool,
}

/// The activity of a session.
#[derive(Debug)]
pub struct Activity {
    began: Instant,
    active: Cell<Instant>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

/// One session as an operator sees it.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The service.
    pub service: ServiceName,
    /// The member.
    pub member: MemberName,
    /// The client; none while it is not known, for microseconds after the seat is taken.
    pub client: Option<ClientFacts>,
    /// Since when the session has its member.
    pub age: Duration,
    /// How long no bytes have moved.
    pub idle: Duration,
    /// Bytes from the client to the member.
    pub bytes_in: u64,
    /// Bytes from the member to the client.
    pub bytes_out: u64,
}

/// Which sessions are meant. A criterion that is absent matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// The member.
    pub member: Option<MemberName>,
    /// The service.
    pub service: Option<ServiceName>,
    /// The user. The user of a session inside TLS is unknown.
    pub user: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// The client's address.
    pub client: Option<ClientFilter>,
    /// No bytes have moved for longer than this.
    pub idle_longer: Option<Duration>,
}

/// Which clients are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFilter {
    /// All of one host.
    Host(IpAddr),
    /// One connection.
    Connection(SocketAddr),
}

impl Activity {
    /// A session that begins now.
    pub fn new() -> Activity {
        let now = Instant::now();
        let (bytes_in, bytes_out) = (Cell::new(0), Cell::new(0));
        Activity { began: now, active: Cell::new(now), bytes_in, bytes_out }
    }

    /// Counts bytes that have moved now.
    pub fn count(&self, bytes_in: u64, bytes_out: u64) {
        if bytes_in > 0 || bytes_out > 0 {
            self.active.set(Instant::now());
            self.bytes_in.set(self.bytes_in.get() + bytes_in);
            self.bytes_out.set(self.bytes_out.get() + bytes_out);
        }
    }
}

impl SessionInfo {
    /// A session of `service` at `member`.
    pub fn new(
        (service, member): (&ServiceName, &MemberName),
        client: Option<&ClientFacts>,
        activity: &Activity,
        now: Instant,
    ) -> SessionInfo {
        SessionInfo {
            service: service.clone(),
            member: member.clone(),
            client: client.cloned(),
            age: now.saturating_duration_since(activity.began),
            idle: now.saturating_duration_since(activity.active.get()),
            bytes_in: activity.bytes_in.get(),
            bytes_out: activity.bytes_out.get(),
        }
    }
}

impl SessionFilter {
    /// Returns true if no criterion is given.
    pub fn is_empty(&self) -> bool {
        *self == SessionFilter::default()
    }

    /// Returns true if `session` is meant.
    pub fn matches(&self, session: &SessionInfo) -> bool {
        let client = session.client.as_ref();
        let user = client.and_then(|client| client.user.as_deref());
        let database = client.and_then(|client| client.database.as_deref());
        self.member.as_ref().is_none_or(|member| *member == session.member)
            && self.service.as_ref().is_none_or(|service| *service == session.service)
            && self.user.as_deref().is_none_or(|wanted| user == Some(wanted))
            && self.database.as_deref().is_none_or(|wanted| database == Some(wanted))
            && self.client.is_none_or(|wanted| client.is_some_and(|it| wanted.matches(it.address)))
            && self.idle_longer.is_none_or(|limit| session.idle > limit)
    }
}

impl ClientFilter {
    fn matches(self, address: SocketAddr) -> bool {
        match self {
            ClientFilter::Host(host) => address.ip().to_canonical() == host.to_canonical(),
            ClientFilter::Connection(wanted) => {
                address.port() == wanted.port()
                    && address.ip().to_canonical() == wanted.ip().to_canonical()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionInfo {
        SessionInfo {
            service: ServiceName::new("read").unwrap(),
            member: MemberName::new("n2").unwrap(),
            client: Some(ClientFacts {
                address: "[::ffff:10.0.0.5]:4711".parse().unwrap(),
                user: Some("app".into()),
                database: Some("shop".into()),
                is_tls: false,
            }),
            age: Duration::from_secs(100),
            idle: Duration::from_secs(60),
            bytes_in: 1,
            bytes_out: 2,
        }
    }

    #[test]
    fn each_criterion_has_to_match() {
        let client = |text: &str| Some(ClientFilter::Host(text.parse().unwrap()));
        let none = SessionFilter::default;
        let fits = [
            none(),
            SessionFilter { member: MemberName::new("n2").ok(), ..none() },
            SessionFilter { user: Some("app".into()), database: Some("shop".into()), ..none() },
            SessionFilter { client: client("10.0.0.5"), ..none() },
            SessionFilter { idle_longer: Some(Duration::from_secs(59)), ..none() },
        ];
        assert!(fits.iter().all(|filter| filter.matches(&session())));
        let others = [
            SessionFilter { member: MemberName::new("n3").ok(), ..none() },
            SessionFilter { service: ServiceName::new("write").ok(), ..none() },
            SessionFilter { user: Some("ap".into()), ..none() },
            SessionFilter { user: Some("app".into()), database: Some("x".into()), ..none() },
            SessionFilter { client: client("10.0.0.6"), ..none() },
            SessionFilter { idle_longer: Some(Duration::from_secs(60)), ..none() },
        ];
        assert!(!others.iter().any(|filter| filter.matches(&session())));
    }

    #[test]
    fn a_session_whose_user_is_unknown_matches_no_user() {
        let filter = SessionFilter { user: Some("app".into()), ..SessionFilter::default() };
        let client = session().client.map(|client| ClientFacts { user: None, ..client });
        assert!(!filter.matches(&SessionInfo { client, ..session() }));
        assert!(!filter.matches(&SessionInfo { client: None, ..session() }));
    }
}
