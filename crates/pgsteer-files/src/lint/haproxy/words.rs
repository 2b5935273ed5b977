//! The words that HAProxy supports in its sections, options, timeouts and servers.
//!
//! From the manuals of the versions 1.9 to 3.4. A version that refuses a keyword counts as the end of
//! its support, even if it recognizes the keyword for its error message.

/// The first words of lines in `defaults`, `frontend`, `listen` and `backend`.
#[rustfmt::skip]
pub const PROXY: [&str; 119] = [
    "acl", "appsession", "backlog", "balance", "bind", "bind-process", "block", "capture",
    "cliexp", "clitcpka-cnt", "clitcpka-idle", "clitcpka-intvl", "clitimeout", "compression",
    "contimeout", "cookie", "crt", "declare", "default-server", "default_backend",
    "description", "disabled", "dispatch", "dynamic-cookie-key", "email-alert", "enabled",
    "error-log-format", "errorfile", "errorfiles", "errorloc", "errorloc302", "errorloc303",
    "external-check", "filter", "filter-sequence", "force-be-switch", "force-persist",
    "fullconn", "grace", "guid", "hash-balance-factor", "hash-key", "hash-preserve-affinity",
    "hash-type", "http-after-response", "http-check", "http-error", "http-request",
    "http-response", "http-reuse", "http-send-name-header", "id", "ignore-persist",
    "load-server-state-from-file", "log", "log-format", "log-format-sd", "log-steps", "log-tag",
    "max-keep-alive-queue", "max-session-srv-conns", "maxconn", "mode", "monitor",
    "monitor-net", "monitor-uri", "option", "persist", "quic-initial", "rate-limit", "redirect",
    "redisp", "redispatch", "reqadd", "reqallow", "reqdel", "reqdeny", "reqiallow", "reqidel",
    "reqideny", "reqipass", "reqirep", "reqitarpit", "reqpass", "reqrep", "reqtarpit",
    "retries", "retry-on", "rspadd", "rspdel", "rspdeny", "rspidel", "rspideny", "rspirep",
    "rsprep", "server", "server-state-file-name", "server-template", "source", "srvexp",
    "srvtcpka-cnt", "srvtcpka-idle", "srvtcpka-intvl", "srvtimeout", "ssl-f-use", "stats",
    "stick", "stick-table", "tcp-check", "tcp-request", "tcp-response", "timeout",
    "transparent", "unique-id-format", "unique-id-header", "use-fcgi-app", "use-server",
    "use_backend", "usesrc",
];

/// The words after `option`.
#[rustfmt::skip]
pub const OPTIONS: [&str; 67] = [
    "abortonclose", "accept-invalid-http-request", "accept-invalid-http-response",
    "accept-unsafe-violations-in-http-request", "accept-unsafe-violations-in-http-response",
    "allbackups", "assume-rfc6587-ntf", "checkcache", "clitcpka", "contstats",
    "disable-h2-upgrade", "dont-parse-log", "dontlog-normal", "dontlognull", "external-check",
    "forceclose", "forwarded", "forwardfor", "h1-case-adjust-bogus-client",
    "h1-case-adjust-bogus-server", "http-buffer-request", "http-drop-request-trailers",
    "http-drop-response-trailers", "http-ignore-probes", "http-keep-alive", "http-no-delay",
    "http-pretend-keepalive", "http-restrict-req-hdr-names", "http-server-close", "http-tunnel",
    "http-use-htx", "http-use-proxy-header", "http_proxy", "httpchk", "httpclose", "httplog",
    "httpslog", "idle-close-on-response", "independant-streams", "independent-streams",
    "ldap-check", "log-health-checks", "log-separate-errors", "logasap", "mysql-check",
    "nolinger", "originalto", "persist", "pgsql-check", "prefer-last-server", "redis-check",
    "redispatch", "smtpchk", "socket-stats", "splice-auto", "splice-request", "splice-response",
    "spop-check", "srvtcpka", "ssl-hello-chk", "tcp-check", "tcp-smart-accept",
    "tcp-smart-connect", "tcpka", "tcplog", "transparent", "use-small-buffers",
];

/// The words after `timeout`.
#[rustfmt::skip]
pub const TIMEOUTS: [&str; 12] = [
    "check", "client", "client-fin", "client-hs", "connect", "http-keep-alive", "http-request",
    "queue", "server", "server-fin", "tarpit", "tunnel",
];

/// The words after `http-check`.
#[rustfmt::skip]
pub const HTTP_CHECK: [&str; 9] = [
    "comment", "connect", "disable-on-404", "expect", "send", "send-state", "set-var",
    "set-var-fmt", "unset-var",
];

/// The words after `tcp-check`.
#[rustfmt::skip]
pub const TCP_CHECK: [&str; 10] = [
    "comment", "connect", "expect", "send", "send-binary", "send-binary-lf", "send-lf",
    "set-var", "set-var-fmt", "unset-var",
];

