//! Reasons: why a gate is shut, as one code and one sentence.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::claim::{Failure, Role};
use crate::identity::Contradiction;
use crate::names::{MemberName, listed};
use crate::orders::DrainOrder;

/// Why a gate is not open, or is open with a reservation.
///
/// [`Reason::code`] is for machines (metrics, alerts) and never changes; the sentence is for
/// people.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Reason {
    /// No source has reported on the member since it became known.
    #[error("no source has reported on it yet")]
    Unheard,
    /// The newest claims are too old to act on.
    #[error("no answer for more than {0:?}")]
    Silent(Duration),
    /// PostgreSQL does not answer; without Patroni, also if it refuses the check login.
    #[error("PostgreSQL is not available: {0}")]
    Down(Failure),
    /// By Patroni's report its PostgreSQL is not running, or runs without a role.
    #[error("Patroni reports that PostgreSQL is {0}")]
    NotRunning(String),
    /// Patroni, the only source for this member, does not answer.
    #[error("Patroni does not answer: {0}")]
    PatroniDown(Failure),
    /// Patroni does not answer, but the tether does: an open gate stays open for the time given
    /// (`patroni_loss_grace_seconds`).
    #[error(
        "Patroni does not answer ({0}); on SQL alone an open gate stays open for at most {1:?}"
    )]
    PatroniLost(Failure, Duration),
    /// Patroni does not answer, but SQL reports all that a replica needs: the server is in recovery
    /// and streams.
    #[error("Patroni does not answer ({0}); SQL shows a streaming replica, so it serves")]
    SqlSuffices(Failure),
    /// Patroni answers later than `timeout_seconds`.
    #[error(
        "Patroni answers after {took:?}; [patroni] timeout_seconds is {}",
        .limit.as_secs_f64()
    )]
    PatroniSlow {
        /// How long the last answer took, in steps of 0.1 s.
        took: Duration,
        /// `timeout_seconds`.
        limit: Duration,
    },
    /// PostgreSQL refuses the login of the tether, so Patroni is the only source.
    #[error("the check login fails, so Patroni alone decides: {0}")]
    TetherRefused(Failure),
    /// It holds the leader lock and is not writable yet.
    #[error("promotion under way: it holds the leader lock and is still in recovery")]
    Promoting,
    /// It behaves as a leader, but the leader lock is not its own.
    #[error("{}", not_leader(.leader, .writer))]
    NotLeader {
        /// The member that holds the lock, where known.
        leader: Option<MemberName>,
        /// The member itself, if its PostgreSQL still takes writes.
        writer: Option<Writer>,
    },
    /// A service, or a health check, requires another role.
    #[error("it is a {is}, a {wants} is required")]
    WrongRole {
        /// The role of the member.
        is: Role,
        /// The required role.
        wants: Role,
    },
    /// Two members or more take writes, or hold the lock, at the same time.
    #[error("split brain: {} accept writes at the same time", listed(.0))]
    SplitBrain(Vec<MemberName>),
    /// Without Patroni a single primary is accepted only after all other members have been asked.
    #[error("members that have not answered yet: {}", listed(.0))]
    AwaitingOthers(Vec<MemberName>),
    /// A replica that does not stream.
    #[error("it does not stream from the primary{}", in_state(.0))]
    NotStreaming(Option<String>),
    /// A lag limit is set and the lag is unknown.
    #[error("its lag is unknown, and a limit is set")]
    LagUnknown,
    /// The lag in bytes is above the limit.
    #[error("its lag of {lag_bytes} bytes exceeds the limit of {lag_bytes_max}")]
    LagBytes {
        /// The lag as last computed.
        lag_bytes: u64,
        /// The limit.
        lag_bytes_max: u64,
    },
    /// The lag in time is above the limit.
    #[error("its lag of {lag:?} exceeds the limit of {lag_max:?}")]
    LagTime {
        /// The lag as last reported.
        lag: Duration,
        /// The limit.
        lag_max: Duration,
    },
    /// Patroni's tag `noloadbalance`.
    #[error("its tag noloadbalance is set")]
    NoLoadBalance,
    /// A required tag is missing or has another value.
    #[error("the tag {name}={wanted} is required")]
    TagMismatch {
        /// The tag.
        name: String,
        /// The required value.
        wanted: String,
    },
    /// Neither `/cluster` nor the configuration lists the member any more.
    #[error("it is not listed as a member any more{}", and_also(.0))]
    Left(Option<Box<Reason>>),
    /// `/cluster` does not list the member at present, but the member itself is healthy.
    #[error("/cluster does not list it; its own Patroni reports a replica, so it serves for {0:?}")]
    NotListed(Duration),
    /// Its Patroni, or its server by SQL, belongs to another cluster.
    #[error("it belongs to another cluster: {contradiction}{}", remedy_if_remade(*.may_be_remade))]
    OtherCluster {
        /// What differs.
        contradiction: Contradiction,
        /// It has a new system identifier and holds the leader lock under the member's own name:
        /// either the cluster was rebuilt, or another cluster has the member's address.
        may_be_remade: bool,
    },
    /// The Patroni at its address is that of another member.
    #[error("the Patroni at its address is that of member {0}")]
    OtherMember(Arc<str>),
    /// Another member is the same server: it has the same PostgreSQL or REST endpoint.
    #[error("it is the same server as {0}, which is used instead")]
    SameServer(MemberName),
    /// Only the URL of its Patroni is known, because no member list can be read.
    #[error("the port of its PostgreSQL is unknown until a member list can be read")]
    PortUnknown,
    /// A good result must be confirmed by a second answer.
    #[error("healthy, waiting for a second answer that confirms it")]
    Confirming,
    /// A fallback: no replica is open, so the primary serves reads.
    #[error("no replica is open, so the primary serves reads")]
    Fallback,
    /// The fallback ended: a replica is open again.
    #[error("a replica is open again, so the primary gets no new readers")]
    FallbackOver,
    /// The pooler has not answered yet, or not since the member took its role, or its last answer
    /// is too old.
    #[error("{}", no_answer(*.port, *.for_more_than))]
    PoolerUnheard {
        /// The pooler's port.
        port: u16,
        /// The age of its last answer is above this.
        for_more_than: Option<Duration>,
    },
    /// The pooler is not asked, because the PostgreSQL behind it cannot be used: after a failed
    /// login PgBouncer would refuse later ones for `server_login_retry`.
    #[error("PgBouncer on port {port} is not probed until its PostgreSQL is available")]
    PoolerNotAsked {
        /// The pooler's port.
        port: u16,
    },
    /// The pooler on the member's host does not answer.
    #[error("PgBouncer on port {port} does not answer: {failure}")]
    PoolerDown {
        /// The pooler's port.
        port: u16,
        /// Why there is no answer.
        failure: Failure,
    },
    /// The pooler answers, but a session through it fails.
    #[error("PgBouncer on port {port} runs, but opens no session to its PostgreSQL: {failure}")]
    PoolerNowhere {
        /// The pooler's port.
        port: u16,
        /// How the session failed.
        failure: Failure,
    },
    /// The pooler answers and led to this member; since its server was away it refuses logins.
    #[error("PgBouncer on port {port} delays logins since its server was unavailable: {failure}")]
    PoolerPutsOff {
        /// The pooler's port.
        port: u16,
        /// How the last session failed.
        failure: Failure,
    },
    /// The pooler answers, and keeps clients waiting.
    #[error("PgBouncer on port {port} keeps queries waiting, it is paused or full: {failure}")]
    PoolerBusy {
        /// The pooler's port.
        port: u16,
        /// How long a query has waited, or what ended it.
        failure: Failure,
    },
    /// The pooler leads to a server that has another role than the member, or to another server of
    /// the same role.
    #[error("PgBouncer on port {port} leads to {}", astray(*.leads_to, *.is))]
    PoolerAstray {
        /// The pooler's port.
        port: u16,
        /// What is at the other end: a primary, or a replica.
        leads_to: Role,
        /// The role of the member.
        is: Role,
    },
    /// The pooler is up and refuses the check login.
    #[error(
        "PgBouncer on port {port} runs, but no query has shown which server it leads to: {failure}"
    )]
    PoolerUnproven {
        /// The pooler's port.
        port: u16,
        /// The pooler's refusal.
        failure: Failure,
    },
    /// New sessions are routed past the pooler, to PostgreSQL itself.
    #[error("clients bypass its pooler: {0}")]
    PoolerBypassed(Box<Reason>),
    /// A switchover away from this member was requested from Patroni, so new sessions there would
    /// soon be cut off.
    #[error("a switchover away from it is planned")]
    SwitchoverPlanned,
    /// An operator drains the member (`pgsteer drain`).
    #[error("{0}")]
    DrainedByOperator(Arc<DrainOrder>),
    /// PostgreSQL refuses new sessions, or does not answer them, while old sessions continue.
    #[error("PostgreSQL accepts no new sessions: {0}")]
    NoNewSessions(Failure),
    /// The member's host name does not resolve to an address.
    #[error("its host name has no address: {0}")]
    NoAddress(Failure),
}

