//! What the operator says of HAProxy: its profile, and its version.

use super::refusal::Refusal;

/// How HAProxy learns who is primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// It asks Patroni's REST API.
    Httpchk,
    /// pgsteer tells it, by agent-checks.
    Agent,
    /// The same, and a pooler that is down is led past.
    AgentBypass,
    /// It asks PostgreSQL, by a login that needs no password.
    Sql,
    /// It stands where clients know an old primary, and leads them to the right one.
    Redirect,
    /// It stands in front of several pgsteers and knows nothing of members.
    Pgsteer,
}

impl Profile {
    /// Every profile, in the order in which they are explained.
    pub const ALL: [Profile; 6] = [
        Profile::Httpchk,
        Profile::Agent,
        Profile::AgentBypass,
        Profile::Sql,
        Profile::Redirect,
        Profile::Pgsteer,
    ];

    /// The word on the command line.
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

    /// What it is, in one line.
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
    /// The oldest one that the files are for.
    pub const OLDEST: HaproxyVersion = HaproxyVersion { major: 2, minor: 6 };
    /// The first in which a server need not count as UP before its first check (`init-state`).
    pub(crate) const INIT_STATE: HaproxyVersion = HaproxyVersion { major: 3, minor: 1 };

    /// A client that is retried while its server becomes DOWN may hang for ever (seen with 3.0.11, and
    /// not with 2.6.12 and 3.2.26).
    pub(crate) fn hangs_in_retries(self) -> bool {
        self >= HaproxyVersion::new(3, 0) && self < HaproxyVersion::INIT_STATE
    }

    /// A version by its first two numbers.
    pub(crate) const fn new(major: u16, minor: u16) -> HaproxyVersion {
        HaproxyVersion { major, minor }
    }

    /// Reads `2.6`, or `3.1.5`, whose last number does not matter.
    ///
    /// # Errors
    /// No version, or one before [`HaproxyVersion::OLDEST`].
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
