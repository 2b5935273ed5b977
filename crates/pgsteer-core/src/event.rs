//! Events: what happened, as one sentence each for the log and the pages.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::claim::{Failure, Role};
use crate::gate::GateState;
use crate::gate_key::GateKey;
use crate::identity::Identity;
use crate::names::{Endpoint, MemberName, ServiceName, listed};
use crate::orders::{DrainOrder, OrderEnd};
use crate::reason::Reason;
use crate::time::Moment;

/// A change, with its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Moment,
    /// What.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// A gate has a new state.
    Gate {
        /// What the gate is for: a service, or a role behind the agent's pooler.
        key: GateKey,
        /// The member.
        member: MemberName,
        /// The new state.
        now: GateState,
        /// Why it is not open, or its reservation.
        reason: Option<Reason>,
    },
    /// The judge concluded another role for a member.
    Role {
        /// The member.
        member: MemberName,
        /// The role before.
        was: Role,
        /// The role now.
        is: Role,
        /// Its timeline, where known.
        timeline: Option<u32>,
    },
    /// A member was found.
    Joined {
        /// The member.
        member: MemberName,
        /// Where its PostgreSQL listens.
        postgres: Endpoint,
    },
    /// The list does not name a member any more.
    Left {
        /// The member.
        member: MemberName,
    },
    /// The configured local member is not one of the known members.
    LocalUnknown {
        /// The configured name.
        local: MemberName,
        /// The known members.
        members: Vec<MemberName>,
    },
    /// A member's host or port changed.
    Moved {
        /// The member.
        member: MemberName,
        /// Where its PostgreSQL listens now.
        postgres: Endpoint,
    },
    /// A member is listed under another spelling of its endpoint.
    Respelled {
        /// The member.
        member: MemberName,
        /// Its endpoint as it is listed now.
        postgres: Endpoint,
    },
    /// Maintenance mode was switched on or off.
    Paused(bool),
    /// A host name stopped resolving; the last addresses are kept.
    AddressLost {
        /// The member.
        member: MemberName,
        /// Why.
        failure: Failure,
    },
    /// Patroni's keys in etcd are watched.
    EtcdWatched,
    /// Patroni's keys in etcd cannot be watched. The only effect is that planned switchovers are
    /// not known in advance.
    EtcdLost {
        /// Why.
        failure: Failure,
    },
    /// A member's URL answers; the port of its PostgreSQL is not known yet.
    FoundByUrl {
        /// The member.
        member: MemberName,
        /// The base URL of its Patroni.
        url: Arc<str>,
    },
    /// A listed member is the same server as another one.
    SameServer {
        /// The member that is not asked.
        member: MemberName,
        /// The member that is asked.
        same_as: MemberName,
    },
    /// A server is listed under another name than before.
    Renamed {
        /// The old name.
        was: MemberName,
        /// The new name.
        member: MemberName,
    },
    /// A member list has two entries of one name with different endpoints.
    DuplicateName {
        /// The name.
        member: MemberName,
        /// The PostgreSQL endpoint that is used.
        taken: Endpoint,
        /// The endpoint that is ignored.
        ignored: Endpoint,
    },
    /// A Patroni belongs to another cluster; its member list was ignored.
    StrangeCluster {
        /// The base URL that was asked.
        url: Arc<str>,
        /// Its cluster.
        found: Identity,
        /// This cluster.
        expected: Identity,
    },
    /// At the start the URLs of Patroni belong to different clusters, and no setting decides which
    /// one is correct.
    Disputed {
        /// Each URL with its cluster.
        answers: Vec<(Arc<str>, Identity)>,
    },
    /// The cluster has another identity, by the answers of its own members.
    IdentityChanged {
        /// The identity before.
        was: Identity,
        /// The identity now.
        is: Identity,
    },
    /// No member list can be read, so the stored one is used.
    Remembered {
        /// How many members it has.
        members: usize,
        /// The age of the list.
        age: Duration,
    },
    /// An https URL lists the REST API of a member with http.
    ListedWithoutTls {
        /// The member.
        member: MemberName,
        /// The base URL that it is listed with.
        url: Arc<str>,
    },
    /// The configuration was replaced.
    Reloaded,
    /// An operator drains a member.
    Drained {
        /// The order.
        order: Arc<DrainOrder>,
    },
    /// An order of an operator ended.
    Undrained {
        /// The order.
        order: Arc<DrainOrder>,
        /// How.
        end: OrderEnd,
    },
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventKind::Gate { key, member, now, reason } => {
                write_gate(f, key, member)?;
                write!(f, " is {now}")?;
                let Some(reason) = reason else { return Ok(()) };
                match now {
                    GateState::Open => write!(f, ", with a reservation: {reason}"),
                    _ => write!(f, ": {reason}"),
                }
            }
            EventKind::Role { member, was, is, timeline } => {
                write!(f, "{member} is {is}, was {was}")?;
                match timeline {
                    Some(timeline) => write!(f, " (timeline {timeline})"),
                    None => Ok(()),
                }
            }
            EventKind::Joined { member, postgres } => {
                write!(f, "member {member} found at {postgres}")
            }
            EventKind::Left { member } => write!(f, "member {member} is not listed any more"),
            EventKind::LocalUnknown { local, members } => write!(
                f,
                "the configured local member {local} does not exist; the members are {}",
                listed(members)
            ),
            EventKind::Moved { member, postgres } => {
                write!(f, "member {member} moved to {postgres}")
            }
            EventKind::Respelled { member, postgres } => {
                write!(f, "member {member} is listed at {postgres} now, which is the same server")
            }
            EventKind::Paused(true) => f.write_str("the cluster is in maintenance mode"),
            EventKind::Paused(false) => f.write_str("maintenance mode is over"),
            EventKind::AddressLost { member, failure } => {
                write!(f, "the host of {member} does not resolve, last addresses kept: {failure}")
            }
            EventKind::EtcdWatched => f.write_str("etcd is watched for planned switchovers"),
            EventKind::EtcdLost { failure } => {
                write!(f, "etcd is not watched, so switchovers are not known in advance: {failure}")
            }
            EventKind::Reloaded => f.write_str("configuration reloaded"),
            EventKind::Drained { order } => write!(f, "order: {} is {order}", order.target),
            EventKind::Undrained { order, end: OrderEnd::Expired } => {
                write!(f, "order expired: {} was {order}", order.target)
            }
            EventKind::Undrained { order, end: OrderEnd::Withdrawn { by } } => {
                write!(f, "order withdrawn by {by}: {} was {order}", order.target)
            }
            EventKind::FoundByUrl { .. }
            | EventKind::SameServer { .. }
            | EventKind::Renamed { .. }
            | EventKind::DuplicateName { .. }
            | EventKind::StrangeCluster { .. }
            | EventKind::Disputed { .. }
            | EventKind::IdentityChanged { .. }
            | EventKind::Remembered { .. }
            | EventKind::ListedWithoutTls { .. } => self.write_identity(f),
        }
    }
}

