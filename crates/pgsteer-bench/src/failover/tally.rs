//! Computes figures from records: what one path's clients saw of one event.

use std::collections::BTreeMap;

use super::events::Event;
use super::gates::Opened;
use super::record::{Kept, Log, Outcome, Try};

/// The time after the opening of the new gate within which sessions to the old primary must be
/// gone.
const GRACE_US: u64 = 10_000;

/// What one path's clients saw of one event.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub tries: usize,
    /// From the new primary's first write to the first INSERT that it acknowledged.
    pub wait_us: Option<u64>,
    /// The longest wait of one successful try after that time.
    pub slowest_us: Option<u64>,
    /// Clients that could not log in, by reason.
    pub unconnected: BTreeMap<String, usize>,
    pub read_only: usize,
    /// Clients that were logged in and lost their session before the answer, by reason.
    pub cut: BTreeMap<String, usize>,
    /// Other answers to the INSERT, by SQLSTATE.
    pub failed: BTreeMap<String, usize>,
    /// INSERTs that the old primary acknowledged while the new one already took writes.
    pub two_primaries: usize,
    pub old_sessions: OldSessions,
}

/// How long sessions to the old primary continued after the new one's first write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OldSessions {
    #[default]
    None,
    Gone {
        after_us: u64,
    },
    /// At least one did not end during the observation.
    Stayed {
        at_least_us: u64,
    },
}

pub fn figures(log: &Log, event: &Event) -> Figures {
    let mut figures = Figures::default();
    for tried in log.tries.iter().filter(|tried| event.owns(tried.end_us)) {
        figures.tries += 1;
        match &tried.outcome {
            Outcome::Done(server) if server.ip == event.new_ip => figures.success(tried, event),
            Outcome::Done(_) => {
                figures.two_primaries += usize::from(tried.end_us > event.writable_us);
            }
            Outcome::NoConnection(why) => count(&mut figures.unconnected, why),
            Outcome::ReadOnly => figures.read_only += 1,
            Outcome::Cut(why) => count(&mut figures.cut, why),
            Outcome::Failed(why) => count(&mut figures.failed, why),
        }
    }
    let of_old = log.kept.iter().filter(|kept| is_of_old(kept, event));
    figures.old_sessions =
        of_old.map(|kept| outlived(kept, event)).max().unwrap_or(OldSessions::None);
    figures
}

impl Figures {
    fn success(&mut self, tried: &Try, event: &Event) {
        // A try cannot succeed before the member takes writes. The observer probes once a
        // millisecond, so its time may be the later one.
        let wait = tried.end_us.saturating_sub(event.writable_us);
        let waited = tried.end_us.saturating_sub(tried.start_us.max(event.writable_us));
        self.wait_us = Some(self.wait_us.map_or(wait, |least| least.min(wait)));
        self.slowest_us = Some(self.slowest_us.map_or(waited, |most| most.max(waited)));
    }
}

/// For pgsteer only: the number of sessions to the old primary that its clients still had ten
/// milliseconds after the gate opened. A try that logged in before the gate opened and ends later
/// than that counts as well: it can only have been at the old primary.
pub fn alive_after_gate(log: &Log, event: &Event, openings: &[Opened]) -> Option<usize> {
    let opened = opening(event, openings)?;
    let limit_us = opened.at_us + GRACE_US;
    let kept = log.kept.iter().filter(|kept| {
        is_of_old(kept, event) && kept.closed_us.is_none_or(|closed| closed > limit_us)
    });
    let tried = log.tries.iter().filter(|tried| {
        tried.login_us.is_some_and(|login| login < opened.at_us) && tried.end_us > limit_us
    });
    Some(kept.count() + tried.count())
}

/// The opening of the gate that belongs to this event.
pub fn opening<'a>(event: &Event, openings: &'a [Opened]) -> Option<&'a Opened> {
    openings.iter().find(|opened| opened.member == event.new && event.owns(opened.at_us))
}

/// Returns whether the session was opened before the event and still existed at its start.
fn is_of_old(kept: &Kept, event: &Event) -> bool {
    kept.server.ip == event.old_ip
        && kept.opened_us < event.writable_us
        && kept.closed_us.is_none_or(|closed| closed >= event.began_us)
}

fn outlived(kept: &Kept, event: &Event) -> OldSessions {
    match kept.closed_us {
        Some(closed) if closed <= event.writable_us => OldSessions::Gone { after_us: 0 },
        // A later end may come from the repair of the cluster.
        Some(closed) if closed <= event.mended_us => {
            OldSessions::Gone { after_us: closed - event.writable_us }
        }
        _ => OldSessions::Stayed { at_least_us: event.mended_us - event.writable_us },
    }
}

