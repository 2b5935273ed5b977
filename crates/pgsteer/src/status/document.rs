//! The status document: the shape of `/api/v1/status`, described in docs/status.md.
//!
//! Later versions only add fields, so a reader has to ignore unknown ones. `pgsteer status` reads the
//! document with these types.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stamp::Stamp;

/// The state of one pgsteer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Document {
    /// The version of pgsteer.
    pub version: String,
    /// The time of the document.
    pub now: Stamp,
    /// The time since the start of pgsteer, in whole seconds.
    pub uptime_seconds: u64,
    /// pgsteer is shutting down: sessions go on for a while, and no new ones begin.
    #[serde(default)]
    pub stopping: bool,
    /// The last upgrade that failed in this process; null if none has.
    #[serde(default)]
    pub failed_upgrade: Option<FailedUpgrade>,
    /// The generation of the Snapshot; it grows with every change.
    pub generation: u64,
    /// The clusters; at present there is always one.
    pub clusters: Vec<Cluster>,
    /// Client connections now, over all services and in any state.
    pub clients: u64,
    /// Client connections refused because a limit of connections was reached.
    pub clients_turned_away_total: u64,
    /// Client connections without a first packet that were closed for new ones.
    #[serde(default)]
    pub clients_silent_closed_total: u64,
    /// Cancel requests received.
    pub cancels_total: u64,
    /// Cancel requests that were dropped because too many were under way.
    #[serde(default)]
    pub cancels_dropped_total: u64,
    /// Client connections whose first packet was not of the PostgreSQL protocol.
    pub garbage_total: u64,
    /// The HAProxys that are steered, by socket.
    #[serde(default)]
    pub haproxys: Vec<Haproxy>,
    /// The addresses of `[vip]` on pgsteer's machine, by name.
    #[serde(default)]
    pub vips: Vec<Vip>,
    /// The other pgsteers, as `peers` of `[http]` names them.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

/// An upgrade that failed: the process goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FailedUpgrade {
    /// When.
    pub at: Stamp,
    /// Why.
    pub why: String,
}

/// A HAProxy that is steered by its Runtime API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Haproxy {
    /// Its socket.
    pub socket: String,
    /// Why it is not steered, or refuses a command; null if all is well.
    pub trouble: Option<String>,
    /// Its version, if it has answered.
    pub haproxy_version: Option<String>,
    /// Its process id.
    pub pid: Option<u32>,
    /// How long the process runs.
    pub haproxy_uptime_seconds: Option<u64>,
    /// What its configuration lacks, one sentence each.
    pub lacks: Vec<String>,
    /// Commands sent since the start.
    pub commands_total: u64,
    /// The steered servers.
    pub servers: Vec<HaproxyServer>,
}

/// A server as HAProxy shows it, beside its order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HaproxyServer {
    /// The service.
    pub service: String,
    /// The member.
    pub member: String,
    /// The backend.
    pub backend: String,
    /// The name in the backend.
    pub server: String,
    /// The order: `serve`, `pause` (no new sessions) or `end` (no sessions).
    pub order: String,
    /// The state in the words of `show stat`.
    pub status: String,
    /// What a person has set: `ready`, `drain` or `maint`; `unresolved` without an address.
    pub admin: String,
    /// The weight; at 0 there are no new sessions.
    pub weight: u32,
    /// The result of HAProxy's last health check; null without a check.
    pub health_check: Option<String>,
    /// Sessions now.
    pub sessions: u64,
    /// Connections that wait for a place.
    pub queue: u64,
    /// The time since it became UP or DOWN.
    pub changed_seconds: Option<u64>,
    /// The time since its last session began.
    pub session_seconds: Option<u64>,
    /// How state and order have differed for more than two seconds, and what to do.
    pub difference: Option<String>,
}

/// An address that follows a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Vip {
    /// The name of its section.
    pub name: String,
    /// The address with its prefix length.
    pub address: String,
    /// The interface that gets it.
    pub interface: String,
    /// The service that it follows.
    pub service: String,
    /// `held`, `unconfirmed` or `released`.
    pub state: String,
    /// The time of the last change of the state.
    pub since: Stamp,
    /// Why the address is here or not.
    pub why: String,
    /// What keeps pgsteer from doing what the service requires.
    pub trouble: Option<String>,
    /// The hardware address of another machine that answers for the address.
    pub duplicate: Option<String>,
    /// The time of the last announcement.
    pub announced_at: Option<Stamp>,
    /// How often pgsteer has added it since the start.
    pub added_total: u64,
    /// How often pgsteer has removed it since the start.
    pub removed_total: u64,
}

