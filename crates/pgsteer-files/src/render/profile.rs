//! The operator's choices for HAProxy: its profile, and its version.

use super::refusal::Refusal;

/// How HAProxy finds the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// HAProxy checks Patroni's REST API.
    Httpchk,
    /// pgsteer answers HAProxy's agent checks.
    Agent,
    /// The same, and a pooler that is down is bypassed.
    AgentBypass,
    /// HAProxy checks PostgreSQL, with a login that needs no password.
    Sql,
    /// HAProxy runs at the address of an old primary, and routes clients to the new one.
    Redirect,
    /// HAProxy runs in front of several pgsteers and has no members.
    Pgsteer,
}

impl Profile {
    /// Every profile, in the order of their descriptions.
    pub const ALL: [Profile; 6] = [
        Profile::Httpchk,
        Profile::Agent,
        Profile::AgentBypass,
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
            Profile::Sql => "sql",
            Profile::Redirect => "redirect",
            Profile::Pgsteer => "pgsteer",
        }
    }

    /// The description in one line.
    pub const fn about(self) -> &'static str {
        match self {
            Profile::Httpchk => "HAProxy asks Patroni's REST API who is primary",
            Profile::Agent => "pgsteer tells HAProxy who is primary, and a check stands beside it",
            Profile::AgentBypass => {
                "pgsteer tells HAProxy who is primary; through PgBouncer, past it where it is down"
            }
            Profile::Sql => "HAProxy asks PostgreSQL itself; for clusters without Patroni",
            Profile::Redirect => {
                "clients who still come to an old primary are led to the right one"
            }
            Profile::Pgsteer => "HAProxy in front of several pgsteers",
        }
    }
}

/// A version of HAProxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HaproxyVersion {
    major: u16,
    minor: u16,
}

impl HaproxyVersion {
    /// The oldest supported version.
    pub const OLDEST: HaproxyVersion = HaproxyVersion { major: 2, minor: 6 };
    /// The first version in which a server need not be UP before its first check (`init-state`).
    pub(crate) const INIT_STATE: HaproxyVersion = HaproxyVersion { major: 3, minor: 1 };

    /// Returns true if a client that is retried while its server becomes DOWN may hang forever
    /// (observed with 3.0.11, and not with 2.6.12 and 3.2.26).
    pub(crate) fn hangs_in_retries(self) -> bool {
        self >= HaproxyVersion::new(3, 0) && self < HaproxyVersion::INIT_STATE
    }

    /// Creates a version from its first two numbers.
    pub(crate) const fn new(major: u16, minor: u16) -> HaproxyVersion {
        HaproxyVersion { major, minor }
    }

    /// Parses `2.6`, or `3.1.5`, whose last number is ignored.
    ///
    /// # Errors
    /// Not a version, or one before [`HaproxyVersion::OLDEST`].
    pub fn read(text: &str) -> Result<HaproxyVersion, Refusal> {
        let wrong = || Refusal::HaproxyVersion(text.to_owned());
        let mut numbers = text.split('.').map(|number| number.parse::<u16>().map_err(|_| wrong()));
        let mut next = || numbers.next().unwrap_or_else(|| Err(wrong()));
        let version = HaproxyVersion { major: next()?, minor: next()? };
        (version >= HaproxyVersion::OLDEST).then_some(version).ok_or_else(wrong)
    }
}

impl std::fmt::Display for HaproxyVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
