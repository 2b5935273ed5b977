//! Fitness: compares one member with the requirements of one service.

use std::time::Duration;

use super::listing::{Listing, MISSING_GRACE, listing};
use super::pooler_path::{PoolerPath, PutOff, Wait};
use super::{Member, Rules, Standing, Trust, is_rogue};
use crate::claim::{Role, TagFlags};
use crate::rank::{left, stronger};
use crate::reason::Reason;
use crate::route::{Bypass, PoolerFault, Route};
use crate::settings::{PoolerDown, ServiceConfig};
use crate::time::Moment;
use crate::verdict::{Cause, Refusal, Verdict};
use crate::view::Reading;

/// How far a member's replay is behind the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// In bytes of WAL.
    pub bytes: Option<u64>,
    /// In time: how long ago the primary passed the position that the member has replayed.
    pub time: Option<Duration>,
}

/// How new sessions of a service use the pooler.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ByPooler {
    /// They use the configured route.
    Usable {
        /// A reservation.
        note: Option<Reason>,
    },
    /// They bypass the pooler.
    Bypassed(Bypass),
    /// The next answer about the pooler decides.
    Awaited(Reason),
    /// They wait in the pooler: clients are routed there although it keeps them waiting.
    Busy(Wait),
    /// There is no route to the member.
    NoRoute(Reason),
}

/// One member and one service, as the input of the judge.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The service and its requirements.
    pub service: &'a ServiceConfig,
    /// The role that is required: the service's own, or the primary as a fallback.
    pub wants: Role,
    /// The member and the claims about it.
    pub member: &'a Member,
    /// The conclusion about its role.
    pub standing: &'a Standing,
    /// The path through the service's pooler to it; none without a pooler.
    pub path: Option<&'a PoolerPath>,
    /// Since when it has been in its role.
    pub role_since: Moment,
    /// How far it is behind.
    pub lag: Lag,
    /// There is a primary, or a standby leader, from which replicas can stream.
    pub has_source: bool,
    /// Its gate is draining because of its lag at present.
    pub drained_for_lag: bool,
    /// New sessions bypass its pooler at present.
    pub is_bypassed: bool,
    /// The rules of the cluster.
    pub rules: &'a Rules,
    /// Now.
    pub now: Moment,
}

/// How long a replica may go without a stream while there is a member to stream from. After a
/// switchover it needs some seconds to find the new primary (`wal_retrieve_retry_interval` is 5 s
/// by default). The lag limits still apply in that time.
pub const STALL_GRACE: Duration = Duration::from_secs(15);

/// How long an open gate waits for the first answer of a pooler. It is enough for several login
/// attempts.
pub const POOLER_GRACE: Duration = Duration::from_secs(5);

/// How long a bypassed pooler must be healthy before it is used again, so that a pooler that
/// crashes after each start does not flap.
const POOLER_RETURN: Duration = Duration::from_secs(1);

/// A replica that was drained for its lag comes back at this part of the limit, so that a replica
/// whose lag is near the limit does not flap.
const RETURN_NUMERATOR: u32 = 3;
const RETURN_DENOMINATOR: u32 = 4;

