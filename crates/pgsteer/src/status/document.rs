//! The status document: the shape of `/api/v1/status`, described in docs/status.md.
//!
//! Fields are only ever added, so a reader must let through what it does not know; `pgsteer
//! status` reads it with these same types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stamp::Stamp;

/// All that one pgsteer tells of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// The version of pgsteer.
    pub version: String,
    /// When the document was made.
    pub now: Stamp,
    /// How long pgsteer has been running, in whole seconds.
    pub uptime_seconds: u64,
    /// It is stopping: sessions go on for a while, and nobody is let in.
    #[serde(default)]
    pub stopping: bool,
    /// The number of the Snapshot that the document shows; it grows with every change.
    pub generation: u64,
    /// The clusters, at present always one.
    pub clusters: Vec<Cluster>,
    /// Client connections now, over all services and in any state.
    pub clients: u64,
    /// Client connections turned away because there were too many.
    pub clients_turned_away_total: u64,
    /// Client connections without a first packet that were closed to make room for others.
    #[serde(default)]
    pub clients_silent_closed_total: u64,
    /// Cancel requests taken.
    pub cancels_total: u64,
    /// Cancel requests that were dropped because too many were under way.
    #[serde(default)]
    pub cancels_dropped_total: u64,
    /// Client connections whose first packet was no PostgreSQL.
    pub garbage_total: u64,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// The operator's name for it.
    pub name: String,
    /// Patroni's scope, where it says so.
    pub scope: Option<String>,
    /// Its database system identifier, where known.
    #[serde(default)]
    pub system_identifier: Option<String>,
    /// Where the member list comes from: `cluster`, `stored`, `urls` or `configuration`.
    #[serde(default)]
    pub members_from: String,
    /// The age of the stored member list in seconds, while it is used.
    #[serde(default)]
    pub members_age_seconds: Option<u64>,
    /// The URLs whose Patroni belongs to another cluster.
    #[serde(default)]
    pub other_clusters: Vec<OtherCluster>,
    /// It is in maintenance mode.
    pub paused: bool,
    /// It is in maintenance mode, and some service has no primary: no failover is going to happen.
    #[serde(default)]
    pub no_failover: bool,
    /// Whether etcd is watched for switchovers: `watched` or `lost`; null where it is not configured.
    #[serde(default)]
    pub etcd: Option<String>,
    /// Why etcd is not watched, if it is lost.
    #[serde(default)]
    pub etcd_trouble: Option<String>,
    /// The last read of etcd found what the watch has not told; null where it is not configured.
    #[serde(default)]
    pub etcd_behind: Option<bool>,
    /// Keys that were written since the start, as the watch told.
    #[serde(default)]
    pub etcd_events_total: Option<u64>,
    /// When the keys were last read beside the watch.
    #[serde(default)]
    pub etcd_read_at: Option<Stamp>,
    /// Why no member list can be read, while none is known.
    #[serde(default)]
    pub members_trouble: Option<String>,
    /// Its members, by name.
    pub members: Vec<Member>,
    /// Its services, by name.
    pub services: Vec<Service>,
    /// What happened, oldest first.
    pub events: Vec<Event>,
}

/// A URL whose Patroni belongs to another cluster. Its member list is ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtherCluster {
    /// The base URL.
    pub url: String,
    /// The scope that is reported there.
    pub scope: Option<String>,
    /// The system identifier that is reported there.
    pub system_identifier: Option<String>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Patroni's name for it.
    pub name: String,
    /// The host of its PostgreSQL, as Patroni or the configuration tells it.
    pub host: String,
    /// The port of its PostgreSQL.
    pub port: u16,
    /// The member of another name that is the same server.
    #[serde(default)]
    pub same_as: Option<String>,
    /// `primary`, `replica`, `standby_leader` or `unknown`.
    pub role: String,
    /// Its timeline, where known.
    pub timeline: Option<u32>,
    /// How far its replay is behind, in bytes of WAL.
    pub lag_bytes: Option<u64>,
    /// How far its replay is behind, in seconds.
    pub lag_seconds: Option<f64>,
    /// How many of the sessions that it may have are taken, in percent, in steps of 10.
    #[serde(default)]
    pub load_percent: Option<u8>,
    /// How far its clock is ahead of that of pgsteer's machine, in seconds and in steps of 0.1.
    #[serde(default)]
    pub clock_offset_seconds: Option<f64>,
    /// What is wrong with it, if something is.
    pub trouble: Option<Cause>,
    /// Patroni, or the configuration, lists it.
    #[serde(default = "yes")]
    pub listed: bool,
    /// It takes writes although another member holds the leader lock, or takes writes as well.
    #[serde(default)]
    pub rogue: bool,
    /// The poolers beside it that are watched, by port.
    #[serde(default)]
    pub poolers: Vec<Pooler>,
    /// Patroni's tags.
    pub tags: BTreeMap<String, String>,
    /// The addresses of its host, best first.
    pub addresses: Vec<String>,
    /// Why the addresses are old, if they are.
    pub address_trouble: Option<String>,
    /// Its gate to each service, by the service's name.
    pub services: BTreeMap<String, Gate>,
}

fn yes() -> bool {
    true
}

/// A pooler beside a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pooler {
    /// Its port on the member's host.
    pub port: u16,
    /// `primary` or `replica`: what is at the other end, where a query has told.
    pub leads_to: Option<String>,
    /// What keeps it from leading to its member, or from being known to.
    pub trouble: Option<Cause>,
}

/// The gate of one member to one service, and what went through it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// `open`, `probation`, `draining` or `shut`.
    pub gate: String,
    /// Why it is not open, or what is not well although it is.
    pub reason: Option<Cause>,
    /// Since when it has been in this state.
    pub since: Stamp,
    /// Sessions now.
    pub sessions: u64,
    /// Sessions that ever began.
    pub sessions_total: u64,
    /// Sessions that were ended because the gate said so.
    pub sessions_ended_total: u64,
    /// Connections and logins that failed and were tried elsewhere.
    pub failed_total: u64,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The role it wants.
    pub role: String,
    /// Clients on hold now.
    pub held: u64,
    /// Those of them that wait for a place because of a limit on sessions.
    #[serde(default)]
    pub queued: u64,
    /// The most sessions of the service; null without a limit.
    #[serde(default)]
    pub sessions_max: Option<u64>,
    /// The most sessions of the service at one member; null without a limit.
    #[serde(default)]
    pub member_sessions_max: Option<u64>,
    /// Clients that were ever on hold.
    pub held_total: u64,
    /// The time that clients spent on hold, in seconds, over all of them.
    pub held_seconds_total: f64,
    /// Clients that were told that nobody is there for them.
    pub refused_total: u64,
    /// The members whose gate is open.
    pub open: Vec<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Stamp,
    /// What, in one word that does not change.
    pub kind: String,
    /// What, in a sentence, the reason included.
    pub text: String,
    /// The member it is about.
    pub member: Option<String>,
    /// The service it is about; none where it is about a gate of the agent.
    pub service: Option<String>,
    /// Why.
    pub reason: Option<Cause>,
}

/// Why something is as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// A word that does not change, for alerts.
    pub code: String,
    /// A sentence for people.
    pub text: String,
}
