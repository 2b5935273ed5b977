//! Which of the open members a new session goes to: the one with the fewest sessions.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use pgsteer_core::gate::Gate;
use pgsteer_core::names::{Endpoint, MemberName};
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
