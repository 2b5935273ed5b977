//! The path through a pooler: does it lead to its member, in the role that the member has?

use std::time::Duration;

use super::{Member, Rules};
use crate::claim::{PoolerFacts, Role, ServerStart};
use crate::reason::Reason;
use crate::time::Moment;
use crate::view::{POOLER_RETRY, View, Word};

/// What is known of the path through one pooler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolerPath {
    /// It leads there, as far as anybody can tell.
    Right,
    /// No fact contradicts it, but no query has shown which server it leads to.
    Noted(Reason),
    /// The next word on it will tell.
    Awaited(Reason),
    /// It is there, and whoever comes has to wait in it.
    Busy(Wait),
    /// It is there, led here, and may not have tried its server again since that came back.
    PutsOff(PutOff),
    /// It does not lead there.
    Wrong(Reason),
}

/// What waits in a pooler that is paused or full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// That it does.
    pub reason: Reason,
    /// Until when whoever comes may still hope to be served.
    pub until: Moment,
    /// Its last word before was that it leads to the very server which the member still runs: a
    /// promotion does not start a server anew. Otherwise where it leads it led before, as far as
    /// anybody can tell.
    pub leads_there: bool,
}

/// What is known of a pooler that puts its clients off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// That it does.
    pub reason: Reason,
    /// Until when it may do so for no better reason than that its server was away.
    pub until: Moment,
}

/// How long clients are led into a pooler that keeps them waiting: as long as PgBouncer lets one
/// wait unless told otherwise (`query_wait_timeout`), for until then everybody may still be served,
/// in a `PAUSE` for a switchover above all. After that the first have been turned away there, so
/// those who come wait here, or go to another member.
const BUSY_GRACE: Duration = Duration::from_secs(120);

impl PoolerPath {
    /// What keeps it from being right.
    pub fn trouble(&self) -> Option<&Reason> {
        match self {
            PoolerPath::Right => None,
            PoolerPath::Noted(reason)
            | PoolerPath::Awaited(reason)
            | PoolerPath::Busy(Wait { reason, .. })
            | PoolerPath::PutsOff(PutOff { reason, .. })
            | PoolerPath::Wrong(reason) => Some(reason),
        }
    }
}

/// The path through the pooler on `port` to a member that has been a `role` since `role_since`.
///
/// What was said of the server at the other end before the member had that role is out of date:
/// right after a promotion, or when it has just come back. So bad news of it count only if they
/// were asked for since.
pub fn pooler_path(
    member: &Member,
    port: u16,
    (role, role_since): (Role, Moment),
    rules: &Rules,
    now: Moment,
) -> PoolerPath {
    if role == Role::Unknown && rules.has_tether {
        return PoolerPath::Wrong(Reason::PoolerNotAsked { port });
    }
    let awaited = || PoolerPath::Awaited(Reason::PoolerUnheard { port, for_more_than: None });
    let wrong = |reason| match member.view.pooler_asked_at(port) < Some(role_since) {
        true => awaited(),
        false => PoolerPath::Wrong(reason),
    };
    match member.view.pooler(port, now, &rules.freshness) {
        Word::Unheard => awaited(),
        // A gate may stand open by what the word was as long as it lasted. One that was over before
        // the member had this role cannot have opened anything.
        Word::Expired => {
            let was_over = |asked_at| asked_at + rules.freshness.pooler <= role_since;
            match member.view.pooler_asked_at(port).is_none_or(was_over) {
                true => awaited(),
                false => PoolerPath::Wrong(Reason::PoolerUnheard {
                    port,
                    for_more_than: Some(rules.freshness.pooler),
                }),
            }
        }
        // This is about the pooler itself, whatever its server is.
        Word::Failed(failure) => {
            PoolerPath::Wrong(Reason::PoolerDown { port, failure: failure.clone() })
        }
        Word::Said(PoolerFacts::Answers) => PoolerPath::Right,
        Word::Said(PoolerFacts::RefusesLogin(failure)) => {
            PoolerPath::Noted(Reason::PoolerUnproven { port, failure: failure.clone() })
        }
        Word::Said(PoolerFacts::Busy(failure)) => {
            let reason = Reason::PoolerBusy { port, failure: failure.clone() };
            PoolerPath::Busy(wait(&member.view, port, role_since, reason))
        }
        Word::Said(PoolerFacts::LeadsNowhere(failure)) => {
            match put_off_until(&member.view, port, now) {
                // A replica has others beside it: it waits until there is a session again.
                Some(until) if role != Role::Replica => {
                    let reason = Reason::PoolerPutsOff { port, failure: failure.clone() };
                    PoolerPath::PutsOff(PutOff { reason, until })
                }
                _ => wrong(Reason::PoolerNowhere { port, failure: failure.clone() }),
            }
        }
        Word::Said(PoolerFacts::Leads { in_recovery, started_at }) => {
            let is_right_role = *in_recovery == is_in_recovery(role);
            match (role, compare(&member.view, port, *started_at)) {
                (Role::Unknown, _) => PoolerPath::Right,
                (is, Server::Another) if is_right_role => {
                    wrong(Reason::PoolerAstray { port, leads_to: is, is })
                }
                (_, Server::Awaited) if is_right_role => awaited(),
                _ if is_right_role => PoolerPath::Right,
                (is, _) => {
                    wrong(Reason::PoolerAstray { port, leads_to: leads_to(*in_recovery), is })
                }
            }
        }
    }
}

