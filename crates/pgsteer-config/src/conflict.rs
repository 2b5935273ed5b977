//! Conflicts between values that are valid individually.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::Role;
use pgsteer_core::identity::Contradiction;
use pgsteer_core::names::{MemberName, ServiceName, listed};
use pgsteer_core::settings::SslMode;
use pgsteer_core::units::seconds_text;
use thiserror::Error;

use crate::origin::Origin;
use crate::purpose::Purpose;

/// Values that conflict, or a missing value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Conflict {
    /// Neither Patroni nor members are configured.
    #[error("neither Patroni nor a list of members is configured")]
    NoMembers {
        /// The command that needs them.
        purpose: Purpose,
        /// The file that was read, if any.
        file: Option<Arc<str>>,
    },
    /// Both Patroni and members are configured.
    #[error("members are listed, and Patroni is configured too ({patroni})")]
    PatroniAndMembers {
        /// The place of Patroni's key.
        patroni: Origin,
    },
    /// An address that should follow a service is the own address of a member.
    #[error("{0} is the own address of {1}, so it cannot move to another machine")]
    VipOfMember(IpAddr, String),
    /// An address follows a service that does not exist.
    #[error("there is no service {0} for the address to follow")]
    VipWithoutService(ServiceName, Vec<String>),
    /// A key without a default is missing.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
        /// A valid value.
        example: &'static str,
    },
    /// A section is empty but needs at least one entry.
    #[error("it is empty")]
    Empty {
        /// An example of an entry.
        example: &'static str,
    },
    /// There are more entries than allowed.
    #[error("{found} entries are too many")]
    TooMany {
        /// The number of entries.
        found: usize,
        /// The maximum.
        max: usize,
    },
    /// There are members without Patroni and without a check login.
    #[error("listed members are checked by SQL, and no check login is configured")]
    NoCheckLogin(Purpose),
    /// Two members have the same name or address, or two addresses of Patroni are the same.
    #[error("{what} is already given: {other}")]
    Same {
        /// The name or address.
        what: String,
        /// The place of the first one.
        other: Origin,
    },
    /// Two listeners have the same address and port.
    #[error("the same address and port as {other}")]
    SameListen {
        /// The other listener.
        other: Origin,
    },
    /// The local member is not one of the members.
    #[error("no member is called {0}")]
    UnknownLocal(MemberName, Vec<MemberName>),
    /// A service requires replicas, but the cluster cannot have any.
    #[error("{only} is the only member, so there is no replica to read from")]
    NoReplica {
        /// The only member.
        only: MemberName,
    },
    /// A lag limit on a service for another role than replicas.
    #[error("a lag limit has no meaning on a service with role {0}")]
    LagOnRole(Role),
    /// A lag limit in time, which only a check login can measure.
    #[error("a lag limit in time needs a check login: Patroni reports the lag in bytes only")]
    LagTimeWithoutLogin,
    /// A fallback on a service for another role than replicas.
    #[error("falling back to the primary has no meaning on a service with role {0}")]
    FallbackOnRole(Role),
    /// A policy for the promotion of replicas on a service for another role.
    #[error("what happens to sessions on a promotion has no meaning on a service with role {0}")]
    PromotionOnRole(Role),
    /// A policy for a pooler, but no pooler is configured.
    #[error("without `pooler_port` the service uses no pooler")]
    PoolerDownWithoutPort,
    /// A backend for a service that does not exist.
    #[error("there is no service `{0}`")]
    BackendOfNoService(String),
    /// One backend for two services.
    #[error("backend `{backend}` is that of service {other} already")]
    SameBackend {
        /// The backend.
        backend: String,
        /// The other service.
        other: ServiceName,
    },
    /// A text that HAProxy does not accept as the name of a backend.
    #[error("`{0}` is not a valid name of a HAProxy backend")]
    NoBackendName(String),
    /// One file for the states of several HAProxys.
    #[error("one file cannot hold the state of several HAProxys")]
    StateFileOfSeveral,
    /// A weight by sessions, which only a check login can count.
    #[error("a weight by sessions needs a check login, which counts the sessions of a member")]
    SessionsWithoutLogin,
    /// `--max-lag`, but no service that it could apply to.
    #[error("no service has role replica")]
    NoReplicaService,
    /// The standby leader role without Patroni, which defines it.
    #[error("role standby_leader needs Patroni: SQL cannot distinguish it from a replica")]
    StandbyLeaderWithoutPatroni,
    /// Tags without Patroni, which defines them.
    #[error("listed members have no tags, so the service would have no member")]
    TagsWithoutPatroni,
    /// A watch of etcd without Patroni, which writes the keys.
    #[error("etcd needs Patroni, which writes the watched keys")]
    EtcdWithoutPatroni,
    /// Two scopes, or groups, of one cluster.
    #[error("it contradicts [patroni]: {0}")]
    OtherScope(Contradiction),
    /// A group, and a scope that contains another one.
    #[error("it contradicts `scope` of [etcd]: {0}")]
    OtherGroup(Contradiction),
    /// The policy for clusters without Patroni, but Patroni is configured.
    #[error("with Patroni the leader lock decides, not the timeline")]
    HighestTimelineWithPatroni,
    /// A certificate without its key, a user without a password, or the reverse.
    #[error("it needs {0}")]
    WithoutPartner(&'static str),
    /// A CA file that this SSL mode does not use.
    #[error("it has no effect with sslmode {}", .0.as_str())]
    CaFileUnused(SslMode),
    /// A CA file, but verification is disabled.
    #[error("it has no effect with verify = \"none\"")]
    CaFileWithoutVerify,
    /// Sessions would be closed although an answer may still arrive in time.
    #[error("shorter than the timeout of {of}, {} seconds", seconds_text(*.timeout))]
    SilenceTooShort {
        /// The time limit of one answer.
        timeout: Duration,
        /// The program that answers.
        of: &'static str,
    },
}

