//! Claims: what one source said of one member, and when it was asked.
//!
//! A failed probe is a claim too: that nobody answered is something to judge by.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::identity::{About, Identity};
use crate::load::Load;
use crate::names::{Endpoint, MemberName};
use crate::skew::ClockOffset;
use crate::text::Cleaned;
use crate::time::Moment;

/// What a source reports: of one member, of which members there are, or of what is written in
/// etcd.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Something of one member.
    Claim(Claim),
    /// Which members there are.
    Topology(Topology),
    /// That somebody who was asked for it did not tell.
    Unlisted(Unlisted),
    /// What Patroni has written in etcd.
    Notice(Notice),
}

/// What one source said of one member.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The member spoken of.
    pub member: MemberName,
    /// When the question was sent. An answer is no newer than its question: a reply that
    /// lay in a frozen host for a minute speaks of what was true a minute ago.
    pub asked_at: Moment,
    /// What was said.
    pub fact: Fact,
}

/// The content of a claim, by source.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The member's own Patroni, asked at `GET /primary`: the status code tells of the
    /// leader lock, the body is that of `/patroni`.
    Patroni(Result<PatroniFacts, Failure>),
    /// The same question has not been answered within `[patroni] timeout_seconds`. The request runs
    /// on, and its answer still counts.
    PatroniLate(Failure),
    /// The kept SQL connection: is the server in recovery?
    Tether(Result<TetherFacts, Failure>),
    /// The query for WAL positions, over the same connection.
    Progress(Progress),
    /// The pooler on this port of the member's host.
    Pooler {
        /// Its port.
        port: u16,
        /// What it said. A failure means that it is down.
        said: Result<PoolerFacts, Failure>,
    },
    /// The addresses that the member's host name stands for.
    Addresses(Result<Vec<IpAddr>, Failure>),
    /// Whether one of them is an address of this machine, loopback aside.
    Here(bool),
    /// Whether the server accepts new sessions, as a fresh connection showed. A server in a smart
    /// shutdown, or whose postmaster hangs, refuses them while its old sessions go on.
    NewSessions(Result<(), Failure>),
}

/// The role of a member.
///
/// Patroni below 4.0 says `master` for the primary; that is read, never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Streams from the primary or from another replica.
    Replica,
    /// Leads a standby cluster: in recovery, streaming from another cluster.
    StandbyLeader,
    /// Nobody has said, or what was said is no role.
    Unknown,
}

impl Role {
    /// The word used in configuration, pages and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::StandbyLeader => "standby_leader",
            Role::Unknown => "unknown",
        }
    }

    /// Reads Patroni's word, old (`master`) and new.
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

/// What a replica's stream means to the commits of the primary, by Patroni's `sync_standby` and
/// `quorum_standby`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standby {
    /// No commit waits for it, or it is no replica.
    #[default]
    Async,
    /// Commits wait for it.
    Sync,
    /// Commits wait for some of its kind; Patroni 4.0 and later.
    Quorum,
}

/// Patroni's tags: a name and the value as text (`true`, `100`, `fast`). They are clean; their
/// length and number are limited where Patroni's answer is read.
pub type Tags = BTreeMap<String, String>;

/// The tags on which both Patroni and pgsteer act, as Patroni converts their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagFlags {
    /// `noloadbalance`: the replica takes no readers.
    pub no_load_balance: bool,
    /// `nostream`: the replica reads its WAL from the archive, by intention. Patroni 4.0 and later.
    pub no_stream: bool,
}

/// What a member's Patroni says of it at `GET /primary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatroniFacts {
    /// The answer was 200: Patroni holds the leader lock and its local expiry has not passed.
    pub holds_lock: bool,
    /// Patroni's `state`: `running`, `starting`, `stopping`, `stopped`, ...
    pub state: String,
    /// The role that PostgreSQL itself has, as Patroni asked it.
    pub role: Role,
    /// PostgreSQL's timeline.
    pub timeline: Option<u32>,
    /// The write position in bytes: on a primary only.
    pub location: Option<u64>,
    /// The replayed position in bytes: on a replica only.
    pub replayed_location: Option<u64>,
    /// Patroni 3.0.4 and later: `streaming`, `in archive recovery`, ...
    pub replication_state: Option<String>,
    /// What its stream means to the commits of the primary.
    pub standby: Standby,
    /// The member's tags.
    pub tags: Tags,
    /// The tags that Patroni itself acts on.
    pub flags: TagFlags,
    /// The cluster is in maintenance mode.
    pub paused: bool,
    /// The member name that the answering Patroni reports of itself; Patroni 4 and later.
    pub name: Option<String>,
    /// Patroni's scope, to notice a member of another cluster.
    pub scope: Option<String>,
    /// The cluster's database system identifier, for the same.
    pub system_identifier: Option<String>,
}

impl PatroniFacts {
    /// Facts of a member in this state and role; all else is absent.
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

    /// PostgreSQL runs and answers Patroni's queries.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// It says that it leads its cluster. The leader of a standby cluster holds the lock as well,
    /// but `/primary` answers 503 there, so that its role has to tell.
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

    /// It leads a standby cluster.
    pub fn leads_standby(&self) -> bool {
        self.role == Role::StandbyLeader
    }
}

/// What the tether feels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TetherFacts {
    /// The server is in recovery, that is not writable.
    pub in_recovery: bool,
    /// When the server was started, if that has been asked.
    pub started_at: Option<ServerStart>,
}

/// When a server was started, in microseconds since 1970 by its own clock
/// (`pg_postmaster_start_time()`). It tells one server from another, and one run of it from the
/// next, and anybody may ask it, through a pooler as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerStart(pub u64);

