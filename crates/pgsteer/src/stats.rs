//! What the proxy counts, for the pages. Atomics that the workers write and the pages read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use pgsteer_core::names::{MemberName, ServiceName};

use crate::by_name::ByName;
use crate::doubts::Doubts;

/// All that the proxy counts.
#[derive(Debug, Default)]
pub struct Stats {
    services: ByName<ServiceName, ServiceStats>,
    /// Members that refused a client, for the sources.
    pub doubts: Arc<Doubts>,
    /// pgsteer is shutting down: whoever is here may stay for a while, nobody is let in.
    pub stopping: AtomicBool,
    /// Client connections now, over all services and in any state.
    pub clients: AtomicUsize,
    /// Client connections that were refused because of `sessions_max` or
    /// `sessions_per_address_max`.
    pub turned_away: AtomicU64,
    /// Client connections without a first packet that were closed to make room for others.
    pub silent_closed: AtomicU64,
    /// Cancel requests taken.
    pub cancels: AtomicU64,
    /// Cancel requests that were not sent to every server that they may concern, because too many
    /// were under way.
    pub cancels_dropped: AtomicU64,
    /// Client connections whose first packet was no PostgreSQL.
    pub garbage: AtomicU64,
}

/// What is counted of one service.
#[derive(Debug, Default)]
pub struct ServiceStats {
    members: ByName<MemberName, MemberStats>,
    /// Clients on hold now.
    pub held: AtomicUsize,
    /// Those of them that wait for a place because of a limit on sessions.
    pub queued: AtomicUsize,
    /// The limits on sessions of the service, and of it at one member; 0 for none.
    pub sessions_max: AtomicUsize,
    /// See `sessions_max`.
    pub member_sessions_max: AtomicUsize,
    /// Clients that were ever on hold.
    pub held_total: AtomicU64,
    /// Milliseconds that clients spent on hold, in all.
    pub held_ms_total: AtomicU64,
    /// Clients that were told that nobody is there for them.
    pub refused_total: AtomicU64,
}

/// What is counted of one service at one member.
#[derive(Debug, Default)]
pub struct MemberStats {
    /// Sessions now, those in their login included.
    pub sessions: AtomicUsize,
    /// Sessions that ever reached ReadyForQuery, or were passed on as TLS.
    pub sessions_total: AtomicU64,
    /// Sessions that were ended because the gate said so.
    pub ended_total: AtomicU64,
    /// Connections or logins that failed and were tried elsewhere.
    pub failed_total: AtomicU64,
}

impl Stats {
    /// The counters of one service, made when first asked for.
    pub fn service(&self, name: &ServiceName) -> Arc<ServiceStats> {
        self.services.of(name)
    }
}

impl ServiceStats {
    /// Notes the limits that hold from now on.
    pub fn set_limits(&self, sessions_max: Option<usize>, member_sessions_max: Option<usize>) {
        self.sessions_max.store(sessions_max.unwrap_or(0), Ordering::Relaxed);
        self.member_sessions_max.store(member_sessions_max.unwrap_or(0), Ordering::Relaxed);
    }

    /// The counters of one member, made when first asked for.
    pub fn member(&self, name: &MemberName) -> Arc<MemberStats> {
        self.members.of(name)
    }
}
