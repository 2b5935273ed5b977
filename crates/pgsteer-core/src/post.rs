//! Posts: what a member may be fit for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::claim::Role;
use crate::config::{ServiceConfig, limits};
use crate::names::ServiceName;

/// What a gate stands before: a service of the configuration, or a plain role.
///
/// The plain roles are what Patroni's health checks ask for. Their gates are kept beside those of
/// the services, by the same rules, so that no health page can say another thing than the proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Post {
    /// A role, with no wish beside it.
    Role(Role),
    /// A service, with all its wishes.
    Service(ServiceName),
}

/// The roles that every member has a gate for.
pub const ROLES: [Role; 3] = [Role::Primary, Role::Replica, Role::StandbyLeader];

/// All posts there are, with the wishes of each.
pub(crate) fn posts(
    services: &BTreeMap<ServiceName, ServiceConfig>,
) -> BTreeMap<Post, ServiceConfig> {
    let roles = ROLES.map(|role| {
        let plain = ServiceConfig::new(limits::NOWHERE, role);
        // Nobody waits at a plain role: whoever asks for its health has no hold of ours.
        (Post::Role(role), ServiceConfig { hold: Duration::ZERO, ..plain })
    });
    let services =
        services.iter().map(|(name, service)| (Post::Service(name.clone()), service.clone()));
    roles.into_iter().chain(services).collect()
}
