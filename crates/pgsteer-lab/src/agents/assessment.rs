//! Whether HAProxy's state of a server was correct, and after what time.

use std::time::{Duration, Instant};

use super::server_states::ServerStates;

/// The state that HAProxy must show for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The member. Each backend of the scene names its servers after the members.
    pub server: String,
    pub up: bool,
    /// The time from which this state is correct.
    pub from: Instant,
}

/// The result for one expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assessment {
    /// The state was correct from the start and stayed so.
    Always,
    /// The state became correct after this time and stayed so.
    After(Duration),
    /// The state was wrong at the end; `status` is what HAProxy showed.
    Never { status: String },
}

impl Assessment {
    /// The state was correct at the end.
    pub fn is_right(&self) -> bool {
        !matches!(self, Self::Never { .. })
    }

    /// The state was correct at the end, and from this limit on at the latest.
    pub fn is_within(&self, limit: Duration) -> bool {
        match self {
            Self::Always => true,
            Self::After(time) => *time <= limit,
            Self::Never { .. } => false,
        }
    }
}

/// Judges one server of a backend, from the start of the expectation to `end`.
pub fn assess(
    log: &[(Instant, ServerStates)],
    backend: &str,
    expected: &Expected,
    end: Instant,
) -> Assessment {
    let looks = log.iter().filter(|(at, _)| *at <= end);
    let mut right_since = None;
    let mut status = "nothing".to_owned();
    for (at, server_states) in looks {
        let state = server_states.of(backend, &expected.server);
        let is_right = state.is_some_and(|it| it.is_up() == expected.up);
        if let Some(state) = state {
            status.clone_from(&state.status);
        }
        right_since = is_right.then(|| right_since.unwrap_or(*at));
    }
    match right_since {
        None => Assessment::Never { status },
        // The state was correct before it had to be, and has not changed since.
        Some(since) if since <= expected.from => Assessment::Always,
        Some(since) => Assessment::After(since.saturating_duration_since(expected.from)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::server_states::ServerState;
    use super::*;

    #[test]
    fn the_last_change_to_the_right_state_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let log = [(0, "UP"), (100, "DOWN"), (200, "UP"), (300, "MAINT")].map(|(ms, status)| {
            let status = status.to_owned();
            let (agent_status, last_agent) = (String::new(), String::new());
            let of = ServerState { status, agent_status, last_agent, weight: 1 };
            (at(ms), ServerStates::of_one("write", "n1", of))
        });
        let assessed = |up, from, end| {
            let server = "n1".to_owned();
            assess(&log, "write", &Expected { server, up, from: at(from) }, at(end))
        };
        assert_eq!(assessed(false, 50, 400), Assessment::After(Duration::from_millis(250)));
        assert_eq!(assessed(false, 350, 400), Assessment::Always);
        assert_eq!(assessed(true, 150, 250), Assessment::After(Duration::from_millis(50)));
        assert_eq!(assessed(true, 50, 250), Assessment::After(Duration::from_millis(150)));
        assert_eq!(assessed(true, 0, 400), Assessment::Never { status: "MAINT".to_owned() });
    }
}
