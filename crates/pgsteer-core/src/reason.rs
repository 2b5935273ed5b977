//! Reasons: every shut gate says why, in one code and one sentence.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::claim::{Failure, Role};
use crate::identity::Contradiction;
use crate::names::{MemberName, listed};

/// Why a gate is not open, or is open with a reservation.
///
/// [`Reason::code`] is for machines (metrics, alerts) and never changes; the sentence is
/// for people.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Reason {
    /// No source has spoken of the member since it became known.
    #[error("nothing heard of it yet")]
    Unheard,
    /// What was said is too old to act on.
    #[error("nothing heard of it for more than {0:?}")]
    Silent(Duration),
    /// PostgreSQL does not answer, or does not let the check in.
    #[error("PostgreSQL cannot be asked: {0}")]
    Down(Failure),
    /// Patroni says that its PostgreSQL is not running.
    #[error("Patroni says that PostgreSQL is {0}")]
    NotRunning(String),
    /// Patroni, the only source for this member, does not answer.
    #[error("Patroni does not answer: {0}")]
    PatroniDown(Failure),
    /// Patroni does not answer, but the tether does: an open gate stays open for the time given
    /// (`patroni_loss_grace_seconds`).
    #[error(
        "Patroni does not answer ({0}); by SQL alone an open gate stays open for {1:?} at most"
    )]
    PatroniLost(Failure, Duration),
    /// Patroni does not answer, but SQL tells all that matters of a replica: it is one, and it streams.
    #[error("Patroni does not answer ({0}); by SQL it is a replica that streams, so it serves")]
    SqlSuffices(Failure),
    /// Patroni answers, and takes longer than it should.
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
    /// The login for the tether is refused, so Patroni's word alone has to do.
    #[error("only Patroni vouches for it: {0}")]
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
    /// A service, or a health check, wants another role.
    #[error("it is a {is}, wanted is a {wants}")]
    WrongRole {
        /// What it is.
        is: Role,
        /// What is wanted.
        wants: Role,
    },
    /// Two members or more take writes, or hold the lock, at the same time.
    #[error("split brain: {} take writes at the same time", listed(.0))]
    SplitBrain(Vec<MemberName>),
    /// Without Patroni a lone primary proves nothing until all others have been asked.
    #[error("not all members have been asked yet: {} missing", listed(.0))]
    AwaitingOthers(Vec<MemberName>),
    /// A replica that does not stream.
    #[error("it does not stream from the primary{}", in_state(.0))]
    NotStreaming(Option<String>),
    /// A lag limit is set and nobody knows the lag.
    #[error("its lag is unknown, and there is a limit")]
    LagUnknown,
    /// The lag in bytes is above the limit.
    #[error("its lag of {lag_bytes} bytes is above the limit of {lag_bytes_max}")]
    LagBytes {
        /// The lag as last computed.
        lag_bytes: u64,
        /// The limit.
        lag_bytes_max: u64,
    },
    /// The lag in time is above the limit.
    #[error("its lag of {lag:?} is above the limit of {lag_max:?}")]
    LagTime {
        /// The lag as last told.
        lag: Duration,
        /// The limit.
        lag_max: Duration,
    },
    /// Patroni's tag `noloadbalance`.
    #[error("its tag noloadbalance is set")]
    NoLoadBalance,
    /// A tag that is asked for is missing or differs.
    #[error("wanted is the tag {name}={wanted}")]
    TagMismatch {
        /// The tag.
        name: String,
        /// The value that is wanted.
        wanted: String,
    },
    /// Neither `/cluster` nor the configuration lists the member any more.
    #[error("it is not listed as a member any more{}", and_also(.0))]
    Left(Option<Box<Reason>>),
    /// `/cluster` does not list it for the time being, and it is well.
    #[error("/cluster does not list it; its own Patroni reports a replica, so it serves for {0:?}")]
    NotListed(Duration),
    /// Its Patroni belongs to another cluster.
    #[error("it belongs to another cluster: {0}")]
    OtherCluster(Contradiction),
    /// The Patroni at its address is that of another member.
    #[error("the Patroni at its address is that of member {0}")]
    OtherMember(Arc<str>),
    /// Another member is the same server: it has the same PostgreSQL or REST endpoint.
    #[error("it is the same server as {0}, which serves in its place")]
    SameServer(MemberName),
    /// Only the URL of its Patroni is known, because no member list can be read.
    #[error("the port of its PostgreSQL is unknown until a member list can be read")]
    PortUnknown,
    /// Good news must be confirmed by another answer.
    #[error("looks good, waiting for a second answer that says so")]
    Confirming,
    /// A fallback: no replica is open, so the primary serves reads.
    #[error("the primary stands in: no replica is open")]
    Fallback,
    /// The fallback ended: a replica is open again.
    #[error("a replica is open again, the primary need not stand in")]
    FallbackOver,
    /// The pooler has not answered yet, or not since the member took its role; or its last answer
    /// is too old.
    #[error("{}", no_answer(*.port, *.for_more_than))]
    PoolerUnheard {
        /// The pooler's port.
        port: u16,
        /// The age of its last answer is above this.
        for_more_than: Option<Duration>,
    },
    /// The pooler is not asked, because the PostgreSQL behind it cannot be used: PgBouncer would
    /// put off later logins for `server_login_retry`.
    #[error("PgBouncer on port {port} is not asked until its PostgreSQL can be used again")]
    PoolerNotAsked {
        /// The pooler's port.
        port: u16,
    },
    /// The pooler beside it does not answer.
    #[error("PgBouncer on port {port} cannot be asked: {failure}")]
    PoolerDown {
        /// The pooler's port.
        port: u16,
        /// Why there is no answer.
        failure: Failure,
    },
    /// The pooler answers, and a session through it comes to nothing.
    #[error("PgBouncer on port {port} is up, but opens no session to its PostgreSQL: {failure}")]
    PoolerNowhere {
        /// The pooler's port.
        port: u16,
        /// What came of the session.
        failure: Failure,
    },
    /// The pooler answers and led here; since its server was away it lets nobody through.
    #[error("PgBouncer on port {port} puts logins off since its server was away: {failure}")]
    PoolerPutsOff {
        /// The pooler's port.
        port: u16,
        /// What came of the last session.
        failure: Failure,
    },
    /// The pooler answers, and keeps whoever comes waiting.
    #[error("PgBouncer on port {port} is up and keeps queries waiting, paused or full: {failure}")]
    PoolerBusy {
        /// The pooler's port.
        port: u16,
        /// How long a query has waited, or what ended it.
        failure: Failure,
    },
    /// The pooler leads to a server that is not in the member's role, or to another in the same.
    #[error("PgBouncer on port {port} leads to {}", astray(*.leads_to, *.is))]
    PoolerAstray {
        /// The pooler's port.
        port: u16,
        /// What is at the other end: a primary, or a replica.
        leads_to: Role,
        /// What the member is.
        is: Role,
    },
    /// The pooler is up and refuses the check login.
    #[error(
        "PgBouncer on port {port} is up, but no query has shown which server it leads to: {failure}"
    )]
    PoolerUnproven {
        /// The pooler's port.
        port: u16,
        /// Its refusal.
        failure: Failure,
    },
    /// New sessions are led past the pooler, to PostgreSQL itself.
    #[error("clients are led past its pooler: {0}")]
    PoolerBypassed(Box<Reason>),
    /// Patroni has been told to hand the lead over, so whoever logs in there now is cut off soon.
    #[error("a switchover away from it has been ordered")]
    SwitchoverPlanned,
    /// PostgreSQL refuses new sessions, or does not answer them, while old ones go on.
    #[error("PostgreSQL accepts no new sessions: {0}")]
    NoNewSessions(Failure),
    /// Its host name stands for no address.
    #[error("no address to dial: {0}")]
    NoAddress(Failure),
}

