//! Turning: updates the gates from the verdicts, and shuts gates that exclude each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, Gates};
use crate::claim::Role;
use crate::gate::{Gate, GateInput, HeldBy, OpenGate, Sessions};
use crate::gate_key::GateKey;
use crate::judge::fitness::{Case, Lag};
use crate::names::MemberName;
use crate::orders::Orders;
use crate::reason::Reason;
use crate::settings::{OnPromotion, ServiceConfig};
use crate::time::Moment;
use crate::verdict::{Cause, Verdict};

impl Engine {
    /// Returns the gates of all gate keys after this turn, under `orders`.
    pub(super) fn turn_all_gates(
        &self,
        orders: &Orders,
        generation: u64,
        now: Moment,
    ) -> BTreeMap<GateKey, Gates> {
        let none = Gates::new();
        let lags = self.lags(now);
        let turned = self.gate_configs.iter().map(|(key, service)| {
            let predecessor = || self.gates.get(&key.predecessor()?);
            let old = self.gates.get(key).or_else(predecessor).unwrap_or(&none);
            let lags = &lags;
            let turning =
                Turning { engine: self, orders, lags, key, service, old, generation, now };
            (key.clone(), turning.gates())
        });
        let mut turned = turned.collect();
        for role in [Role::Primary, Role::StandbyLeader] {
            let wants_role = |key: &GateKey| self.gate_configs[key].role == role;
            exclude_rivals(&mut turned, &self.gates, wants_role, now);
        }
        turned
    }
}

/// The gates of one key in one turn.
struct Turning<'a> {
    engine: &'a Engine,
    orders: &'a Orders,
    /// How far each member is behind.
    lags: &'a BTreeMap<MemberName, Lag>,
    key: &'a GateKey,
    service: &'a ServiceConfig,
    /// Its gates before this turn.
    old: &'a Gates,
    generation: u64,
    now: Moment,
}

