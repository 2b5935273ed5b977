//! The past of the members and the curves, from the history.

use std::collections::BTreeMap;

use pgsteer_core::snapshot::Snapshot;
use pgsteer_core::time::Moment;

use super::look::{GateLook, role_class, role_word};
use super::timeline::{MemberPast, Span};
use crate::history::{self, Line, Measure, State, Subject};
use crate::http::past::Range;
use crate::status::stamp::Now;

/// The seconds that a curve covers.
pub const CURVE_SECONDS: usize = 600;

/// The samples of all curves, one a second, oldest first; NaN where none was recorded.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// Sessions of each service.
    pub services: BTreeMap<String, Vec<f32>>,
    /// Sessions at each member.
    pub members: BTreeMap<String, Vec<f32>>,
}

/// The curves of the services and members of `snapshot`.
pub fn curves(past: &history::Past, snapshot: &Snapshot) -> Curves {
    let sessions =
        |subject: Subject| past.series.seconds(&subject, Measure::Sessions, CURVE_SECONDS);
    let services = snapshot.services.keys();
    let members = snapshot.members.keys();
    Curves {
        services: services
            .map(|name| (name.to_string(), sessions(Subject::Service(name.clone()))))
            .collect(),
        members: members
            .map(|name| (name.to_string(), sessions(Subject::Member(name.clone()))))
            .collect(),
    }
}

/// The past of all members in `range`, until `now`.
pub fn members(past: &history::Past, range: Range, now: &Now) -> Vec<MemberPast> {
    let from = Moment::START + now.at.since_start().saturating_sub(range.length());
    let mut members: BTreeMap<String, MemberPast> = BTreeMap::new();
    for (line, segments) in past.segments.since(from, now.at) {
        let spans = segments.iter().filter_map(|segment| span(segment, now)).collect();
        let (member, service) = match line {
            Line::Role(member) => (member, None),
            Line::Gate(service, member) => (member, Some(service)),
        };
        let entry = members.entry(member.to_string()).or_insert_with(|| MemberPast {
            member: member.to_string(),
            roles: Vec::new(),
            gates: Vec::new(),
        });
        match service {
            None => entry.roles = spans,
            Some(service) => entry.gates.push((service.to_string(), spans)),
        }
    }
    members.into_values().collect()
}

fn span(segment: &history::Segment, now: &Now) -> Option<Span> {
    let (class, word) = match &segment.state {
        State::Absent => return None,
        State::Role(role) => (role_class(role.as_str()), role_word(role.as_str()).to_owned()),
        State::Gate(state, reason) => match &**reason {
            "wrong_role" => (GateLook::Idle.class(), state.as_str().to_owned()),
            "" => (GateLook::of_state(state.as_str(), false).class(), state.as_str().to_owned()),
            reason => {
                let class = GateLook::of_state(state.as_str(), true).class();
                (class, format!("{} ({reason})", state.as_str()))
            }
        },
    };
    let until = (segment.until < now.at).then(|| now.stamp(segment.until));
    Some(Span { from: now.stamp(segment.from), until, class, word })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sample;

    #[test]
    fn a_member_has_its_roles_and_its_gate_to_each_service() {
        let (mut past, now) = (sample::past(), sample::now());
        past.segments.observe(&sample::snapshot(), Moment::from_millis(3_700_000));
        let members = members(&past, Range::TenMinutes, &now);
        assert_eq!(members.len(), 3);
        let new = &members[1];
        assert_eq!(new.roles.last().unwrap().class, "replica");
        assert_eq!(new.roles.last().unwrap().until, None, "it lasts");
        let write = &new.gates.iter().find(|(service, _)| service == "write").unwrap().1;
        assert_eq!((write[0].class, write[0].word.as_str()), ("shut", "shut (promoting)"));
    }
}
