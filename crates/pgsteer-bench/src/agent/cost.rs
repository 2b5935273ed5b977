//! What a check costs all who take part: whoever asks, whoever answers, and whoever is asked by that.
//!
//! By the scheduler's own account, to the nanosecond. The columns of /proc/stat are counted by ticks, and
//! work that comes in bursts of 100 microseconds falls between them.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::load::Load;
use crate::usage::cpu;
use pgsteer_lab::Lab;
use pgsteer_lab::Part;

/// What one check costs.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// CPU of all processes that take part, beyond what they take without checks: who asks, who
    /// answers, and the cluster.
    pub taking_part: Duration,
    /// CPU of the process that answers.
    pub own: Duration,
}

/// A look at the accounts.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    taking_part: f64,
    own: f64,
}

/// Puts the load on, between two looks at them without it. Whoever asks keeps the time of the checks
/// in these as well, because to be woken a thousand times a second costs more than the checks do.
pub fn measure(lab: &Lab, load: &Load<'_>, pid: u32) -> Result<Cost> {
    let mut pids = vec![pid, std::process::id()];
    for member in lab.members() {
        let parts = [Part::Patroni, Part::Postgres, Part::PgBouncer, Part::Etcd];
        pids.extend(lab.pids(&member.name, &parts));
    }
    let look = || -> Result<Look> {
        // A server process may end meanwhile; what it has used then counts for nobody.
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
