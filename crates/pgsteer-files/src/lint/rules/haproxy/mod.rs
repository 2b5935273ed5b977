//! The rules for HAProxy's configuration, one file for each subject.

mod acls;
mod agents;
mod asked;
mod capacity;
mod check_rules;
mod checks;
mod conditions;
mod failover;
mod packets;
mod process;
mod protocol;
mod references;
mod server_values;
mod shapes;
mod stats;
mod structure;
mod timeouts;
mod two_primaries;
mod value;
mod values;
mod variables;
mod vocabulary;

use crate::lint::rule::Rule;

/// All of them.
pub static RULES: &[&Rule] = &[
    &two_primaries::NO_GUARD,
    &two_primaries::GUARD_BLIND_TO_BACKUP,
    &failover::SLOW_DETECTION,
    &failover::NO_SHUTDOWN_SESSIONS,
    &failover::NOLB_STRANDS_SESSIONS,
    &failover::FIRST_CHECK_LATE,
    &failover::SERVERS_START_UP,
    &process::CLIENTS_HANG,
    &checks::HTTPCHK_METHOD_GLUED,
    &checks::HTTPCHK_ASKS_POSTGRES,
    &checks::PATRONI_PORT_WITHOUT_HTTPCHK,
    &checks::CHECK_ON_POOLER_ONLY,
    &checks::POOLER_UNCHECKED,
    &checks::CHECK_TELLS_NO_ROLE,
    &asked::BACKUP_WITHOUT_ROLE,
    &asked::ROLE_NOT_ASKED,
    &asked::PATRONI_NEVER_ANSWERS,
    &checks::CHECK_OF_THE_OTHER_ROLE,
    &checks::CHECK_MISSING,
    &checks::CHECK_RULES_UNUSED,
    &checks::DEFAULT_SERVER_TOO_LATE,
    &packets::TCP_CHECK_LENGTH,
    &packets::TCP_CHECK_SENDS_AFTER_END,
    &packets::TCP_CHECK_WAITS,
    &agents::AGENT_WITHOUT_CHECK,
    &agents::AGENT_BESIDE_BARE_CHECK,
    &agents::AGENT_UNDO_WORDS,
    &agents::AGENT_LINE_UNENDED,
    &agents::AGENT_PORT_MISSING,
    &acls::NBSRV_COUNTS_ALL,
    &acls::ACL_CANNOT_MATCH,
    &acls::ACL_UNKNOWN,
    &acls::ACL_UNUSED,
    &timeouts::TIMEOUT_CUTS_IDLE_SESSIONS,
    &timeouts::CONNECT_TIMEOUT_MISSING,
    &timeouts::NO_KEEPALIVE,
    &stats::STATS_CREDENTIALS,
    &stats::STATS_OPEN,
    &stats::STATS_ADMIN_OPEN,
    &process::ADMIN_SOCKET_OPEN,
    &process::LOG_NOWHERE,
    &process::NAME_RESOLVED_ONCE,
    &protocol::SEND_PROXY_TO_POSTGRES,
    &protocol::TLS_AT_HAPROXY,
    &capacity::MAXCONN_BEYOND_MAX_CONNECTIONS,
    &capacity::MAXCONN_BELOW_SERVERS,
    &capacity::SLOWSTART_THROTTLES_MAXCONN,
    &variables::VARIABLE_UNQUOTED,
    &values::VALUE_REFUSED,
    &references::REFERENCE_UNKNOWN,
    &references::TLS_WITHOUT_CA,
    &references::EXTERNAL_CHECK_OFF,
    &vocabulary::UNKNOWN_WORD,
    &vocabulary::WORD_NOT_IN_VERSION,
    &vocabulary::LINE_NOT_UNDERSTOOD,
    &structure::BIND_TWICE,
    &structure::NAME_TWICE,
    &structure::SERVER_ADDRESS_TWICE,
    &structure::UNKNOWN_BACKEND,
    &structure::MODE_HTTP,
    &structure::MISPLACED_WORD,
];