impl Case<'_> {
    /// Judges whether the member is fit for the service. A member that has left gets no new
    /// sessions. Its old sessions stay as long as the member would be fit if it were listed,
    /// because otherwise it may be dead.
    pub fn verdict(&self) -> Verdict {
        let verdict = self.verdict_as_if_listed();
        let not_listed = || Some(Reason::NotListed(MISSING_GRACE));
        match (self.listing(), verdict) {
            (Listing::Listed, verdict) => verdict,
            (Listing::Missing, Verdict::Fit { note, confirmed }) => {
                Verdict::Fit { note: stronger(not_listed(), note), confirmed }
            }
            (Listing::Missing, verdict) => verdict,
            (Listing::Left, verdict) if is_rogue(self.member, self.standing, self.rules) => verdict,
            (Listing::Left, Verdict::Shut(refusal)) => Verdict::shut(left(Some(&refusal.reason))),
            (Listing::Left, Verdict::Keep { reason, .. }) => Verdict::drain(left(Some(&reason))),
            (Listing::Left, Verdict::Fit { .. } | Verdict::Drain(_)) => Verdict::drain(left(None)),
        }
    }

    /// Compares the member with the newest member list.
    pub fn listing(&self) -> Listing {
        let streams = self.stall().is_none();
        listing(self.member, self.standing, streams, self.rules, self.now)
    }

    fn verdict_as_if_listed(&self) -> Verdict {
        if let (true, Some(reason)) = (self.standing.trust.is_refused(), self.standing.trouble()) {
            return Verdict::shut(reason.clone());
        }
        if self.standing.role != self.wants {
            let (is, wants) = (self.standing.role, self.wants);
            return Verdict::shut(Reason::WrongRole { is, wants });
        }
        self.verdict_on_its_role()
    }

    /// Judges whether the primary is fit to serve in place of the replicas.
    pub fn verdict_as_stand_in(&self) -> Verdict {
        let stands_in = Verdict::Fit { note: Some(Reason::Fallback), confirmed: true };
        (Case { wants: Role::Primary, ..*self }).verdict().or_stronger(stands_in)
    }

    /// Combines all verdicts for and against it; [`Verdict::or_stronger`] decides which one counts.
    fn verdict_on_its_role(&self) -> Verdict {
        let shut = [self.by_address(), self.by_new_sessions(), self.by_route()];
        let others = [self.by_tags(), self.by_lag(), self.by_stream()];
        let objections = shut.into_iter().chain(others).flatten();
        objections.fold(self.by_trust(), Verdict::or_stronger)
    }

    /// The old sessions continue, and the tether is one of them, so its answers still count.
    fn by_new_sessions(&self) -> Option<Verdict> {
        let failure = self.member.view.new_sessions_refused()?;
        Some(Verdict::shut(Reason::NoNewSessions(failure.clone())))
    }

    fn by_trust(&self) -> Verdict {
        // A primary with Patroni is confirmed by two facts that agree: the lock and the state.
        let confirmed = self.rules.has_patroni && self.wants != Role::Replica;
        match &self.standing.trust {
            Trust::Full => Verdict::Fit { note: None, confirmed },
            Trust::Noted(reason) => Verdict::Fit { note: Some(reason.clone()), confirmed },
            Trust::AsItWas(reason) | Trust::PatroniLost(reason) => {
                Verdict::Keep { reason: reason.clone(), grace: self.rules.patroni_loss_grace }
            }
            Trust::Promoting => Verdict::shut(Reason::Promoting),
            Trust::Refused(reason) | Trust::LockElsewhere(reason) | Trust::Split(reason) => {
                Verdict::shut(reason.clone())
            }
        }
    }

    fn by_address(&self) -> Option<Verdict> {
        let view = &self.member.view;
        let failure = view.address_failure().filter(|_| view.addresses().is_empty())?;
        Some(Verdict::shut(Reason::NoAddress(failure.clone())))
    }

    fn by_tags(&self) -> Option<Verdict> {
        self.refusal_by_tags().map(Verdict::drain)
    }

    fn by_lag(&self) -> Option<Verdict> {
        let reason = (self.wants == Role::Replica).then(|| self.refusal_by_lag()).flatten()?;
        Some(Verdict::Drain(Refusal { cause: Cause::Lag, reason }))
    }

    fn by_stream(&self) -> Option<Verdict> {
        let reason = (self.wants == Role::Replica).then(|| self.stall()).flatten()?;
        Some(Verdict::Keep { reason, grace: STALL_GRACE })
    }

    fn by_route(&self) -> Option<Verdict> {
        // The path adds no proof of the member's role.
        let noted = |reason| Verdict::Fit { note: Some(reason), confirmed: true };
        match self.by_pooler() {
            ByPooler::NoRoute(reason) => {
                Some(Verdict::Shut(Refusal { cause: Cause::Pooler, reason }))
            }
            ByPooler::Awaited(reason) => Some(Verdict::Keep { reason, grace: POOLER_GRACE }),
            ByPooler::Busy(Wait { reason, until, .. }) => {
                Some(Verdict::Keep { reason, grace: until.since(self.now) })
            }
            ByPooler::Bypassed(Bypass { reason, .. }) => {
                Some(noted(Reason::PoolerBypassed(Box::new(reason))))
            }
            ByPooler::Usable { note } => note.map(noted),
        }
    }

    /// Returns the route of new sessions to the member.
    pub fn route(&self) -> Route {
        match self.by_pooler() {
            ByPooler::Bypassed(bypass) => Route::PastPooler(bypass),
            ByPooler::Usable { .. }
            | ByPooler::Awaited(_)
            | ByPooler::Busy(_)
            | ByPooler::NoRoute(_) => Route::Configured,
        }
    }

    /// Returns how the service's new sessions use its pooler.
    fn by_pooler(&self) -> ByPooler {
        let Some((port, path)) = self.service.pooler_port.zip(self.path) else {
            return ByPooler::Usable { note: None };
        };
        let may_bypass = self.service.pooler_down == PoolerDown::Bypass;
        let bypassed =
            |fault, reason: &Reason| ByPooler::Bypassed(Bypass { fault, reason: reason.clone() });
        let unusable = |reason: &Reason| match may_bypass {
            true => bypassed(PoolerFault::Unusable, reason),
            false => ByPooler::NoRoute(reason.clone()),
        };
        let returns_too_soon =
            || self.is_bypassed && self.member.view.pooler_steady_for(port) < POOLER_RETURN;
        match path {
            PoolerPath::Wrong(reason) => unusable(reason),
            // Sessions that bypass the pooler do so until it has been healthy for a while.
            PoolerPath::Awaited(reason) | PoolerPath::Busy(Wait { reason, .. })
                if may_bypass && self.is_bypassed =>
            {
                unusable(reason)
            }
            PoolerPath::Busy(Wait { reason, until, .. }) if self.now >= *until => unusable(reason),
            PoolerPath::Right | PoolerPath::Noted(_) if may_bypass && returns_too_soon() => {
                unusable(&Reason::Confirming)
            }
            PoolerPath::Awaited(reason) => ByPooler::Awaited(reason.clone()),
            // The operator paused the pooler, or its limits are reached: sessions must not bypass
            // that.
            PoolerPath::Busy(Wait { reason, leads_there: true, .. }) => {
                ByPooler::Usable { note: Some(reason.clone()) }
            }
            PoolerPath::Busy(wait) => ByPooler::Busy(wait.clone()),
            PoolerPath::PutsOff(PutOff { reason, .. }) if may_bypass => {
                bypassed(PoolerFault::RetriesSoon, reason)
            }
            PoolerPath::PutsOff(PutOff { reason, .. }) | PoolerPath::Noted(reason) => {
                ByPooler::Usable { note: Some(reason.clone()) }
            }
            PoolerPath::Right => ByPooler::Usable { note: None },
        }
    }

    fn refusal_by_tags(&self) -> Option<Reason> {
        let tags = self.member.view.patroni_facts().map(|newest| &newest.answer.tags);
        let tag = |name: &str| tags.and_then(|tags| tags.get(name)).map(String::as_str);
        if self.wants == Role::Replica && flags(self.member).no_load_balance {
            return Some(Reason::NoLoadBalance);
        }
        let differs = |(name, wanted): &(&String, &String)| tag(name) != Some(wanted.as_str());
        self.service.tags.iter().find(differs).map(|(name, wanted)| Reason::TagMismatch {
            name: name.clone(),
            wanted: wanted.clone(),
        })
    }

    fn stall(&self) -> Option<Reason> {
        stall(self.member, self.has_source, self.rules, self.now)
    }

    fn refusal_by_lag(&self) -> Option<Reason> {
        let (numerator, denominator) = match self.drained_for_lag {
            true => (RETURN_NUMERATOR, RETURN_DENOMINATOR),
            false => (1, 1),
        };
        if let Some(lag_bytes_max) = self.service.lag_bytes_max {
            let Some(lag_bytes) = self.lag.bytes else {
                return Some(Reason::LagUnknown);
            };
            let limit = lag_bytes_max / u64::from(denominator) * u64::from(numerator);
            if lag_bytes > limit {
                return Some(Reason::LagBytes { lag_bytes, lag_bytes_max });
            }
        }
        if let Some(lag_max) = self.service.lag_max {
            let Some(lag) = self.lag.time else {
                return Some(Reason::LagUnknown);
            };
            if lag > lag_max.saturating_mul(numerator) / denominator {
                return Some(Reason::LagTime { lag, lag_max });
            }
        }
        None
    }
}