/// Until when nothing follows of it that a session through the pooler comes to nothing.
///
/// A login at a server that is being stopped fails, and PgBouncer does not try again for a while:
/// whoever comes meanwhile is put off, though the server be back long since. Other pools of it, those
/// of clients, may well have sessions. So it counts only once the server that the tether is tied to
/// has been there for as long, if the pooler was known to lead here before.
fn put_off_until(view: &View, port: u16, now: Moment) -> Option<Moment> {
    let came_back = view.server_run()?.first_asked;
    let until = came_back + POOLER_RETRY;
    (view.pooler_led_here(port)? < came_back && now < until).then_some(until)
}

/// What becomes of who waits. Those who come for a role have not waited since before the member had
/// it.
fn wait(view: &View, port: u16, role_since: Moment, reason: Reason) -> Wait {
    let wait = view.pooler_wait(port);
    let since = wait.map_or(role_since, |wait| wait.since).max(role_since);
    let led_to = wait.and_then(|wait| wait.led_to);
    let own = view.server_run().map(|run| run.started_at);
    Wait { reason, until: since + BUSY_GRACE, leads_there: led_to.is_some() && led_to == own }
}

/// Which server a pooler leads to, by the moment at which that was started.
enum Server {
    /// The member's own, as far as anybody can tell.
    Own,
    /// Perhaps another, or the own one before or after a restart.
    Awaited,
    /// Another.
    Another,
}

/// Holds the start of the server behind the pooler on `port` against that of the server which the
/// tether is tied to. They contradict each other only if the pooler said so while the tether's
/// server ran: after its first answer, and before its last. Otherwise there may have been a restart
/// between the two.
fn compare(view: &View, port: u16, started_at: Option<ServerStart>) -> Server {
    let (Some(theirs), Some(own)) = (started_at, view.server_run()) else {
        return Server::Own;
    };
    if theirs == own.started_at {
        return Server::Own;
    }
    let has_said_so_since = view.pooler_asked_at(port) > Some(own.first_asked);
    let ran_on = Some(own.last_asked) > view.pooler_same_since(port);
    match has_said_so_since && ran_on {
        true => Server::Another,
        false => Server::Awaited,
    }
}

/// What a server is, as far as recovery alone tells.
pub fn leads_to(in_recovery: bool) -> Role {
    if in_recovery { Role::Replica } else { Role::Primary }
}

fn is_in_recovery(role: Role) -> bool {
    matches!(role, Role::Replica | Role::StandbyLeader)
}
