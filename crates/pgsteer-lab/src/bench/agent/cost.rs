//! What a check costs the whole machine: whoever asks, whoever answers, and whoever is asked by that.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::load::Load;
use crate::bench::usage::cpu;
use crate::lab::Lab;
use crate::processes::Part;

/// The unit of /proc/stat, which is the same on every Linux that one meets.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one check costs.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// CPU of the whole machine beyond what it takes without checks.
    pub machine: Duration,
    /// The same of all processes that take part, whatever else the machine does: who asks, who
    /// answers, and the cluster.
    pub taking_part: Duration,
    /// CPU of the process that answers.
    pub own: Duration,
}

/// A look at the accounts.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    machine: f64,
    taking_part: f64,
    own: f64,
}

/// Puts the load on, between two looks at the machine without it.
pub fn measure(lab: &Lab, load: &Load<'_>, pid: u32) -> Result<Cost> {
    let mut pids = vec![pid, std::process::id()];
    for member in lab.members() {
        let parts = [Part::Patroni, Part::Postgres, Part::PgBouncer, Part::Etcd];
        let processes = lab.processes.of(&member.name, &parts);
        pids.extend(processes.iter().map(|process| process.pid.as_raw_nonzero().get() as u32));
    }
    let look = || -> Result<Look> {
        // A server process may end meanwhile; what it has used then counts for nobody.
        let all: Duration = pids.iter().filter_map(|pid| cpu(*pid).ok()).sum();
        let (machine, own) = (busy_seconds()?, cpu(pid)?.as_secs_f64());
        Ok(Look { at: Instant::now(), machine, taking_part: all.as_secs_f64(), own })
    };
    let half = load.time / 2;
    let first = look()?;
    std::thread::sleep(half);
    let before = look()?;
    let checks = load.run()?.count() as f64;
    let after = look()?;
    std::thread::sleep(half);
    let last = look()?;
    let per_check = |account: fn(&Look) -> f64| {
        let pace = |from: &Look, to: &Look| {
            (account(to) - account(from)) / (to.at - from.at).as_secs_f64()
        };
        let quiet = f64::midpoint(pace(&first, &before), pace(&after, &last));
        let beyond = (pace(&before, &after) - quiet) * (after.at - before.at).as_secs_f64();
        Duration::from_secs_f64(beyond.max(0.0) / checks)
    };
    Ok(Cost {
        machine: per_check(|look| look.machine),
        taking_part: per_check(|look| look.taking_part),
        own: per_check(|look| look.own),
    })
}

/// CPU that the machine has used since its start.
fn busy_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    busy_ticks(&text).map(|ticks| ticks / TICKS_PER_SECOND).context("/proc/stat is strange")
}

/// User, nice, system, irq and softirq; not idle, iowait, and what was stolen by the host.
fn busy_ticks(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().map(|column| ticks.get(*column)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_and_that_of_others_is_not_counted() {
        let stat = "cpu  1 2 4 1000 1000 8 16 1000 0 0\ncpu0 1 2 4 1000 1000 8 16 1000 0 0\n";
        assert_eq!(busy_ticks(stat), Some(31.0));
    }
}
