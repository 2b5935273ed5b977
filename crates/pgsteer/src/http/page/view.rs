//! What the page shows, as plain data. [`super::fill`] makes it, the templates write it.
//!
//! All texts are cleaned and cut to a length. The templates escape them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::look::GateLook;
use super::picture::Picture;
use super::range::RangeLink;
use super::timeline::Timeline;
use crate::status::sentence::Level;

/// The page.
#[derive(Debug, Serialize)]
pub struct View {
    /// The title bar.
    pub title: Title,
    /// The state of the cluster in words.
    pub state: State,
    /// Services, members and gates.
    pub picture: Picture,
    /// The services.
    pub services: Vec<ServiceRow>,
    /// The members.
    pub members: Rows<MemberRow>,
    /// The gates that are not open for a reason that matters.
    pub gates: Rows<GateRow>,
    /// All gates.
    pub all_gates: Rows<GateRow>,
    /// Switchovers, failovers and outages, newest first.
    pub changes: Vec<ChangeRow>,
    /// Events that belong to no change, newest first.
    pub events: Vec<EventRow>,
    /// Roles and gates over time.
    pub timeline: Timeline,
    /// The links to the ranges of the timeline.
    pub ranges: Vec<RangeLink>,
    /// The range of the timeline.
    pub range: &'static str,
    /// Poolers, orders, HAProxys, addresses and other pgsteers.
    pub around: Vec<Group>,
    /// Facts about the cluster and pgsteer.
    pub facts: Vec<Fact>,
    /// The configuration in force, line by line.
    pub config: Vec<String>,
}

/// The title bar.
#[derive(Debug, Serialize)]
pub struct Title {
    /// The cluster's name.
    pub cluster: String,
    /// Patroni's scope, if it differs from the name.
    pub scope: Option<String>,
    /// The version of pgsteer.
    pub version: String,
    /// Time since the start.
    pub uptime: String,
    /// Client connections.
    pub clients: u64,
    /// The time of day, to the second.
    pub clock: String,
    /// The date.
    pub date: String,
}

/// The state in words.
#[derive(Debug, Serialize)]
pub struct State {
    /// How urgent it is.
    pub level: Level,
    /// The sentence.
    pub sentence: String,
    /// The same without figures, for screen readers: it changes only if the state changes.
    pub spoken: String,
    /// The title of the browser's tab.
    pub tab: String,
    /// Details, the most urgent first.
    pub lines: Vec<StateLine>,
    /// Details that are not shown.
    pub more: usize,
}

/// One detail of the state.
#[derive(Clone, Debug, Serialize)]
pub struct StateLine {
    /// How urgent it is.
    pub level: Level,
    /// What it is about.
    pub subject: String,
    /// The detail.
    pub text: String,
    /// What to do.
    pub advice: Option<String>,
}

/// Rows of a table, and how many more exist.
#[derive(Debug, Serialize)]
pub struct Rows<T> {
    /// The rows that are shown.
    pub rows: Vec<T>,
    /// The number of rows that are not shown.
    pub more: usize,
}

impl<T> Rows<T> {
    /// The first `max` of `rows`.
    pub fn first(mut rows: Vec<T>, max: usize) -> Rows<T> {
        let more = rows.len().saturating_sub(max);
        rows.truncate(max);
        Rows { rows, more }
    }
}

/// Traffic, as text. An unknown figure is a dash.
#[derive(Clone, Debug, Serialize)]
pub struct Traffic {
    /// New sessions a second.
    pub new: String,
    /// Bytes a second from clients.
    pub bytes_in: String,
    /// Bytes a second to clients.
    pub bytes_out: String,
}

