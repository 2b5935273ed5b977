//! What each server should do: a function of the Snapshot.

use std::net::IpAddr;

use pgsteer_core::claim::Role;
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::settings::Config;
use pgsteer_core::snapshot::{MemberState, ServiceState, Snapshot};

/// What a server should do with sessions. The order is that in which commands are sent: the server of an
/// old primary first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// No new sessions, and the existing ones end.
    End,
    /// No new sessions; the existing ones continue.
    Pause,
    /// New sessions may begin: the gate is open.
    Serve,
}

/// The order for one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What it should do.
    pub wanted: Wanted,
    /// The member is known to have another role than the service requires. Then HAProxy's own health
    /// check keeps it out too, and the weight need not: so HAProxy can use it after a failover even if no
    /// pgsteer runs.
    pub has_other_role: bool,
}

/// The order for the server of one member in the backend of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// The member.
    pub member: MemberName,
    /// The addresses by which its server is found if no server has its name.
    pub addresses: Vec<IpAddr>,
    /// The ports at which its server may be: of PostgreSQL, and of the service's pooler.
    pub ports: Vec<u16>,
    /// The order.
    pub order: Order,
}

/// Returns the orders of `snapshot`. None if pgsteer knows the role of no member: then it may be cut off
/// itself, and HAProxy's health checks know more.
pub fn targets(config: &Config, snapshot: &Snapshot) -> Option<Vec<Target>> {
    if snapshot.members.values().all(|member| member.role == Role::Unknown) {
        return None;
    }
    let of_service = |(service, state): (&ServiceName, &ServiceState)| {
        let pooler = config.services.get(service).and_then(|service| service.pooler_port);
        let service = service.clone();
        let members = snapshot.members.iter();
        let targets = members.filter_map(move |(name, member)| {
            let serving = member.same_as.as_ref().unwrap_or(name);
            let gate = state.gates.get(serving)?;
            let wanted = match gate.is_open() {
                true => Wanted::Serve,
                false if gate.ends_sessions() => Wanted::End,
                false => Wanted::Pause,
            };
            let has_other_role = has_other_role(state, member);
            Some(Target {
                service: service.clone(),
                member: name.clone(),
                addresses: member
                    .postgres
                    .ip()
                    .into_iter()
                    .chain(member.addresses.clone())
                    .collect(),
                ports: pooler.into_iter().chain([member.postgres.port()]).collect(),
                order: Order { wanted, has_other_role },
            })
        });
        targets.collect::<Vec<_>>()
    };
    Some(snapshot.services.iter().flat_map(of_service).collect())
}

/// A member that is promoting is about to pass the health check of its next role.
fn has_other_role(service: &ServiceState, member: &MemberState) -> bool {
    member.role != Role::Unknown
        && member.role != service.role
        && !member.promoting
        && !member.rogue
        && member.trouble.is_none()
}
