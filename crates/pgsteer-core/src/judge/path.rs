//! The path through a pooler: does it lead to its member, in the role that the member has?

use super::{Member, Rules};
use crate::claim::{PoolerFacts, Role};
use crate::reason::Reason;
use crate::time::Moment;
use crate::view::Word;

/// What is known of the path through one pooler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// It leads there, as far as anybody can tell.
    Right,
    /// Nothing speaks against it, but where it leads nobody can tell.
    Noted(Reason),
    /// The next word on it will tell.
    Awaited(Reason),
    /// It does not lead there.
    Wrong(Reason),
}

impl Path {
    /// What keeps it from being right.
    pub fn trouble(&self) -> Option<&Reason> {
        match self {
            Path::Right => None,
            Path::Noted(reason) | Path::Awaited(reason) | Path::Wrong(reason) => Some(reason),
        }
    }
}

/// The path through the pooler on `port` to a member that has been a `role` since `role_since`.
///
/// What was said of the server at the other end before the member had that role is out of date:
/// right after a promotion, or when it has just come back. So bad news of it count only if they
/// were asked for since.
pub fn path(
    member: &Member,
    port: u16,
    (role, role_since): (Role, Moment),
    rules: &Rules,
    now: Moment,
) -> Path {
    let wrong = |reason| match member.view.pooler_asked_at(port) < Some(role_since) {
        true => Path::Awaited(Reason::PoolerUnheard { port }),
        false => Path::Wrong(reason),
    };
    match member.view.pooler(port, now, &rules.freshness) {
        Word::Unheard => Path::Awaited(Reason::PoolerUnheard { port }),
        Word::Expired => wrong(Reason::PoolerUnheard { port }),
        // This is about the pooler itself, whatever its server is.
        Word::Failed(failure) => Path::Wrong(Reason::PoolerDown { port, failure: failure.clone() }),
        Word::Said(PoolerFacts::Answers) => Path::Right,
        Word::Said(PoolerFacts::RefusesLogin(failure)) => {
            Path::Noted(Reason::PoolerUnproven { port, failure: failure.clone() })
        }
        Word::Said(PoolerFacts::LeadsNowhere(failure)) => {
            wrong(Reason::PoolerNowhere { port, failure: failure.clone() })
        }
        Word::Said(PoolerFacts::Leads { in_recovery }) => match role {
            Role::Unknown => Path::Right,
            _ if *in_recovery == is_in_recovery(role) => Path::Right,
            is => wrong(Reason::PoolerAstray { port, leads_to: leads_to(*in_recovery), is }),
        },
    }
}

/// What a server is, as far as recovery alone tells.
pub fn leads_to(in_recovery: bool) -> Role {
    if in_recovery { Role::Replica } else { Role::Primary }
}

fn is_in_recovery(role: Role) -> bool {
    matches!(role, Role::Replica | Role::StandbyLeader)
}
