//! What a client sees of a failover: four paths side by side on one cluster, with the same traffic
//! on each, while the cluster loses its primary again and again.

mod doors;
mod events;
mod gates;
mod libpq;
mod record;
mod report;
mod step;
mod tally;
mod traffic;

use std::time::Duration;

use anyhow::{Result, ensure};

use self::doors::{Door, Doors};
use self::events::{Event, Kind, happen};
use self::gates::Opened;
use self::record::Log;
use crate::usage::{Rest, at_rest};
use crate::{bench_setup, versions};
use pgsteer_lab::Lab;
use pgsteer_lab::Network;
use pgsteer_lab::Truth;

/// The time without an event before the first one. Tries that fail in it are reported.
const UNDISTURBED: Duration = Duration::from_secs(5);

const MEMBERS: usize = 3;

/// The plan of one run.
#[derive(Debug)]
pub struct Plan {
    events: Vec<Kind>,
    rest: Duration,
    /// The time between two tries on one path; none for the shortest that the machine can bear.
    every: Option<Duration>,
}

impl Plan {
    pub fn whole(switchovers: usize, every: Option<Duration>) -> Self {
        let mut events = vec![Kind::Switchover; switchovers];
        events.extend([Kind::Crash, Kind::Freeze, Kind::Partition]);
        Self { events, rest: Duration::from_secs(30), every }
    }

    pub fn quick(switchovers: usize, every: Option<Duration>) -> Self {
        Self { events: vec![Kind::Switchover; switchovers], rest: Duration::from_secs(3), every }
    }
}

/// All measured figures.
#[derive(Debug)]
struct Measured {
    versions: String,
    every: Duration,
    rest: Duration,
    at_rest: Vec<(Door, Rest)>,
    /// Tries that failed before the first event, by path.
    failed_undisturbed: Vec<(Door, usize)>,
    events: Vec<Event>,
    logs: Vec<(Door, Log)>,
    openings: Vec<Opened>,
}

/// Runs the benchmark and returns the text of its section.
pub fn run(plan: &Plan) -> Result<String> {
    let binary = bench_setup::pgsteer_binary()?;
    let lab = bench_setup::start_lab(best_network(), MEMBERS)?;
    bench_setup::app_sql(&lab, traffic::TABLES)?;
    let mut doors = Doors::open(&lab, &binary)?;
    let every = match plan.every {
        Some(every) => every,
        None => step::affordable(lab.primary()?.postgres_addr())?,
    };
    println!("a new connection every {} ms on each path", every.as_millis());
    println!("the cluster and the doors are up, {} s at rest", plan.rest.as_secs());
    let pids = [doors.pgsteer.process.pid(), doors.template.pid(), doors.tuned.pid()];
    let at_rest = at_rest(&pids, plan.rest)?;
    let truth = Truth::watch(&lab)?;
    let traffic = doors.traffic(&lab, every)?;
    std::thread::sleep(UNDISTURBED);
    let events = all_events(&lab, &truth, &plan.events);
    let logs = traffic.stop()?;
    let events = events?;
    ensure!(
        doors.pgsteer.process.is_running(),
        "pgsteer has died:\n{}",
        doors.pgsteer.process.log()
    );
    let began_us = events.first().map_or(u64::MAX, |event| event.began_us);
    let measured = Measured {
        versions: versions::lines(&lab, &binary),
        every,
        rest: plan.rest,
        at_rest: Door::ALL.into_iter().zip(at_rest).collect(),
        failed_undisturbed: logs
            .iter()
            .map(|(door, log)| (*door, tally::failed_before(log, began_us)))
            .collect(),
        events,
        logs,
        openings: gates::openings(&doors.pgsteer.process.log()),
    };
    Ok(report::section(&measured))
}

/// A partition needs namespaces, and those need root.
fn best_network() -> Network {
    match rustix::process::geteuid().is_root() {
        true => Network::Namespaces,
        false => Network::Loopback,
    }
}

fn all_events(lab: &Lab, truth: &Truth, kinds: &[Kind]) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for kind in kinds {
        if *kind == Kind::Partition && lab.options().network != Network::Namespaces {
            println!("{kind}: skipped, because it needs root");
            continue;
        }
        events.push(happen(lab, truth, *kind)?);
    }
    Ok(events)
}