/// Another pgsteer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Peer {
    /// Its URL, as configured.
    pub url: String,
    /// Why there is no answer; null if there is one.
    pub error: Option<String>,
    /// The time of the last answer, or of the last attempt without one; null before the first.
    pub asked_at: Option<Stamp>,
    /// Its version.
    pub version: Option<String>,
    /// The name of its cluster.
    pub cluster: Option<String>,
    /// The members to which it routes writers; null without a service of the primary.
    pub write: Option<String>,
    /// `well`, `note` or `bad`.
    pub state: Option<String>,
    /// Its state in one sentence.
    pub sentence: Option<String>,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    /// The configured name.
    pub name: String,
    /// Patroni's scope, if it is known.
    pub scope: Option<String>,
    /// The database system identifier, if it is known.
    #[serde(default)]
    pub system_identifier: Option<String>,
    /// The source of the member list: `cluster`, `stored`, `urls` or `configuration`.
    #[serde(default)]
    pub members_from: String,
    /// The age of the stored member list in seconds, while it is used.
    #[serde(default)]
    pub members_age_seconds: Option<u64>,
    /// The URLs whose Patroni belongs to another cluster.
    #[serde(default)]
    pub other_clusters: Vec<OtherCluster>,
    /// The cluster is in maintenance mode.
    pub paused: bool,
    /// The cluster is in maintenance mode, and a service has no primary: Patroni will not fail over.
    #[serde(default)]
    pub no_failover: bool,
    /// The watch of etcd for switchovers: `watched` or `lost`; null if it is not configured.
    #[serde(default)]
    pub etcd: Option<String>,
    /// Why etcd is not watched, if it is lost.
    #[serde(default)]
    pub etcd_trouble: Option<String>,
    /// The last read of etcd found a change that the watch had not reported; null if it is not configured.
    #[serde(default)]
    pub etcd_behind: Option<bool>,
    /// Writes of keys that the watch has reported since the start.
    #[serde(default)]
    pub etcd_events_total: Option<u64>,
    /// The time of the last read of the keys beside the watch.
    #[serde(default)]
    pub etcd_read_at: Option<Stamp>,
    /// Why no member list can be read, while none is known.
    #[serde(default)]
    pub members_trouble: Option<String>,
    /// The configured URLs of Patroni that return no member list although another one does.
    #[serde(default)]
    pub url_troubles: Vec<UrlTrouble>,
    /// The members, by name.
    pub members: Vec<Member>,
    /// The services, by name.
    pub services: Vec<Service>,
    /// Switchovers, failovers and outages, oldest first.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// The orders of operators, by member and service.
    #[serde(default)]
    pub orders: Vec<Order>,
}

/// An order of an operator: a member gets no new sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Order {
    /// The member.
    pub member: String,
    /// The service; null for all services and the health checks.
    pub service: Option<String>,
    /// The operator.
    pub by: String,
    /// The time at which it was given.
    pub since: String,
    /// The time at which it expires; null if it lasts until it is withdrawn.
    pub until: Option<String>,
    /// The time until then, in whole seconds.
    pub seconds_left: Option<u64>,
    /// The operator's reason.
    pub why: Option<String>,
    /// It also drains the member if it is, or becomes, the primary.
    pub forced: bool,
    /// All of this in one line.
    pub text: String,
}

/// A switchover, a failover or an outage, as clients saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// `switchover`, `failover` or `outage`; while it lasts, as far as is known.
    pub kind: String,
    /// The services.
    pub services: Vec<String>,
    /// The member that served before; null for a service of replicas.
    pub from: Option<String>,
    /// The member that serves now; null while none does.
    pub to: Option<String>,
    /// When the last open gate was shut.
    pub at: Stamp,
    /// When a gate was open again; null while none is.
    pub until: Option<Stamp>,
    /// How long no member was open, in seconds.
    pub unserved_seconds: f64,
    /// Clients that were held.
    pub held: u64,
    /// The longest hold, in seconds.
    pub longest_hold_seconds: f64,
    /// Sessions that a gate ended.
    pub sessions_ended: u64,
    /// Clients that were refused.
    pub refused: u64,
    /// Why the gate was shut.
    pub why: Option<String>,
    /// All of this in one line.
    pub text: String,
}

impl Change {
    /// Returns true if the event is a step of this change: a gate or a role that changed meanwhile.
    pub fn contains(&self, event: &Event) -> bool {
        let is_step = matches!(event.kind.as_str(), "gate" | "role");
        let is_before = self.at.since(event.at) > STEPS_AROUND;
        let is_after = self.until.is_some_and(|until| event.at.since(until) > STEPS_AROUND);
        is_step && !is_before && !is_after
    }
}

/// The steps of a change are the events from this time before it until this time after it.
const STEPS_AROUND: Duration = Duration::from_secs(3);

/// A configured URL that returns no member list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UrlTrouble {
    /// The base URL.
    pub url: String,
    /// Why there is no list.
    pub text: String,
}

