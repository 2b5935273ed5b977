//! The path through a pooler: whether it leads to its member, in the role of that member.

use std::time::Duration;

use super::{Member, Rules};
use crate::claim::{PoolerFacts, Role, ServerStart};
use crate::reason::Reason;
use crate::time::Moment;
use crate::view::{POOLER_RETRY, Reading, View};

/// What is known of the path through one pooler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolerPath {
    /// It leads to the member, as far as that is known.
    Right,
    /// No fact contradicts it, but no query has shown which server it leads to.
    Noted(Reason),
    /// The next answer of the pooler decides.
    Awaited(Reason),
    /// The pooler is up and keeps clients waiting.
    Busy(Wait),
    /// The pooler is up and led to the member, and may not have retried its server since that
    /// returned.
    PutsOff(PutOff),
    /// It does not lead to the member.
    Wrong(Reason),
}

/// A pooler that is paused or full, so that clients wait in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Why clients wait.
    pub reason: Reason,
    /// Until when a waiting client can still expect a server connection.
    pub until: Moment,
    /// Its last answer before the wait showed that it leads to the run of the server that the
    /// member still has: a promotion does not restart a server. If false, only earlier answers can
    /// show where it leads.
    pub leads_there: bool,
}

/// A pooler that refuses its clients for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// Why it does.
    pub reason: Reason,
    /// Until when it may do so only because its server was away.
    pub until: Moment,
}

/// How long clients are routed into a pooler that keeps them waiting: PgBouncer's default limit for
/// a waiting client (`query_wait_timeout`). Until then every client can still be served, above all
/// in a `PAUSE` for a switchover. After that PgBouncer has disconnected the first clients, so new
/// ones wait in pgsteer, or are routed to another member.
const BUSY_GRACE: Duration = Duration::from_secs(120);

impl PoolerPath {
    /// The reason why the path is not `Right`.
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

/// Judges the path through the pooler on `port` to a member that has been a `role` since
/// `role_since`.
///
/// Answers about the server behind the pooler from before the member had that role are out of date:
/// right after a promotion, or when the member has just returned. So bad results count only if
/// their questions were sent since.
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
        Reading::Never => awaited(),
        // A gate may be open because of this answer while it was fresh. An answer that expired
        // before the member had this role cannot have opened a gate.
        Reading::Stale => {
            let was_over = |asked_at| asked_at + rules.freshness.pooler <= role_since;
            match member.view.pooler_asked_at(port).is_none_or(was_over) {
                true => awaited(),
                false => PoolerPath::Wrong(Reason::PoolerUnheard {
                    port,
                    for_more_than: Some(rules.freshness.pooler),
                }),
            }
        }
        // This failure is about the pooler itself and does not depend on its server.
        Reading::Failed(failure) => {
            PoolerPath::Wrong(Reason::PoolerDown { port, failure: failure.clone() })
        }
        Reading::Fresh(PoolerFacts::Answers) => PoolerPath::Right,
        Reading::Fresh(PoolerFacts::RefusesLogin(failure)) => {
            PoolerPath::Noted(Reason::PoolerUnproven { port, failure: failure.clone() })
        }
        Reading::Fresh(PoolerFacts::Busy(failure)) => {
            let reason = Reason::PoolerBusy { port, failure: failure.clone() };
            PoolerPath::Busy(wait(&member.view, port, role_since, reason))
        }
        Reading::Fresh(PoolerFacts::LeadsNowhere(failure)) => {
            let nowhere = Reason::PoolerNowhere { port, failure: failure.clone() };
            match put_off_until(&member.view, port) {
                // A service has other replicas: this one is unused until a session through its
                // pooler succeeds.
                _ if role == Role::Replica => wrong(nowhere),
                Some(until) if now < until => {
                    let reason = Reason::PoolerPutsOff { port, failure: failure.clone() };
                    PoolerPath::PutsOff(PutOff { reason, until })
                }
                // A gate may be open in spite of this failure, even if it is older than the role.
                Some(_) => PoolerPath::Wrong(nowhere),
                None => wrong(nowhere),
            }
        }
        Reading::Fresh(PoolerFacts::Leads { in_recovery, started_at }) => {
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

/// Until when a failed session through the pooler is ignored; none if it always counts.
///
/// A login at a server that is being stopped fails, and PgBouncer does not retry for a while: it
/// refuses new clients in that time, even if the server is back. Other pools of the same PgBouncer,
/// those of clients, may have sessions. So the failure counts only once the tether's server has
/// been up for that time, if the pooler was known to lead to it before.
fn put_off_until(view: &View, port: u16) -> Option<Moment> {
    let came_back = view.server_run()?.first_asked;
    (view.pooler_led_here(port)? < came_back).then_some(came_back + POOLER_RETRY)
}

/// How long the clients in the pooler wait. Clients that require a role cannot have waited since
/// before the member had it.
fn wait(view: &View, port: u16, role_since: Moment, reason: Reason) -> Wait {
    let wait = view.pooler_wait(port);
    let since = wait.map_or(role_since, |wait| wait.since).max(role_since);
    let led_to = wait.and_then(|wait| wait.led_to);
    let own = view.server_run().map(|run| run.started_at);
    Wait { reason, until: since + BUSY_GRACE, leads_there: led_to.is_some() && led_to == own }
}

/// Which server a pooler leads to, by the time at which that server was started.
enum Server {
    /// The member's own, as far as that is known.
    Own,
    /// Perhaps another server, or the member's own before or after a restart.
    Awaited,
    /// Another server.
    Another,
}

/// Compares the start time of the server behind the pooler on `port` with that of the tether's
/// server. A difference is a contradiction only if the pooler's answer falls into the run of the
/// tether's server: after its first answer, and before its last. Otherwise there may have been a
/// restart between the two.
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

/// Returns the role of a server, by its recovery state alone.
pub fn leads_to(in_recovery: bool) -> Role {
    if in_recovery { Role::Replica } else { Role::Primary }
}

fn is_in_recovery(role: Role) -> bool {
    matches!(role, Role::Replica | Role::StandbyLeader)
}
