//! The rates of the last second, and the points of the series.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;

use super::changes::Counters;
use super::series::{Measure, Subject};
use crate::stats::{MemberStats, ServiceStats, Stats};

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    sessions: u64,
    bytes_in: u64,
    bytes_out: u64,
    refused: u64,
}

/// What happened per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Sessions that began.
    pub sessions: f64,
    /// Bytes from clients.
    pub bytes_in: f64,
    /// Bytes to clients.
    pub bytes_out: f64,
    /// Clients that were refused; 0 for a member.
    pub refused: f64,
}

/// A service, or a service at one member.
type Key = (ServiceName, Option<MemberName>);

/// The rates of all services and members.
#[derive(Debug, Default)]
pub struct Rates {
    at: Option<Moment>,
    totals: BTreeMap<Key, Totals>,
    rates: BTreeMap<Key, Rate>,
}

impl Rates {
    /// The rate of a service at all members.
    pub fn service(&self, service: &ServiceName) -> Rate {
        self.rates.get(&(service.clone(), None)).copied().unwrap_or_default()
    }

    /// The rate of a service at one member.
    pub fn gate(&self, service: &ServiceName, member: &MemberName) -> Rate {
        let key = (service.clone(), Some(member.clone()));
        self.rates.get(&key).copied().unwrap_or_default()
    }

    /// Reads the counters.
    pub fn observe(&mut self, snapshot: &Snapshot, stats: &Stats, now: Moment) {
        let passed = self.at.map(|before| now.since(before)).filter(|passed| !passed.is_zero());
        let mut totals = BTreeMap::new();
        for (service, state) in &snapshot.services {
            let of_service = stats.service(service);
            let mut sum =
                Totals { refused: of_service.refused_total.load(Relaxed), ..Totals::default() };
            for member in state.gates.keys() {
                let of_member = Totals::of(&of_service.member(member));
                sum.sessions += of_member.sessions;
                sum.bytes_in += of_member.bytes_in;
                sum.bytes_out += of_member.bytes_out;
                totals.insert((service.clone(), Some(member.clone())), of_member);
            }
            totals.insert((service.clone(), None), sum);
        }
        let rate = |(key, now): (&Key, &Totals)| {
            let rate = Some((self.totals.get(key)?, passed?));
            rate.map(|(before, passed)| (key.clone(), now.since(before, passed)))
        };
        self.rates = totals.iter().filter_map(rate).collect();
        self.totals = totals;
        self.at = Some(now);
    }

    /// The points of one second.
    pub fn points(&self, snapshot: &Snapshot, stats: &Stats) -> Vec<(Subject, Measure, f32)> {
        let mut points = Vec::new();
        let mut of_members: BTreeMap<&MemberName, (usize, Rate)> = BTreeMap::new();
        for (name, state) in &snapshot.services {
            let (rate, of_service) = (self.service(name), stats.service(name));
            let mut sessions = 0;
            for member in state.gates.keys() {
                let here = of_service.member(member).sessions.load(Relaxed);
                sessions += here;
                let (sum, rates) = of_members.entry(member).or_default();
                *sum += here;
                rates.add(self.gate(name, member));
            }
            let mut push =
                |measure, value| points.push((Subject::Service(name.clone()), measure, value));
            push(Measure::Sessions, sessions as f32);
            push(Measure::Held, of_service.holds.clients() as f32);
            push(Measure::NewSessions, rate.sessions as f32);
            push(Measure::BytesIn, rate.bytes_in as f32);
            push(Measure::BytesOut, rate.bytes_out as f32);
            push(Measure::Refused, rate.refused as f32);
        }
        for (name, state) in snapshot.members.iter().filter(|(_, it)| it.same_as.is_none()) {
            let (sessions, rate) = of_members.get(name).copied().unwrap_or_default();
            let mut push =
                |measure, value| points.push((Subject::Member(name.clone()), measure, value));
            push(Measure::Sessions, sessions as f32);
            push(Measure::BytesIn, rate.bytes_in as f32);
            push(Measure::BytesOut, rate.bytes_out as f32);
            if let Some(lag) = state.lag {
                push(Measure::Lag, lag.as_secs_f32());
                stats.probes(name).lag.observe(lag);
            }
            if let Some(load) = state.load_percent {
                push(Measure::Load, f32::from(load));
            }
        }
        points
    }
}

impl Totals {
    fn of(stats: &MemberStats) -> Totals {
        Totals {
            sessions: stats.sessions_total.load(Relaxed),
            bytes_in: stats.bytes_in.load(Relaxed),
            bytes_out: stats.bytes_out.load(Relaxed),
            refused: 0,
        }
    }

    fn since(&self, before: &Totals, passed: Duration) -> Rate {
        let per_second =
            |now: u64, before: u64| now.saturating_sub(before) as f64 / passed.as_secs_f64();
        Rate {
            sessions: per_second(self.sessions, before.sessions),
            bytes_in: per_second(self.bytes_in, before.bytes_in),
            bytes_out: per_second(self.bytes_out, before.bytes_out),
            refused: per_second(self.refused, before.refused),
        }
    }
}

impl Rate {
    fn add(&mut self, other: Rate) {
        self.sessions += other.sessions;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// The counters of a service for the summary of a change. Reading them resets the longest hold.
pub fn counters_of(stats: &ServiceStats) -> Counters {
    Counters {
        held: stats.holds.clients_total.load(Relaxed),
        refused: stats.refused_total.load(Relaxed),
        ended: stats.ended_total(),
        longest_hold: stats.holds.take_longest(),
    }
}
