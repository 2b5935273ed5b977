//! The answers of Patroni's REST API to health checks (`patroni/api.py`).
//!
//! A GET request is answered by its exact path if there is a handler for it, such as `/cluster`.
//! All other requests are answered by words that the path contains, in a fixed order. An unknown
//! path is answered with 503.

use std::ops::RangeInclusive;

use super::role::Role;

/// Patroni's default port, and the next ones for several Patronis on one machine.
const PORTS: RangeInclusive<u16> = 8008..=8018;

/// The status codes of health checks.
pub const STATUSES: [u64; 2] = [200, 503];

/// Returns true if Patroni usually listens on this port.
pub fn is_patroni_port(port: u16) -> bool {
    PORTS.contains(&port)
}

/// Paths that only Patroni has: the check goes to Patroni, or to a program that replaces it.
const PATHS: [&str; 18] = [
    "primary",
    "master",
    "leader",
    "replica",
    "read-write",
    "read-only",
    "standby-leader",
    "standby_leader",
    "sync",
    "synchronous",
    "async",
    "asynchronous",
    "quorum",
    "read-only-sync",
    "read-only-synchronous",
    "read-only-quorum",
    "patroni",
    "failsafe",
];

/// Resources for GET alone, whose status code shows no role.
const FOR_GET: [&str; 8] =
    ["patroni", "cluster", "history", "config", "metrics", "liveness", "readiness", "failsafe"];

/// Returns true if the path is one of Patroni's own.
pub fn is_patroni_path(path: &str) -> bool {
    PATHS.contains(&path.trim_matches('/'))
}

/// The meaning of an answer's status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200 if the member has this role.
    Role(Role),
    /// 200 for a member with any role.
    NoRole,
    /// Always 503.
    Unknown,
}

/// Returns Patroni's answer to a request.
pub fn answer(method: &str, path: &str) -> Answer {
    let own = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    if method == "GET" && FOR_GET.contains(&own) {
        return Answer::NoRole;
    }
    // An empty method depends on the environment.
    if !["", "GET", "HEAD", "OPTIONS"].contains(&method) {
        return Answer::Unknown;
    }
    let has = |word: &str| path.contains(word);
    let is_any_read_only = has("read-only") && !has("sync") && !has("quorum");
    let exact = [
        "/sync",
        "/synchronous",
        "/quorum",
        "/async",
        "/asynchronous",
        "/read-only-quorum",
        "/read-only-sync",
        "/read-only-synchronous",
    ];
    match path {
        "/" => Answer::Role(Role::Primary),
        _ if has("standby_leader") || has("standby-leader") => Answer::Role(Role::StandbyLeader),
        _ if ["leader", "master", "primary", "read-write"].into_iter().any(has) => {
            Answer::Role(Role::Primary)
        }
        _ if has("replica") || is_any_read_only || exact.contains(&path) => {
            Answer::Role(Role::Replica)
        }
        _ if has("health") => Answer::NoRole,
        _ => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patroni_answers_by_the_words_of_a_path() {
        let is =
            |method: &str, path: &str, wanted| assert_eq!(answer(method, path), wanted, "{path}");
        is("OPTIONS", "/", Answer::Role(Role::Primary));
        is("OPTIONS", "/master", Answer::Role(Role::Primary));
        is("GET", "/standby-leader", Answer::Role(Role::StandbyLeader));
        is("GET", "/leader", Answer::Role(Role::Primary));
        is("HEAD", "OPTIONS/replica", Answer::Role(Role::Replica));
        is("GET", "/read-only", Answer::Role(Role::Replica));
        is("GET", "/read-only-sync", Answer::Role(Role::Replica));
        is("GET", "/health", Answer::NoRole);
        is("GET", "/patroni", Answer::NoRole);
        is("GET", "/cluster", Answer::NoRole);
        for (method, path) in [
            ("POST", "/primary"),
            ("GET", "/slave"),
            ("GET", "/standby"),
            ("GET", "/ready"),
            ("OPTIONS", "/cluster"),
        ] {
            is(method, path, Answer::Unknown);
        }
    }
}
