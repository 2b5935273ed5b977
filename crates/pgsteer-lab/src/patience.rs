//! Waits until a condition holds, and reports why it does not.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const LOOK_EVERY: Duration = Duration::from_millis(30);
const TAIL_LINES: usize = 12;

/// Repeats `check` until it succeeds. Its last error becomes part of the returned error.
pub fn wait_for(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<(), String>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let Err(objection) = check() else {
            return Ok(());
        };
        if Instant::now() > deadline {
            bail!("waited {limit:?} for {what}: {objection}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The last lines of a log, for error messages, because the log itself is removed with the lab.
pub fn log_tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
