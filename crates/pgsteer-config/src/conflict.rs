//! What can be wrong between values that are right by themselves.

use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::Role;
use pgsteer_core::names::{MemberName, listed};
use pgsteer_core::settings::SslMode;
use pgsteer_core::units::seconds_text;
use thiserror::Error;

use crate::error::Place;
use crate::purpose::Purpose;

/// Values that do not fit together, or one that is missing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Conflict {
    /// Neither Patroni nor members.
    #[error("no member is named, neither by Patroni's address nor one by one")]
    NoMembers {
        /// What was to be made of it.
        purpose: Purpose,
        /// The file that was read, if there was one.
        file: Option<Arc<str>>,
    },
    /// Patroni and members.
    #[error("members are listed, and Patroni is named as well ({patroni})")]
    PatroniAndMembers {
        /// Where Patroni is named.
        patroni: Place,
    },
    /// A key that has no default is missing.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
        /// How it looks.
        example: &'static str,
    },
    /// A section that must have at least one entry has none.
    #[error("it is empty")]
    Empty {
        /// How it looks.
        example: &'static str,
    },
    /// More entries than there may be.
    #[error("{found} of them are too many")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// Members without Patroni and without a login.
    #[error("members that are listed one by one are judged by SQL, and there is no login for it")]
    NoCheckLogin(Purpose),
    /// Two members have one name or one address, or two addresses of Patroni are the same.
    #[error("{what} is named already: {other}")]
    Same {
        /// The name or address.
        what: String,
        /// Where it stands already.
        other: Place,
    },
    /// Two listeners on one address and port.
    #[error("the same address and port as {other}")]
    SameListen {
        /// Who listens there already.
        other: Place,
    },
    /// The member that runs here is none of the members.
    #[error("no member is called {0}")]
    UnknownLocal(MemberName, Vec<MemberName>),
    /// A service for replicas of a cluster that can have none.
    #[error("{only} is the only member, so there is no replica to read from")]
    NoReplica {
        /// The only member.
        only: MemberName,
    },
    /// A lag limit on a service that has no replicas.
    #[error("a lag limit has no meaning on a service with role {0}")]
    LagOnRole(Role),
    /// A limit by what only a login can tell.
    #[error(
        "without a check login nobody knows how far a replica is behind in time, so none would ever serve"
    )]
    LagTimeWithoutLogin,
    /// A fallback on a service that has no replicas.
    #[error("falling back to the primary has no meaning on a service with role {0}")]
    FallbackOnRole(Role),
    /// A policy for the promotion of replicas on a service that has none.
    #[error("what happens to sessions on a promotion has no meaning on a service with role {0}")]
    PromotionOnRole(Role),
    /// A policy for a pooler that there is none of.
    #[error("without `pooler_port` the service uses no pooler")]
    PoolerDownWithoutPort,
    /// A weight by what only a login can tell.
    #[error("without a check login nobody counts the sessions of a member")]
    SessionsWithoutLogin,
    /// `--max-lag`, and no service that it could apply to.
    #[error("no service has role replica")]
    NoReplicaService,
    /// A standby leader is Patroni's notion.
    #[error("without Patroni nobody can tell a standby leader from a replica")]
    StandbyLeaderWithoutPatroni,
    /// Tags are Patroni's notion.
    #[error("members that are listed one by one have no tags, so nobody would serve")]
    TagsWithoutPatroni,
    /// What is watched in etcd is Patroni's.
    #[error("without Patroni there is nothing in etcd to watch")]
    EtcdWithoutPatroni,
    /// The policy for life without Patroni, with Patroni.
    #[error("with Patroni the leader lock decides, not the timeline")]
    HighestTimelineWithPatroni,
    /// A certificate without its key, a user without a password, or the other way round.
    #[error("it is of no use without {0}")]
    WithoutPartner(&'static str),
    /// A CA that would not be looked at.
    #[error("it is not looked at with sslmode {}", .0.as_str())]
    CaFileUnused(SslMode),
    /// The same, where nothing is verified.
    #[error("it is not looked at with verify = \"none\"")]
    CaFileWithoutVerify,
    /// Sessions would be ended while an answer is still in time.
    #[error("shorter than the {} seconds that {of} may take", seconds_text(*.timeout))]
    SilenceTooShort {
        /// The time that one answer may take.
        timeout: Duration,
        /// Whose.
        of: &'static str,
    },
}

impl Conflict {
    /// What would be right, as one finished phrase.
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
                file.as_deref().unwrap_or("/etc/pgsteer/pgsteer.toml")
            ),
            Conflict::PatroniAndMembers { .. } => {
                "keep Patroni, it finds the members by itself; list them only where there is no Patroni".into()
            }
            Conflict::Missing { example, .. } | Conflict::Empty { example } => {
                format!("as in {example}")
            }
            Conflict::TooMany { max, .. } => format!("at most {max}"),
            Conflict::NoCheckLogin(Purpose::Render) => {
                "with a Patroni beside each --member add --patroni-port 8008; without Patroni [check] with user = \"pgcheck\", or --check-user pgcheck".into()
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
            Conflict::NoReplicaService => "remove it, or add a read service".into(),
            Conflict::StandbyLeaderWithoutPatroni => "use role = \"replica\"".into(),
            Conflict::TagsWithoutPatroni => "remove tags".into(),
            Conflict::HighestTimelineWithPatroni => "remove it".into(),
            Conflict::EtcdWithoutPatroni => "remove it".into(),
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
