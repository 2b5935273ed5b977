//! The HAProxy versions that support a keyword: the first one and the last one.
//!
//! From the sources of the versions 2.6 to 3.4 and the changelog of 3.5. A version that refuses a
//! word counts as the end of its support.

use crate::render::HaproxyVersion;

/// The place of a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In `global`.
    Global,
    /// The first keyword of a line of a proxy.
    Proxy,
    /// After `option`.
    Option,
    /// After `timeout`.
    Timeout,
    /// On a server line.
    Server,
    /// On a bind line.
    Bind,
    /// The first keyword of a section.
    Section,
}

/// The versions that support a keyword, if not all do.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Its place.
    pub place: Where,
    /// The keyword.
    pub word: &'static str,
    /// The first version that supports it.
    pub since: Option<HaproxyVersion>,
    /// The first version that refuses it.
    pub until: Option<HaproxyVersion>,
    /// The replacement; empty if there is none.
    pub instead: &'static str,
}

const fn since(place: Where, word: &'static str, major: u16, minor: u16) -> Life {
    let since = Some(HaproxyVersion::new(major, minor));
    Life { place, word, since, until: None, instead: "" }
}

const fn until(
    place: Where,
    word: &'static str,
    major: u16,
    minor: u16,
    instead: &'static str,
) -> Life {
    let until = Some(HaproxyVersion::new(major, minor));
    Life { place, word, since: None, until, instead }
}

