//! Events: what happened, in a sentence each for the log and the pages.

use std::fmt;

use crate::claim::{Failure, Role};
use crate::gate::GateState;
use crate::names::{Endpoint, MemberName, listed};
use crate::post::Post;
use crate::reason::Reason;
use crate::time::Moment;

/// Something that happened, with its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Moment,
    /// What.
    pub kind: EventKind,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// A gate went to another state.
    Gate {
        /// What it stands before: a service, or a role at the end of the agent's pooler.
        post: Post,
        /// The member.
        member: MemberName,
        /// The new state.
        now: GateState,
        /// Why it is not open, or what the reservation is.
        reason: Option<Reason>,
    },
    /// A member was concluded to have another role.
    Role {
        /// The member.
        member: MemberName,
        /// What it was.
        was: Role,
        /// What it is.
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
    /// A member is not listed any more.
    Left {
        /// The member.
        member: MemberName,
    },
    /// The member that is to run on this machine is none of those that there are.
    LocalUnknown {
        /// What the configuration calls it.
        local: MemberName,
        /// Those that there are.
        members: Vec<MemberName>,
    },
    /// A member's host or port changed.
    Moved {
        /// The member.
        member: MemberName,
        /// Where its PostgreSQL listens now.
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
    /// Patroni's keys in etcd cannot be watched. Nothing depends on it but how early a planned
    /// switchover is known.
    EtcdLost {
        /// Why.
        failure: Failure,
    },
    /// A Patroni that was asked for the members speaks of another cluster; it was ignored.
    StrangeCluster {
        /// The scope it tells.
        found: String,
        /// The scope of this cluster.
        expected: String,
    },
    /// The configuration was replaced.
    Reloaded,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventKind::Gate { post, member, now, reason } => {
                write_gate(f, post, member)?;
                write!(f, " is {now}")?;
                match reason {
                    Some(reason) if *now == GateState::Open => {
                        write!(f, ", with a reservation: {reason}")
                    }
                    Some(reason) => write!(f, ": {reason}"),
                    None => Ok(()),
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
                "no member is called {local}, as the local one is to be; there are {}",
                listed(members)
            ),
            EventKind::Moved { member, postgres } => {
                write!(f, "member {member} moved to {postgres}")
            }
            EventKind::Paused(true) => f.write_str("the cluster is in maintenance mode"),
            EventKind::Paused(false) => f.write_str("maintenance mode is over"),
            EventKind::AddressLost { member, failure } => {
                write!(f, "the host of {member} does not resolve, last addresses kept: {failure}")
            }
            EventKind::EtcdWatched => {
                f.write_str("etcd is watched for switchovers that are ordered")
            }
            EventKind::EtcdLost { failure } => {
                write!(f, "etcd is not watched, switchovers come without notice: {failure}")
            }
            EventKind::StrangeCluster { found, expected } => {
                write!(f, "ignored the members of another cluster: scope {found}, not {expected}")
            }
            EventKind::Reloaded => f.write_str("configuration reloaded"),
        }
    }
}

fn write_gate(f: &mut fmt::Formatter<'_>, post: &Post, member: &MemberName) -> fmt::Result {
    match post {
        Post::Service(service) => write!(f, "{service} gate of {member}"),
        Post::Role(role) => write!(f, "gate of {member} as a {role}"),
        Post::Pooled(role) => write!(
            f,
            "for HAProxy's agent-checks, the path through the pooler on {member} to a {role}"
        ),
    }
}