/// One service.
#[derive(Debug, Serialize)]
pub struct ServiceRow {
    /// Its name.
    pub name: String,
    /// Its address, if known.
    pub listen: Option<String>,
    /// The role that it requires.
    pub role: String,
    /// The members whose gate is open.
    pub open: String,
    /// No member is open.
    pub is_shut: bool,
    /// Sessions now, with the limit if there is one.
    pub sessions: String,
    /// The traffic.
    pub traffic: Traffic,
    /// Clients on hold.
    pub held: u64,
    /// How long the oldest waits.
    pub longest: String,
    /// Clients refused since the start.
    pub refused: u64,
    /// The curve of the last ten minutes.
    pub curve: Option<Curve>,
}

/// A curve of ten minutes.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// The points of an SVG polyline, in a box of 120 by 20.
    pub points: String,
    /// What it shows, with its highest value.
    pub label: String,
}

/// One member.
#[derive(Debug, Serialize)]
pub struct MemberRow {
    /// Its name.
    pub name: String,
    /// Its PostgreSQL.
    pub endpoint: String,
    /// The class of its role.
    pub role_class: &'static str,
    /// Its role.
    pub role: String,
    /// Its timeline.
    pub timeline: String,
    /// Its lag.
    pub lag: String,
    /// The used part of its sessions.
    pub load: String,
    /// Sessions through pgsteer.
    pub sessions: u64,
    /// The traffic.
    pub traffic: Traffic,
    /// Its gate to each service.
    pub gates: Vec<GateMark>,
    /// How urgent its trouble is.
    pub level: Level,
    /// Its trouble.
    pub trouble: Option<String>,
    /// What to do.
    pub advice: Option<String>,
    /// The curve of its sessions.
    pub curve: Option<Curve>,
}

/// A gate in a few letters.
#[derive(Debug, Serialize)]
pub struct GateMark {
    /// The service.
    pub service: String,
    /// How it looks.
    pub look: GateLook,
    /// The state.
    pub word: String,
}

/// A gate with all figures.
#[derive(Clone, Debug, Serialize)]
pub struct GateRow {
    /// The service.
    pub service: String,
    /// The member.
    pub member: String,
    /// How it looks.
    pub look: GateLook,
    /// The state.
    pub word: String,
    /// The age of the state.
    pub since: String,
    /// Sessions now.
    pub sessions: u64,
    /// Sessions since the start.
    pub total: u64,
    /// Sessions that the gate has ended.
    pub ended: u64,
    /// Connections and logins that failed.
    pub failed: u64,
    /// Why it is not open, or its reservation.
    pub reason: String,
    /// What to do.
    pub advice: Option<String>,
}

/// A switchover, a failover or an outage.
#[derive(Debug, Serialize)]
pub struct ChangeRow {
    /// A name for the browser, the same in all frames.
    pub id: String,
    /// The time of day.
    pub clock: String,
    /// The sentence.
    pub text: String,
    /// It is still going on.
    pub is_on: bool,
    /// The events that belong to it, oldest first.
    pub steps: Vec<EventRow>,
    /// Steps that are not shown.
    pub more: usize,
}

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct EventRow {
    /// The time of day.
    pub clock: String,
    /// The code of its kind.
    pub kind: String,
    /// The sentence.
    pub text: String,
}

/// Parts of one kind around the cluster.
#[derive(Debug, Serialize)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// The rows.
    pub rows: Rows<AroundRow>,
}

/// One part around the cluster.
#[derive(Debug, Serialize)]
pub struct AroundRow {
    /// The symbol of its state.
    pub look: GateLook,
    /// The name.
    pub name: String,
    /// Its state.
    pub text: String,
    /// What to do, or what is wrong.
    pub advice: Option<String>,
}

/// A name with its value.
#[derive(Debug, Serialize)]
pub struct Fact {
    /// The name.
    pub name: &'static str,
    /// The value.
    pub value: String,
    /// How urgent it is.
    pub level: Level,
}

/// The configuration as the page shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigShown {
    /// The lines of `--check-config`. They contain no secret.
    pub lines: Vec<String>,
    /// The address of each service for clients, by the service's name.
    pub listen: BTreeMap<String, String>,
}
