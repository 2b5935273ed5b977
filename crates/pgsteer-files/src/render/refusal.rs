//! The reasons why a file is not rendered, with their remedies.

use thiserror::Error;

use super::Kind;
use super::profile::Profile;
use pgsteer_config::conflict::Conflict;
use pgsteer_core::names::{MemberName, ServiceName};

/// The range of the detection time in milliseconds.
pub const DETECT_MS: std::ops::RangeInclusive<u64> = 500..=60_000;

/// The reason why a file is not rendered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The configuration conflicts with the members that were found.
    #[error(transparent)]
    Config(#[from] Conflict),
    /// The detection time is out of the range of HAProxy's checks.
    #[error("--detect is not between {} ms and {} s", DETECT_MS.start(), DETECT_MS.end() / 1000)]
    Detect,
    /// The HAProxy version is too old or not a version.
    #[error("`{0}` is not a version of HAProxy from 2.6 on")]
    HaproxyVersion(String),
    /// An option that this profile needs is missing.
    #[error("profile {} needs {needs}", .profile.as_str())]
    ProfileNeeds {
        /// The profile.
        profile: Profile,
        /// The missing option, with its flag or key.
        needs: &'static str,
    },
    /// An option that this kind needs is missing.
    #[error("{} needs {needs}", .kind.as_str())]
    KindNeeds {
        /// The kind.
        kind: Kind,
        /// The missing option, with its flag or key.
        needs: &'static str,
    },
    /// The member's Patroni is needed for a check, but its address is not configured.
    #[error("the address of the Patroni of {0} is unknown")]
    NoPatroni(MemberName),
    /// A service requires a condition that this profile's checks cannot test.
    #[error("service {service}: the checks of profile {} cannot test {what}", .profile.as_str())]
    CannotTell {
        /// The service.
        service: ServiceName,
        /// The profile.
        profile: Profile,
        /// The condition.
        what: &'static str,
    },
    /// The profile bypasses a pooler, but the service has none.
    #[error("no service has a pooler_port to bypass")]
    NoPooler,
    /// Clients are to go past a pooler that is down, and HAProxy's server lines have one port.
    #[error(
        "service {service}: profile {} cannot bypass a pooler that is down (pooler_down = \"bypass\")",
        .profile.as_str()
    )]
    NoWayPast {
        /// The service.
        service: ServiceName,
        /// The profile.
        profile: Profile,
    },
    /// Clients or programs are sent to an address where nothing listens.
    #[error("{what} listens on {listen}, but {who} connects to {target}, where nothing listens")]
    Unreachable {
        /// What listens, with its key.
        what: String,
        /// Where.
        listen: std::net::SocketAddr,
        /// What connects.
        who: &'static str,
        /// Where it connects to.
        target: String,
    },
    /// A client certificate whose key HAProxy does not find.
    #[error(
        "HAProxy reads the key of {cert} from that file or from {cert}.key, but key_file is {key}"
    )]
    KeyElsewhere {
        /// `cert_file`.
        cert: String,
        /// `key_file`.
        key: String,
    },
    /// The agent's health checks include the pooler, so no question tests PostgreSQL alone.
    #[error("service {0}: no health check tests its members without their pooler")]
    NoDirectQuestion(ServiceName),
    /// Not a host.
    #[error("host `{0}` is neither an address nor a name")]
    Host(String),
    /// A duplicate.
    #[error("{what} {text} is named twice")]
    Twice {
        /// The kind of thing.
        what: &'static str,
        /// Its name or address.
        text: String,
    },
    /// An address that keepalived cannot move, or that clients cannot use.
    #[error("--vip {text}: {why}")]
    Vip {
        /// The address as written.
        text: String,
        /// The reason.
        why: &'static str,
    },
    /// There is no member with that name.
    #[error("there is no member {0}")]
    NoSuchMember(MemberName),
    /// The statistics would be open to every client.
    #[error("statistics on {0} without a password would be open to every host")]
    OpenStats(std::net::SocketAddr),
    /// Two listeners of the rendered file have the same port.
    #[error("{what} has port {port}, where {other} listens")]
    PortTaken {
        /// The second listener.
        what: String,
        /// The port.
        port: u16,
        /// The first listener.
        other: String,
    },
    /// A text that cannot be written in its file.
    #[error("{what} cannot be written there: {why}")]
    Unwritable {
        /// The kind of text.
        what: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// The template has an error.
    #[error("template: {0}")]
    Template(String),
}

impl Refusal {
    /// Returns the remedy, if there is one.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Refusal::Config(conflict) => conflict.remedy(),
            Refusal::NoPatroni(_) => {
                "use --patroni URL, or --patroni-port 8008 beside listed members".into()
            }
            Refusal::CannotTell { .. } => {
                "use --profile agent or pgsteer, or remove it from the service".into()
            }
            Refusal::NoWayPast { .. } => {
                "use --profile agent-bypass, or set pooler_down = \"shut\"".into()
            }
            Refusal::Unreachable { .. } => {
                "set `listen` to an address that the clients reach, as 0.0.0.0 or [::]; or name the \
                 hosts where pgsteer runs with --door (--door 127.0.0.1 if that is the same machine)"
                    .into()
            }
            Refusal::KeyElsewhere { cert, .. } => {
                format!("link the key to {cert}.key and set key_file to that")
            }
            Refusal::NoPooler => "set pooler_port in [services.write]".into(),
            Refusal::NoDirectQuestion(_) => {
                "remove pooler_port from [agent], or add a service of that role without one".into()
            }
            Refusal::OpenStats(_) => {
                "give --stats-password-file, or a loopback address".into()
            }
            Refusal::PortTaken { .. } => "give one of them another port".into(),
            Refusal::Host(_) => "as 10.0.0.11 or pg1.example".into(),
            Refusal::Twice { .. } => "remove one of them".into(),
            Refusal::Vip { .. } => {
                "an address of its own, in the network of the hosts of --door: --vip 10.0.0.20/24"
                    .into()
            }
            Refusal::Detect
            | Refusal::HaproxyVersion(_)
            | Refusal::ProfileNeeds { .. }
            | Refusal::KindNeeds { .. }
            | Refusal::NoSuchMember(_)
            | Refusal::Unwritable { .. }
            | Refusal::Template(_) => return None,
        })
    }
}