fn count(counts: &mut BTreeMap<String, usize>, why: &str) {
    *counts.entry(why.to_owned()).or_default() += 1;
}

/// Tries that ended before this time and were not served.
pub fn failed_before(log: &Log, us: u64) -> usize {
    let failed = |tried: &&Try| !matches!(tried.outcome, Outcome::Done(_));
    log.tries.iter().filter(|tried| tried.end_us < us).filter(failed).count()
}

#[cfg(test)]
mod tests {
    use super::super::events::Kind;
    use super::super::record::Server;
    use super::*;

    /// Lost at 100, writable at 200, repaired from 900 on; in milliseconds.
    fn event() -> Event {
        Event {
            kind: Kind::Freeze,
            old_ip: "old".into(),
            new: "n2".into(),
            new_ip: "new".into(),
            began_us: 100_000,
            writable_us: 200_000,
            mended_us: 900_000,
            until_us: 1_000_000,
        }
    }

    fn tried(start: u64, login: Option<u64>, end: u64, outcome: Outcome) -> Try {
        let login_us = login.map(|ms| ms * 1000);
        Try { start_us: start * 1000, login_us, end_us: end * 1000, outcome }
    }

    fn by(ip: &str) -> Outcome {
        Outcome::Done(server(ip))
    }

    fn server(ip: &str) -> Server {
        Server { ip: ip.into(), timeline: 1 }
    }

    fn kept(opened: u64, closed: Option<u64>) -> Kept {
        let closed_us = closed.map(|ms| ms * 1000);
        Kept { opened_us: opened * 1000, server: server("old"), closed_us }
    }

    #[test]
    fn the_wait_ends_with_the_first_success_on_the_new_primary() {
        let refused = Outcome::NoConnection("refused".into());
        let log = Log {
            tries: vec![
                tried(10, Some(15), 20, by("old")),
                tried(120, None, 121, refused),
                tried(150, Some(210), 230, by("new")),
                tried(190, Some(211), 215, by("new")),
                tried(205, Some(206), 207, Outcome::ReadOnly),
            ],
            kept: Vec::new(),
        };
        let figures = figures(&log, &event());
        assert_eq!(figures.tries, 4);
        assert_eq!(figures.wait_us, Some(15_000));
        assert_eq!(figures.slowest_us, Some(30_000));
        assert_eq!(figures.unconnected["refused"], 1);
        assert_eq!(figures.read_only, 1);
        assert_eq!(failed_before(&log, 150_000), 1);
    }

    #[test]
    fn inserts_that_the_old_primary_still_acknowledges_are_counted() {
        let log = Log { tries: vec![tried(190, Some(195), 250, by("old"))], ..Log::default() };
        assert_eq!(figures(&log, &event()).two_primaries, 1);
    }

    #[test]
    fn old_sessions_last_until_the_client_sees_their_end_or_the_repair() {
        let of = |kept: Vec<Kept>| figures(&Log { kept, ..Log::default() }, &event()).old_sessions;
        assert_eq!(of(vec![kept(5, Some(50))]), OldSessions::None);
        assert_eq!(of(vec![kept(5, Some(150))]), OldSessions::Gone { after_us: 0 });
        let longest = vec![kept(5, Some(250)), kept(5, Some(220))];
        assert_eq!(of(longest), OldSessions::Gone { after_us: 50_000 });
        let stayed = OldSessions::Stayed { at_least_us: 700_000 };
        assert_eq!(of(vec![kept(5, Some(950))]), stayed);
        assert_eq!(of(vec![kept(5, None)]), stayed);
    }

    #[test]
    fn ten_milliseconds_after_the_gate_no_session_may_be_left() {
        let openings = [Opened { member: "n2".into(), at_us: 205_000 }];
        let alive = |tries: Vec<Try>, kept: Vec<Kept>| {
            alive_after_gate(&Log { tries, kept }, &event(), &openings)
        };
        assert_eq!(alive(vec![], vec![kept(5, Some(214))]), Some(0));
        assert_eq!(alive(vec![], vec![kept(5, Some(216)), kept(5, None)]), Some(2));
        let hanging = tried(90, Some(95), 300, Outcome::Cut("closed".into()));
        assert_eq!(alive(vec![hanging], vec![]), Some(1));
        assert_eq!(alive_after_gate(&Log::default(), &event(), &[]), None);
    }
}
