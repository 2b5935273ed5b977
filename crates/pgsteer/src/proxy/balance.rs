//! Which of the open members a new session goes to: the one with the fewest sessions. And which
//! of the shut ones an early login goes to.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use pgsteer_core::claim::Role;
use pgsteer_core::gate::Gate;
use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
use pgsteer_core::snapshot::Snapshot;

use super::Service;

/// A member that may be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub member: MemberName,
    /// Where its PostgreSQL listens.
    pub postgres: Endpoint,
    /// Where to dial, best first; never empty.
    pub addresses: Vec<SocketAddr>,
    /// The Snapshot on which all workers must have acted first.
    pub generation: u64,
}

/// The open member of `service` with the fewest sessions that is not in `tried`.
///
/// `turn` breaks ties, so that equals take turns.
pub fn pick(
    snapshot: &Snapshot,
    service: &Service,
    tried: &BTreeSet<MemberName>,
    turn: usize,
) -> Option<Target> {
    let gates = &snapshot.services.get(&service.name)?.gates;
    let open = gates.iter().filter_map(|(name, gate)| match gate {
        Gate::Open { generation, .. } if !tried.contains(name) => Some((name, *generation)),
        _ => None,
    });
    let mut targets: Vec<(usize, Target)> = open
        .filter_map(|(name, generation)| {
            let postgres = snapshot.members.get(name)?.postgres.clone();
            let addresses = addresses(snapshot, service, name);
            let sessions = service.stats.member(name).sessions.load(Ordering::Relaxed);
            let target = Target { member: name.clone(), postgres, addresses, generation };
            (!target.addresses.is_empty()).then_some((sessions, target))
        })
        .collect();
    let fewest = targets.iter().map(|(sessions, _)| *sessions).min()?;
    targets.retain(|(sessions, _)| *sessions == fewest);
    let index = turn % targets.len();
    Some(targets.swap_remove(index).1)
}

/// The member at which clients of `service` may log in before its gate is open: the one that is
/// being promoted. A pooler in between would not say of its server that it was promoted, and one
/// that will be no member for this service is of no use to it.
pub fn pick_early(snapshot: &Snapshot, service: &Service) -> Option<Target> {
    if service.config.role != Role::Primary || service.config.pooler_port.is_some() {
        return None;
    }
    let member = snapshot.promoting(&service.name)?;
    let state = snapshot.members.get(member)?;
    let suits = |(name, wanted): (&String, &String)| state.tags.get(name) == Some(wanted);
    let addresses = addresses(snapshot, service, member);
    if addresses.is_empty() || !service.config.tags.iter().all(suits) {
        return None;
    }
    let generation = snapshot.generation;
    Some(Target { member: member.clone(), postgres: state.postgres.clone(), addresses, generation })
}

/// The Snapshot in which the gate of `member` opened, if it is open.
pub fn opened_in(snapshot: &Snapshot, service: &ServiceName, member: &MemberName) -> Option<u64> {
    match snapshot.services.get(service)?.gates.get(member)? {
        Gate::Open { generation, .. } => Some(*generation),
        Gate::Shut { .. }
        | Gate::Draining { .. }
        | Gate::HeldBack { .. }
        | Gate::Probation { .. } => None,
    }
}

/// Where a member's server is to be dialled, or the pooler beside it unless that is bypassed.
pub fn addresses(snapshot: &Snapshot, service: &Service, member: &MemberName) -> Vec<SocketAddr> {
    let Some(state) = snapshot.members.get(member) else { return Vec::new() };
    let gate = snapshot.services.get(&service.name).and_then(|service| service.gates.get(member));
    let port = match service.config.pooler_port {
        Some(port) if !gate.is_some_and(Gate::bypasses_pooler) => port,
        _ => state.postgres.port(),
    };
    state.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgsteer_core::config::ServiceConfig;
    use pgsteer_core::reason::Reason;

    use super::*;
    use crate::http::sample;
    use crate::stats::ServiceStats;

    fn service(wish: impl FnOnce(&mut ServiceConfig)) -> Service {
        let name = ServiceName::new("write").unwrap();
        let mut config = ServiceConfig::new(([127, 0, 0, 1], 0).into(), Role::Primary);
        wish(&mut config);
        Service { name, config, stats: Arc::new(ServiceStats::default()) }
    }

    /// Nobody is open for writes, and one member is promoting.
    fn promotion() -> (Snapshot, MemberName) {
        let mut snapshot = sample::calm();
        let name = ServiceName::new("write").unwrap();
        let gates = &mut snapshot.services.get_mut(&name).unwrap().gates;
        let (member, gate) = gates.iter_mut().find(|(_, gate)| gate.is_open()).unwrap();
        *gate = Gate::Probation { since: gate.since() };
        let member = member.clone();
        snapshot.members.get_mut(&member).unwrap().trouble = Some(Reason::Promoting);
        (snapshot, member)
    }

    #[test]
    fn an_early_login_goes_to_the_member_that_is_promoting() {
        let (snapshot, member) = promotion();
        let target = pick_early(&snapshot, &service(|_| {})).unwrap();
        assert_eq!(target.member, member);
        assert_eq!(opened_in(&snapshot, &ServiceName::new("write").unwrap(), &member), None);
        assert_eq!(pick_early(&sample::calm(), &service(|_| {})), None);
    }

    #[test]
    fn no_login_is_early_that_could_not_be_used() {
        let (snapshot, _) = promotion();
        let early = |wish: fn(&mut ServiceConfig)| pick_early(&snapshot, &service(wish));
        assert_eq!(early(|config| config.role = Role::Replica), None);
        assert_eq!(early(|config| config.pooler_port = Some(6432)), None);
        let tag = |config: &mut ServiceConfig| {
            config.tags.insert("site".to_owned(), "elsewhere".to_owned());
        };
        assert_eq!(early(tag), None);
    }
}
