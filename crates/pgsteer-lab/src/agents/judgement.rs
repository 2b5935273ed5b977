//! Whether HAProxy's belief was right, and after how long.

use std::time::{Duration, Instant};

use super::belief::Beliefs;
use super::fault::Expected;

/// What became of one expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It was right at once and stayed so.
    Always,
    /// It became right after so long, and stayed so.
    After(Duration),
    /// It was wrong at the end; the status that HAProxy showed.
    Never { status: String },
}

impl Judgement {
    /// Right in the end.
    pub fn is_right(&self) -> bool {
        !matches!(self, Self::Never { .. })
    }

    /// Right in the end, and not later than this.
    pub fn is_within(&self, limit: Duration) -> bool {
        match self {
            Self::Always => true,
            Self::After(time) => *time <= limit,
            Self::Never { .. } => false,
        }
    }
}

/// Judges one server of a backend, from the moment from which the expectation holds to `end`.
pub fn judge(
    log: &[(Instant, Beliefs)],
    backend: &str,
    expected: &Expected,
    end: Instant,
) -> Judgement {
    let looks = log.iter().filter(|(at, _)| *at <= end);
    let mut right_since = None;
    let mut status = "nothing".to_owned();
    for (at, beliefs) in looks {
        let believed = beliefs.of(backend, &expected.server);
        let is_right = believed.is_some_and(|it| it.is_up() == expected.up);
        if let Some(believed) = believed {
            status.clone_from(&believed.status);
        }
        right_since = is_right.then(|| right_since.unwrap_or(*at));
    }
    match right_since {
        None => Judgement::Never { status },
        // What was right before it had to be has not changed since.
        Some(since) if since <= expected.from => Judgement::Always,
        Some(since) => Judgement::After(since.saturating_duration_since(expected.from)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::belief::Believed;
    use super::*;

    #[test]
    fn what_counts_is_from_when_on_it_stayed_right() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let log = [(0, "UP"), (100, "DOWN"), (200, "UP"), (300, "MAINT")].map(|(ms, status)| {
            let status = status.to_owned();
            let of = Believed { status, agent_status: String::new(), last_agent: String::new() };
            (at(ms), Beliefs::of_one("write", "n1", of))
        });
        let judged = |up, from, end| {
            let server = "n1".to_owned();
            judge(&log, "write", &Expected { server, up, from: at(from) }, at(end))
        };
        assert_eq!(judged(false, 50, 400), Judgement::After(Duration::from_millis(250)));
        assert_eq!(judged(false, 350, 400), Judgement::Always);
        assert_eq!(judged(true, 150, 250), Judgement::After(Duration::from_millis(50)));
        assert_eq!(judged(true, 50, 250), Judgement::After(Duration::from_millis(150)));
        assert_eq!(judged(true, 0, 400), Judgement::Never { status: "MAINT".to_owned() });
    }
}
