//! The cost of a check for all processes that take part: the client, the agent, and the cluster
//! that the agent asks.
//!
//! The figures come from the scheduler's own accounting, exact to the nanosecond. /proc/stat counts
//! ticks, and work in bursts of 100 microseconds falls between them.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::load::Load;
use crate::usage::cpu;
use pgsteer_lab::Lab;
use pgsteer_lab::Part;

/// The cost of one check.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// CPU of the client, the agent and the cluster, beyond their use without checks.
    pub taking_part: Duration,
    /// CPU of the process that answers.
    pub own: Duration,
}

/// The accounts at one time.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    taking_part: f64,
    own: f64,
}

/// Applies the load between two readings without it. The client keeps its timer running in these as
/// well, because a thousand wake-ups a second cost more than the checks do.
pub fn measure(lab: &Lab, load: &Load<'_>, pid: u32) -> Result<Cost> {
    let mut pids = vec![pid, std::process::id()];
    for member in lab.members() {
        let parts = [Part::Patroni, Part::Postgres, Part::PgBouncer, Part::Etcd];
        pids.extend(lab.pids(&member.name, &parts));
    }
    let look = || -> Result<Look> {
        // A server process may end meanwhile; its use is then not counted.
        let all: Duration = pids.iter().filter_map(|pid| cpu(*pid).ok()).sum();
        let own = cpu(pid)?.as_secs_f64();
        Ok(Look { at: Instant::now(), taking_part: all.as_secs_f64(), own })
    };
    let half = load.time / 2;
    let first = look()?;
    load.keep_time(half);
    let before = look()?;
    let checks = load.run()?.count() as f64;
    let after = look()?;
    load.keep_time(half);
    let last = look()?;
    let per_check = |account: fn(&Look) -> f64| {
        let pace = |from: &Look, to: &Look| {
            (account(to) - account(from)) / (to.at - from.at).as_secs_f64()
        };
        let quiet = f64::midpoint(pace(&first, &before), pace(&after, &last));
        let beyond = (pace(&before, &after) - quiet) * (after.at - before.at).as_secs_f64();
        Duration::from_secs_f64(beyond.max(0.0) / checks)
    };
    Ok(Cost { taking_part: per_check(|look| look.taking_part), own: per_check(|look| look.own) })
}
