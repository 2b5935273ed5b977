//! The counters. The workers and the conductor write them, and the pages read them.

mod events;
mod holds;
mod peers;
mod times;
mod vips;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::time::Moment;

pub use self::events::EventCounts;
pub use self::holds::{Holds, Ticket};
pub use self::peers::Peers;
pub use self::times::Times;
pub use self::vips::{Holding, Vip, Vips};
use crate::by_name::ByName;
use crate::haproxy::view::Views;
use crate::refusal_hints::RefusalHints;

/// All counters.
#[derive(Debug, Default)]
pub struct Stats {
    services: ByName<ServiceName, ServiceStats>,
    probes: ByName<MemberName, ProbeStats>,
    /// The events since the start.
    pub events: EventCounts,
    /// Hints to the sources about members that have refused a client.
    pub refusal_hints: Arc<RefusalHints>,
    /// What the steered HAProxys show.
    pub haproxys: Arc<Views>,
    /// True while pgsteer is shutting down: sessions continue for a while, and no new ones begin.
    pub stopping: AtomicBool,
    /// The last upgrade that failed.
    pub failed_upgrade: FailedUpgrade,
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
    /// The addresses of this machine that follow a service.
    pub vips: Vips,
    /// The other pgsteers.
    pub peers: Peers,
}

/// The last upgrade that failed: when, and why. None if none has failed.
#[derive(Debug, Default)]
pub struct FailedUpgrade(Mutex<Option<(Moment, String)>>);

impl FailedUpgrade {
    /// Notes a failure.
    pub fn note(&self, at: Moment, why: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, why));
    }

    /// The last failure.
    pub fn last(&self) -> Option<(Moment, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The counters of one service.
#[derive(Debug, Default)]
pub struct ServiceStats {
    members: ByName<MemberName, MemberStats>,
    /// The clients on hold.
    pub holds: Holds,
    /// Clients on hold that wait because of a limit on sessions.
    pub queued: AtomicUsize,
    /// The limit of sessions of the service; 0 without a limit.
    pub sessions_max: AtomicUsize,
    /// The limit of sessions of the service at one member; 0 without a limit.
    pub member_sessions_max: AtomicUsize,
    /// Clients that were refused because no member was available.
    pub refused_total: AtomicU64,
    /// The time from the connection of a client to the end of its login. Logins inside TLS are not
    /// counted, because they cannot be read.
    pub logins: Times,
    /// The length of the sessions that have ended.
    pub sessions: Times,
    /// The time until a member accepted a connection.
    pub dials: Times,
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
    /// Bytes from clients to the member, logins excluded.
    pub bytes_in: AtomicU64,
    /// Bytes from the member to clients, logins excluded.
    pub bytes_out: AtomicU64,
}

impl MemberStats {
    /// Counts the bytes that a session has moved.
    pub fn count_bytes(&self, bytes_in: u64, bytes_out: u64) {
        for (counter, bytes) in [(&self.bytes_in, bytes_in), (&self.bytes_out, bytes_out)] {
            if bytes > 0 {
                counter.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }
}

/// The times of the probes of one member.
#[derive(Debug)]
pub struct ProbeStats {
    /// The time until Patroni's answer.
    pub patroni: Times,
    /// The time until PostgreSQL's answer to the check login.
    pub sql: Times,
    /// The lag of its replay, read once a second.
    pub lag: Times,
}

impl Default for ProbeStats {
    fn default() -> ProbeStats {
        let (patroni, sql) = (Times::of_probes(), Times::of_probes());
        ProbeStats { patroni, sql, lag: Times::of_lags() }
    }
}

impl Stats {
    /// The counters of one service, created on first use.
    pub fn service(&self, name: &ServiceName) -> Arc<ServiceStats> {
        self.services.of(name)
    }

    /// The probe times of one member, created on first use.
    pub fn probes(&self, name: &MemberName) -> Arc<ProbeStats> {
        self.probes.of(name)
    }
}

impl ServiceStats {
    /// Sets the limits.
    pub fn set_limits(&self, sessions_max: Option<usize>, member_sessions_max: Option<usize>) {
        self.sessions_max.store(sessions_max.unwrap_or(0), Ordering::Relaxed);
        self.member_sessions_max.store(member_sessions_max.unwrap_or(0), Ordering::Relaxed);
    }

    /// Sessions that the gates of all members have closed.
    pub fn ended_total(&self) -> u64 {
        self.members.all().iter().map(|member| member.ended_total.load(Ordering::Relaxed)).sum()
    }

    /// The counters of one member, created on first use.
    pub fn member(&self, name: &MemberName) -> Arc<MemberStats> {
        self.members.of(name)
    }
}
