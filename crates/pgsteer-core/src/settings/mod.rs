//! The settings: what one pgsteer process does, complete and checked, as plain data.
//!
//! Other crates read files, flags and the environment; nothing here parses text.

mod auth;
mod control;
pub mod defaults;
mod haproxy;
mod http;
mod vip;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::auth::{AuthMethod, RequireAuth};
pub use self::control::ControlConfig;
pub use self::haproxy::{HaproxyConfig, HaproxySocket};
pub use self::http::{HttpConfig, Network, PeersConfig, Protect};
pub use self::vip::{VipConfig, VipRefusal};
use crate::claim::{Found, Role};
use crate::identity::Identity;
use crate::names::{ClusterName, MemberName, ServiceName, VipName};
use crate::question::Question;

/// All settings of one pgsteer process.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cluster that this process serves.
    pub cluster: ClusterConfig,
    /// Its services by name; at least one.
    pub services: BTreeMap<ServiceName, ServiceConfig>,
    /// Where the status pages listen; none if they are off.
    pub http: Option<HttpConfig>,
    /// The answers to HAProxy's agent-checks; none if they are off.
    pub agent: Option<AgentConfig>,
    /// How the proxy treats connections.
    pub proxy: ProxyConfig,
    /// The HAProxys that pgsteer controls by their Runtime API; none if there are none.
    pub haproxy: Option<HaproxyConfig>,
    /// The socket for orders of an operator; none if there is none.
    pub control: Option<ControlConfig>,
    /// The addresses of this machine that follow a service, by name; often none.
    pub vips: BTreeMap<VipName, VipConfig>,
}

impl Config {
    /// The ports of the poolers that are checked on every member's host.
    pub fn pooler_ports(&self) -> BTreeSet<u16> {
        let of_services = self.services.values().filter_map(|service| service.pooler_port);
        of_services.chain(self.agent.as_ref().and_then(|agent| agent.pooler_port)).collect()
    }
}

/// The cluster, and the sources that observe it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// The operator's name for the cluster. Without one, Patroni's scope is its name.
    pub name: Option<ClusterName>,
    /// Where the members come from.
    pub members: Membership,
    /// The login of the tether; without it Patroni is the only source.
    pub check: Option<CheckConfig>,
    /// How Patroni's keys in etcd are watched; none if they are not.
    pub etcd: Option<EtcdConfig>,
    /// What to do when two members take writes and no Patroni decides which one leads.
    pub split_brain: SplitBrain,
    /// How long an open gate stays open after the member's Patroni stopped answering, while the
    /// tether still reports the member's role and no other member claims the lead.
    pub patroni_loss_grace: Duration,
    /// How long a member may be silent, over all sources, before its sessions are ended.
    pub silence: Duration,
    /// What is known of the machine on which this process runs.
    pub here: Here,
}

impl ClusterConfig {
    /// Returns the configured name, else the name that every cluster has until its scope is known.
    pub fn label(&self) -> ClusterName {
        self.name.clone().unwrap_or_default()
    }
}

/// The settings that show which member runs on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// The member's name, if the operator configured it.
    pub name: Option<MemberName>,
    /// The REST API of the local Patroni, as `http://10.0.0.11:8008`.
    pub patroni_url: Option<String>,
    /// Where the last member list is stored.
    pub state_directory: StateDirectory,
}

/// Where the last member list is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StateDirectory {
    /// The system's usual place: the binary reads it from the environment.
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
    /// Through Patroni's REST APIs. One of them is enough: `/cluster` lists the others.
    Patroni(PatroniConfig),
    /// Without Patroni: the members as listed, judged by SQL alone.
    Listed(Vec<Found>),
}

/// How to query Patroni.
#[derive(Clone, Debug, PartialEq)]
pub struct PatroniConfig {
    /// Base addresses, as `http://10.0.0.11:8008`; at least one.
    pub urls: Vec<String>,
    /// What is verified of the certificates of https servers.
    pub verify: Verify,
    /// Certificates of the trusted authorities, PEM; the system's if none is given.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM, for `verify_client: required`.
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    pub key_file: Option<PathBuf>,
    /// How long one answer may take.
    pub timeout: Duration,
    /// The identity that the cluster must have, as far as it is configured.
    pub pins: Identity,
}

