//! Claims: what one source reported of one member, and when it was asked.
//!
//! A failed probe is a claim too: the judge uses the fact that there was no answer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::identity::{About, Identity};
use crate::load::Load;
use crate::names::{Endpoint, MemberName};
use crate::skew::ClockOffset;
use crate::text::Cleaned;
use crate::time::Moment;

/// What a source reports: about one member, about the list of members, or about keys in etcd.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// About one member.
    Claim(Claim),
    /// The list of members.
    Topology(Topology),
    /// A Patroni that was asked for the list did not return one.
    Unlisted(Unlisted),
    /// What Patroni has written in etcd.
    Notice(Notice),
}

/// What one source reported of one member.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The member that it is about.
    pub member: MemberName,
    /// When the question was sent. An answer is as old as its question: a reply that waited in a
    /// frozen host for a minute describes the state of a minute ago.
    pub asked_at: Moment,
    /// What was reported.
    pub fact: Fact,
}

/// The content of a claim, by source.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The member's own Patroni, asked at `GET /primary`: the status code shows who has the leader
    /// lock, the body is that of `/patroni`.
    Patroni(Result<PatroniFacts, Failure>),
    /// The same question was not answered within `[patroni] timeout_seconds`. The request
    /// continues, and its answer still counts.
    PatroniLate(Failure),
    /// The kept SQL connection: whether the server is in recovery.
    Tether(Result<TetherFacts, Failure>),
    /// The query for WAL positions, over the same connection.
    Progress(Progress),
    /// The pooler on this port of the member's host.
    Pooler {
        /// Its port.
        port: u16,
        /// Its answer. A failure means that it is down.
        answer: Result<PoolerFacts, Failure>,
    },
    /// The addresses to which the member's host name resolves.
    Addresses(Result<Vec<IpAddr>, Failure>),
    /// The addresses to which another host resolves, under which the newest list names the member.
    NewHost {
        /// That host, and the port of the member's PostgreSQL there.
        postgres: Endpoint,
        /// Its addresses.
        addresses: Result<Vec<IpAddr>, Failure>,
    },
    /// Whether one of them is an address of this machine, loopback excluded.
    Here(bool),
    /// Whether the server accepts new sessions, by the result of a fresh connection. A server in a
    /// smart shutdown, or whose postmaster hangs, refuses them while its old sessions continue.
    NewSessions(Result<(), Failure>),
}

/// The role of a member.
///
/// Patroni below 4.0 reports `master` for the primary; pgsteer reads that and never writes it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Streams from the primary or from another replica.
    Replica,
    /// Leads a standby cluster: in recovery, streaming from another cluster.
    StandbyLeader,
    /// No source has reported a role, or the reported one is unknown to pgsteer.
    Unknown,
}

impl Role {
    /// The name used in the configuration, on pages and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::StandbyLeader => "standby_leader",
            Role::Unknown => "unknown",
        }
    }

    /// Parses Patroni's name of a role, old (`master`) and new.
    pub fn from_patroni(word: &str) -> Role {
        match word {
            "primary" | "master" | "leader" => Role::Primary,
            "replica" | "sync_standby" | "quorum_standby" => Role::Replica,
            "standby_leader" => Role::StandbyLeader,
            _ => Role::Unknown,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether commits on the primary wait for a replica, by Patroni's `sync_standby` and
/// `quorum_standby`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standby {
    /// No commit waits for it, or it is not a replica.
    #[default]
    Async,
    /// Commits wait for it.
    Sync,
    /// Commits wait for a number of such replicas; Patroni 4.0 and later.
    Quorum,
}

/// Patroni's tags: a name and the value as text (`true`, `100`, `fast`). Both are cleaned
/// ([`crate::text::clean`]). The code that reads Patroni's answer limits their length and number.
pub type Tags = BTreeMap<String, String>;

/// The tags on which both Patroni and pgsteer act, as Patroni converts their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagFlags {
    /// `noloadbalance`: the replica gets no read sessions.
    pub no_load_balance: bool,
    /// `nostream`: the replica is configured to read its WAL from the archive. Patroni 4.0 and
    /// later.
    pub no_stream: bool,
}

