//! The judge: the role of each member, and which services it can serve. It is pure and keeps no
//! state.
//!
//! [`standing`] compares the claims about all members and concludes a role for each. [`fitness`]
//! compares one member with the requirements of one service. [`pooler_path`] judges whether the
//! pooler on the member's host leads to the member.

pub mod fitness;
pub mod listing;
pub mod pooler_path;
pub mod sight;
pub mod standing;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::claim::{Found, Role};
use crate::identity::{Contradiction, Identity};
use crate::names::{Endpoint, MemberName};
use crate::reason::Reason;
use crate::time::Moment;
use crate::view::{Freshness, View};

/// A member as the input of the judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its name and its endpoints.
    pub found: Found,
    /// Since when `/cluster` does not list it any more.
    pub left_at: Option<Moment>,
    /// The member of another name that is the same server. Only that member is asked and serves.
    pub same_as: Option<MemberName>,
    /// Other spellings of its PostgreSQL endpoint: its server was listed or another member's there.
    pub also_at: Vec<Endpoint>,
    /// The newest list names another host, which may be another name of the same one.
    pub new_host: Option<NewHost>,
    /// Only the URL of its Patroni is known, so the port of its PostgreSQL is unknown.
    pub is_url_only: bool,
    /// Only that URL was known before, and the member served by Patroni's answers alone.
    pub was_url_only: bool,
    /// All claims about it.
    pub view: View,
}

/// Another host under which a list names a member. Its addresses show whether the member has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewHost {
    /// The entry of the list.
    pub found: Found,
    /// When the list was accepted.
    pub since: Moment,
}

/// All members by name.
pub type Members = BTreeMap<MemberName, Member>;

impl Member {
    /// How its Patroni's answer contradicts `identity`; none if it does not.
    pub fn contradicts(&self, identity: &Identity) -> Option<Contradiction> {
        identity.contradiction(&self.view.patroni_facts()?.answer.identity())
    }

    /// How the server that the check login reaches contradicts `identity`, by SQL; none if it does not.
    /// The result does not apply to its Patroni, whose lock still counts.
    pub fn sql_contradicts(&self, identity: &Identity) -> Option<Contradiction> {
        identity.system_identifier.as_ref()?;
        let system_identifier = Some(self.view.sql_system_identifier()?.to_string());
        identity.contradiction(&Identity { system_identifier, ..Identity::default() })
    }

    /// Returns true if it is in the newest member list.
    pub fn is_listed(&self) -> bool {
        self.left_at.is_none()
    }
}

/// The rules of the cluster that the judge applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Patroni is asked; if false, only SQL is.
    pub has_patroni: bool,
    /// There is a login for the tether; without it Patroni is the only source.
    pub has_tether: bool,
    /// Without Patroni, if several members are primaries, the one with the highest timeline wins.
    pub highest_timeline_wins: bool,
    /// How long claims may be used.
    pub freshness: Freshness,
    /// How long an open gate stays open after its member's Patroni stopped answering.
    pub patroni_loss_grace: Duration,
}

/// The judge's conclusion about a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its role, as far as it is known.
    pub role: Role,
    /// Whether that role can be relied on.
    pub trust: Trust,
}

/// Returns true if the member is a rogue primary ([`Standing::is_rogue_primary`]), listed or not.
/// Without Patroni the operator's list defines the cluster, so a server that was removed from it is
/// not a rogue primary.
pub fn is_rogue(member: &Member, standing: &Standing, rules: &Rules) -> bool {
    standing.is_rogue_primary() && (rules.has_patroni || member.left_at.is_none())
}

/// How far a conclusion may be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its sources agree.
    Full,
    /// It may be relied on, but something is wrong.
    Noted(Reason),
    /// Nothing contradicts it, but a fact is missing: an open gate stays open for a limited time,
    /// and a gate that is not open stays as it is.
    AsItWas(Reason),
    /// The same as above, because its Patroni does not answer.
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

    /// The reason why the member does not have full trust.
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

    /// Returns true if replicas can stream from the member.
    pub fn is_source(&self) -> bool {
        matches!(self.role, Role::Primary | Role::StandbyLeader) && !self.trust.is_refused()
    }

    /// Returns true if the member takes writes that the cluster's primary does not have: another
    /// member holds the leader lock, or takes writes as well. Membership, Patroni's answers and the
    /// list do not matter here: such a server is dangerous as long as clients can reach it.
    pub fn is_rogue_primary(&self) -> bool {
        self.role == Role::Primary
            && matches!(self.trust, Trust::LockElsewhere(_) | Trust::Split(_))
    }

    /// Returns true if write sessions at the member are lost: the member itself reports that it is
    /// not a primary, or it is one of several primaries and did not win.
    pub fn is_proof_against_writes(&self) -> bool {
        matches!(self.role, Role::Replica | Role::StandbyLeader)
            || matches!(self.trust, Trust::Split(_))
    }
}
