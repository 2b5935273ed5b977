//! Explains the gates of a service by the newest facts.

use super::Engine;
use crate::explain::{Explanation, MemberExplanation, SourceFact};
use crate::gate_key::GateKey;
use crate::judge::Member;
use crate::names::ServiceName;
use crate::time::Moment;

impl Engine {
    /// Returns why each member serves `service` or does not; none if there is no such service.
    pub fn explain(&self, service: &ServiceName, now: Moment) -> Option<Explanation> {
        let key = GateKey::Service(service.clone());
        let role = self.gate_configs.get(&key)?.role;
        let gates = self.gates.get(&key)?;
        let members = gates.iter().filter_map(|(name, gate)| {
            let member = self.roster.members().get(name)?;
            Some(MemberExplanation {
                member: name.clone(),
                gate: gate.clone(),
                gate_age: now.since(gate.since()),
                facts: self.facts_of(member, now),
            })
        });
        Some(Explanation { service: service.clone(), role, members: members.collect() })
    }

    fn facts_of(&self, member: &Member, now: Moment) -> Vec<SourceFact> {
        let listed = match member.left_at {
            None => SourceFact {
                source: "member list".to_owned(),
                age: None,
                text: format!("listed at {}", member.found.postgres),
            },
            Some(left_at) => SourceFact {
                source: "member list".to_owned(),
                age: Some(now.since(left_at)),
                text: "not listed any more".to_owned(),
            },
        };
        let standing = self.standings.get(&member.found.name);
        let concluded = standing.map(|standing| SourceFact {
            source: "conclusion".to_owned(),
            age: None,
            text: match standing.trouble() {
                Some(trouble) => format!("{}: {trouble}", standing.role),
                None => standing.role.to_string(),
            },
        });
        let lag = self.lag(member, now).bytes.map(|bytes| SourceFact {
            source: "lag".to_owned(),
            age: None,
            text: format!("{bytes} bytes behind the primary"),
        });
        let of_sources = member.view.source_facts(now);
        std::iter::once(listed).chain(of_sources).chain(lag).chain(concluded).collect()
    }
}