/// What a member's Patroni reports at `GET /primary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatroniFacts {
    /// The answer was 200: Patroni holds the leader lock and its local expiry has not passed.
    pub holds_lock: bool,
    /// Patroni's `state`: `running`, `starting`, `stopping`, `stopped`, `creating replica`, ... (all of
    /// them: `PostgresqlState` in `patroni/postgresql/misc.py`, Patroni 4).
    pub state: String,
    /// The role of PostgreSQL, by Patroni's own query; unknown while PostgreSQL does not answer it.
    pub role: Role,
    /// PostgreSQL's timeline.
    pub timeline: Option<u32>,
    /// The write position in bytes: on a primary only.
    pub location: Option<u64>,
    /// The replayed position in bytes: on a replica only.
    pub replayed_location: Option<u64>,
    /// Patroni 3.0.4 and later: `streaming`, `in archive recovery`, ...
    pub replication_state: Option<String>,
    /// Whether commits on the primary wait for it.
    pub standby: Standby,
    /// The member's tags.
    pub tags: Tags,
    /// The tags on which Patroni itself acts.
    pub flags: TagFlags,
    /// The cluster is in maintenance mode.
    pub paused: bool,
    /// The member name that the answering Patroni reports of itself; Patroni 4 and later.
    pub name: Option<String>,
    /// Patroni's scope, to detect a member of another cluster.
    pub scope: Option<String>,
    /// The cluster's database system identifier, for the same purpose.
    pub system_identifier: Option<String>,
}

impl PatroniFacts {
    /// Returns the facts of a member in this state and role; all else is absent.
    pub fn new(state: &str, role: Role) -> PatroniFacts {
        PatroniFacts {
            holds_lock: false,
            state: state.to_owned(),
            role,
            timeline: None,
            location: None,
            replayed_location: None,
            replication_state: None,
            standby: Standby::default(),
            tags: Tags::new(),
            flags: TagFlags::default(),
            paused: false,
            name: None,
            scope: None,
            system_identifier: None,
        }
    }

    /// Returns true if PostgreSQL runs and answers Patroni's queries.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Returns true if the answer claims the lead of the cluster. The leader of a standby cluster
    /// holds the lock as well, but its `/primary` answers 503, so its role decides.
    pub fn leads(&self) -> bool {
        self.holds_lock || self.leads_standby()
    }

    /// What the answering Patroni reports of itself.
    pub fn about(&self) -> About {
        About { name: self.name.clone(), identity: self.identity() }
    }

    /// The cluster that the answering Patroni belongs to.
    pub fn identity(&self) -> Identity {
        Identity {
            scope: self.scope.clone(),
            group: None,
            system_identifier: self.system_identifier.clone(),
        }
    }

    /// Returns true if the role is that of the leader of a standby cluster.
    pub fn leads_standby(&self) -> bool {
        self.role == Role::StandbyLeader
    }
}

/// What the tether reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TetherFacts {
    /// The server is in recovery, that is, read-only.
    pub in_recovery: bool,
    /// When the server was started; none if that has not been asked yet.
    pub started_at: Option<ServerStart>,
    /// The database system identifier; none if that has not been asked yet, or if the check login may
    /// not read it.
    pub system_identifier: Option<u64>,
}

impl TetherFacts {
    /// Returns the role alone.
    pub fn of_role(in_recovery: bool) -> TetherFacts {
        TetherFacts { in_recovery, started_at: None, system_identifier: None }
    }
}

/// When a server was started, in microseconds since 1970 by its own clock
/// (`pg_postmaster_start_time()`). It distinguishes two servers, and two runs of one server. Every
/// user may query it, also through a pooler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerStart(pub u64);

/// What a pooler that is up shows about the path through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolerFacts {
    /// It accepts connections; without a login pgsteer can ask no more.
    Answers,
    /// It answers and refuses the check login, so the server behind it is unknown.
    RefusesLogin(Failure),
    /// A query through it was answered.
    Leads {
        /// The server behind the pooler is in recovery. This is the result of a query and never
        /// `in_hot_standby` of the pooler's login: that is as old as the pooler's own connection.
        in_recovery: bool,
        /// When the server behind the pooler was started; none if unknown.
        started_at: Option<ServerStart>,
    },
    /// It answers, but a session through it fails.
    LeadsNowhere(Failure),
    /// It answers, and keeps a query waiting: it is paused, or all of its sessions are in use.
    Busy(Failure),
}

