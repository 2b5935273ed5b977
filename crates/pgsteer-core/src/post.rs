//! Posts: what a member may be fit for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::claim::Role;
use crate::names::ServiceName;
use crate::settings::defaults::NOWHERE;
use crate::settings::{Config, ServiceConfig};

/// What a gate stands before: a service of the configuration, or a plain role.
///
/// The plain roles are what Patroni's health checks ask for. Their gates are kept beside those of
/// the services, by the same rules, so that no health page can say another thing than the proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Post {
    /// A role, with no wish beside it.
    Role(Role),
    /// The same, through the pooler that the agent's clients have to take.
    Pooled(Role),
    /// A service, with all its wishes.
    Service(ServiceName),
}

/// The roles that every member has a gate for.
pub const ROLES: [Role; 3] = [Role::Primary, Role::Replica, Role::StandbyLeader];

impl Post {
    /// The post whose gates those of this one begin as when it is new: whoever was there without a
    /// pooler stays until the first word of that.
    pub(crate) fn forerunner(&self) -> Option<Post> {
        match self {
            Post::Pooled(role) => Some(Post::Role(*role)),
            Post::Role(_) | Post::Service(_) => None,
        }
    }
}

/// All posts there are, with the wishes of each.
pub(crate) fn posts(config: &Config) -> BTreeMap<Post, ServiceConfig> {
    let roles = ROLES.map(|role| (Post::Role(role), plain(role)));
    let pooler_port = config.agent.as_ref().and_then(|agent| agent.pooler_port);
    let pooled =
        ROLES.map(|role| (Post::Pooled(role), ServiceConfig { pooler_port, ..plain(role) }));
    let pooled = pooled.into_iter().filter(|_| pooler_port.is_some());
    let services = config.services.iter();
    let services = services.map(|(name, service)| (Post::Service(name.clone()), service.clone()));
    roles.into_iter().chain(pooled).chain(services).collect()
}

/// Nobody waits at a plain role: whoever asks for its health has no hold of ours.
fn plain(role: Role) -> ServiceConfig {
    ServiceConfig { hold: Duration::ZERO, ..ServiceConfig::new(NOWHERE, role) }
}
