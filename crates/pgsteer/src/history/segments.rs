//! Segments: since when each member has had its role, and each gate its state, for a day.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pgsteer_core::claim::Role;
use pgsteer_core::gate::GateState;
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;
use serde::{Deserialize, Serialize};

use super::handed::pairs;

/// How long a segment is kept after its end.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// The most segments of one member or gate. A gate that flaps loses its oldest ones.
const OF_ONE_MAX: usize = 500;
/// The most members and gates together.
const LINES_MAX: usize = 256;

/// What a line of segments is about.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Line {
    /// The role of a member.
    Role(MemberName),
    /// The gate of a member to a service.
    Gate(ServiceName, MemberName),
}

/// What was so in a segment.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum State {
    /// The member had this role.
    Role(Role),
    /// The gate was in this state, with the code of its reason, or the empty text.
    Gate(GateState, Cow<'static, str>),
    /// The member was not known.
    Absent,
}

/// A state and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The state.
    pub state: State,
    /// When it began.
    pub from: Moment,
    /// When it ended; now for the last one.
    pub until: Moment,
}

/// All segments.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Segments(#[serde(with = "pairs")] BTreeMap<Line, VecDeque<(Moment, State)>>);

impl Segments {
    /// Notes the states of a Snapshot.
    pub fn observe(&mut self, snapshot: &Snapshot, now: Moment) {
        let roles = snapshot.members.iter().filter(|(_, member)| member.same_as.is_none());
        let roles = roles.map(|(name, it)| (Line::Role(name.clone()), State::Role(it.role)));
        let gates = snapshot.services.iter().flat_map(|(service, state)| {
            state.gates.iter().map(|(member, gate)| {
                let code = gate.reason().map_or("", |reason| reason.code());
                let line = Line::Gate(service.clone(), member.clone());
                (line, State::Gate(gate.state(), code.into()))
            })
        });
        let mut present: BTreeMap<Line, State> = roles.chain(gates).collect();
        for (line, segments) in &mut self.0 {
            note(segments, present.remove(line).unwrap_or(State::Absent), now);
        }
        for (line, state) in present {
            if self.0.len() < LINES_MAX {
                self.0.insert(line, VecDeque::from([(now, state)]));
            }
        }
        self.forget(now);
    }

    /// The segments of each line from `from` to `now`, oldest first.
    pub fn since(&self, from: Moment, now: Moment) -> BTreeMap<&Line, Vec<Segment>> {
        let of_line = |segments: &VecDeque<(Moment, State)>| {
            let ends = segments.iter().skip(1).map(|(at, _)| *at).chain([now]);
            let all = segments.iter().zip(ends);
            let shown = all.filter(|(_, until)| *until > from);
            shown
                .map(|((at, state), until)| Segment { state: state.clone(), from: *at, until })
                .collect::<Vec<_>>()
        };
        let lines = self.0.iter().map(|(line, segments)| (line, of_line(segments)));
        lines.filter(|(_, segments)| segments.iter().any(|it| it.state != State::Absent)).collect()
    }

    fn forget(&mut self, now: Moment) {
        for segments in self.0.values_mut() {
            let is_old = |segments: &VecDeque<(Moment, State)>| {
                segments.get(1).is_some_and(|(until, _)| now.since(*until) > KEPT)
            };
            while is_old(segments) || segments.len() > OF_ONE_MAX {
                segments.pop_front();
            }
        }
        self.0.retain(|_, segments| {
            let last = segments.back();
            last.is_some_and(|(at, state)| *state != State::Absent || now.since(*at) <= KEPT)
        });
    }
}

fn note(segments: &mut VecDeque<(Moment, State)>, state: State, now: Moment) {
    if segments.back().is_none_or(|(_, last)| *last != state) {
        segments.push_back((now, state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sample;

    #[test]
    fn a_switchover_begins_new_segments() {
        let mut segments = Segments::default();
        let (before, after) = (sample::snapshot(), sample::calm());
        let (first, second) = (Moment::from_millis(1_000), Moment::from_millis(4_000));
        segments.observe(&before, first);
        segments.observe(&before, Moment::from_millis(2_000));
        segments.observe(&after, second);
        let now = Moment::from_millis(9_000);
        let all = segments.since(Moment::START, now);
        let line = |member: &str| {
            let (service, member) = (ServiceName::new("write"), MemberName::new(member));
            all[&Line::Gate(service.unwrap(), member.unwrap())].clone()
        };
        let opened = State::Gate(GateState::Open, "".into());
        let promoting = State::Gate(GateState::Shut, "promoting".into());
        assert_eq!(
            line("n2"),
            [
                Segment { state: promoting, from: first, until: second },
                Segment { state: opened, from: second, until: now },
            ]
        );
        assert_eq!(line("n1").len(), 1, "nothing changed");
        let recent = segments.since(Moment::from_millis(5_000), now);
        assert!(recent.values().all(|segments| segments.len() == 1), "{recent:?}");
    }

    #[test]
    fn a_gate_that_flaps_for_days_and_members_without_end_are_bounded() {
        let mut segments = Segments::default();
        let (before, after) = (sample::snapshot(), sample::calm());
        for second in 0..5_000 {
            let snapshot = if second % 2 == 0 { &before } else { &after };
            segments.observe(snapshot, Moment::from_millis(second * 1_000));
        }
        assert!(segments.0.values().all(|it| it.len() <= OF_ONE_MAX));
        let mut renamed = sample::snapshot();
        for number in 0..1_000 {
            let state = renamed.members.pop_first().unwrap().1;
            let name = MemberName::new(&format!("m{number}")).unwrap();
            renamed.members.insert(name, state);
            segments.observe(&renamed, Moment::from_millis(5_000_000 + number));
        }
        assert!(segments.0.len() <= LINES_MAX);
    }
}