/// The keywords after `http-check connect` and `tcp-check connect` with a value.
pub const CONNECT_WITH_VALUE: [&str; 6] = ["addr", "alpn", "comment", "port", "proto", "sni"];

/// The same without a value.
pub const CONNECT_ALONE: [&str; 5] = ["default", "linger", "send-proxy", "ssl", "via-socks4"];

/// The keywords after `stats` in a proxy.
#[rustfmt::skip]
pub const STATS: [&str; 14] = [
    "admin", "auth", "enable", "hide-version", "http-request", "realm", "refresh", "scope",
    "show-desc", "show-legends", "show-modules", "show-node", "show-version", "uri",
];

/// The first words of lines in `global`, without those that contain a dot.
#[rustfmt::skip]
pub const GLOBAL: [&str; 148] = [
    "51degrees-allow-unmatched", "51degrees-cache-size", "51degrees-data-file",
    "51degrees-difference", "51degrees-drift", "51degrees-property-name-list",
    "51degrees-property-separator", "51degrees-use-performance-graph",
    "51degrees-use-predictive-graph", "anonkey", "busy-polling", "ca-base", "chroot",
    "close-spread-time", "cluster-secret", "cpu-affinity", "cpu-map", "cpu-policy", "cpu-set",
    "crt-base", "daemon", "debug", "default-path", "description", "deviceatlas-cache-size",
    "deviceatlas-json-file", "deviceatlas-log-level", "deviceatlas-properties-cookie",
    "deviceatlas-property-separator", "deviceatlas-separator", "dns-accept-family",
    "expose-deprecated-directives", "expose-experimental-directives", "external-check",
    "fd-hard-limit", "force-cfg-parser-pause", "gid", "grace", "group",
    "h1-accept-payload-with-any-method", "h1-case-adjust", "h1-case-adjust-file",
    "h1-do-not-close-on-insecure-transfer-encoding", "h2-workaround-bogus-websocket-clients",
    "hard-stop-after", "http-err-codes", "http-fail-codes", "insecure-fork-wanted",
    "insecure-setuid-wanted", "issuers-chain-path", "key-base", "limited-quic", "localpeer",
    "log", "log-send-hostname", "log-tag", "lua-load", "lua-load-per-thread",
    "lua-prepend-path", "master-worker", "max-spread-checks", "max-threads-per-group",
    "maxcompcpuusage", "maxcomprate", "maxconn", "maxconnrate", "maxpipes", "maxsessrate",
    "maxsslconn", "maxsslrate", "maxzlibmem", "mworker-max-reloads", "nbproc", "nbthread",
    "no-memory-trimming", "node", "noepoll", "noevports", "nogetaddrinfo", "nokqueue", "noktls",
    "nopoll", "noreuseport", "nosplice", "numa-cpu-mapping", "peers", "pidfile",
    "pp2-never-send-local", "prealloc-fd", "presetenv", "quick-exit", "quiet", "resetenv",
    "server-state-base", "server-state-file", "set-dumpable", "set-var", "set-var-fmt",
    "setcap", "setenv", "shm-stats-file", "shm-stats-file-max-objects", "spread-checks",
    "ssl-default-bind-ciphers", "ssl-default-bind-ciphersuites",
    "ssl-default-bind-client-sigalgs", "ssl-default-bind-curves", "ssl-default-bind-options",
    "ssl-default-bind-sigalgs", "ssl-default-server-ciphers", "ssl-default-server-ciphersuites",
    "ssl-default-server-client-sigalgs", "ssl-default-server-curves",
    "ssl-default-server-options", "ssl-default-server-sigalgs", "ssl-dh-param-file",
    "ssl-engine", "ssl-load-extra-del-ext", "ssl-load-extra-files", "ssl-mode-async",
    "ssl-passphrase-cmd", "ssl-propquery", "ssl-provider", "ssl-provider-path",
    "ssl-security-level", "ssl-server-verify", "ssl-skip-self-issued-ca", "stats", "stats-file",
    "stress-level", "strict-limits", "thread-group", "thread-groups", "thread-hard-limit",
    "uid", "ulimit-n", "unix-bind", "unsetenv", "user", "warn-blocked-traffic-after",
    "wurfl-cache-size", "wurfl-data-file", "wurfl-engine-mode", "wurfl-information-list",
    "wurfl-information-list-separator", "wurfl-patch-file", "wurfl-useragent-priority",
    "zero-warning",
];

