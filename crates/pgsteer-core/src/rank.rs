//! The rank of reasons: which of several things that are wrong with a member is named.
//!
//! A gate, a member and a health check show one reason each. The order of [`Rank`] is the only
//! place that says which one: another cluster's server is none of ours; after that what endangers
//! data goes before the list of members, that before the state of the server, and that before a
//! reservation. What a verdict *does* (shut, drain, keep, open) is decided by its kind first. So of
//! two verdicts of one kind the reason is never replaced by one of a lower rank.

use crate::reason::Reason;

/// How important a reason is, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The server belongs to another cluster: whatever else it is or does, it is none of ours.
    Identity,
    /// Two members take writes or hold the lock, or one takes writes that the primary does not have.
    Danger,
    /// The member is not listed any more. [`Reason::Left`] carries what else is wrong.
    Membership,
    /// The server cannot be used, or nothing is known of it.
    Server,
    /// The server is well and has another role, or its role is not settled yet.
    Role,
    /// The replica receives nothing.
    Stream,
    /// Patroni is silent: what was open stays open for a limited time.
    Doubt,
    /// New connections do not get there.
    Address,
    /// The pooler before the server does not lead there.
    Pooler,
    /// The operator keeps clients away, by tags.
    Tags,
    /// The replica is behind.
    Lag,
    /// New sessions go past the pooler.
    Detour,
    /// An order of the operator is under way.
    Order,
    /// The primary stands in for replicas.
    StandIn,
    /// The list does not name it for the time being.
    Missing,
    /// A source is missing or slow, the others suffice.
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
            Reason::SwitchoverPlanned => Rank::Order,
            Reason::PatroniLost(..) => Rank::Doubt,
            Reason::NotListed(_) => Rank::Missing,
            Reason::TetherRefused(_) | Reason::SqlSuffices(_) | Reason::PatroniSlow { .. } => {
                Rank::Reservation
            }
            Reason::Fallback | Reason::FallbackOver => Rank::StandIn,
            Reason::Confirming => Rank::Confirming,
        }
    }

    /// The reason of the higher rank; of two of the same rank this one.
    pub fn or_stronger(self, other: Reason) -> Reason {
        if other.rank() < self.rank() { other } else { self }
    }
}

/// The stronger one of two reasons that may be missing.
pub(crate) fn stronger(one: Option<Reason>, other: Option<Reason>) -> Option<Reason> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.or_stronger(other)),
        (one, other) => one.or(other),
    }
}

/// What a member is that has left the list: the reason names what else is wrong with it, so that a
/// host that died is not taken for one that was removed on purpose.
pub(crate) fn left(other: Option<&Reason>) -> Reason {
    let other =
        other.filter(|other| other.rank() == Rank::Server || other.rank() == Rank::Identity);
    Reason::Left(other.cloned().map(Box::new))
}
