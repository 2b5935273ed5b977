//! What a check costs the whole machine: whoever asks, whoever answers, and whoever is asked by that.

use std::time::Duration;

use anyhow::{Context, Result};

use super::load::Load;
use crate::bench::usage::cpu;

/// The unit of /proc/stat, which is the same on every Linux that one meets.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one check costs.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// CPU of the whole machine beyond what it takes without checks.
    pub machine: Duration,
    /// CPU of the process that answers.
    pub own: Duration,
}

/// Puts the load on, between two looks at the machine without it.
pub fn measure(load: &Load<'_>, pid: u32) -> Result<Cost> {
    let idle = |time: Duration| -> Result<f64> {
        let before = busy_seconds()?;
        std::thread::sleep(time);
        Ok((busy_seconds()? - before) / time.as_secs_f64())
    };
    let half = load.time / 2;
    let quiet_before = idle(half)?;
    let (own, busy, began) = (cpu(pid)?, busy_seconds()?, std::time::Instant::now());
    let checks = load.run()?.count() as f64;
    let (own, busy) = (cpu(pid)?.saturating_sub(own), busy_seconds()? - busy);
    let took = began.elapsed().as_secs_f64();
    let quiet = f64::midpoint(quiet_before, idle(half)?);
    let machine = (busy - quiet * took).max(0.0) / checks;
    Ok(Cost { machine: Duration::from_secs_f64(machine), own: own.div_f64(checks) })
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