/// A URL whose Patroni belongs to another cluster. Its member list is ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OtherCluster {
    /// The base URL.
    pub url: String,
    /// The scope that is reported there.
    pub scope: Option<String>,
    /// The system identifier that is reported there.
    pub system_identifier: Option<String>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// Patroni's name of the member.
    pub name: String,
    /// The host of its PostgreSQL, from Patroni or the configuration.
    pub host: String,
    /// The port of its PostgreSQL.
    pub port: u16,
    /// The member of another name that is the same server.
    #[serde(default)]
    pub same_as: Option<String>,
    /// `primary`, `replica`, `standby_leader` or `unknown`.
    pub role: String,
    /// Its timeline, if it is known.
    pub timeline: Option<u32>,
    /// How far its replay is behind, in bytes of WAL.
    pub lag_bytes: Option<u64>,
    /// How far its replay is behind, in seconds.
    pub lag_seconds: Option<f64>,
    /// The used part of its session limit in percent, in steps of 10.
    #[serde(default)]
    pub load_percent: Option<u8>,
    /// How far its clock is ahead of that of pgsteer's machine, in seconds and in steps of 0.1.
    #[serde(default)]
    pub clock_offset_seconds: Option<f64>,
    /// Its trouble, if there is one.
    pub trouble: Option<Cause>,
    /// What to do about the trouble.
    #[serde(default)]
    pub advice: Option<String>,
    /// Patroni or the configuration lists the member.
    #[serde(default = "yes")]
    pub listed: bool,
    /// The member accepts writes although another member holds the leader lock or accepts writes too.
    #[serde(default)]
    pub rogue: bool,
    /// The watched poolers beside it, by port.
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pooler {
    /// Its port on the member's host.
    pub port: u16,
    /// `primary` or `replica`: the role of its server, if a query has returned it.
    pub leads_to: Option<String>,
    /// Why the pooler does not lead to its member, or why that is unknown.
    pub trouble: Option<Cause>,
    /// What to do about it.
    #[serde(default)]
    pub advice: Option<String>,
}

/// The gate of one member to one service, with its counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gate {
    /// `open`, `probation`, `draining` or `shut`.
    pub gate: String,
    /// Why the gate is not open, or the note on an open gate.
    pub reason: Option<Cause>,
    /// What to do about the reason.
    #[serde(default)]
    pub advice: Option<String>,
    /// The time of the last change of the state.
    pub since: Stamp,
    /// Sessions now.
    pub sessions: u64,
    /// Sessions that have begun since the start.
    pub sessions_total: u64,
    /// Sessions that the gate has ended.
    pub sessions_ended_total: u64,
    /// Connections and logins that have failed and were tried at another member.
    pub failed_total: u64,
    /// The bytes of its sessions.
    #[serde(flatten, default)]
    pub traffic: Traffic,
}

/// Bytes and new sessions. The rates are those of the last second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Traffic {
    /// Bytes from clients to members since the start, logins excluded.
    pub bytes_in_total: u64,
    /// Bytes from members to clients since the start, logins excluded.
    pub bytes_out_total: u64,
    /// Bytes from clients per second.
    pub bytes_in_per_second: f64,
    /// Bytes to clients per second.
    pub bytes_out_per_second: f64,
    /// Sessions that begin per second.
    pub new_sessions_per_second: f64,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The role that it requires.
    pub role: String,
    /// Clients on hold now.
    pub held: u64,
    /// How long the oldest client on hold waits, in seconds; null without one.
    #[serde(default)]
    pub oldest_hold_seconds: Option<f64>,
    /// Clients on hold that wait because of a limit on sessions.
    #[serde(default)]
    pub queued: u64,
    /// Sessions now.
    #[serde(default)]
    pub sessions: u64,
    /// Sessions that have begun since the start.
    #[serde(default)]
    pub sessions_total: u64,
    /// The maximum number of sessions of the service; null without a limit.
    #[serde(default)]
    pub sessions_max: Option<u64>,
    /// The maximum number of sessions of the service at one member; null without a limit.
    #[serde(default)]
    pub member_sessions_max: Option<u64>,
    /// Clients that have been on hold since the start.
    pub held_total: u64,
    /// The time on hold of all clients together, in seconds.
    pub held_seconds_total: f64,
    /// Clients that were refused because no member was available.
    pub refused_total: u64,
    /// Clients that are refused per second.
    #[serde(default)]
    pub refused_per_second: f64,
    /// The bytes of its sessions.
    #[serde(flatten, default)]
    pub traffic: Traffic,
    /// The members whose gate is open.
    pub open: Vec<String>,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The time.
    pub at: Stamp,
    /// The code of the kind, which does not change.
    pub kind: String,
    /// A sentence, the reason included.
    pub text: String,
    /// The member.
    pub member: Option<String>,
    /// The service; none for a gate of the agent.
    pub service: Option<String>,
    /// The reason.
    pub reason: Option<Cause>,
}

/// A reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// The code, which does not change, for alerts.
    pub code: String,
    /// A sentence for readers.
    pub text: String,
}
