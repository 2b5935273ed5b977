//! Listing: whether a member that `/cluster` does not list has left, or only its key is missing.
//!
//! A member's key in the DCS expires `ttl` after the DCS failed. Patroni writes it again up to
//! `loop_wait` after the DCS is back, while the member is healthy all the time.

use std::time::Duration;

use super::{Member, Rules, Standing};
use crate::claim::Role;
use crate::time::Moment;
use crate::view::Reading;

/// How long a healthy replica serves although `/cluster` does not list it: `ttl` and `loop_wait`
/// with Patroni's defaults of 30 and 10 seconds. Patroni is not asked for the configured values,
/// because the key comes back within `loop_wait`, and few clusters exceed 40 seconds with it.
pub const MISSING_GRACE: Duration = Duration::from_secs(40);

/// Whether the newest member list names a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// The list names it.
    Listed,
    /// The list does not name it at present, but its own Patroni reports a replica, and nothing
    /// shows that its stream has stopped.
    Missing,
    /// It has left.
    Left,
}

/// Compares `member` with the newest member list. `streams` is false if its stream is known to have
/// stopped.
pub fn listing(
    member: &Member,
    standing: &Standing,
    streams: bool,
    rules: &Rules,
    now: Moment,
) -> Listing {
    let Some(left_at) = member.left_at else { return Listing::Listed };
    let answers = match member.view.patroni(now, &rules.freshness) {
        Reading::Fresh(facts) => facts.is_running() && facts.role == Role::Replica,
        Reading::Never | Reading::Stale | Reading::Failed(_) => false,
    };
    let is_replica = standing.role == Role::Replica && !standing.trust.is_refused();
    let is_well = rules.has_patroni && answers && is_replica && streams;
    match is_well && now.since(left_at) < MISSING_GRACE {
        true => Listing::Missing,
        false => Listing::Left,
    }
}