impl Turning<'_> {
    /// Returns the gates of the key after this turn.
    fn gates(&self) -> Gates {
        let mut gates = Gates::new();
        for name in self.engine.roster.members().keys() {
            let old = self.old_gate(name);
            let case = self.case(name, &old);
            let verdict = self.unreachable(&case).unwrap_or_else(|| case.verdict());
            gates.insert(name.clone(), old.next(self.input(&case, &old, verdict)));
        }
        if self.service.fallback_primary {
            self.stand_in(&mut gates);
        }
        gates
    }

    /// Opens the primary for a read service while no replica is open. A drained replica counts as absent.
    fn stand_in(&self, gates: &mut Gates) {
        let is_primary = |name: &MemberName| self.engine.standings[name].role == Role::Primary;
        let replica_serves = gates.iter().any(|(name, gate)| !is_primary(name) && gate.is_open());
        let replica_comes = gates.iter().any(|(name, gate)| {
            matches!(gate, Gate::Probation { .. })
                && !is_primary(name)
                && self.drained_by(name).is_none()
        });
        let has_port = |name: &MemberName| !self.engine.roster.members()[name].is_url_only;
        let primaries = self.engine.roster.members().keys().filter(|name| is_primary(name));
        for name in primaries.filter(|name| has_port(name)) {
            let old = self.old_gate(name);
            let case = self.case(name, &old);
            let verdict = match old.is_open() {
                true if replica_serves => Verdict::drain(Reason::FallbackOver),
                // An open fallback continues until a replica is open. A new one does not start if a
                // replica is about to open.
                false if replica_serves || replica_comes => continue,
                _ => case.verdict_as_stand_in(),
            };
            gates.insert(name.clone(), old.next(self.input(&case, &old, verdict)));
        }
    }

    /// Returns the verdict for a server whose port is unknown: clients cannot be routed to it, but
    /// health checks can be answered.
    fn unreachable(&self, case: &Case<'_>) -> Option<Verdict> {
        let is_service = matches!(self.key, GateKey::Service(_));
        (case.member.is_url_only && is_service).then_some(Verdict::shut(Reason::PortUnknown))
    }

    fn old_gate(&self, name: &MemberName) -> Gate {
        self.old.get(name).cloned().unwrap_or_else(|| Gate::new(self.now))
    }

    fn case(&self, name: &MemberName, old: &Gate) -> Case<'_> {
        let member = &self.engine.roster.members()[name];
        Case {
            service: self.service,
            wants: self.service.role,
            member,
            standing: &self.engine.standings[name],
            path: self.service.pooler_port.and_then(|port| self.engine.path(name, port)),
            role_since: self.engine.role_since(name),
            lag: self.lags[name],
            has_source: self.engine.has_source,
            drained_for_lag: matches!(old, Gate::Draining { cause: Cause::Lag, .. }),
            is_bypassed: old.open_or_held_back().is_some_and(OpenGate::bypasses_pooler),
            rules: &self.engine.rules,
            now: self.now,
        }
    }

    /// Returns true if the sessions of a replica service are at a member that was promoted and no
    /// longer serves that service. Sessions that began while the primary was the fallback are
    /// excluded: their gate is younger than the role.
    fn ends_on_promotion(&self, case: &Case<'_>, old: &Gate, verdict: &Verdict) -> bool {
        self.service.role == Role::Replica
            && self.service.on_promotion == OnPromotion::End
            && case.standing.role == Role::Primary
            && !case.standing.trust.is_refused()
            && matches!(verdict, Verdict::Shut(_))
            && match old {
                Gate::Open(open) => open.since < case.role_since,
                other => other.since() <= case.role_since,
            }
    }

    /// The reason of the order that drains the member for this key.
    fn drained_by(&self, name: &MemberName) -> Option<Reason> {
        let order = self.orders.draining_gate(name, self.key, self.service.role)?;
        Some(Reason::DrainedByOperator(order.clone()))
    }

    fn held_back(&self, name: &MemberName) -> Option<(HeldBy, Reason)> {
        let by_operator = self.drained_by(name).map(|reason| (HeldBy::Operator, reason));
        let is_handing_over = || self.engine.is_handing_over(name, self.service, self.now);
        by_operator.or_else(|| {
            is_handing_over().then_some((HeldBy::Switchover, Reason::SwitchoverPlanned))
        })
    }

    fn input(&self, case: &Case<'_>, old: &Gate, verdict: Verdict) -> GateInput {
        let (engine, member) = (self.engine, case.member);
        let silent = self.now.since(engine.quiet_since(member)) >= engine.cluster.silence;
        let lost = self.service.role == Role::Primary && case.standing.is_proof_against_writes();
        let ended = self.ends_on_promotion(case, old, &verdict);
        GateInput {
            verdict,
            evidence_asked_at: member.view.evidence_asked_at(self.service.pooler_port),
            route: case.route(),
            held_back: self.held_back(&member.found.name),
            sessions: if silent || lost || ended { Sessions::End } else { Sessions::Keep },
            generation: self.generation,
            now: self.now,
        }
    }
}

/// Enforces invariant 2: if the gates of several members are open, all are shut. If one member's
/// gate is open, the sessions at all others are ended. This covers all gate keys with the same role
/// together, because a session on any port can write to the old primary.
fn exclude_rivals(
    turned: &mut BTreeMap<GateKey, Gates>,
    old: &BTreeMap<GateKey, Gates>,
    wants_role: impl Fn(&GateKey) -> bool,
    now: Moment,
) {
    let of_role = || turned.iter().filter(|(key, _)| wants_role(key));
    let gates = of_role().flat_map(|(_, gates)| gates);
    let open: BTreeSet<MemberName> =
        gates.filter(|(_, gate)| gate.is_open()).map(|(name, _)| name.clone()).collect();
    let rivalry = match open.len() {
        0 => return,
        1 => None,
        _ => Some(Reason::SplitBrain(open.iter().cloned().collect())),
    };
    for (key, gates) in turned.iter_mut().filter(|(key, _)| wants_role(key)) {
        for (name, gate) in gates.iter_mut() {
            if rivalry.is_some() || !open.contains(name) {
                let was = old.get(key).and_then(|gates| gates.get(name));
                *gate = gate.outdone(was, rivalry.as_ref(), now);
            }
        }
    }
}

