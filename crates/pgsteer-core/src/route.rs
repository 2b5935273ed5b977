//! Route: how new sessions reach a member.

use crate::reason::Reason;

/// How new sessions of a service reach a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// As the service is configured: through the pooler if it uses one.
    Configured,
    /// To PostgreSQL itself, past the pooler that the service uses.
    PastPooler(Bypass),
}

/// Why new sessions bypass a pooler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bypass {
    /// The fault of the pooler. Outputs act on this.
    pub fault: PoolerFault,
    /// The explanation for people.
    pub reason: Reason,
}

/// The fault of a pooler that is bypassed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolerFault {
    /// The pooler is up and leads to the member, and refuses logins until it connects to its server
    /// again (`server_login_retry`). Clients that have no other route may use it.
    RetriesSoon,
    /// The pooler is down, leads to another server, or is not known to be healthy again.
    Unusable,
}
