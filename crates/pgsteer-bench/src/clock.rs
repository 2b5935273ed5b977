//! One clock for all processes: microseconds since 1970, which the log of another process, a script
//! and the observer use as well.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in microseconds since 1970.
pub fn now_us() -> u64 {
    to_us(SystemTime::now())
}

pub fn to_us(time: SystemTime) -> u64 {
    let passed = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    passed.as_micros().try_into().unwrap_or(u64::MAX)
}

/// The day and minute, for a report.
pub fn today() -> String {
    let text = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{day}, {} UTC", time.get(..5).unwrap_or(time))
}
