//! The rank of reasons: which one is shown if several apply to a member.
//!
//! A gate, a member and a health check show one reason each. Of two verdicts the one with the stronger
//! effect counts: shut, then drain, keep, open. Of two with the same effect the one whose reason has the
//! higher rank. The order of [`Rank`]: a server of another cluster first, then risks for the data, the
//! member list, the state of the server, and reservations.

use crate::reason::Reason;

/// How important a reason is, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The server belongs to another cluster, so nothing else about it matters.
    Identity,
    /// Two members take writes or hold the lock, or one takes writes that the primary does not have.
    Danger,
    /// The member is not listed any more. [`Reason::Left`] contains what else is wrong.
    Membership,
    /// The server cannot be used, or nothing is known of it.
    Server,
    /// The server is healthy and has another role, or its role is not settled yet.
    Role,
    /// The replica does not stream.
    Stream,
    /// Patroni does not answer: an open gate stays open for a limited time.
    Doubt,
    /// New connections cannot reach the server.
    Address,
    /// The pooler in front of the server does not lead to it.
    Pooler,
    /// The operator excludes the member by tags.
    Tags,
    /// The replica is above a lag limit, or its lag is unknown.
    Lag,
    /// New sessions bypass the pooler.
    Detour,
    /// A switchover was requested, or an operator drains the member.
    Order,
    /// The primary serves in place of the replicas.
    StandIn,
    /// The list does not name the member at present.
    Missing,
    /// A source is missing or slow, but the others are sufficient.
    Reservation,
    /// Nothing is wrong: the next answer decides.
    Confirming,
}

impl Reason {
    /// The rank of the reason.
    pub fn rank(&self) -> Rank {
        match self {
            Reason::SplitBrain(_) | Reason::NotLeader { leader: Some(_), writer: Some(_) } => {
                Rank::Danger
            }
            Reason::OtherCluster { .. } | Reason::OtherMember(_) => Rank::Identity,
            Reason::Left(_) | Reason::SameServer(_) => Rank::Membership,
            Reason::Unheard
            | Reason::Silent(_)
            | Reason::Down(_)
            | Reason::PortUnknown
            | Reason::NoNewSessions(_)
            | Reason::NotRunning(_)
            | Reason::PatroniDown(_)
            | Reason::NotLeader { .. }
            | Reason::Promoting => Rank::Server,
            Reason::WrongRole { .. } | Reason::AwaitingOthers(_) => Rank::Role,
            Reason::NoAddress(_) => Rank::Address,
            Reason::PoolerUnheard { .. }
            | Reason::PoolerNotAsked { .. }
            | Reason::PoolerDown { .. }
            | Reason::PoolerNowhere { .. }
            | Reason::PoolerPutsOff { .. }
            | Reason::PoolerBusy { .. }
            | Reason::PoolerAstray { .. }
            | Reason::PoolerUnproven { .. } => Rank::Pooler,
            Reason::NoLoadBalance | Reason::TagMismatch { .. } => Rank::Tags,
            Reason::LagUnknown | Reason::LagBytes { .. } | Reason::LagTime { .. } => Rank::Lag,
            Reason::NotStreaming(_) => Rank::Stream,
            Reason::PoolerBypassed(_) => Rank::Detour,
            Reason::SwitchoverPlanned | Reason::DrainedByOperator(_) => Rank::Order,
            Reason::PatroniLost(..) => Rank::Doubt,
            Reason::NotListed(_) => Rank::Missing,
            Reason::TetherRefused(_) | Reason::SqlSuffices(_) | Reason::PatroniSlow { .. } => {
                Rank::Reservation
            }
            Reason::Fallback | Reason::FallbackOver => Rank::StandIn,
            Reason::Confirming => Rank::Confirming,
        }
    }

    /// Returns the reason of the higher rank; this one if both have the same.
    pub fn or_stronger(self, other: Reason) -> Reason {
        if other.rank() < self.rank() { other } else { self }
    }
}

/// Returns the stronger of two optional reasons.
pub(crate) fn stronger(one: Option<Reason>, other: Option<Reason>) -> Option<Reason> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.or_stronger(other)),
        (one, other) => one.or(other),
    }
}

/// Returns the reason for a member that left the list. It contains what else is wrong, so that a
/// dead host is not taken for one that was removed on purpose.
pub(crate) fn left(other: Option<&Reason>) -> Reason {
    let other =
        other.filter(|other| other.rank() == Rank::Server || other.rank() == Rank::Identity);
    Reason::Left(other.cloned().map(Box::new))
}
