//! The cost of a transaction in the proxy: pgsteer and HAProxy in front of the same primary, in
//! turn.

mod bulk;
mod memory;
mod pairs;
mod report;
mod shape;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use self::bulk::Bulk;
use self::memory::Memory;
use self::pairs::Pairs;
use self::shape::{MAIN, OTHERS};
use crate::bench_setup::{
    HaproxyWish, pgsteer_binary, start_haproxy, start_lab, start_pgsteer, wait_for_door,
};
use crate::versions;
use pgsteer_lab::Lab;
use pgsteer_lab::Network;

/// A run before the first pair; its figures are not used.
const WARM_UP: Duration = Duration::from_secs(3);
/// The number and time of pairs for the other shapes, which are for information.
const OTHER_PAIRS: usize = 3;
const OTHER_RUN: Duration = Duration::from_secs(5);

/// HAProxy in a usual setup: a layer 4 proxy with a thread per core.
const HAPROXY: HaproxyWish<'_> = HaproxyWish {
    name: "haproxy",
    timeouts: "    timeout client 30m\n    timeout connect 4s\n    timeout server 30m\n    \
               timeout check 5s\n",
    checks: "inter 3s fall 3 rise 2 on-marked-down shutdown-sessions",
};

/// The plan of one run.
#[derive(Debug)]
pub struct Plan {
    pairs: usize,
    run: Duration,
    others: bool,
}

impl Plan {
    pub fn whole(pairs: usize, seconds: u64) -> Self {
        Self { pairs, run: Duration::from_secs(seconds), others: true }
    }

    pub fn quick() -> Self {
        Self { pairs: 2, run: Duration::from_secs(3), others: false }
    }
}

/// A proxy under measurement.
#[derive(Debug, Clone, Copy)]
struct Contender {
    pid: u32,
    addr: SocketAddr,
}

/// Everything that runs during the measurement.
#[derive(Debug)]
struct Bench<'a> {
    lab: &'a Lab,
    pgsteer: Contender,
    haproxy: Contender,
    direct: SocketAddr,
}

/// All measured figures.
#[derive(Debug)]
struct Measured {
    versions: String,
    run: Duration,
    main: Pairs,
    others: Vec<Pairs>,
    bulk: Vec<Bulk>,
    memory: Option<Memory>,
}

/// Runs the benchmark and returns the text of its section.
pub fn run(plan: &Plan) -> Result<String> {
    let binary = pgsteer_binary()?;
    // Loopback is the shortest network path, so that the proxy is the largest part of it.
    let lab = start_lab(Network::Loopback, 1)?;
    let pgsteer = start_pgsteer(&lab, &binary, "pgsteer")?;
    let (haproxy, haproxy_addr) = start_haproxy(&lab, &HAPROXY)?;
    wait_for_door("pgsteer", pgsteer.write)?;
    wait_for_door("HAProxy", haproxy_addr)?;
    let bench = Bench {
        lab: &lab,
        pgsteer: Contender { pid: pgsteer.process.pid(), addr: pgsteer.write },
        haproxy: Contender { pid: haproxy.pid(), addr: haproxy_addr },
        direct: lab.primary()?.postgres_addr(),
    };
    let measured = bench.measure(plan, &binary)?;
    Ok(report::section(&measured))
}

impl Bench<'_> {
    fn measure(&self, plan: &Plan, binary: &std::path::Path) -> Result<Measured> {
        // First, because it needs processes that have not done anything yet.
        let memory = plan.others.then(|| memory::measure(self, binary)).transpose()?;
        shape::fill(self)?;
        for addr in [self.pgsteer.addr, self.haproxy.addr] {
            shape::run(self.lab, addr, &MAIN, WARM_UP)?;
        }
        let main = pairs::measure(self, &MAIN, plan.pairs, plan.run)?;
        let (mut others, mut bulk) = (Vec::new(), Vec::new());
        if plan.others {
            for shape in &OTHERS {
                others.push(pairs::measure(self, shape, OTHER_PAIRS, OTHER_RUN)?);
            }
            bulk = bulk::measure(self, OTHER_PAIRS)?;
        }
        let versions = versions::lines(self.lab, binary);
        Ok(Measured { versions, run: plan.run, main, others, bulk, memory })
    }
}
