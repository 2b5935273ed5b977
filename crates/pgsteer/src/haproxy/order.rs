//! What each server should do: a function of the Snapshot.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::settings::ServiceConfig;
use pgsteer_core::snapshot::Snapshot;
use pgsteer_files::render::label::labels;

use super::answer::Server;

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
    /// The name of its server, as `pgsteer render` writes it.
    pub label: String,
    /// The addresses by which its server is found if no server has its name.
    pub addresses: Vec<IpAddr>,
    /// The ports at which its server may be: of PostgreSQL, and of the service's pooler.
    pub ports: Vec<u16>,
    /// The member is not listed any more, and its gate is not open.
    pub has_left: bool,
    /// The order.
    pub order: Order,
}

impl Target {
    /// The address of its server; none while the name of its host is not resolved.
    pub fn address(&self) -> Option<SocketAddr> {
        let (ip, port) = self.addresses.first().zip(self.ports.first())?;
        Some(SocketAddr::new(*ip, *port))
    }

    /// Returns true if `server` is at an address of the member.
    pub fn is_at(&self, server: &Server) -> bool {
        let address = server.address.as_ref();
        address.is_some_and(|address| self.addresses.contains(address))
            && self.ports.contains(&server.port)
    }
}

/// Returns the orders of `snapshot`; none if the role of no member is known.
pub fn targets(
    services: &BTreeMap<ServiceName, ServiceConfig>,
    snapshot: &Snapshot,
) -> Option<Vec<Target>> {
    if !snapshot.knows_a_role() {
        return None;
    }
    let labels = labels(snapshot.members.keys().map(MemberName::as_str));
    let mut targets = Vec::new();
    for (service, state) in &snapshot.services {
        let pooler_port = services.get(service).and_then(|service| service.pooler_port);
        for ((name, member), label) in snapshot.members.iter().zip(&labels) {
            // Two names of one server have one gate and one role.
            let main = member.same_as.as_ref().unwrap_or(name);
            let (Some(gate), Some(server)) = (state.gates.get(main), snapshot.members.get(main))
            else {
                continue;
            };
            let wanted = match gate.is_open() {
                true => Wanted::Serve,
                false if gate.ends_sessions() => Wanted::End,
                false => Wanted::Pause,
            };
            let has_other_role = server.is_known_to_lack(state.role);
            targets.push(Target {
                service: service.clone(),
                member: name.clone(),
                label: label.clone(),
                addresses: member
                    .postgres
                    .ip()
                    .into_iter()
                    .chain(member.addresses.clone())
                    .collect(),
                ports: pooler_port.into_iter().chain([member.postgres.port()]).collect(),
                has_left: !member.listed && wanted != Wanted::Serve,
                order: Order { wanted, has_other_role },
            });
        }
    }
    Some(targets)
}

/// The server with the name of the member, as `pgsteer render` writes it; else the one at its address. A
/// server at the address of another member of `all` is not this member's, whatever its name is.
pub fn server_of<'a>(
    target: &Target,
    all: &[&Target],
    servers: &'a [Server],
) -> Option<&'a Server> {
    let is_named = |server: &&Server| {
        server.name == target.label && other_member_at(server, target, all).is_none()
    };
    let by_name = servers.iter().find(is_named);
    by_name.or_else(|| servers.iter().find(|server| target.is_at(server)))
}

/// The member of `all` at whose address `server` is although it is not at that of `target`.
pub fn other_member_at<'a>(
    server: &Server,
    target: &Target,
    all: &[&'a Target],
) -> Option<&'a Target> {
    let is_there = |other: &&&Target| other.is_at(server);
    (!target.is_at(server)).then(|| all.iter().find(is_there).copied())?
}

#[cfg(test)]
mod tests {
    use pgsteer_core::claim::Role;
    use pgsteer_core::reason::Reason;
    use pgsteer_core::snapshot::MemberState;

    use super::*;
    use crate::http::sample;

    /// Such a member is at the same server in HAProxy, which cannot have two orders.
    #[test]
    fn two_names_of_one_server_have_the_same_order() {
        let mut snapshot = sample::calm();
        let (known, state) = snapshot.members.pop_last().unwrap();
        let (old, new) = (known.clone(), MemberName::new("renamed").unwrap());
        let trouble = Some(Reason::SameServer(new.clone()));
        let twin = MemberState {
            role: Role::Unknown,
            trouble,
            same_as: Some(new.clone()),
            ..state.clone()
        };
        snapshot.members.insert(old.clone(), twin);
        snapshot.members.insert(new.clone(), state);
        for service in snapshot.services.values_mut() {
            let gate = service.gates[&known].clone();
            service.gates.insert(new.clone(), gate);
        }
        let targets = targets(&BTreeMap::new(), &snapshot).unwrap();
        for service in snapshot.services.keys() {
            let order = |member: &MemberName| {
                let mut it = targets.iter().filter(|it| it.service == *service);
                it.find(|it| it.member == *member).unwrap().order
            };
            assert_eq!(order(&old), order(&new), "{service}");
        }
    }

    /// HAProxy does not allow all characters of a name, so two names could become one.
    #[test]
    fn members_with_similar_names_have_servers_of_their_own() {
        let mut snapshot = sample::calm();
        let (known, state) = snapshot.members.pop_first().unwrap();
        for name in ["größe", "gr__e"] {
            let name = MemberName::new(name).unwrap();
            snapshot
                .members
                .insert(name.clone(), MemberState { role: Role::Replica, ..state.clone() });
            for service in snapshot.services.values_mut() {
                let gate = service.gates[&known].clone();
                service.gates.insert(name.clone(), gate);
            }
        }
        let targets = targets(&BTreeMap::new(), &snapshot).unwrap();
        let label = |name: &str| {
            let target = targets.iter().find(|target| target.member.as_str() == name);
            target.unwrap().label.clone()
        };
        assert_eq!((label("gr__e"), label("größe")), ("gr__e".to_owned(), "gr__e_2".to_owned()));
    }
}