/// The words of a server line with one value.
#[rustfmt::skip]
pub const SERVER_WITH_VALUE: [&str; 72] = [
    "addr", "agent-addr", "agent-inter", "agent-port", "agent-send", "alpn", "ca-file", "cc",
    "check-alpn", "check-pool-conn-name", "check-proto", "check-sni", "ciphers", "ciphersuites",
    "client-sigalgs", "cookie", "crl-file", "crt", "curves", "downinter", "error-limit", "fall",
    "fastinter", "guid", "hash-key", "healthcheck", "id", "idle-ping", "init-addr",
    "init-state", "inter", "ktls", "log-bufsize", "log-proto", "max-reuse", "maxconn",
    "maxqueue", "minconn", "namespace", "npn", "observe", "on-error", "on-marked-down",
    "on-marked-up", "pool-conn-name", "pool-low-conn", "pool-max-conn", "pool-purge-delay",
    "port", "proto", "proxy-v2-options", "quic-cc-algo", "redir", "resolve-net", "resolve-opts",
    "resolve-prefer", "resolvers", "rise", "shard", "sigalgs", "slowstart", "sni", "socks4",
    "ssl-max-ver", "ssl-min-ver", "tcp-md5sig", "tcp-ut", "track", "verify", "verifyhost",
    "weight", "ws",
];

/// The words of a server line without a value; most of them also exist as `no-...`.
#[rustfmt::skip]
pub const SERVER_ALONE: [&str; 31] = [
    "agent-check", "allow-0rtt", "backup", "check", "check-reuse-pool", "check-send-proxy",
    "check-sni-auto", "check-ssl", "check-via-socks4", "disabled", "enabled", "force-sslv3",
    "force-tlsv10", "force-tlsv11", "force-tlsv12", "force-tlsv13", "non-stick", "renegotiate",
    "send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn",
    "set-proxy-v2-tlv-fmt", "sni-auto", "ssl", "ssl-reuse", "stick", "strict-maxconn", "tfo",
    "tls-tickets", "usesrc",
];

/// Returns the number of values after this keyword on a server line.
pub fn values_of_server_word(word: &str) -> usize {
    match word {
        // `source ADDR`, optionally followed by `usesrc WHOM`.
        "source" | "usesrc" | "interface" => 1,
        word => usize::from(is_tlv(word) || SERVER_WITH_VALUE.contains(&word)),
    }
}

/// Returns true if the keyword is allowed on a server line.
pub fn is_server_word(word: &str) -> bool {
    let positive = word.strip_prefix("no-").unwrap_or(word);
    ["source", "interface"].contains(&word)
        || is_tlv(word)
        || SERVER_WITH_VALUE.contains(&word)
        || SERVER_ALONE.contains(&positive)
        || NEGATIVE.contains(&word)
}

/// Words that exist only as `no-...`.
const NEGATIVE: [&str; 6] =
    ["no-sslv3", "no-tlsv10", "no-tlsv11", "no-tlsv12", "no-tlsv13", "no-tls-tickets"];

/// Returns true if the value is part of the keyword: `set-proxy-v2-tlv-fmt(0xE1)`.
fn is_tlv(word: &str) -> bool {
    word.starts_with("set-proxy-v2-tlv-fmt(")
}

/// The words of a bind line with one value.
#[rustfmt::skip]
pub const BIND_WITH_VALUE: [&str; 55] = [
    "accept-netscaler-cip", "alpn", "backlog", "ca-file", "ca-ignore-err", "ca-sign-file",
    "ca-sign-pass", "ca-verify-file", "cc", "ciphers", "ciphersuites", "client-sigalgs",
    "crl-file", "crt", "crt-ignore-err", "crt-list", "curves", "default-crt", "ecdhe",
    "expose-fd", "gid", "group", "guid-prefix", "id", "idle-ping", "interface", "ktls",
    "label", "level", "maxconn", "mode", "mss", "name", "namespace", "nbconn", "nice", "npn",
    "ocsp-update", "process", "proto", "quic-cc-algo", "quic-socket", "severity-output",
    "shards", "sigalgs", "ssl-max-ver", "ssl-min-ver", "tcp-md5sig", "tcp-ss", "tcp-ut",
    "thread", "tls-ticket-keys", "uid", "user", "verify",
];

/// The words of a bind line without a value.
#[rustfmt::skip]
pub const BIND_ALONE: [&str; 28] = [
    "accept-proxy", "allow-0rtt", "defer-accept", "force-sslv3", "force-tlsv10",
    "force-tlsv11", "force-tlsv12", "force-tlsv13", "generate-certificates", "no-alpn",
    "no-ca-names", "no-sslv3", "no-strict-sni", "no-tls-tickets", "no-tlsv10", "no-tlsv11",
    "no-tlsv12", "no-tlsv13", "prefer-client-ciphers", "quic-force-retry", "renegotiate",
    "ssl", "strict-sni", "tfo", "tls-tickets", "transparent", "v4v6", "v6only",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_words_take_what_they_take() {
        assert_eq!(values_of_server_word("inter"), 1);
        assert_eq!(values_of_server_word("check"), 0);
        assert_eq!(values_of_server_word("set-proxy-v2-tlv-fmt(0xE1)"), 1);
        assert!(is_server_word("no-check") && is_server_word("no-sslv3"));
        assert!(!is_server_word("no-such-word"));
    }
}
