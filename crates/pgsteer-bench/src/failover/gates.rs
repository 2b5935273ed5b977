//! The times at which pgsteer opened its write gates, read from its log.

use serde_json::Value;

use crate::clock::to_us;

/// A write gate that opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub member: String,
    pub at_us: u64,
}

/// All openings in the log, in their order. pgsteer writes the line just before the proxy gets the
/// Snapshot, so the time is early if anything.
pub fn openings(log: &str) -> Vec<Opened> {
    log.lines().filter_map(opening).collect()
}

fn opening(line: &str) -> Option<Opened> {
    let line: Value = serde_json::from_str(line).ok()?;
    let words = line.pointer("/fields/message")?.as_str()?;
    // A reservation may follow.
    let (member, _) = words.strip_prefix("write gate of ")?.split_once(" is open")?;
    let at = humantime::parse_rfc3339(line.get("timestamp")?.as_str()?).ok()?;
    Some(Opened { member: member.to_owned(), at_us: to_us(at) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_is_found_among_other_lines() {
        let log = r#"{"timestamp":"1970-01-01T00:00:01.000002Z","level":"INFO","fields":{"message":"write gate of n2 is open"},"target":"pgsteer"}
{"timestamp":"1970-01-01T00:00:02.000002Z","level":"WARN","fields":{"message":"write gate of n1 is shut: down"}}
{"timestamp":"1970-01-01T00:00:02.000002Z","level":"INFO","fields":{"message":"read gate of n1 is open"}}
{"timestamp":"1970-01-01T00:00:03Z","level":"WARN","fields":{"message":"write gate of n3 is open, with a reservation: so"}}
no JSON"#;
        let opened = |member: &str, at_us| Opened { member: member.into(), at_us };
        assert_eq!(openings(log), [opened("n2", 1_000_002), opened("n3", 3_000_000)]);
    }
}