/// How to watch Patroni's keys in etcd, by its v3 API.
#[derive(Clone, Debug, PartialEq)]
pub struct EtcdConfig {
    /// Base addresses, as `http://10.0.0.11:2379`; at least one.
    pub urls: Vec<String>,
    /// Patroni's namespace: with a leading slash and without a trailing one; empty for the root.
    pub namespace: String,
    /// Patroni's scope; if none is given, the scope that the members report.
    pub scope: Option<String>,
    /// User name, for an etcd with authentication.
    pub username: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// What is verified of the certificates of https servers.
    pub verify: Verify,
    /// Certificates of the trusted authorities, PEM; the system's if none is given.
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
    /// Whether TLS is requested and verified.
    pub sslmode: SslMode,
    /// How the server may authenticate the login.
    pub require_auth: RequireAuth,
    /// Certificates of the trusted authorities, PEM, for `verify-ca` and `verify-full`.
    pub ca_file: Option<PathBuf>,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// How a PostgreSQL client asks for TLS: libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it; its identity is not verified.
    Prefer,
    /// Always; the server's identity is not verified.
    Require,
    /// Always, from a server whose certificate is signed by a trusted authority.
    VerifyCa,
    /// Always, from a server whose certificate is signed by a trusted authority and names the host.
    VerifyFull,
}

impl SslMode {
    /// The name used in the configuration, which is libpq's.
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

/// What is verified of the certificate of an https server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// It is signed by a trusted authority and names the host.
    #[default]
    Full,
    /// It is signed by a trusted authority.
    Ca,
    /// Nothing: the connection is encrypted, and the peer may be any server.
    None,
}

impl Verify {
    /// The name used in the configuration.
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
    /// All write gates stay shut until the operator has decided.
    Block,
    /// The member with the highest timeline wins, if there is exactly one.
    HighestTimeline,
}

impl SplitBrain {
    /// The name used in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            SplitBrain::Block => "block",
            SplitBrain::HighestTimeline => "highest_timeline",
        }
    }
}

/// One service: a listening port and the role it requires.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The role it requires: `Primary`, `Replica` or `StandbyLeader`.
    pub role: Role,
    /// How long a client waits, parked, for a gate to open. Zero: the client is refused at once.
    pub hold: Duration,
    /// The lag in bytes above which a replica is drained.
    pub lag_bytes_max: Option<u64>,
    /// The lag in time above which a replica is drained.
    pub lag_max: Option<Duration>,
    /// The primary serves reads while no replica is open.
    pub fallback_primary: bool,
    /// Tags that a member must have, in addition to an unset `noloadbalance`.
    pub tags: BTreeMap<String, String>,
    /// The port to dial on the member instead of PostgreSQL's own: that of a PgBouncer on the same
    /// host. The role that a pooler reports in the login is cached, so it is ignored.
    pub pooler_port: Option<u16>,
    /// What happens to new clients while that pooler does not lead to its member.
    pub pooler_down: PoolerDown,
    /// How long one member has to accept a connection. The server's first message of the login may
    /// take five times as long, or until the gate is shut.
    pub connect_timeout: Duration,
    /// Sessions of the service at one member. A client beyond it waits for a place.
    pub member_sessions_max: Option<usize>,
    /// Sessions of the service at all members together. A client beyond it waits for a place.
    pub sessions_max: Option<usize>,
    /// Which connections go to one member.
    pub stick: Stick,
    /// What happens to the sessions at a replica that is promoted.
    pub on_promotion: OnPromotion,
}

impl ServiceConfig {
    /// Returns a service whose other settings are at their defaults.
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
    /// The name used in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stick::None => "none",
            Stick::Address => "address",
        }
    }
}

/// What happens to the sessions of a replica service when their member becomes the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPromotion {
    /// They continue at the primary.
    Keep,
    /// They are ended, so that the clients connect to a replica again.
    End,
}