impl EventKind {
    /// The code, for machines. It never changes.
    pub fn code(&self) -> &'static str {
        match self {
            EventKind::Gate { .. } => "gate",
            EventKind::Role { .. } => "role",
            EventKind::Joined { .. } => "joined",
            EventKind::Left { .. } => "left",
            EventKind::Moved { .. } => "moved",
            EventKind::Respelled { .. } => "respelled",
            EventKind::LocalUnknown { .. } => "local_unknown",
            EventKind::Paused(true) => "paused",
            EventKind::Paused(false) => "resumed",
            EventKind::AddressLost { .. } => "address_lost",
            EventKind::EtcdWatched => "etcd_watched",
            EventKind::EtcdLost { .. } => "etcd_lost",
            EventKind::StrangeCluster { .. } => "strange_cluster",
            EventKind::FoundByUrl { .. } => "found_by_url",
            EventKind::SameServer { .. } => "same_server",
            EventKind::Renamed { .. } => "renamed",
            EventKind::DuplicateName { .. } => "duplicate_name",
            EventKind::Disputed { .. } => "disputed",
            EventKind::IdentityChanged { .. } => "identity_changed",
            EventKind::Remembered { .. } => "remembered",
            EventKind::ListedWithoutTls { .. } => "listed_without_tls",
            EventKind::Reloaded => "reloaded",
            EventKind::Drained { .. } => "drained",
            EventKind::Undrained { .. } => "undrained",
        }
    }

    /// The member that the event is about.
    pub fn member(&self) -> Option<&MemberName> {
        match self {
            EventKind::Gate { member, .. }
            | EventKind::Role { member, .. }
            | EventKind::Joined { member, .. }
            | EventKind::Left { member }
            | EventKind::Moved { member, .. }
            | EventKind::Respelled { member, .. }
            | EventKind::FoundByUrl { member, .. }
            | EventKind::SameServer { member, .. }
            | EventKind::Renamed { member, .. }
            | EventKind::DuplicateName { member, .. }
            | EventKind::ListedWithoutTls { member, .. }
            | EventKind::AddressLost { member, .. } => Some(member),
            EventKind::Drained { order } | EventKind::Undrained { order, .. } => {
                Some(&order.target.member)
            }
            EventKind::Paused(_)
            | EventKind::LocalUnknown { .. }
            | EventKind::EtcdWatched
            | EventKind::EtcdLost { .. }
            | EventKind::StrangeCluster { .. }
            | EventKind::Disputed { .. }
            | EventKind::IdentityChanged { .. }
            | EventKind::Remembered { .. }
            | EventKind::Reloaded => None,
        }
    }

    /// The service whose gate changed, or of the order.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            EventKind::Gate { key: GateKey::Service(service), .. } => Some(service),
            EventKind::Drained { order } | EventKind::Undrained { order, .. } => {
                order.target.service.as_ref()
            }
            _ => None,
        }
    }

    /// The reason of a gate.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            EventKind::Gate { reason, .. } => reason.as_ref(),
            _ => None,
        }
    }

    /// Writes the events about identities and names.
    fn write_identity(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventKind::FoundByUrl { member, url } => {
                write!(f, "member {member} found by its URL {url}; no member list can be read")
            }
            EventKind::SameServer { member, same_as } => {
                write!(
                    f,
                    "{member} and {same_as} are one server by their endpoints, {same_as} is used"
                )
            }
            EventKind::Renamed { was, member } => write!(f, "member {was} is now called {member}"),
            EventKind::DuplicateName { member, taken, ignored } => write!(
                f,
                "member {member} is listed twice, at {taken} and at {ignored}; {taken} is used"
            ),
            EventKind::StrangeCluster { url, found, expected } => write!(
                f,
                "{url} belongs to another cluster, its member list is ignored: {found}; expected {expected}"
            ),
            EventKind::Disputed { answers } => f.write_str(&disputed(answers)),
            EventKind::IdentityChanged { was, is } => {
                write!(
                    f,
                    "the members agree on another identity of the cluster: {is}; it was {was}"
                )
            }
            EventKind::Remembered { members, age } => write!(
                f,
                "no member list can be read: using the stored list of {members} members, {} s old",
                age.as_secs()
            ),
            EventKind::ListedWithoutTls { member, url } => write!(
                f,
                "member {member} is listed with {url}, without TLS, by an https URL: set restapi.certfile there"
            ),
            _ => Ok(()),
        }
    }
}

/// Returns the sentence that lists the URLs with their clusters, and how to resolve the dispute.
pub(crate) fn disputed(answers: &[(Arc<str>, Identity)]) -> String {
    let each: Vec<String> =
        answers.iter().map(|(url, identity)| format!("{url} is of {identity}")).collect();
    format!(
        "the URLs of Patroni belong to different clusters: {}; set system_identifier or scope in \
         [patroni], or remove the wrong URL",
        each.join("; ")
    )
}

fn write_gate(f: &mut fmt::Formatter<'_>, key: &GateKey, member: &MemberName) -> fmt::Result {
    match key {
        GateKey::Service(service) => write!(f, "{service} gate of {member}"),
        GateKey::Role(role) => write!(f, "gate of {member} as a {role}"),
        GateKey::Pooled(role) => write!(
            f,
            "for HAProxy's agent-checks, the path through the pooler on {member} to a {role}"
        ),
    }
}