/// A member whose PostgreSQL takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Its name.
    pub member: MemberName,
    /// Its Patroni answers, so that it can demote PostgreSQL.
    pub has_patroni: bool,
}

/// Makes of one table both the code of every reason and the list of all codes, so that the list
/// cannot be short of one.
macro_rules! codes {
    ($($variant:pat => $code:literal,)*) => {
        impl Reason {
            /// All codes there are.
            pub const CODES: &[&str] = &[$($code),*];

            /// A short word that does not change with the details: for metrics, alerts and tests.
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
    Reason::OtherCluster(_) => "other_cluster",
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
    Reason::NoNewSessions(_) => "no_new_sessions",
    Reason::NoAddress(_) => "no_address",
}

impl Reason {
    /// It is about lag.
    pub fn is_lag(&self) -> bool {
        matches!(self, Reason::LagUnknown | Reason::LagBytes { .. } | Reason::LagTime { .. })
    }

    /// It is about whether a pooler leads to its member.
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
            "{member} still takes writes, {leader} holds the leader lock: \
             stop PostgreSQL on {member} or start its Patroni"
        ),
        (Some(leader), Some(Writer { member, has_patroni: true })) => format!(
            "{member} still takes writes, {leader} holds the leader lock: \
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

fn in_state(state: &Option<String>) -> String {
    state.as_ref().map(|state| format!(": {state}")).unwrap_or_default()
}