/// The tags that Patroni acts on, as it last reported them.
fn flags(member: &Member) -> TagFlags {
    member.view.patroni_facts().map(|newest| newest.answer.flags).unwrap_or_default()
}

/// Why the replica does not stream; none if it does. `has_source` is true if there is a member to
/// stream from.
///
/// Patroni reports the replication state from 3.0.4 on, SQL always, and a bad report of either
/// counts. If neither reports it, a running replica counts as streaming, as in Patroni's own
/// `/replica`. While there is no source, no replica can stream, so that is no fault. With the tag
/// `nostream` a replica reads the archive by configuration, so only the lag limits count.
pub fn stall(member: &Member, has_source: bool, rules: &Rules, now: Moment) -> Option<Reason> {
    if !has_source || flags(member).no_stream {
        return None;
    }
    let (view, freshness) = (&member.view, &rules.freshness);
    let by_patroni = match view.patroni(now, freshness) {
        Reading::Fresh(facts) => facts.replication_state.clone(),
        _ => None,
    };
    if let Some(state) = by_patroni.filter(|state| state != "streaming") {
        return Some(Reason::NotStreaming(Some(state)));
    }
    let progress = view.progress(now, freshness)?;
    let stalled = progress.answer.in_recovery && !progress.answer.streaming;
    stalled.then_some(Reason::NotStreaming(None))
}