/// A member whose PostgreSQL takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its name.
    pub member: MemberName,
    /// Its Patroni answers, so Patroni can demote PostgreSQL.
    pub has_patroni: bool,
}

/// Generates the code of every reason and the list of all codes from one table, so that the list is
/// complete.
macro_rules! codes {
    ($($variant:pat => $code:literal,)*) => {
        impl Reason {
            /// All codes.
            pub const CODES: &[&str] = &[$($code),*];

            /// A short name that does not change with the details: for metrics, alerts and tests.
            pub const fn code(&self) -> &'static str {
                match self {
                    $($variant => $code,)*
                }
            }
        }
    };
}

codes! {
    Reason::Unheard => "unheard",
    Reason::Silent(_) => "silent",
    Reason::Down(_) => "down",
    Reason::NotRunning(_) => "not_running",
    Reason::PatroniDown(_) => "patroni_down",
    Reason::PatroniLost(..) => "patroni_lost",
    Reason::SqlSuffices(_) => "sql_suffices",
    Reason::PatroniSlow { .. } => "patroni_slow",
    Reason::TetherRefused(_) => "tether_refused",
    Reason::Promoting => "promoting",
    Reason::NotLeader { .. } => "not_leader",
    Reason::WrongRole { .. } => "wrong_role",
    Reason::SplitBrain(_) => "split_brain",
    Reason::AwaitingOthers(_) => "awaiting_others",
    Reason::NotStreaming(_) => "not_streaming",
    Reason::LagUnknown => "lag_unknown",
    Reason::LagBytes { .. } => "lag_bytes",
    Reason::LagTime { .. } => "lag_time",
    Reason::NoLoadBalance => "noloadbalance",
    Reason::TagMismatch { .. } => "tag_mismatch",
    Reason::Left(_) => "left",
    Reason::NotListed(_) => "not_listed",
    Reason::OtherCluster { .. } => "other_cluster",
    Reason::OtherMember(_) => "other_member",
    Reason::SameServer(_) => "same_server",
    Reason::PortUnknown => "port_unknown",
    Reason::Confirming => "confirming",
    Reason::Fallback => "fallback",
    Reason::FallbackOver => "fallback_over",
    Reason::PoolerUnheard { .. } => "pooler_unheard",
    Reason::PoolerNotAsked { .. } => "pooler_not_asked",
    Reason::PoolerDown { .. } => "pooler_down",
    Reason::PoolerNowhere { .. } => "pooler_nowhere",
    Reason::PoolerPutsOff { .. } => "pooler_puts_off",
    Reason::PoolerBusy { .. } => "pooler_busy",
    Reason::PoolerAstray { .. } => "pooler_astray",
    Reason::PoolerUnproven { .. } => "pooler_unproven",
    Reason::PoolerBypassed(_) => "pooler_bypassed",
    Reason::SwitchoverPlanned => "switchover_planned",
    Reason::DrainedByOperator(_) => "drained_by_operator",
    Reason::NoNewSessions(_) => "no_new_sessions",
    Reason::NoAddress(_) => "no_address",
}

