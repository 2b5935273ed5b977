//! Summaries: a switchover, a failover or an outage becomes one change with its effect on clients.
//!
//! A pure machine: it reads each Snapshot, the counters and the time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use pgsteer_core::claim::{Failure, Role};
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::reason::Reason;
use pgsteer_core::snapshot::{ServiceState, Snapshot};
use pgsteer_core::time::Moment;
use serde::{Deserialize, Serialize};

use super::handed::pairs;

/// The most changes that are kept.
const CHANGES_MAX: usize = 200;

/// How long the counters of a change are read on after its end: the clients on hold are served, and
/// the sessions at the old primary end.
const SETTLES: Duration = Duration::from_secs(3);

/// The counters of one service, or the sums over several.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Clients that were ever on hold.
    pub held: u64,
    /// Clients that were refused.
    pub refused: u64,
    /// Sessions that a gate ended.
    pub ended: u64,
    /// The longest hold since the last reading.
    pub longest_hold: Duration,
}

/// What kind of change it is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// The old primary was stopped in order, and another member took its place.
    Switchover,
    /// The old primary was lost, and another member took its place.
    Failover,
    /// No member was open, and the same one came back, or any replica.
    Outage,
}

impl Kind {
    /// The code, for machines.
    pub fn code(self) -> &'static str {
        match self {
            Kind::Switchover => "switchover",
            Kind::Failover => "failover",
            Kind::Outage => "outage",
        }
    }
}

/// One change.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The services that it befell: all that require the primary, or one of replicas.
    pub services: Vec<ServiceName>,
    /// What kind it is, as far as is known.
    pub kind: Kind,
    /// When the last open gate was shut.
    pub at: Moment,
    /// When a gate was open again; none while none is.
    pub until: Option<Moment>,
    /// The member that served before; none for a service of replicas.
    pub from: Option<MemberName>,
    /// The member that serves now.
    pub to: Option<MemberName>,
    /// Why its gate was shut.
    pub why: Option<String>,
    /// The counters since `at`.
    pub seen: Counters,
    requires_primary: bool,
}

impl Change {
    /// How long no member was open, until `now` if none is.
    pub fn unserved(&self, now: Moment) -> Duration {
        self.until.unwrap_or(now).since(self.at)
    }

    /// The change in one line.
    pub fn text(&self, now: Moment) -> String {
        let Change { seen, from, to, .. } = self;
        let what = match (self.kind, from, to) {
            (Kind::Outage, Some(member), _) => format!("outage of {member}"),
            (Kind::Outage, None, _) => format!("outage of {}", self.names()),
            (_, Some(from), Some(to)) => format!("{} {from} to {to}", self.kind.code()),
            (kind, ..) => kind.code().to_owned(),
        };
        let who = if self.requires_primary { "writer" } else { "reader" };
        let time = Seconds(self.unserved(now));
        let mut text = match self.until {
            Some(_) => format!("{what}: no {who} for {time}"),
            None => format!("{what}: no {who} for {time} so far"),
        };
        text.push_str(&format!(
            ", {} held, longest {}, {} ended, {} refused",
            counted(seen.held, "client"),
            Seconds(seen.longest_hold),
            counted(seen.ended, "session"),
            seen.refused
        ));
        text
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.services.iter().map(ServiceName::as_str).collect();
        names.join(", ")
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64() {
            short if short < 0.1 => write!(f, "{:.0} ms", short * 1000.0),
            long => write!(f, "{long:.1} s"),
        }
    }
}

fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Services whose gates open and shut together: all that require the same single member, or one.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
enum Group {
    /// All services with this role.
    Leader(Role),
    /// One service of replicas.
    Replicas(ServiceName),
}

impl Group {
    fn of(name: &ServiceName, state: &ServiceState) -> Group {
        match state.role {
            Role::Replica => Group::Replicas(name.clone()),
            role => Group::Leader(role),
        }
    }
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Watched {
    /// The member that was open last; none before the first.
    server: Option<MemberName>,
    /// The counters at the last look, so that those of a change include its first moments.
    #[serde(skip)]
    before: Counters,
    /// The change that is not over, or whose counters are still read.
    current: Option<Current>,
}

/// A change whose counters are still read.
#[derive(Debug, Deserialize, Serialize)]
struct Current {
    change: Change,
    /// The counters of this process when it began.
    #[serde(skip)]
    before: Counters,
    /// The counters of the process before an upgrade.
    #[serde(default)]
    carried: Counters,
}

/// Finds the changes in the Snapshots.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Changes {
    #[serde(with = "pairs")]
    groups: BTreeMap<Group, Watched>,
    done: VecDeque<Change>,
}