/// What a pooler that is up says of the path through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolerFacts {
    /// It answers; without a login nobody can ask it further.
    Answers,
    /// It answers and refuses the check login, so nobody can tell where it leads.
    RefusesLogin(Failure),
    /// A query went through it and back.
    Leads {
        /// The server at the other end is in recovery. By a query, never by `in_hot_standby` in
        /// the pooler's welcome: that is as old as the pooler's own connection.
        in_recovery: bool,
        /// When the server at the other end was started, if it tells.
        started_at: Option<ServerStart>,
    },
    /// It answers, and a session through it comes to nothing.
    LeadsNowhere(Failure),
    /// It answers, and keeps a query waiting: it is paused, or all of its sessions are taken.
    Busy(Failure),
}

/// WAL positions and replication state, as SQL tells them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The server was in recovery when it answered.
    pub in_recovery: bool,
    /// A primary's write position or a replica's replay position, in bytes.
    pub location: Option<u64>,
    /// A primary's timeline. On a replica that of its last checkpoint, which may lag.
    pub timeline: Option<u32>,
    /// A WAL receiver is running. Of no meaning on a primary.
    pub streaming: bool,
    /// How long ago the last replayed transaction was committed, in microseconds: by the clock of
    /// the replica now, and by that of the primary then. None on a primary.
    pub replay_age_micros: Option<i64>,
    /// How far the server's clock is ahead of ours.
    pub clock_offset: Option<ClockOffset>,
    /// How full it is.
    pub load: Option<Load>,
}

/// Why a source has no answer.
///
/// The text of the server or the library goes into reasons and pages, so it must never
/// contain a secret: the code that builds a failure removes it. How a failure is displayed is
/// clean, whatever the text contains.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens there.
    #[error("connection refused by {}", Cleaned(.0))]
    Refused(Arc<str>),
    /// No answer within the limit.
    #[error("no answer from {} within {limit:?}", Cleaned(.peer))]
    Timeout {
        /// Who was asked.
        peer: Arc<str>,
        /// The time it had.
        limit: Duration,
    },
    /// No connection within the limit: no packet came back.
    #[error(
        "no connection to {} within {limit:?}: the host is down, or a firewall drops the packets",
        Cleaned(.peer)
    )]
    Unreachable {
        /// Where to.
        peer: Arc<str>,
        /// The time it had.
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
    /// The peer ended the connection.
    #[error("connection closed by {}", Cleaned(.0))]
    Closed(Arc<str>),
    /// Any other error of the network.
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
    /// The server is alive and refuses this login or query: a wrong password (28P01), no line
    /// in `pg_hba.conf` (28000), no such database (3D000), too many clients (53300). It tells
    /// nothing of the role, but it is no sign of a dead server either.
    #[error("{by} refuses the check login: {} ({})", Cleaned(.message), Cleaned(.sqlstate))]
    LoginRefused {
        /// What refuses it.
        by: Speaker,
        /// SQLSTATE.
        sqlstate: Arc<str>,
        /// The server's message.
        message: Arc<str>,
    },
    /// The server is alive, and pgsteer does not complete the login: it asks for a method that
    /// `require_auth` excludes, for a password where none is configured, or for too much work.
    #[error("the check login was not completed: {0}")]
    LoginDeclined(Arc<str>),
    /// The answer is larger than anything the peer should say.
    #[error("{} answers more than {bytes_max} bytes", Cleaned(.peer))]
    TooLarge {
        /// Who was asked.
        peer: Arc<str>,
        /// The limit that was passed.
        bytes_max: usize,
    },
    /// The answer makes no sense.
    #[error("{}", Cleaned(.0))]
    Malformed(Arc<str>),
    /// TLS could not be agreed on.
    #[error("TLS: {}", Cleaned(.0))]
    Tls(Arc<str>),
    /// The name stands for no address.
    #[error("cannot resolve {}", Cleaned(.0))]
    Unresolved(Arc<str>),
    /// The Patroni that answers is another member's.
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
    /// The pooler before it.
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
    /// The same failure, reported by PgBouncer: an error message that came through it is taken for
    /// one of PostgreSQL's where it is read.
    pub fn of_pgbouncer(mut self) -> Failure {
        if let Failure::LoginRefused { by, .. } | Failure::Unavailable { by, .. } = &mut self {
            by.program = Program::PgBouncer;
        }
        self
    }

    /// The peer is there and speaks, but not to us: its role stays unknown.
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
    /// What the same Patroni reported of itself just before.
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
    /// What the same Patroni reported of itself, if it did.
    pub about: Option<About>,
    /// Why there is no list.
    pub failure: Failure,
}

/// What the watch of etcd saw, or that it sees nothing.
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
    /// From here on whatever is written is heard of at once.
    Watching,
    /// Nothing is heard of any more.
    Lost(Failure),
    /// A switchover is to be done now.
    Ordered(Order),
    /// No order is left: it has been carried out, refused or taken back.
    NoOrder,
    /// The leader lock is this member's.
    Leader(MemberName),
    /// So many keys were written, as the watch told.
    Written(u64),
    /// The keys have been read, by a question of its own.
    Read {
        /// There was something that the watch has not told, at least not yet.
        is_behind: bool,
    },
}

/// Patroni's order for a planned switchover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The member that is to give up the lead. A manual failover names none, and means whoever
    /// leads.
    pub leader: Option<MemberName>,
    /// The member that is to lead; none leaves the choice to Patroni.
    pub candidate: Option<MemberName>,
}

/// One member as `/cluster` or the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: MemberName,
    /// Where its PostgreSQL listens.
    pub postgres: Endpoint,
    /// The base of its REST API, as `http://10.0.0.11:8008`; none without Patroni.
    pub patroni_url: Option<Arc<str>>,
}
