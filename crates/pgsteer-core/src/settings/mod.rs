//! The settings: what one pgsteer process does, complete and checked, as plain data.
//!
//! Files, flags and the environment are read elsewhere; nothing here parses a text.

mod auth;
pub mod defaults;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::auth::{AuthMethod, RequireAuth};
use crate::claim::{Found, Role};
use crate::identity::Identity;
use crate::names::{ClusterName, MemberName, ServiceName};
use crate::question::Question;

/// All settings of one pgsteer process.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cluster it is the front door of.
    pub cluster: ClusterConfig,
    /// Its services by name; at least one.
    pub services: BTreeMap<ServiceName, ServiceConfig>,
    /// Where the status pages are, if anywhere.
    pub http: Option<HttpConfig>,
    /// What HAProxy's agent-checks are answered, if they are.
    pub agent: Option<AgentConfig>,
    /// How the proxy treats connections.
    pub proxy: ProxyConfig,
}

impl Config {
    /// The ports of the poolers that are watched beside every member.
    pub fn pooler_ports(&self) -> BTreeSet<u16> {
        let of_services = self.services.values().filter_map(|service| service.pooler_port);
        of_services.chain(self.agent.as_ref().and_then(|agent| agent.pooler_port)).collect()
    }
}

/// The cluster and how to learn about it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// The operator's name for it. Without one it is called by Patroni's scope.
    pub name: Option<ClusterName>,
    /// Where the members come from.
    pub members: Membership,
    /// The login of the tether; without it Patroni's word alone has to do.
    pub check: Option<CheckConfig>,
    /// Where Patroni's keys are watched, if anywhere.
    pub etcd: Option<EtcdConfig>,
    /// What to do when two members take writes and there is no Patroni to say who is right.
    pub split_brain: SplitBrain,
    /// How long an open gate outlives the silence of its member's Patroni, while the tether
    /// says that all is well and nobody rivals it.
    pub patroni_loss_grace: Duration,
    /// After how long without a word from any source the sessions to a member are ended.
    pub silence: Duration,
    /// Where we are, as far as it is known.
    pub here: Here,
}

impl ClusterConfig {
    /// The configured name, else the one that every cluster has until its scope is known.
    pub fn label(&self) -> ClusterName {
        self.name.clone().unwrap_or_default()
    }
}

/// What tells which member runs on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// The operator says so.
    pub name: Option<MemberName>,
    /// The REST API of the local Patroni, as `http://10.0.0.11:8008`.
    pub patroni_url: Option<String>,
    /// Where the last member list is stored.
    pub state_directory: StateDirectory,
}

/// Where the last member list is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StateDirectory {
    /// Where the system says: the shell looks into its environment.
    #[default]
    Usual,
    /// Nowhere.
    Never,
    /// In this directory.
    At(PathBuf),
}

/// Where the members come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Membership {
    /// Any one of Patroni's REST APIs is enough: the others are found through `/cluster`.
    Patroni(PatroniConfig),
    /// No Patroni: the members as listed, judged by SQL alone.
    Listed(Vec<Found>),
}

/// How to talk to Patroni.
#[derive(Clone, Debug, PartialEq)]
pub struct PatroniConfig {
    /// Base addresses, as `http://10.0.0.11:8008`; at least one.
    pub urls: Vec<String>,
    /// How far the certificates of https servers are verified.
    pub verify: Verify,
    /// Certificates of the authorities to trust, PEM; the system's if none is given.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM, for `verify_client: required`.
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    pub key_file: Option<PathBuf>,
    /// How long one answer may take.
    pub timeout: Duration,
    /// The identity that the cluster must have, where it is configured.
    pub pins: Identity,
}

