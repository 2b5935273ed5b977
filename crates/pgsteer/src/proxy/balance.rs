//! The choice of a member: for a new session the open member with the fewest sessions, for an early
//! login the member that is being promoted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use pgsteer_core::claim::Role;
use pgsteer_core::gate::{Gate, OpenGate};
use pgsteer_core::names::{Endpoint, MemberName, ServiceName};
use pgsteer_core::snapshot::Snapshot;

use super::affinity::IMBALANCE_MAX;
use super::service::Service;

/// A member that can be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub member: MemberName,
    /// The endpoint of its PostgreSQL.
    pub postgres: Endpoint,
    /// The addresses to dial, best first; never empty.
    pub addresses: Vec<SocketAddr>,
    /// The Snapshot that all workers must have acted on before.
    pub generation: u64,
    /// The sessions of the service at this member.
    pub sessions: usize,
}

/// The open members of `service` that are not in `tried`, the one with the fewest sessions first.
/// `rotation` chooses among members with equally few sessions.
pub fn targets(
    snapshot: &Snapshot,
    service: &Service,
    tried: &BTreeSet<MemberName>,
    rotation: usize,
) -> Vec<Target> {
    let Some(state) = snapshot.services.get(&service.name) else { return Vec::new() };
    let gates = &state.gates;
    let open = gates.iter().filter_map(|(name, gate)| match gate {
        Gate::Open(OpenGate { generation, .. }) if !tried.contains(name) => {
            Some((name, *generation))
        }
        _ => None,
    });
    let mut targets: Vec<Target> = open
        .filter_map(|(name, generation)| {
            let postgres = snapshot.members.get(name)?.postgres.clone();
            let addresses = addresses(snapshot, service, name);
            let sessions = service.stats.member(name).sessions.load(Ordering::Relaxed);
            let member = name.clone();
            let target = Target { member, postgres, addresses, generation, sessions };
            (!target.addresses.is_empty()).then_some(target)
        })
        .collect();
    targets.sort_by_key(|target| target.sessions);
    let fewest = targets.iter().take_while(|target| target.sessions == targets[0].sessions).count();
    if fewest > 0 {
        targets[..fewest].rotate_left(rotation % fewest);
    }
    targets
}

/// Moves `member` to the front, unless it has many more sessions than the first one.
pub fn prefer(targets: &mut [Target], member: &MemberName) {
    let fewest = targets.first().map_or(0, |target| target.sessions);
    let preferred = targets.iter().position(|target| target.member == *member);
    if let Some(index) = preferred.filter(|at| targets[*at].sessions <= fewest + IMBALANCE_MAX) {
        targets[..=index].rotate_right(1);
    }
}

/// The member at which clients of `service` may log in before its gate is open: the one that is being
/// promoted. None for a service with a pooler, which does not report the promotion of its server, and
/// none if the tags of the service exclude the member.
pub fn pick_early(snapshot: &Snapshot, service: &Service) -> Option<Target> {
    if service.config.role != Role::Primary || service.config.pooler_port.is_some() {
        return None;
    }
    let member = snapshot.promoting(&service.name)?;
    let state = snapshot.members.get(member)?;
    let matches = |(name, wanted): (&String, &String)| state.tags.get(name) == Some(wanted);
    let addresses = addresses(snapshot, service, member);
    if addresses.is_empty() || !service.config.tags.iter().all(matches) {
        return None;
    }
    let (member, postgres) = (member.clone(), state.postgres.clone());
    let generation = snapshot.generation;
    Some(Target { member, postgres, addresses, generation, sessions: 0 })
}

/// The Snapshot in which the gate of `member` opened, if it is open.
pub fn opened_in(snapshot: &Snapshot, service: &ServiceName, member: &MemberName) -> Option<u64> {
    match snapshot.services.get(service)?.gates.get(member)? {
        Gate::Open(OpenGate { generation, .. }) => Some(*generation),
        Gate::Shut { .. }
        | Gate::Draining { .. }
        | Gate::HeldBack { .. }
        | Gate::Probation { .. } => None,
    }
}

/// The addresses of a member's server, or of the pooler beside it unless the pooler is bypassed.
pub fn addresses(snapshot: &Snapshot, service: &Service, member: &MemberName) -> Vec<SocketAddr> {
    let Some(state) = snapshot.members.get(member) else { return Vec::new() };
    let gate = snapshot.services.get(&service.name).and_then(|service| service.gates.get(member));
    let port = match service.config.pooler_port {
        Some(port) if !gate.is_some_and(Gate::bypasses_pooler) => port,
        _ => state.postgres.port(),
    };
    state.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
}

/// The servers at which sessions of `service` at a member may be: its PostgreSQL, and its pooler if the service
/// uses one. Each with its addresses.
pub fn all_servers(
    snapshot: &Snapshot,
    service: &Service,
    member: &MemberName,
) -> Vec<Vec<SocketAddr>> {
    let Some(state) = snapshot.members.get(member) else { return Vec::new() };
    let ports = service.config.pooler_port.into_iter().chain([state.postgres.port()]);
    let at = |port| state.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    ports.map(at).collect()
}

#[cfg(test)]
mod tests {
    use pgsteer_core::reason::Reason;
    use pgsteer_core::settings::ServiceConfig;

    use super::*;
    use crate::http::sample;

    fn service(change: impl FnOnce(&mut ServiceConfig)) -> Service {
        let name = ServiceName::new("write").unwrap();
        let mut config = ServiceConfig::new(([127, 0, 0, 1], 0).into(), Role::Primary);
        change(&mut config);
        Service::alone(name, config)
    }

    /// No write gate is open, and one member is promoting.
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
    fn a_preferred_member_comes_first_unless_it_has_many_more_sessions() {
        let named = |name: &str, sessions| Target {
            member: MemberName::new(name).unwrap(),
            postgres: Endpoint::new(name, 5432).unwrap(),
            addresses: Vec::new(),
            generation: 1,
            sessions,
        };
        for (sessions, expected) in [(IMBALANCE_MAX, "n2 n1"), (IMBALANCE_MAX + 1, "n1 n2")] {
            let mut targets = [named("n1", 0), named("n2", sessions)];
            prefer(&mut targets, &MemberName::new("n2").unwrap());
            let names = targets.map(|target| target.member.to_string());
            assert_eq!(names.join(" "), expected);
        }
    }

    #[test]
    fn no_login_is_early_at_a_member_that_the_service_cannot_use() {
        let (snapshot, _) = promotion();
        let early = |change: fn(&mut ServiceConfig)| pick_early(&snapshot, &service(change));
        assert_eq!(early(|config| config.role = Role::Replica), None);
        assert_eq!(early(|config| config.pooler_port = Some(6432)), None);
        let tag = |config: &mut ServiceConfig| {
            config.tags.insert("site".to_owned(), "elsewhere".to_owned());
        };
        assert_eq!(early(tag), None);
    }
}