impl Conflict {
    /// Returns the remedy as a complete phrase.
    pub fn remedy(&self) -> String {
        match self {
            Conflict::NoMembers { purpose: Purpose::Render, file: None } => {
                "as in pgsteer render haproxy --patroni http://10.0.0.11:8008, or --config FILE with [patroni] or [members]".into()
            }
            Conflict::NoMembers { purpose: Purpose::Render, file: Some(file) } => format!(
                "as in pgsteer render haproxy --patroni http://10.0.0.11:8008, or [patroni] or [members] in {file}"
            ),
            Conflict::NoMembers { purpose: Purpose::Run | Purpose::Answer, file } => format!(
                "the shortest that works is: pgsteer run --patroni http://10.0.0.11:8008, or pgsteer agent -h 10.0.0.11 (or [patroni] with urls in {})",
                match file.as_deref() {
                    None => "/etc/pgsteer/pgsteer.toml",
                    // Lint shows the name of the file itself.
                    Some("") => "this file",
                    Some(file) => file,
                }
            ),
            Conflict::PatroniAndMembers { .. } => {
                "remove the list, because Patroni returns the members; list members only for a cluster without Patroni".into()
            }
            Conflict::Missing { example, .. } | Conflict::Empty { example } => {
                format!("as in {example}")
            }
            Conflict::TooMany { max, .. } => format!("at most {max}"),
            Conflict::NoCheckLogin(Purpose::Render) => {
                "if each --member has a Patroni, add --patroni-port 8008; without Patroni add [check] with user = \"pgcheck\", or --check-user pgcheck".into()
            }
            Conflict::NoCheckLogin(Purpose::Run | Purpose::Answer)
            | Conflict::SessionsWithoutLogin => {
                "add [check] with user = \"pgcheck\", or --check-user pgcheck".into()
            }
            Conflict::LagTimeWithoutLogin => {
                "add [check] with user = \"pgcheck\", or --check-user pgcheck; or limit the bytes, as in lag_bytes_max = \"16MB\" or --max-lag 16MB".into()
            }
            Conflict::Same { .. } => "remove one of them".into(),
            Conflict::SameListen { .. } => "give one of them another port".into(),
            Conflict::VipOfMember(..) => {
                "choose an address of the same network that no machine has".into()
            }
            Conflict::VipWithoutService(_, services) => {
                format!("set service to one of {}", services.join(", "))
            }
            Conflict::UnknownLocal(_, members) => format!("one of {}", listed(members)),
            Conflict::NoReplica { .. } => {
                "list the other members, set fallback = \"primary\", or keep only [services.write]".into()
            }
            Conflict::LagOnRole(_)
            | Conflict::FallbackOnRole(_)
            | Conflict::PromotionOnRole(_) => {
                "remove it, or set role = \"replica\"".into()
            }
            Conflict::PoolerDownWithoutPort => {
                "add pooler_port = 6432, or remove pooler_down".into()
            }
            Conflict::BackendOfNoService(_) => {
                "each key of backends is a service, as in backends = { write = \"pg_write\" }".into()
            }
            Conflict::SameBackend { .. } => "give each service a backend of its own".into(),
            Conflict::StateFileOfSeveral => {
                "run a pgsteer beside each HAProxy, or remove state_file".into()
            }
            Conflict::NoBackendName(_) => {
                "use letters, digits, `_`, `-`, `.` and `:`, as in HAProxy's configuration".into()
            }
            Conflict::NoReplicaService => "remove it, or add a read service".into(),
            Conflict::StandbyLeaderWithoutPatroni => "use role = \"replica\"".into(),
            Conflict::TagsWithoutPatroni => "remove tags".into(),
            Conflict::HighestTimelineWithPatroni => "remove it".into(),
            Conflict::EtcdWithoutPatroni => "remove it".into(),
            Conflict::OtherGroup(_) => "remove it, or the group in that scope".into(),
            Conflict::OtherScope(_) => {
                "remove it: scope and group of [patroni] are used for etcd too".into()
            }
            Conflict::WithoutPartner("username" | "password_file") => {
                "give both username and password_file, or none".into()
            }
            Conflict::WithoutPartner(_) => "give both cert_file and key_file, or none".into(),
            Conflict::CaFileUnused(_) => "set sslmode = \"verify-full\", or remove ca_file".into(),
            Conflict::CaFileWithoutVerify => {
                "set verify = \"full\" or \"ca\", or remove ca_file".into()
            }
            Conflict::SilenceTooShort { .. } => {
                "raise silence_seconds, or lower that timeout_seconds".into()
            }
        }
    }
}