/// WAL positions and replication state, by SQL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The server was in recovery when it answered.
    pub in_recovery: bool,
    /// A primary's write position or a replica's replay position, in bytes.
    pub location: Option<u64>,
    /// A primary's timeline. On a replica the timeline of its last checkpoint, which may lag.
    pub timeline: Option<u32>,
    /// A WAL receiver is running. Without meaning on a primary.
    pub streaming: bool,
    /// How long ago the last replayed transaction was committed, in microseconds: the replica's
    /// clock now, minus the primary's clock at the commit. None on a primary.
    pub replay_age_micros: Option<i64>,
    /// How far the server's clock is ahead of ours.
    pub clock_offset: Option<ClockOffset>,
    /// How full the server is.
    pub load: Option<Load>,
}

/// Why a source has no answer.
///
/// The text of the server or the library goes into reasons and pages, so it must never contain a
/// secret: the code that builds a failure removes it. `Display` escapes the hidden characters of
/// every text.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// No process listens at that address.
    #[error("connection refused by {}", Cleaned(.0))]
    Refused(Arc<str>),
    /// No answer within the limit.
    #[error("no answer from {} within {limit:?}", Cleaned(.peer))]
    Timeout {
        /// The peer that was asked.
        peer: Arc<str>,
        /// The limit.
        limit: Duration,
    },
    /// No connection within the limit: no packet came back.
    #[error(
        "no connection to {} within {limit:?}: the host is down, or a firewall drops the packets",
        Cleaned(.peer)
    )]
    Unreachable {
        /// The peer.
        peer: Arc<str>,
        /// The limit.
        limit: Duration,
    },
    /// Patroni has not answered within `timeout_seconds`.
    #[error(
        "no answer from {} within {waited:?}; [patroni] timeout_seconds is {}",
        Cleaned(.peer),
        .limit.as_secs_f64()
    )]
    Late {
        /// Its base address.
        peer: Arc<str>,
        /// `[patroni] timeout_seconds`.
        limit: Duration,
        /// How long the request has run.
        waited: Duration,
    },
    /// The peer closed the connection.
    #[error("connection closed by {}", Cleaned(.0))]
    Closed(Arc<str>),
    /// Any other network error.
    #[error("{}", Cleaned(.0))]
    Network(Arc<str>),
    /// The server reports that it is shutting down, starting up or in recovery without hot
    /// standby (57P01, 57P02, 57P03); or a pooler reports that it cannot reach its server.
    #[error("{by} reports: {} ({})", Cleaned(.message), Cleaned(.sqlstate))]
    Unavailable {
        /// What reports it.
        by: Speaker,
        /// SQLSTATE.
        sqlstate: Arc<str>,
        /// The server's message.
        message: Arc<str>,
    },
    /// The server is alive and refuses this login or query: a wrong password (28P01), no line in
    /// `pg_hba.conf` (28000), no such database (3D000), too many clients (53300). This shows
    /// nothing about the role, but it does not mean that the server is dead.
    #[error("{by} refuses the check login: {} ({})", Cleaned(.message), Cleaned(.sqlstate))]
    LoginRefused {
        /// What refuses it.
        by: Speaker,
        /// SQLSTATE.
        sqlstate: Arc<str>,
        /// The server's message.
        message: Arc<str>,
    },
    /// The server is alive, and pgsteer does not complete the login: the server asks for a method
    /// that `require_auth` excludes, for a password where none is configured, or for too much work.
    #[error("the check login was not completed: {0}")]
    LoginDeclined(Arc<str>),
    /// The answer is larger than any valid answer of the peer.
    #[error("{} sent more than {bytes_max} bytes", Cleaned(.peer))]
    TooLarge {
        /// The peer that was asked.
        peer: Arc<str>,
        /// The limit that was exceeded.
        bytes_max: usize,
    },
    /// The answer cannot be parsed.
    #[error("{}", Cleaned(.0))]
    Malformed(Arc<str>),
    /// The TLS handshake failed.
    #[error("TLS: {}", Cleaned(.0))]
    Tls(Arc<str>),
    /// The name resolves to no address.
    #[error("cannot resolve {}", Cleaned(.0))]
    Unresolved(Arc<str>),
    /// The Patroni that answers belongs to another member.
    #[error("the Patroni that answers there is that of member {name}")]
    OtherMember {
        /// The name that it reports.
        name: Arc<str>,
        /// It reports the system identifier of this cluster.
        is_of_cluster: bool,
    },
}

