//! Advice: what an operator does about a reason, in one line.

use crate::reason::Reason;

/// Returns what to do, or nothing if the state is normal or ends by itself within moments.
///
/// docs/status.md has more about each reason.
pub fn advice(reason: &Reason) -> Option<&'static str> {
    let text = match reason {
        Reason::WrongRole { .. }
        | Reason::Confirming
        | Reason::SwitchoverPlanned
        | Reason::FallbackOver
        | Reason::PoolerUnheard { .. } => return None,
        Reason::DrainedByOperator(_) => "pgsteer undrain ends the order",
        Reason::Unheard => "if it lasts, check that pgsteer reaches its Patroni and its PostgreSQL",
        Reason::Silent(_) => "check the network, and whether the host is frozen",
        Reason::Down(_) => "check PostgreSQL there; the reason has its message",
        Reason::NotRunning(_) => "check PostgreSQL and Patroni there",
        Reason::PatroniDown(_) | Reason::SqlSuffices(_) => "check Patroni there",
        Reason::PatroniLost(..) => "start its Patroni within the time in the text",
        Reason::PatroniSlow { .. } => {
            "find out what delays its Patroni; raise [patroni] timeout_seconds if it is always slow"
        }
        Reason::TetherRefused(_) => "check user, password file and pg_hba.conf of the check login",
        Reason::Promoting => "wait; if it lasts, its PostgreSQL log shows what it replays",
        Reason::NotLeader { .. } => "stop PostgreSQL there, or start its Patroni, which demotes it",
        Reason::SplitBrain(_) => "decide which member is the primary, and stop the others",
        Reason::AwaitingOthers(_) => "wait, or bring the named members back",
        Reason::NotStreaming(_) => "read its PostgreSQL log: primary_conninfo, slots",
        Reason::LagUnknown => "a limit in time needs the check login",
        Reason::LagBytes { .. } | Reason::LagTime { .. } => "find out what delays its replay",
        Reason::NoLoadBalance => "nothing if it is intended; else remove the tag noloadbalance",
        Reason::TagMismatch { .. } => {
            "compare the service's tags with those in Patroni's configuration"
        }
        Reason::Left(_) => "nothing if it was removed on purpose; else start its Patroni",
        Reason::NotListed(_) => "if it lasts, find out why its Patroni does not write its key",
        Reason::OtherCluster { .. } => {
            "find out which cluster its address belongs to; for a rebuilt cluster set [patroni] \
             system_identifier"
        }
        Reason::OtherMember(_) => {
            "nothing after a rename; else find out which server has its address"
        }
        Reason::SameServer(_) => "remove the wrong name, or correct connect_address in patroni.yml",
        Reason::PortUnknown => "find out why no Patroni returns the member list",
        Reason::Fallback => "check the replicas",
        Reason::NoNewSessions(_) => {
            "read its PostgreSQL log; end the sessions that a smart shutdown waits for"
        }
        Reason::NoAddress(_) => "check the name server and /etc/hosts",
        Reason::PoolerNotAsked { .. } => "check PostgreSQL there",
        Reason::PoolerDown { .. } | Reason::PoolerBypassed(_) => "check PgBouncer there",
        Reason::PoolerNowhere { .. } => {
            "compare [databases] of its PgBouncer with the address of PostgreSQL"
        }
        Reason::PoolerPutsOff { .. } => "set server_login_retry = 1 in pgbouncer.ini",
        Reason::PoolerBusy { .. } => "SHOW POOLS at the console of its PgBouncer; RESUME if paused",
        Reason::PoolerAstray { .. } => "check which host [databases] of its PgBouncer names",
        Reason::PoolerUnproven { .. } => "add the check login to the auth_file of its PgBouncer",
    };
    Some(text)
}