/// Returns true if a change of a gate is reported to the operator. The gates of the plain roles
/// have no log lines of their own: the members' roles and the gates of the services show the same.
pub(super) fn is_news(key: &GateKey, old: Option<&Gate>, new: &Gate) -> bool {
    match key {
        GateKey::Service(_) => is_change(old, new),
        GateKey::Pooled(_) => is_change_of_path(old, new),
        GateKey::Role(_) => false,
    }
}

/// Returns true if the gate has changed. A shut gate is no change if the member always had another
/// role, or if its first answer is still to come.
fn is_change(old: Option<&Gate>, new: &Gate) -> bool {
    let code = |gate: &Gate| gate.reason().map(Reason::code);
    let expected = matches!(
        new.reason(),
        Some(
            Reason::WrongRole { .. }
                | Reason::Unheard
                | Reason::PoolerUnheard { .. }
                | Reason::Confirming
        )
    );
    match old {
        Some(old) if old.state() == new.state() => code(old) != code(new) && !expected,
        Some(_) => true,
        None => new.is_open() || !expected,
    }
}

/// Returns true if the gate of a pooled role has changed. Every member has such a gate for every
/// role. If only the reason changes, that counts only if the old or the new reason is about the
/// pooler.
fn is_change_of_path(old: Option<&Gate>, new: &Gate) -> bool {
    let is_of_pooler = |gate: &Gate| gate.reason().is_some_and(Reason::is_pooler);
    let has_turned = old.map_or(new.is_open(), |old| old.state() != new.state());
    let is_about_pooler = old.is_some_and(is_of_pooler) || is_of_pooler(new);
    has_turned || is_about_pooler && is_change(old, new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ServiceName;

    fn gates(open: &[&str], shut: &[&str]) -> Gates {
        let now = Moment::START;
        let open_gate = Gate::Open(OpenGate::new(now, 1));
        let named = |gate: Gate| move |name: &&str| (MemberName::new(name).unwrap(), gate.clone());
        open.iter().map(named(open_gate)).chain(shut.iter().map(named(Gate::new(now)))).collect()
    }

    fn excluded(turned: [(&str, Gates); 2]) -> Vec<String> {
        let key = |name: &str| GateKey::Service(ServiceName::new(name).unwrap());
        let named = |(name, gates): (&str, Gates)| (key(name), gates);
        let mut turned = turned.into_iter().map(named).collect();
        exclude_rivals(&mut turned, &BTreeMap::new(), |_| true, Moment::START);
        let told = |(key, gates): (&GateKey, &Gates)| {
            let GateKey::Service(service) = key else { unreachable!() };
            let told = |(name, gate): (&MemberName, &Gate)| {
                let end = if gate.ends_sessions() { " end" } else { "" };
                format!("{service} {name} {}{end}", gate.state())
            };
            gates.iter().map(told).collect::<Vec<_>>()
        };
        turned.iter().flat_map(told).collect()
    }

    #[test]
    fn of_two_open_gates_none_stays_whatever_the_judge_said() {
        let both = excluded([("a", gates(&["n1"], &["n2"])), ("b", gates(&["n2"], &["n1"]))]);
        assert_eq!(both, ["a n1 shut end", "a n2 shut end", "b n1 shut end", "b n2 shut end"]);
    }

    #[test]
    fn beside_one_open_gate_all_others_end_their_sessions_on_every_service() {
        let one = excluded([("a", gates(&["n1"], &["n2"])), ("b", gates(&[], &["n1", "n2"]))]);
        assert_eq!(one, ["a n1 open", "a n2 shut end", "b n1 shut", "b n2 shut end"]);
    }

    #[test]
    fn without_an_open_gate_nothing_ends() {
        let none = excluded([("a", gates(&[], &["n1"])), ("b", gates(&[], &["n2"]))]);
        assert_eq!(none, ["a n1 shut", "b n2 shut"]);
    }
}