/// Words that were added or removed. Versions before 2.6 are not supported, so older words are
/// always known.
#[rustfmt::skip]
const LIVES: &[Life] = &[
    since(Where::Server, "cc", 3, 3),
    since(Where::Server, "check-pool-conn-name", 3, 2),
    since(Where::Server, "check-reuse-pool", 3, 2),
    since(Where::Server, "check-sni-auto", 3, 3),
    since(Where::Server, "client-sigalgs", 2, 9),
    since(Where::Server, "curves", 2, 9),
    since(Where::Server, "guid", 3, 0),
    since(Where::Server, "hash-key", 3, 0),
    since(Where::Server, "healthcheck", 3, 4),
    since(Where::Server, "idle-ping", 3, 2),
    since(Where::Server, "init-state", 3, 1),
    since(Where::Server, "ktls", 3, 3),
    since(Where::Server, "log-bufsize", 2, 9),
    since(Where::Server, "pool-conn-name", 3, 0),
    since(Where::Server, "quic-cc-algo", 3, 4),
    since(Where::Server, "renegotiate", 3, 3),
    since(Where::Server, "set-proxy-v2-tlv-fmt", 2, 9),
    since(Where::Server, "shard", 2, 7),
    since(Where::Server, "sigalgs", 2, 9),
    since(Where::Server, "sni-auto", 3, 3),
    since(Where::Server, "strict-maxconn", 3, 2),
    since(Where::Server, "tcp-md5sig", 3, 3),
    since(Where::Proxy, "guid", 3, 0),
    since(Where::Proxy, "log-steps", 3, 1),
    since(Where::Proxy, "quic-initial", 3, 1),
    since(Where::Proxy, "hash-preserve-affinity", 3, 2),
    since(Where::Proxy, "filter-sequence", 3, 4),
    since(Where::Proxy, "force-be-switch", 3, 4),
    since(Where::Option, "forwarded", 2, 8),
    since(Where::Option, "http-drop-request-trailers", 3, 2),
    since(Where::Option, "http-drop-response-trailers", 3, 2),
    since(Where::Option, "use-small-buffers", 3, 4),
    since(Where::Timeout, "client-hs", 2, 9),
    since(Where::Section, "crt-store", 3, 0),
    since(Where::Section, "log-profile", 3, 1),
    since(Where::Section, "traces", 3, 1),
    since(Where::Section, "acme", 3, 2),
    since(Where::Section, "healthcheck", 3, 4),

    since(Where::Global, "anonkey", 2, 7),
    since(Where::Global, "cpu-affinity", 3, 4),
    since(Where::Global, "cpu-policy", 3, 2),
    since(Where::Global, "cpu-set", 3, 2),
    since(Where::Global, "dns-accept-family", 3, 2),
    since(Where::Global, "expose-deprecated-directives", 3, 0),
    since(Where::Global, "force-cfg-parser-pause", 3, 1),
    since(Where::Global, "h1-do-not-close-on-insecure-transfer-encoding", 3, 1),
    since(Where::Global, "http-err-codes", 3, 0),
    since(Where::Global, "http-fail-codes", 3, 0),
    since(Where::Global, "key-base", 3, 0),
    since(Where::Global, "limited-quic", 2, 9),
    since(Where::Global, "max-threads-per-group", 3, 4),
    since(Where::Global, "noktls", 3, 3),
    since(Where::Global, "prealloc-fd", 2, 8),
    since(Where::Global, "quick-exit", 2, 7),
    since(Where::Global, "setcap", 2, 9),
    since(Where::Global, "shm-stats-file", 3, 3),
    since(Where::Global, "shm-stats-file-max-objects", 3, 3),
    since(Where::Global, "ssl-default-bind-client-sigalgs", 2, 8),
    since(Where::Global, "ssl-default-bind-sigalgs", 2, 8),
    since(Where::Global, "ssl-default-server-client-sigalgs", 2, 9),
    since(Where::Global, "ssl-default-server-curves", 2, 9),
    since(Where::Global, "ssl-default-server-sigalgs", 2, 9),
    since(Where::Global, "ssl-passphrase-cmd", 3, 3),
    since(Where::Global, "ssl-security-level", 3, 0),
    since(Where::Global, "stats-file", 3, 0),
    since(Where::Global, "stress-level", 3, 2),
    since(Where::Global, "thread-hard-limit", 3, 0),
    since(Where::Global, "warn-blocked-traffic-after", 3, 1),
    since(Where::Option, "accept-unsafe-violations-in-http-request", 3, 1),
    since(Where::Option, "accept-unsafe-violations-in-http-response", 3, 1),
    since(Where::Option, "assume-rfc6587-ntf", 3, 2),
    since(Where::Option, "dont-parse-log", 3, 2),
    since(Where::Proxy, "hash-key", 3, 0),
    since(Where::Proxy, "ssl-f-use", 3, 2),
    since(Where::Bind, "cc", 3, 0),
    since(Where::Bind, "client-sigalgs", 2, 8),
    since(Where::Bind, "default-crt", 3, 0),
    since(Where::Bind, "guid-prefix", 3, 0),
    since(Where::Bind, "idle-ping", 3, 2),
    since(Where::Bind, "ktls", 3, 3),
    since(Where::Bind, "label", 3, 2),
    since(Where::Bind, "nbconn", 2, 9),
    since(Where::Bind, "no-alpn", 2, 8),
    since(Where::Bind, "no-strict-sni", 3, 1),
    since(Where::Bind, "ocsp-update", 2, 8),
    since(Where::Bind, "quic-cc-algo", 2, 7),
    since(Where::Bind, "quic-force-retry", 2, 7),
    since(Where::Bind, "quic-socket", 2, 9),
    since(Where::Bind, "renegotiate", 3, 3),
    since(Where::Bind, "sigalgs", 2, 8),
    since(Where::Bind, "tcp-md5sig", 3, 3),
    since(Where::Bind, "tcp-ss", 3, 4),
    since(Where::Bind, "tls-tickets", 3, 1),
    until(Where::Option, "http-use-htx", 2, 5, "leave it out: HAProxy always works so"),
    until(Where::Option, "http_proxy", 2, 5, "`http-request set-dst` and `http-request set-uri`"),
    until(Where::Option, "transparent", 3, 5, "a server at `0.0.0.0`"),
    until(Where::Proxy, "transparent", 3, 5, "a server at `0.0.0.0`"),
    until(Where::Proxy, "grace", 2, 5, "remove it"),
    until(Where::Proxy, "dispatch", 3, 5, "a `server` line"),
    until(Where::Global, "master-worker", 3, 5, "`-W` in the command line of HAProxy"),
    until(Where::Global, "nbproc", 2, 5, "remove it: HAProxy uses threads by default"),
    until(Where::Bind, "process", 2, 7, "`thread`"),
    until(Where::Proxy, "appsession", 1, 6, "a stick-table"),
    until(Where::Proxy, "bind-process", 2, 7, "`thread` on the bind line"),
    until(Where::Proxy, "block", 2, 1, "`http-request deny`"),
    until(Where::Proxy, "cliexp", 2, 1, ""),
    until(Where::Proxy, "srvexp", 2, 1, ""),
    until(Where::Proxy, "clitimeout", 2, 1, "`timeout client`"),
    until(Where::Proxy, "srvtimeout", 2, 1, "`timeout server`"),
    until(Where::Proxy, "contimeout", 2, 1, "`timeout connect`"),
    until(Where::Proxy, "monitor-net", 2, 5, "`http-request return`"),
    until(Where::Proxy, "redisp", 2, 1, "`option redispatch`"),
    until(Where::Proxy, "redispatch", 2, 1, "`option redispatch`"),
    until(Where::Option, "forceclose", 2, 0, "`option httpclose`"),
    until(Where::Option, "http-tunnel", 2, 1, ""),
    until(Where::Section, "program", 3, 3, "a unit of its own"),
    until(Where::Proxy, "reqadd", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqallow", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqdel", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqdeny", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqiallow", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqidel", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqideny", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqipass", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqirep", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqitarpit", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqpass", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqrep", 2, 1, "`http-request`"),
    until(Where::Proxy, "reqtarpit", 2, 1, "`http-request`"),
    until(Where::Proxy, "rspadd", 2, 1, "`http-response`"),
    until(Where::Proxy, "rspdel", 2, 1, "`http-response`"),
    until(Where::Proxy, "rspdeny", 2, 1, "`http-response`"),
    until(Where::Proxy, "rspidel", 2, 1, "`http-response`"),
    until(Where::Proxy, "rspideny", 2, 1, "`http-response`"),
    until(Where::Proxy, "rspirep", 2, 1, "`http-response`"),
    until(Where::Proxy, "rsprep", 2, 1, "`http-response`"),
];

/// Returns the versions that support this keyword, if not all do.
pub fn life(place: Where, word: &str) -> Option<&'static Life> {
    LIVES.iter().find(|life| life.place == place && life.word == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::haproxy::words;

    #[test]
    fn a_word_with_a_life_is_a_word() {
        for life in LIVES {
            let is_known = match life.place {
                Where::Global => words::GLOBAL.contains(&life.word),
                Where::Proxy => words::PROXY.contains(&life.word),
                Where::Option => words::OPTIONS.contains(&life.word),
                Where::Timeout => words::TIMEOUTS.contains(&life.word),
                Where::Server => words::is_server_word(life.word),
                Where::Bind => {
                    words::BIND_WITH_VALUE.contains(&life.word)
                        || words::BIND_ALONE.contains(&life.word)
                }
                Where::Section => crate::lint::haproxy::sections::OTHERS.contains(&life.word),
            };
            assert!(is_known, "{life:?}");
        }
    }
}