/// How to watch Patroni's keys in etcd, by its v3 API.
#[derive(Clone, Debug, PartialEq)]
pub struct EtcdConfig {
    /// Base addresses, as `http://10.0.0.11:2379`; at least one.
    pub urls: Vec<String>,
    /// Patroni's namespace: a slash in front and none behind, empty for the root.
    pub namespace: String,
    /// Patroni's scope; what the members tell if none is given.
    pub scope: Option<String>,
    /// User name, for an etcd with authentication.
    pub username: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// How far the certificates of https servers are verified.
    pub verify: Verify,
    /// Certificates of the authorities to trust, PEM; the system's if none is given.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    pub key_file: Option<PathBuf>,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// The login of the tether.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckConfig {
    /// User name.
    pub user: String,
    /// Database name.
    pub dbname: String,
    /// File that holds the password; without one only `trust` and certificates can work.
    pub password_file: Option<PathBuf>,
    /// How TLS is asked for.
    pub sslmode: SslMode,
    /// How the server may authenticate the login.
    pub require_auth: RequireAuth,
    /// Certificates of the authorities to trust, PEM, for `verify-ca` and `verify-full`.
    pub ca_file: Option<PathBuf>,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// How a PostgreSQL client asks for TLS: libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it, whoever it is.
    Prefer,
    /// Always, whoever the server is.
    Require,
    /// Always, from a server whose certificate is signed by a trusted authority.
    VerifyCa,
    /// Always, from a server whose certificate is signed by a trusted authority and
    /// names the host.
    VerifyFull,
}

impl SslMode {
    /// The word used in configuration, which is libpq's.
    pub const fn as_str(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// How far the certificate of a server is verified that is asked by https.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// It is signed by a trusted authority and names the host.
    #[default]
    Full,
    /// It is signed by a trusted authority.
    Ca,
    /// Not at all: the connection is encrypted, and may lead to anybody.
    None,
}

impl Verify {
    /// The word used in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verify::Full => "full",
            Verify::Ca => "ca",
            Verify::None => "none",
        }
    }
}

/// What to do when two members take writes and there is no Patroni.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitBrain {
    /// Nobody is written to until a person has decided.
    Block,
    /// The one with the highest timeline wins, if there is exactly one.
    HighestTimeline,
}

impl SplitBrain {
    /// The word used in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            SplitBrain::Block => "block",
            SplitBrain::HighestTimeline => "highest_timeline",
        }
    }
}

/// One service: a listening port and the role it wants.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The role it wants: `Primary`, `Replica` or `StandbyLeader`.
    pub role: Role,
    /// How long a client waits, parked, for a gate to open. Zero: it hears at once.
    pub hold: Duration,
    /// The lag in bytes above which a replica is drained.
    pub lag_bytes_max: Option<u64>,
    /// The lag in time above which a replica is drained.
    pub lag_max: Option<Duration>,
    /// The primary serves reads while no replica is open.
    pub fallback_primary: bool,
    /// Tags that a member must have, beside an unset `noloadbalance`.
    pub tags: BTreeMap<String, String>,
    /// The port to dial on the member instead of PostgreSQL's own: a PgBouncer beside it.
    /// What a pooler says of the role in the login is cached, so it is not believed.
    pub pooler_port: Option<u16>,
    /// What becomes of new clients while that pooler does not lead to its member.
    pub pooler_down: PoolerDown,
    /// How long one member has to accept a connection. To say its first word in the login it has
    /// five times as long, or until its gate is shut.
    pub connect_timeout: Duration,
    /// Sessions of the service at one member. A client beyond it waits for a place.
    pub member_sessions_max: Option<usize>,
    /// Sessions of the service at all members together. A client beyond it waits for a place.
    pub sessions_max: Option<usize>,
    /// Which connections go to one member.
    pub stick: Stick,
    /// What becomes of the sessions at a replica that is promoted.
    pub on_promotion: OnPromotion,
}

impl ServiceConfig {
    /// A service with all else at its default.
    pub fn new(listen: SocketAddr, role: Role) -> ServiceConfig {
        ServiceConfig {
            listen,
            role,
            hold: defaults::hold(role),
            lag_bytes_max: None,
            lag_max: None,
            fallback_primary: false,
            tags: BTreeMap::new(),
            pooler_port: None,
            pooler_down: PoolerDown::Shut,
            connect_timeout: defaults::CONNECT_TIMEOUT,
            member_sessions_max: None,
            sessions_max: None,
            stick: Stick::None,
            on_promotion: OnPromotion::Keep,
        }
    }
}

