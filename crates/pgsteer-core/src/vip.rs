//! An address that follows a service (`[vip.NAME]`): what a Snapshot demands of it on this machine.

use std::net::IpAddr;

use crate::claim::Role;
use crate::gate::Gate;
use crate::names::MemberName;
use crate::settings::VipConfig;
use crate::snapshot::{MemberState, ServiceState, Snapshot};

/// Lags are compared in steps of this size.
const LAG_STEP_BYTES: u64 = 16 << 20;

/// The demand, with the reason as a clause for people. Only the variant decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// The local member has the address.
    Hold(String),
    /// One of several members has the address, and the local one may be it.
    Share {
        /// How many members are preferred to the local one.
        rank: usize,
        /// The reason.
        why: String,
    },
    /// The member does not have the role any more, as far as is known. An address that was held goes; one
    /// that was left behind waits for facts.
    GiveUp(String),
    /// Nothing is proven: an address that is here stays, and none is added.
    Stay(String),
    /// The local member must not have the address.
    Release(String),
    /// pgsteer must not touch the address at all.
    Refuse(String),
}

impl Demand {
    /// The reason.
    pub fn why(&self) -> &str {
        match self {
            Demand::Hold(why)
            | Demand::Share { why, .. }
            | Demand::GiveUp(why)
            | Demand::Stay(why)
            | Demand::Release(why)
            | Demand::Refuse(why) => why,
        }
    }
}

/// Returns the demand of `snapshot` on the address.
pub fn demand(vip: &VipConfig, snapshot: &Snapshot) -> Demand {
    if let Some(owner) = owner(snapshot, vip.address) {
        return Demand::Refuse(format!(
            "{} is the own address of member {owner}; choose another one for [vip]",
            vip.address
        ));
    }
    let Some(service) = snapshot.services.get(&vip.service) else {
        return Demand::Release(format!("there is no service {}", vip.service));
    };
    let Some((local, member)) =
        snapshot.local.as_ref().and_then(|local| snapshot.members.get_key_value(local))
    else {
        return Demand::Stay(
            "no member is known to run on this machine (`local` in [cluster] names it)".to_owned(),
        );
    };
    let Some(gate) = service.gates.get(local) else {
        return Demand::Release(format!("{local} is no longer a member of the cluster"));
    };
    if service.role == Role::Replica {
        return shared(snapshot, service, local, gate);
    }
    if let Some(why) = rivalry(snapshot, service, (local, member)) {
        return Demand::Release(why);
    }
    let reason = gate.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
    if gate.is_open() {
        Demand::Hold(format!("{local} is open{reason}"))
    } else if gate.ends_sessions() {
        Demand::Release(format!("{local} is {}{reason}", gate.state()))
    } else if member.role != service.role {
        Demand::GiveUp(format!("{local} is not known to be a {}{reason}", service.role))
    } else {
        Demand::Stay(format!("{local} is {}{reason}", gate.state()))
    }
}

/// The demand on an address of readers, which any member with an open gate may have. A pgsteer without it asks the
/// network, and adds it if no machine answers.
fn shared(snapshot: &Snapshot, service: &ServiceState, local: &MemberName, gate: &Gate) -> Demand {
    let reason = gate.reason().map(|reason| format!(": {reason}")).unwrap_or_default();
    let state = format!("{local} is {}{reason}", gate.state());
    let lag = |name: &MemberName| {
        let lag_bytes = snapshot.members.get(name).and_then(|member| member.lag_bytes);
        lag_bytes.map_or(u64::MAX, |lag_bytes| lag_bytes / LAG_STEP_BYTES)
    };
    let mut open: Vec<&MemberName> = service.open().collect();
    open.sort_by_key(|name| (lag(name), *name));
    match open.iter().position(|name| *name == local) {
        Some(rank) => Demand::Share { rank, why: state },
        // Clients get PostgreSQL's own answer there, and none without the address.
        None if open.is_empty() && !gate.ends_sessions() => Demand::Stay(state),
        None if gate.ends_sessions() => Demand::Release(state),
        None => Demand::GiveUp(state),
    }
}

/// The member that has `address` as its own.
fn owner(snapshot: &Snapshot, address: IpAddr) -> Option<&MemberName> {
    let has = |member: &MemberState| {
        member.postgres.ip() == Some(address) || member.addresses.contains(&address)
    };
    snapshot.members.iter().find(|(_, member)| has(member)).map(|(name, _)| name)
}

/// Why another member has the right to the address. That ends the right of the local one before the
/// gate of the other one opens.
fn rivalry(
    snapshot: &Snapshot,
    service: &ServiceState,
    (local, member): (&MemberName, &MemberState),
) -> Option<String> {
    if let Some(open) = service.open().find(|open| *open != local) {
        return Some(format!("{open} is open"));
    }
    let is_rival = |(name, member): &(&MemberName, &MemberState)| {
        *name != local && member.promoting && member.same_as.is_none()
    };
    if let Some((rival, _)) = snapshot.members.iter().find(is_rival) {
        return Some(format!("{rival} holds the leader lock and is being promoted"));
    }
    member.rogue.then(|| format!("{local} accepts writes although it must not"))
}