impl Reason {
    /// Returns true if the reason is about lag.
    pub fn is_lag(&self) -> bool {
        matches!(self, Reason::LagUnknown | Reason::LagBytes { .. } | Reason::LagTime { .. })
    }

    /// Returns true if the reason is about whether a pooler leads to its member.
    pub fn is_pooler(&self) -> bool {
        matches!(
            self,
            Reason::PoolerUnheard { .. }
                | Reason::PoolerNotAsked { .. }
                | Reason::PoolerDown { .. }
                | Reason::PoolerNowhere { .. }
                | Reason::PoolerPutsOff { .. }
                | Reason::PoolerUnproven { .. }
                | Reason::PoolerBusy { .. }
                | Reason::PoolerAstray { .. }
        )
    }
}

fn not_leader(leader: &Option<MemberName>, writer: &Option<Writer>) -> String {
    match (leader, writer) {
        (None, _) => "it does not hold the leader lock".to_owned(),
        (Some(leader), None) => format!("it does not hold the leader lock: {leader} does"),
        (Some(leader), Some(Writer { member, has_patroni: false })) => format!(
            "{member} still accepts writes, {leader} holds the leader lock: \
             stop PostgreSQL on {member} or start its Patroni"
        ),
        (Some(leader), Some(Writer { member, has_patroni: true })) => format!(
            "{member} still accepts writes, {leader} holds the leader lock: \
             stop PostgreSQL on {member} unless its Patroni does so in a few seconds"
        ),
    }
}

fn no_answer(port: u16, for_more_than: Option<Duration>) -> String {
    match for_more_than {
        Some(limit) => format!("no answer from PgBouncer on port {port} for more than {limit:?}"),
        None => format!("no answer from PgBouncer on port {port} yet"),
    }
}

fn and_also(other: &Option<Box<Reason>>) -> String {
    other.as_ref().map(|other| format!("; {other}")).unwrap_or_default()
}

fn astray(leads_to: Role, is: Role) -> String {
    match leads_to == is {
        true => format!("another server than the member, which is a {is} as well"),
        false => format!("a {leads_to}, and the member is a {is}"),
    }
}

fn remedy_if_remade(may_be_remade: bool) -> &'static str {
    match may_be_remade {
        true => {
            "; it leads: if this cluster was rebuilt, set system_identifier in [patroni], or \
             remove the state file and restart pgsteer"
        }
        false => "",
    }
}

fn in_state(state: &Option<String>) -> String {
    state.as_ref().map(|state| format!(": {state}")).unwrap_or_default()
}
