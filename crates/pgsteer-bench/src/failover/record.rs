//! The records of the traffic: every try, and every kept session.
//!
//! Times are microseconds since 1970. The script of libpq's path writes the same records as JSON.

use serde::Deserialize;

/// A new connection with one INSERT.
#[derive(Debug, Clone, Deserialize)]
pub struct Try {
    pub start_us: u64,
    /// The end of the login, if it succeeded.
    pub login_us: Option<u64>,
    pub end_us: u64,
    pub outcome: Outcome,
}

/// The outcome of a try.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// This server acknowledged the INSERT.
    Done(Server),
    /// The client could not log in; with the reason as a short label.
    NoConnection(String),
    /// A member that takes no writes answered the INSERT.
    ReadOnly,
    /// The client was logged in, and the session ended before the answer to the INSERT.
    Cut(String),
    /// Any other answer to the INSERT.
    Failed(String),
}

/// The server that answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Server {
    pub ip: String,
    pub timeline: u32,
}

/// A kept session, with an INSERT at intervals.
#[derive(Debug, Clone, Deserialize)]
pub struct Kept {
    pub opened_us: u64,
    pub server: Server,
    /// The time at which the client saw its end, if it did.
    pub closed_us: Option<u64>,
}

/// All records of one path.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub tries: Vec<Try>,
    pub kept: Vec<Kept>,
}

/// A line of the script's output.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Try(Try),
    Kept(Kept),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_script_are_parsed() {
        let tried = r#"{"try": {"start_us": 1, "login_us": 2, "end_us": 3,
            "outcome": {"done": {"ip": "127.0.7.1", "timeline": 2}}}}"#;
        let Line::Try(tried) = serde_json::from_str(tried).unwrap() else { panic!("not a try") };
        assert!(matches!(tried.outcome, Outcome::Done(server) if server.timeline == 2));
        let refused = r#"{"try": {"start_us": 1, "login_us": null, "end_us": 3,
            "outcome": {"no_connection": "refused"}}}"#;
        let Line::Try(refused) = serde_json::from_str(refused).unwrap() else { panic!() };
        assert_eq!(refused.outcome, Outcome::NoConnection("refused".into()));
        let read_only = r#"{"try": {"start_us": 1, "login_us": 2, "end_us": 3,
            "outcome": "read_only"}}"#;
        let Line::Try(read_only) = serde_json::from_str(read_only).unwrap() else { panic!() };
        assert_eq!(read_only.outcome, Outcome::ReadOnly);
    }
}