/// Which connections of a service go to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stick {
    /// None in particular: each goes to the open member with the fewest sessions.
    None,
    /// Those of one client address, while the gate of the member is open.
    Address,
}

impl Stick {
    /// The word used in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stick::None => "none",
            Stick::Address => "address",
        }
    }
}

/// What becomes of the sessions of a service for replicas at a member that becomes the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPromotion {
    /// They go on at the primary.
    Keep,
    /// They are ended, so that the clients connect to a replica again.
    End,
}

impl OnPromotion {
    /// The word used in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            OnPromotion::Keep => "keep",
            OnPromotion::End => "end",
        }
    }
}

/// What becomes of new clients while a member's pooler is down, or leads somewhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolerDown {
    /// The member gets none: they wait, or go to another one.
    Shut,
    /// They are led to PostgreSQL itself, past the pooler.
    Bypass,
}

impl PoolerDown {
    /// The word used in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            PoolerDown::Shut => "shut",
            PoolerDown::Bypass => "bypass",
        }
    }
}

/// The status pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where they listen.
    pub listen: SocketAddr,
}

/// The answers to HAProxy's agent-checks.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The words for yes and no.
    pub vocabulary: Vocabulary,
    /// What a client that sends no line is answered: a service or one of Patroni's paths, and of
    /// which member if not of the local one.
    pub default: Option<Question>,
    /// The port of the PgBouncer that a member must be reached through when it is asked by a health
    /// check. A service has a port of its own.
    pub pooler_port: Option<u16>,
    /// How long a client may take for its line. Whoever has sent none by then sends none.
    pub line_wait: Duration,
    /// What decides on the weight that goes with a yes.
    pub weight: Weight,
    /// The `maxconn` that goes with a yes.
    pub maxconn: Option<u32>,
}

/// The words of the agent for yes and no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// `up` and `down`: whoever is not fit is shown as DOWN.
    Health,
    /// `ready` and `maint`: whoever is not fit is shown as in maintenance, and nobody is paged.
    Admin,
}

impl Vocabulary {
    /// The word used in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Vocabulary::Health => "health",
            Vocabulary::Admin => "admin",
        }
    }
}

/// What decides on the weight that the agent gives a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The agent does not speak of it.
    Unsaid,
    /// How much of the lag limit is used up.
    Lag,
    /// How many of the sessions that the server may have are taken.
    Sessions,
}

impl Weight {
    /// The word used in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Weight::Unsaid => "none",
            Weight::Lag => "lag",
            Weight::Sessions => "sessions",
        }
    }
}

/// Limits and habits of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Worker threads; one per core unless said otherwise.
    pub workers: Option<usize>,
    /// Client connections at once, over all services.
    pub sessions_max: usize,
    /// Client connections of one address at once; nine tenths of `sessions_max` unless given.
    pub sessions_per_address_max: Option<usize>,
    /// How long a client may take for its startup packet, and how long a login may take
    /// from there to the first ReadyForQuery.
    pub login_timeout: Duration,
    /// How long sessions may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// Idle time after which TCP keepalive probes start, on both sides.
    pub keepalive: Duration,
    /// How long bytes may stay unacknowledged by a client, or unread by one that is alive, before
    /// its connection is given up. Zero: as long as the system says.
    pub user_timeout: Duration,
}

impl Default for ProxyConfig {
    fn default() -> ProxyConfig {
        ProxyConfig {
            workers: None,
            sessions_max: defaults::SESSIONS_MAX,
            sessions_per_address_max: None,
            login_timeout: defaults::LOGIN_TIMEOUT,
            shutdown_grace: defaults::SHUTDOWN_GRACE,
            keepalive: defaults::KEEPALIVE,
            user_timeout: defaults::USER_TIMEOUT,
        }
    }
}
