//! Sight: whether a member may be a primary although no source reports it.

use super::{Member, Rules};
use crate::claim::{Failure, PatroniFacts, Role};
use crate::time::Moment;
use crate::view::Reading;

/// Returns true if the member certainly takes no writes: a source reports that PostgreSQL is in
/// recovery, that it refuses connections, or that it does not run, and no source contradicts. A
/// member that is silent, cut off or has not been asked yet may take writes from clients that reach
/// it.
///
/// A server that shuts down (57P03) may still take the writes of its old sessions.
pub fn takes_no_writes(member: &Member, rules: &Rules, now: Moment) -> bool {
    let by_sql = match member.view.tether(now, &rules.freshness) {
        Reading::Fresh(facts) => Some(facts.in_recovery),
        Reading::Failed(Failure::Refused(_)) => Some(true),
        Reading::Failed(_) | Reading::Stale | Reading::Never => None,
    };
    let by_patroni = match member.view.patroni(now, &rules.freshness) {
        Reading::Fresh(facts) => takes_none_by_patroni(facts),
        Reading::Failed(_) | Reading::Stale | Reading::Never => None,
    };
    let answers = [by_sql, by_patroni];
    answers.contains(&Some(true)) && !answers.contains(&Some(false))
}

/// Returns true in the states in which PostgreSQL does not run, or admits no client. `stopping` is
/// not one of them.
fn takes_none_by_patroni(facts: &PatroniFacts) -> Option<bool> {
    match (facts.state.as_str(), facts.role) {
        ("stopped" | "crashed" | "start failed" | "starting" | "creating replica", _) => Some(true),
        ("running", Role::Primary) => Some(false),
        ("running", Role::Replica | Role::StandbyLeader) => Some(true),
        _ => None,
    }
}