impl OnPromotion {
    /// The name used in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            OnPromotion::Keep => "keep",
            OnPromotion::End => "end",
        }
    }
}

/// What happens to new clients while a member's pooler is down, or leads to another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolerDown {
    /// The member gets none: clients wait, or are routed to another member.
    Shut,
    /// They are routed to PostgreSQL itself, past the pooler.
    Bypass,
}

impl PoolerDown {
    /// The name used in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            PoolerDown::Shut => "shut",
            PoolerDown::Bypass => "bypass",
        }
    }
}

/// The answers to HAProxy's agent-checks.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The words that mean fit and unfit.
    pub vocabulary: Vocabulary,
    /// The question assumed for a client that sends no line: a service or one of Patroni's paths,
    /// with the member's name unless the local member is meant.
    pub default: Option<Question>,
    /// The port of the PgBouncer through which a member must be reachable, for health-check
    /// questions. A service has a port of its own.
    pub pooler_port: Option<u16>,
    /// How long the agent waits for a client's line. A client that has sent nothing by then gets
    /// the answer to the default question.
    pub line_wait: Duration,
    /// The agent waits for `line_wait` even while no client of this port has ever sent a line. False with
    /// happac's flags: happac's clients send none.
    pub awaits_first_line: bool,
    /// How the weight in an answer of "fit" is computed.
    pub weight: Weight,
    /// The `maxconn` in an answer of "fit".
    pub maxconn: Option<u32>,
}

/// The agent's words for fit and unfit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// `up` and `down`: HAProxy shows an unfit server as DOWN.
    Health,
    /// `ready` and `maint`: HAProxy shows an unfit server as in maintenance, which raises no alert.
    Admin,
    /// As [`Vocabulary::Health`], without reasons, for scripts that search the answer for `up`, as
    /// happac's check for Consul does: no refusal contains that word.
    Bare,
}

impl Vocabulary {
    /// The name used in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Vocabulary::Health => "health",
            Vocabulary::Admin => "admin",
            Vocabulary::Bare => "bare",
        }
    }
}

/// How the weight that the agent sends for a server is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The agent sends no weight.
    Unsaid,
    /// From the share of the lag limit that is used up.
    Lag,
    /// From the share of the server's sessions that are in use.
    Sessions,
}

impl Weight {
    /// The name used in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Weight::Unsaid => "none",
            Weight::Lag => "lag",
            Weight::Sessions => "sessions",
        }
    }
}

/// The proxy's limits and its treatment of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Worker threads; one per core by default.
    pub workers: Option<usize>,
    /// Client connections at once, over all services.
    pub sessions_max: usize,
    /// Client connections of one address at once; by default nine tenths of `sessions_max`.
    pub sessions_per_address_max: Option<usize>,
    /// How long a client may take for its startup packet, and how long a login may take from there
    /// to the first ReadyForQuery.
    pub login_timeout: Duration,
    /// How long sessions may continue after SIGTERM.
    pub shutdown_grace: Duration,
    /// Idle time after which TCP keepalive probes start, on both sides.
    pub keepalive: Duration,
    /// Time between two keepalive probes. Without it: a third of `keepalive`.
    pub keepalive_interval: Option<Duration>,
    /// How long data may stay unacknowledged by a client, or unread by a client that is alive,
    /// before the proxy closes its connection. Zero: the system's default.
    pub user_timeout: Duration,
}

impl ProxyConfig {
    /// The settings of a proxy of which nothing is written.
    pub const DEFAULT: ProxyConfig = ProxyConfig {
        workers: None,
        sessions_max: 10_000,
        sessions_per_address_max: None,
        login_timeout: Duration::from_secs(60),
        shutdown_grace: Duration::from_secs(30),
        keepalive: Duration::from_secs(30),
        keepalive_interval: None,
        user_timeout: Duration::ZERO,
    };
}

impl Default for ProxyConfig {
    fn default() -> ProxyConfig {
        ProxyConfig::DEFAULT
    }
}
