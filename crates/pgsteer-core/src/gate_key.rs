//! Gate keys: what a gate is for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::claim::Role;
use crate::names::ServiceName;
use crate::settings::defaults::NOWHERE;
use crate::settings::{Config, ServiceConfig};

/// What a gate is for: a service of the configuration, or a plain role.
///
/// Patroni's health checks ask for the plain roles. Their gates are kept beside those of the
/// services, by the same rules, so that a health page cannot contradict the proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateKey {
    /// A role, without any other requirement.
    Role(Role),
    /// The same through the pooler that the agent's clients use.
    Pooled(Role),
    /// A service, with all its requirements.
    Service(ServiceName),
}

/// The roles for which every member has a gate.
pub const ROLES: [Role; 3] = [Role::Primary, Role::Replica, Role::StandbyLeader];

impl GateKey {
    /// Returns the key from which a new key takes its gates: when a pooler is configured, members
    /// that serve without it continue until its first answer.
    pub(crate) fn predecessor(&self) -> Option<GateKey> {
        match self {
            GateKey::Pooled(role) => Some(GateKey::Role(*role)),
            GateKey::Role(_) | GateKey::Service(_) => None,
        }
    }
}

/// Returns all gate keys, with the requirements of each.
pub(crate) fn gate_keys(config: &Config) -> BTreeMap<GateKey, ServiceConfig> {
    let roles = ROLES.map(|role| (GateKey::Role(role), plain(role)));
    let pooler_port = config.agent.as_ref().and_then(|agent| agent.pooler_port);
    let pooled =
        ROLES.map(|role| (GateKey::Pooled(role), ServiceConfig { pooler_port, ..plain(role) }));
    let pooled = pooled.into_iter().filter(|_| pooler_port.is_some());
    let services = config.services.iter();
    let services =
        services.map(|(name, service)| (GateKey::Service(name.clone()), service.clone()));
    roles.into_iter().chain(pooled).chain(services).collect()
}

/// Returns a plain role. No client waits there, because a health check is answered at once.
fn plain(role: Role) -> ServiceConfig {
    ServiceConfig { hold: Duration::ZERO, ..ServiceConfig::new(NOWHERE, role) }
}
