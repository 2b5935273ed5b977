//! Profile `sql` beside the check that it replaces: how soon HAProxy recognises a standby, and how
//! long clients wait for a new primary.

mod door;
mod prober;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use self::door::{Door, Kind};
use self::prober::{Observation, Prober};
use crate::{bench_setup, versions};
use pgsteer_lab::Lab;
use pgsteer_lab::LabOptions;
use pgsteer_lab::Truth;

/// The longest time until a HAProxy routes to the new primary.
const LIMIT: Duration = Duration::from_secs(60);

/// The plan of one run.
#[derive(Debug)]
pub struct Plan {
    starts: usize,
    events: Vec<Event>,
}

impl Plan {
    pub fn whole() -> Self {
        let mut events = vec![Event::Crash; 5];
        events.extend([Event::Switchover; 5]);
        Self { starts: 3, events }
    }

    pub fn quick() -> Self {
        Self { starts: 1, events: vec![Event::Switchover] }
    }
}

/// How the primary is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Switchover,
    /// No Patroni runs; the primary is killed, and an operator promotes a standby at once.
    Crash,
}

impl Event {
    const fn name(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Crash => "primary killed, a standby promoted by hand",
        }
    }
}

/// A value for each of the two HAProxys.
#[derive(Debug, Clone, Copy)]
struct Pair<T> {
    rendered: T,
    other: T,
}

/// What clients saw of one event.
#[derive(Debug)]
struct Failover {
    event: Event,
    observed: Pair<Observation>,
}

/// All measured figures.
#[derive(Debug)]
struct Measured {
    versions: String,
    /// The time from HAProxy's start until it recognised every standby.
    standbys_known: Vec<Pair<Duration>>,
    failovers: Vec<Failover>,
}

/// Runs the benchmark and returns the text of its section.
pub fn run(plan: &Plan) -> Result<String> {
    let binary = bench_setup::pgsteer_binary()?;
    bench_setup::raise_file_limit();
    let lab = Lab::start(LabOptions::default())?;
    println!("the cluster is up");
    let mut standbys_known = Vec::new();
    for _ in 0..plan.starts {
        let rendered = Door::open(&lab, &binary, Kind::Rendered)?;
        let other = Door::open(&lab, &binary, Kind::Other)?;
        standbys_known
            .push(Pair { rendered: rendered.standbys_known, other: other.standbys_known });
    }
    println!("standbys were recognised: {standbys_known:?}");
    let rendered = Door::open(&lab, &binary, Kind::Rendered)?;
    let other = Door::open(&lab, &binary, Kind::Other)?;
    let mut failovers = Vec::new();
    for event in &plan.events {
        let doors = Pair { rendered: &rendered, other: &other };
        failovers.push(happen(&lab, doors, *event)?);
        println!("{:?}", failovers.last());
    }
    let versions = versions::lines(&lab, &binary);
    Ok(report::section(&Measured { versions, standbys_known, failovers }))
}

/// Runs one event while a client connects to each HAProxy, and repairs the cluster.
fn happen(lab: &Lab, doors: Pair<&Door>, event: Event) -> Result<Failover> {
    lab.reset()?;
    let truth = Truth::watch(lab)?;
    let clients = Pair {
        rendered: Prober::start(doors.rendered.write)?,
        other: Prober::start(doors.other.write)?,
    };
    let both = [&clients.rendered, &clients.other];
    wait_until_served(&both, Instant::now())?;
    let old = lab.primary()?.name.clone();
    match event {
        Event::Switchover => drop(lab.switchover(None)?),
        Event::Crash => {
            let next = lab.replicas()?[0].name.clone();
            for member in lab.members() {
                lab.kill_patroni(&member.name)?;
            }
            lab.crash(&old)?;
            lab.promote_by_hand(&next)?;
        }
    }
    let writable = truth.wait_for_successor(&old, LIMIT)?.at;
    wait_until_served(&both, writable)?;
    let observed = Pair {
        rendered: clients.rendered.observed(writable)?,
        other: clients.other.observed(writable)?,
    };
    Ok(Failover { event, observed })
}

/// Waits until each client was served after this time.
fn wait_until_served(clients: &[&Prober], from: Instant) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while clients.iter().any(|client| client.served_since(from).is_none()) {
        if Instant::now() > deadline {
            bail!("a HAProxy served no writer for {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
