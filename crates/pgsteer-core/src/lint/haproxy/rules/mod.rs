//! The rules for HAProxy's configuration, one file for each subject.

mod acls;
mod agents;
mod capacity;
mod checks;
mod failover;
mod packets;
mod stats;
mod structure;
mod timeouts;
mod two_primaries;
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
    &checks::HTTPCHK_METHOD_GLUED,
    &checks::HTTPCHK_ASKS_POSTGRES,
    &checks::PATRONI_PORT_WITHOUT_HTTPCHK,
    &checks::CHECK_ON_POOLER_ONLY,
    &checks::POOLER_UNCHECKED,
    &checks::CHECK_TELLS_NO_ROLE,
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
    &capacity::MAXCONN_BEYOND_MAX_CONNECTIONS,
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
