//! The CPU and memory of a process.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The CPU that all threads of a process have used, user and system together. The scheduler's
/// accounting is exact to the nanosecond; a tick of /proc/PID/stat is ten milliseconds.
pub fn cpu(pid: u32) -> Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let threads = std::fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    let nanos: u64 = threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_nanos(nanos))
}

/// The resident memory of a process, in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let file = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{file} has no VmRSS line"))? * 1024)
}

/// The use of a process over a time.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    /// The share of one core; 1.0 is one whole core.
    pub cores: f64,
    pub resident_bytes: u64,
}

/// Measures processes without load.
pub fn at_rest(pids: &[u32], time: Duration) -> Result<Vec<Rest>> {
    let look = || pids.iter().map(|pid| cpu(*pid)).collect::<Result<Vec<Duration>>>();
    let (before, began) = (look()?, Instant::now());
    std::thread::sleep(time);
    let (after, passed) = (look()?, began.elapsed());
    let used = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before));
    let took = pids.iter().zip(used).map(|(pid, used)| {
        let cores = used.as_secs_f64() / passed.as_secs_f64();
        Ok(Rest { cores, resident_bytes: resident_bytes(*pid)? })
    });
    took.collect()
}