/// A program that answers in PostgreSQL's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The server itself.
    PostgreSql,
    /// The pooler in front of it.
    PgBouncer,
}

/// The program that an error message comes from, and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The program.
    pub program: Program,
    /// Its address, as `HOST:PORT`.
    pub at: Arc<str>,
}

impl Speaker {
    /// The PostgreSQL at `HOST:PORT`.
    pub fn postgres(at: impl Into<Arc<str>>) -> Speaker {
        Speaker { program: Program::PostgreSql, at: at.into() }
    }

    /// The PgBouncer at `HOST:PORT`.
    pub fn pgbouncer(at: impl Into<Arc<str>>) -> Speaker {
        Speaker { program: Program::PgBouncer, at: at.into() }
    }
}

impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = match self.program {
            Program::PostgreSql => "PostgreSQL",
            Program::PgBouncer => "PgBouncer",
        };
        write!(f, "{program} at {}", Cleaned(&self.at))
    }
}

impl Failure {
    /// Returns the same failure, reported by PgBouncer. The code that reads an error message
    /// assumes that it is PostgreSQL's, also if it came through PgBouncer.
    pub fn of_pgbouncer(mut self) -> Failure {
        if let Failure::LoginRefused { by, .. } | Failure::Unavailable { by, .. } = &mut self {
            by.program = Program::PgBouncer;
        }
        self
    }

    /// Returns true if no sign of the peer came back. A failure of the network, or of this machine,
    /// is none either.
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            Failure::Timeout { .. }
                | Failure::Unreachable { .. }
                | Failure::Late { .. }
                | Failure::Network(_)
                | Failure::Unresolved(_)
        )
    }

    /// Returns true if the peer answers but does not complete the check login, so its role stays
    /// unknown.
    pub fn is_login_refused(&self) -> bool {
        matches!(self, Failure::LoginRefused { .. } | Failure::LoginDeclined(_))
    }
}

/// The member list that one Patroni returned at `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// When the question was sent.
    pub asked_at: Moment,
    /// The base URL that returned the list.
    pub url: Arc<str>,
    /// What the same Patroni reported of itself just before the list.
    pub about: About,
    /// The scope that the list names (Patroni 4.0 and later).
    pub scope: Option<String>,
    /// Patroni is in maintenance mode.
    pub paused: bool,
    /// The members that have an address.
    pub members: Vec<Found>,
    /// Why each of the others was left out of `members`.
    pub skipped: Vec<String>,
}

impl Topology {
    /// The identity of the cluster whose list this is.
    pub fn identity(&self) -> Identity {
        let of_list = Identity { scope: self.scope.clone(), ..Identity::default() };
        of_list.or(&self.about.identity)
    }
}

/// A Patroni was asked for the member list and returned none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlisted {
    /// The base URL that was asked.
    pub asked: Arc<str>,
    /// What the same Patroni reported of itself; none if it did not answer.
    pub about: Option<About>,
    /// Why there is no list.
    pub failure: Failure,
}

/// What the watch of etcd saw, or that it was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When it came in. An event that etcd sends by itself answers no question.
    pub heard_at: Moment,
    /// What it is.
    pub news: News,
}

/// The content of a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The watch is active: every write to the keys is reported at once.
    Watching,
    /// The watch has ended: nothing is reported any more.
    Lost(Failure),
    /// A switchover was requested, to be carried out now.
    Ordered(Order),
    /// No switchover request is left: it was carried out, refused or cancelled.
    NoOrder,
    /// This member holds the leader lock.
    Leader(MemberName),
    /// The watch reported writes of this many keys.
    Written(u64),
    /// The keys were read by a separate query.
    Read {
        /// The query found a change that the watch has not reported, at least not yet.
        is_behind: bool,
    },
}

/// Patroni's request for a planned switchover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The member that has to give up the lead. A manual failover names none and means the present
    /// leader.
    pub leader: Option<MemberName>,
    /// The member that has to lead; none leaves the choice to Patroni.
    pub candidate: Option<MemberName>,
}

/// One member as listed by `/cluster` or the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: MemberName,
    /// Where its PostgreSQL listens.
    pub postgres: Endpoint,
    /// The base of its REST API, as `http://10.0.0.11:8008`; none without Patroni.
    pub patroni_url: Option<Arc<str>>,
}
