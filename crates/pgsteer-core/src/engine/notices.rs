//! Notices: what Patroni has written in etcd, and how the engine uses it.
//!
//! Notices only make the engine act earlier. A switchover request holds new sessions back for a
//! while. A moved lock makes the sources send queries. Only the members' own answers decide which
//! one serves.

use std::time::Duration;

use super::Engine;
use crate::claim::{Failure, News, Notice, Order, Role};
use crate::event::EventKind;
use crate::names::MemberName;
use crate::settings::ServiceConfig;
use crate::snapshot::EtcdState;
use crate::time::Moment;

/// How long a switchover request holds new sessions back, unless it is cancelled before. Patroni
/// carries it out within a second, but it makes a checkpoint first, which may take long.
const ORDER_LASTS: Duration = Duration::from_secs(10);

/// How long the members are asked often after the lock has moved.
const MOVE_LASTS: Duration = Duration::from_secs(10);

/// What is known from etcd.
#[derive(Debug, Default)]
pub(super) struct Notices {
    etcd: Option<EtcdState>,
    /// The switchover request, and when it came in.
    order: Option<(Order, Moment)>,
    /// The holder of the lock, and since when.
    lock: Option<(MemberName, Moment)>,
}

impl Notices {
    /// The state of the watch; none if it is not configured or has not started yet.
    pub(super) fn etcd(&self) -> Option<&EtcdState> {
        self.etcd.as_ref()
    }

    fn note(&mut self, what: impl FnOnce(&mut EtcdState)) {
        if let Some(etcd) = &mut self.etcd {
            what(etcd);
        }
    }

    fn set_watch(&mut self, watch: Result<(), Failure>) -> Option<EventKind> {
        let was = self.etcd.clone();
        let state =
            EtcdState { watch: watch.clone(), is_behind: false, ..was.clone().unwrap_or_default() };
        self.etcd = Some(state);
        match (was.map(|was| was.watch), watch) {
            (Some(Ok(())), Ok(())) | (Some(Err(_)), Err(_)) => None,
            (_, Ok(())) => Some(EventKind::EtcdWatched),
            (_, Err(failure)) => Some(EventKind::EtcdLost { failure }),
        }
    }
}

impl Engine {
    /// Applies an event of the etcd watch.
    pub(super) fn take_notice(&mut self, notice: Notice, now: Moment) -> Option<EventKind> {
        let heard_at = notice.heard_at.min(now);
        match notice.news {
            News::Watching => return self.notices.set_watch(Ok(())),
            News::Lost(failure) => return self.notices.set_watch(Err(failure)),
            News::Ordered(order) => self.notices.order = Some((order, heard_at)),
            News::NoOrder => self.notices.order = None,
            News::Leader(name) => self.notices.lock = Some((name, heard_at)),
            News::Written(count) => self.notices.note(|etcd| etcd.events += count),
            News::Read { is_behind } => self.notices.note(|etcd| {
                etcd.is_behind = is_behind;
                etcd.read_at = Some(heard_at);
            }),
        }
        None
    }

    /// The members that lead by their own answers. Two leaders are a split brain, and are not
    /// trusted.
    fn leaders(&self) -> impl Iterator<Item = &MemberName> {
        let leads = |role: Role| matches!(role, Role::Primary | Role::StandbyLeader);
        self.standings
            .iter()
            .filter(move |(_, standing)| leads(standing.role) && !standing.trust.is_refused())
            .map(|(name, _)| name)
    }

    /// Returns true if a switchover away from `leader` was requested, and clients of the service
    /// can wait for it.
    ///
    /// Patroni refuses a request that names another leader, or a candidate that is unknown or
    /// already leads.
    pub(super) fn is_handing_over(
        &self,
        leader: &MemberName,
        service: &ServiceConfig,
        now: Moment,
    ) -> bool {
        let Some((order, at)) = &self.notices.order else {
            return false;
        };
        let is_meant = order.leader.as_ref().is_none_or(|named| named == leader);
        let may_succeed =
            |name: &MemberName| name != leader && self.roster.members().contains_key(name);
        is_meant
            && order.candidate.as_ref().is_none_or(may_succeed)
            && now < *at + held_back(service)
    }

    /// When the lock moved to a member that does not lead yet by its own answers; none if that is
    /// not so.
    pub(super) fn lock_moved_at(&self, now: Moment) -> Option<Moment> {
        let (holder, at) = self.notices.lock.as_ref()?;
        let is_news = now < *at + MOVE_LASTS && self.leaders().all(|leader| leader != holder);
        is_news.then_some(*at)
    }

    /// When the notices stop having an effect.
    pub(super) fn notices_run_out(&self) -> impl Iterator<Item = Moment> {
        let ordered_at = self.notices.order.as_ref().map(|(_, at)| *at);
        let of_services = self.gate_configs.values().filter_map(move |service| {
            let lasts = held_back(service);
            ordered_at.filter(|_| !lasts.is_zero()).map(|at| at + lasts)
        });
        let of_lock = self.notices.lock.as_ref().map(|(_, at)| *at + MOVE_LASTS);
        of_services.chain(of_lock)
    }
}

/// How long a switchover request holds back the new sessions of a service: at most half of the hold
/// time. If the switchover does not happen, waiting clients still have the other half, so none is
/// refused because of it.
fn held_back(service: &ServiceConfig) -> Duration {
    match service.role {
        Role::Primary | Role::StandbyLeader => ORDER_LASTS.min(service.hold / 2),
        Role::Replica | Role::Unknown => Duration::ZERO,
    }
}
