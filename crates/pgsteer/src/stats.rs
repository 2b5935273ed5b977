//! The counters of the proxy. The workers write them, and the pages read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use pgsteer_core::names::{MemberName, ServiceName};

use crate::by_name::ByName;
use crate::doubts::Doubts;

/// The counters of the proxy.
#[derive(Debug, Default)]
pub struct Stats {
    services: ByName<ServiceName, ServiceStats>,
    /// Hints to the sources about members that have refused a client.
    pub doubts: Arc<Doubts>,
    /// True while pgsteer is shutting down: sessions continue for a while, and no new ones begin.
    pub stopping: AtomicBool,
    /// Client connections now, over all services and in any state.
    pub clients: AtomicUsize,
    /// Client connections that were refused because of `sessions_max` or
    /// `sessions_per_address_max`.
    pub turned_away: AtomicU64,
    /// Client connections without a first packet that were closed for new ones.
    pub silent_closed: AtomicU64,
    /// Cancel requests received.
    pub cancels: AtomicU64,
    /// Cancel requests that were not sent to all their servers, because too many were under way.
    pub cancels_dropped: AtomicU64,
    /// Client connections whose first packet was not of the PostgreSQL protocol.
    pub garbage: AtomicU64,
}

/// The counters of one service.
#[derive(Debug, Default)]
pub struct ServiceStats {
    members: ByName<MemberName, MemberStats>,
    /// Clients on hold now.
    pub held: AtomicUsize,
    /// Clients on hold that wait because of a limit on sessions.
    pub queued: AtomicUsize,
    /// The limit of sessions of the service; 0 without a limit.
    pub sessions_max: AtomicUsize,
    /// The limit of sessions of the service at one member; 0 without a limit.
    pub member_sessions_max: AtomicUsize,
    /// Clients that have been on hold since the start.
    pub held_total: AtomicU64,
    /// The time on hold of all clients together, in milliseconds.
    pub held_ms_total: AtomicU64,
    /// Clients that were refused because no member was available.
    pub refused_total: AtomicU64,
}

/// The counters of one service at one member.
#[derive(Debug, Default)]
pub struct MemberStats {
    /// Sessions now, those in their login included.
    pub sessions: AtomicUsize,
    /// Sessions since the start that have reached ReadyForQuery, or that use TLS.
    pub sessions_total: AtomicU64,
    /// Sessions that the gate has closed.
    pub ended_total: AtomicU64,
    /// Connections and logins that have failed and were retried at another member.
    pub failed_total: AtomicU64,
}

impl Stats {
    /// The counters of one service, created on first use.
    pub fn service(&self, name: &ServiceName) -> Arc<ServiceStats> {
        self.services.of(name)
    }
}

impl ServiceStats {
    /// Sets the limits.
    pub fn set_limits(&self, sessions_max: Option<usize>, member_sessions_max: Option<usize>) {
        self.sessions_max.store(sessions_max.unwrap_or(0), Ordering::Relaxed);
        self.member_sessions_max.store(member_sessions_max.unwrap_or(0), Ordering::Relaxed);
    }

    /// The counters of one member, created on first use.
    pub fn member(&self, name: &MemberName) -> Arc<MemberStats> {
        self.members.of(name)
    }
}
