//! The profiles: how HAProxy finds the primary.

/// How HAProxy finds the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// HAProxy checks Patroni's REST API.
    Httpchk,
    /// pgsteer answers HAProxy's agent checks.
    Agent,
    /// The same, and a pooler that is down is bypassed.
    AgentBypass,
    /// pgsteer writes each change to HAProxy's Runtime API, beside the checks of Patroni's REST API.
    Push,
    /// HAProxy checks PostgreSQL, with a login that needs no password.
    Sql,
    /// HAProxy runs at the address of an old primary, and routes clients to the new one.
    Redirect,
    /// HAProxy runs in front of several pgsteers and has no members.
    Pgsteer,
}

impl Profile {
    /// Every profile, in the order of their descriptions.
    pub const ALL: [Profile; 7] = [
        Profile::Httpchk,
        Profile::Agent,
        Profile::AgentBypass,
        Profile::Push,
        Profile::Sql,
        Profile::Redirect,
        Profile::Pgsteer,
    ];

    /// The name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Profile::Httpchk => "httpchk",
            Profile::Agent => "agent",
            Profile::AgentBypass => "agent-bypass",
            Profile::Push => "push",
            Profile::Sql => "sql",
            Profile::Redirect => "redirect",
            Profile::Pgsteer => "pgsteer",
        }
    }

    /// The description in one line.
    pub const fn about(self) -> &'static str {
        match self {
            Profile::Httpchk => "HAProxy checks Patroni's REST API",
            Profile::Agent => "pgsteer answers HAProxy's agent checks, beside a health check",
            Profile::AgentBypass => {
                "the same through PgBouncer, which is bypassed while it is down"
            }
            Profile::Push => {
                "pgsteer writes each change to HAProxy's socket, beside checks of Patroni"
            }
            Profile::Sql => "HAProxy checks PostgreSQL itself; for clusters without Patroni",
            Profile::Redirect => {
                "clients that still connect to an old primary are routed to the new one"
            }
            Profile::Pgsteer => "HAProxy in front of several pgsteers",
        }
    }
}
