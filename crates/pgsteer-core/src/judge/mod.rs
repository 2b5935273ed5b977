//! The judge: what each member is, and what it is fit for. Pure opinion, no memory.
//!
//! [`standing`] weighs what the sources say of all members against each other and concludes
//! a role for each; [`fitness`] holds one member against the wishes of one service; [`pooler_path`]
//! judges whether the pooler beside it leads there.

pub mod fitness;
pub mod listing;
pub mod pooler_path;
pub mod sight;
pub mod standing;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::claim::{Found, Role};
use crate::identity::{Contradiction, Identity};
use crate::names::MemberName;
use crate::reason::Reason;
use crate::time::Moment;
use crate::view::{Freshness, View};

/// A member as the judge sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its name, and where it listens.
    pub found: Found,
    /// Since when `/cluster` does not list it any more.
    pub left_at: Option<Moment>,
    /// The member of another name that is the same server. Only that one is asked and served.
    pub same_as: Option<MemberName>,
    /// It is known by the URL of its Patroni only, so that the port of its PostgreSQL is unknown.
    pub is_url_only: bool,
    /// It was known by that URL only, and was served by Patroni's answers alone.
    pub was_url_only: bool,
    /// What has been said of it.
    pub view: View,
}

/// All members by name.
pub type Members = BTreeMap<MemberName, Member>;

impl Member {
    /// How its Patroni contradicts `identity`, if it does.
    pub fn contradicts(&self, identity: &Identity) -> Option<Contradiction> {
        identity.contradiction(&self.view.patroni_facts()?.said.identity())
    }

    /// Returns true if it is in the newest member list.
    pub fn is_listed(&self) -> bool {
        self.left_at.is_none()
    }
}

/// The rules of the cluster by which the judge goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Patroni is asked; without it only SQL is.
    pub has_patroni: bool,
    /// There is a login for the tether; without it Patroni's word alone has to do.
    pub has_tether: bool,
    /// Without Patroni, of several primaries the one with the highest timeline wins.
    pub highest_timeline_wins: bool,
    /// How long claims may be acted on.
    pub freshness: Freshness,
    /// How long an open gate outlives the silence of its member's Patroni.
    pub patroni_loss_grace: Duration,
}

/// What the judge concludes of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its role, as far as anyone knows.
    pub role: Role,
    /// Whether that role may be relied on.
    pub trust: Trust,
}

/// The member is a rogue primary ([`Standing::is_rogue_primary`]), whether the list names it or not.
/// Without Patroni the operator's list decides what is in the cluster, so a server that was taken
/// off it is none.
pub fn is_rogue(member: &Member, standing: &Standing, rules: &Rules) -> bool {
    standing.is_rogue_primary() && (rules.has_patroni || member.left_at.is_none())
}

/// How far a conclusion may be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its sources agree.
    Full,
    /// It may be relied on, but not all is well.
    Noted(Reason),
    /// Nothing contradicts it, but a fact is missing: an open gate stays open for a limited time, a
    /// gate that is not open stays as it is.
    AsItWas(Reason),
    /// The same, because its Patroni does not answer.
    PatroniLost(Reason),
    /// It holds the leader lock and is still in recovery: it must not be relied on yet.
    Promoting,
    /// It must not be relied on.
    Refused(Reason),
    /// It takes writes, or leads a standby cluster, while another member holds the leader lock. It
    /// must not be relied on.
    LockElsewhere(Reason),
    /// It is one of several members that take writes or hold the leader lock at the same time. It
    /// must not be relied on.
    Split(Reason),
}

impl Trust {
    /// Returns true if the member must not be relied on.
    pub fn is_refused(&self) -> bool {
        matches!(
            self,
            Trust::Promoting | Trust::Refused(_) | Trust::LockElsewhere(_) | Trust::Split(_)
        )
    }
}

impl Standing {
    fn sure(role: Role) -> Standing {
        Standing { role, trust: Trust::Full }
    }

    fn out(role: Role, reason: Reason) -> Standing {
        Standing { role, trust: Trust::Refused(reason) }
    }

    /// What keeps the member from full trust.
    pub fn trouble(&self) -> Option<&Reason> {
        match &self.trust {
            Trust::Full => None,
            Trust::Promoting => Some(&Reason::Promoting),
            Trust::Noted(reason)
            | Trust::AsItWas(reason)
            | Trust::PatroniLost(reason)
            | Trust::Refused(reason)
            | Trust::LockElsewhere(reason)
            | Trust::Split(reason) => Some(reason),
        }
    }

    /// It takes writes that the cluster's primary does not have: another member holds the leader
    /// lock, or takes writes as well. Membership, Patroni's answers and the list play no part in
    /// this: such a server is dangerous as long as clients can reach it.
    pub fn is_rogue_primary(&self) -> bool {
        self.role == Role::Primary
            && matches!(self.trust, Trust::LockElsewhere(_) | Trust::Split(_))
    }

    /// The member itself says that it is no primary, so a write session there is lost; or it is
    /// one of several and did not win.
    pub fn is_proof_against_writes(&self) -> bool {
        matches!(self.role, Role::Replica | Role::StandbyLeader)
            || matches!(self.trust, Trust::Split(_))
    }
}