impl Changes {
    /// Reads a Snapshot, or the counters again. `counters` returns those of one service.
    pub fn observe(
        &mut self,
        snapshot: &Snapshot,
        now: Moment,
        counters: impl Fn(&ServiceName) -> Counters,
    ) {
        let mut groups: BTreeMap<Group, Vec<(&ServiceName, &ServiceState)>> = BTreeMap::new();
        for (name, state) in &snapshot.services {
            groups.entry(Group::of(name, state)).or_default().push((name, state));
        }
        self.groups.retain(|group, _| groups.contains_key(group));
        for (group, services) in groups {
            let sum =
                services.iter().map(|(name, _)| counters(name)).fold(Counters::default(), add);
            let watched = self.groups.entry(group).or_default();
            if let Some(change) = watched.observe(&services, sum, now) {
                self.done.push_back(change);
                if self.done.len() > CHANGES_MAX {
                    self.done.pop_front();
                }
            }
        }
    }

    /// Continues in another process, whose counters begin at zero.
    pub fn carry(&mut self) {
        for current in self.groups.values_mut().filter_map(|watched| watched.current.as_mut()) {
            current.carried = current.change.seen;
        }
    }

    /// All changes, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Change> {
        let current = self.groups.values().filter_map(|watched| watched.current.as_ref());
        self.done.iter().chain(current.map(|current| &current.change))
    }
}

impl Watched {
    /// Returns the change whose counters have settled.
    fn observe(
        &mut self,
        services: &[(&ServiceName, &ServiceState)],
        counters: Counters,
        now: Moment,
    ) -> Option<Change> {
        let requires_primary = services.iter().any(|(_, state)| state.role != Role::Replica);
        let open = services.iter().find_map(|(_, state)| state.open().next());
        let is_other = requires_primary && open.is_some() && open != self.server.as_ref();
        let was_served = self.server.is_some();
        let mut settled = None;
        if was_served && self.is_over() && (open.is_none() || is_other) {
            settled = self.current.take().map(|current| current.change);
            let names = services.iter().map(|(name, _)| (*name).clone()).collect();
            let change = Change {
                services: names,
                kind: Kind::Outage,
                at: now,
                until: None,
                from: self.server.clone().filter(|_| requires_primary),
                to: None,
                why: None,
                seen: Counters::default(),
                requires_primary,
            };
            let (before, carried) = (self.before, Counters::default());
            self.current = Some(Current { change, before, carried });
        }
        if let Some(Current { change, before, carried }) = &mut self.current {
            change.note(services, open, now);
            change.seen = add(*carried, since(*before, counters, change.seen.longest_hold));
            if change.until.is_some_and(|until| now.since(until) >= SETTLES) {
                settled = self.current.take().map(|current| current.change);
            }
        }
        self.before = counters;
        if open.is_some() {
            self.server = open.cloned();
        }
        settled
    }

    fn is_over(&self) -> bool {
        self.current.as_ref().is_none_or(|current| current.change.until.is_some())
    }
}

impl Change {
    fn note(
        &mut self,
        services: &[(&ServiceName, &ServiceState)],
        open: Option<&MemberName>,
        now: Moment,
    ) {
        if self.until.is_some() {
            return;
        }
        let gates = services.iter().map(|(_, state)| &state.gates);
        let of_old = self.from.as_ref().and_then(|from| gates.clone().find_map(|it| it.get(from)));
        let mut of_any = gates.flat_map(BTreeMap::values);
        let reason = match &self.from {
            Some(_) => of_old.and_then(|gate| gate.reason()),
            None => of_any.find_map(|gate| gate.reason()),
        };
        if let Some(reason) = reason {
            self.why.get_or_insert_with(|| reason.to_string());
            if is_ordered(reason) && self.kind == Kind::Outage {
                self.kind = Kind::Switchover;
            }
        }
        let Some(open) = open else { return };
        self.until = Some(now);
        self.to = Some(open.clone());
        self.kind = match (&self.from, self.kind) {
            (Some(from), _) if from == open => Kind::Outage,
            (None, _) => Kind::Outage,
            (Some(_), Kind::Switchover) => Kind::Switchover,
            (Some(_), _) => Kind::Failover,
        };
    }
}

/// Returns true if the reason shows that the old primary was stopped or demoted in order: Patroni
/// announced it, PostgreSQL shut down by request (57P01), or it is a replica already.
fn is_ordered(reason: &Reason) -> bool {
    match reason {
        Reason::SwitchoverPlanned | Reason::WrongRole { .. } => true,
        Reason::NotRunning(state) => state.contains("stop") || state.contains("restart"),
        Reason::Down(Failure::Unavailable { sqlstate, .. }) => {
            matches!(&**sqlstate, "57P01" | "57P03")
        }
        _ => false,
    }
}

fn add(one: Counters, other: Counters) -> Counters {
    Counters {
        held: one.held + other.held,
        refused: one.refused + other.refused,
        ended: one.ended + other.ended,
        longest_hold: one.longest_hold.max(other.longest_hold),
    }
}

fn since(before: Counters, now: Counters, longest: Duration) -> Counters {
    Counters {
        held: now.held.saturating_sub(before.held),
        refused: now.refused.saturating_sub(before.refused),
        ended: now.ended.saturating_sub(before.ended),
        longest_hold: now.longest_hold.max(longest),
    }
}

#[cfg(test)]
mod tests;
