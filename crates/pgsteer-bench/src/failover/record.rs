//! What the traffic writes down: every try, and every kept session.
//!
//! Times are microseconds since 1970. The script of libpq's door writes the same as JSON.

use serde::Deserialize;

/// A new connection with one INSERT.
#[derive(Debug, Clone, Deserialize)]
pub struct Try {
    pub start_us: u64,
    /// When the login was done, if it ever was.
    pub login_us: Option<u64>,
    pub end_us: u64,
    pub outcome: Outcome,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The INSERT was acknowledged by this server.
    Done(Server),
    /// Nobody let the client log in; with the reason in a word.
    NoConnection(String),
    /// The INSERT was answered by a member that takes no writes.
    ReadOnly,
    /// The client was logged in, and the session was ended before the INSERT was answered.
    Cut(String),
    /// Any other answer to the INSERT.
    Failed(String),
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Server {
    pub ip: String,
    pub timeline: u32,
}

/// A session that is kept, with an INSERT now and then.
#[derive(Debug, Clone, Deserialize)]
pub struct Kept {
    pub opened_us: u64,
    pub server: Server,
    /// When the client saw its end, if it did.
    pub closed_us: Option<u64>,
}

/// All that happened at one door.
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
    fn the_lines_of_the_script_are_understood() {
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
