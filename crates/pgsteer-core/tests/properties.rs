//! The invariants of ARCHITECTURE.md over random storms of claims: late, out of order, contradictory.

// The bans on panics are for the core itself. Helpers of tests stand outside the functions that
// clippy recognises as tests.
#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;
mod oracle;
mod storm;

use std::collections::BTreeMap;
use std::time::Duration;

use oracle::{Oracle, SLOW_LIVES_MAX};
use pgsteer_core::claim::Role;
use pgsteer_core::engine::LEFT_MEMORY;
use pgsteer_core::gate::{Gate, GateState, OpenGate};
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::orders::Until;
use pgsteer_core::reason::Reason;
use pgsteer_core::snapshot::{EVENTS_MAX, Snapshot};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use storm::{Frame, GRACE, LAG_BYTES_MAX, Run, SILENCE, storms};

/// A failure prints its storm in full. It belongs into a scenario rather than into a file of seeds.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config(128))]

    /// Invariant 1.
    #[test]
    fn the_same_claims_make_the_same_snapshots(storm in storms()) {
        let (one, other) = (storm.run(), storm.run());
        prop_assert_eq!(one.frames.len(), other.frames.len());
        for (one, other) in one.frames.iter().zip(&other.frames) {
            prop_assert_eq!(&one.snapshot, &other.snapshot);
        }
    }

    /// Invariants 2 and 7.
    #[test]
    fn at_most_one_write_gate_is_open_and_sessions_to_all_others_end(storm in storms()) {
        for Frame { snapshot, .. } in storm.run().frames {
            for role in [Role::Primary, Role::StandbyLeader] {
                let gates = || gates_of(&snapshot, role);
                let open: Vec<&MemberName> =
                    gates().filter(|(_, _, gate)| gate.is_open()).map(|(_, name, _)| name).collect();
                prop_assert!(open.iter().all(|name| *name == open[0]), "{open:?}");
                if let Some(open) = open.first() {
                    let (mut others, own) = (gates(), *open);
                    let end = others.all(|(_, name, gate)| name == own || gate.ends_sessions());
                    prop_assert!(end, "{own} is open beside {:#?}", snapshot.services);
                }
            }
        }
    }

    /// Invariant 7: the workers' barrier uses this number.
    #[test]
    fn a_gate_that_opens_has_the_generation_of_its_snapshot(storm in storms()) {
        let run = storm.run();
        for (before, after) in pairs(&run) {
            for (service, name, gate) in all_gates(&after.snapshot) {
                let Gate::Open(OpenGate { generation, .. }) = gate else { continue };
                let opens = !gate_of(&before.snapshot, service, name).is_some_and(Gate::is_open);
                prop_assert_eq!(opens, *generation == after.snapshot.generation
                    && before.snapshot.generation != after.snapshot.generation);
            }
        }
    }

    /// The generation grows by one with every difference, and only then. The events are bounded.
    #[test]
    fn every_difference_is_published_once(storm in storms()) {
        let run = storm.run();
        for (before, after) in pairs(&run) {
            let (before, after) = (&before.snapshot, &after.snapshot);
            let grown = after.generation - before.generation;
            prop_assert_eq!(grown, u64::from(after.differs_from(before)));
            prop_assert!(after.events.len() <= EVENTS_MAX);
        }
    }

    /// Invariant 3.
    #[test]
    fn a_member_without_a_claim_is_never_open(storm in storms()) {
        let run = storm.run();
        for (oracle, frame) in judged(&run) {
            for (_, name, gate) in all_gates(&frame.snapshot) {
                prop_assert!(!gate.is_open() || oracle.was_ever_heard(name), "{name}");
            }
        }
    }

    /// Invariant 3.
    #[test]
    fn an_unknown_lag_fails_a_limit(storm in storms()) {
        let run = storm.run();
        for (oracle, frame) in judged(&run) {
            for (service, name, gate) in all_gates(&frame.snapshot) {
                if service.as_str() == "read_limited" && gate.is_open() {
                    prop_assert!(!oracle.position_is_unknown(name), "{name}");
                    let lag = frame.snapshot.members[name].lag_bytes;
                    prop_assert!(lag.is_some_and(|lag| lag <= LAG_BYTES_MAX), "{name}: {lag:?}");
                }
            }
        }
    }

    /// Invariant 4. After the last report no gate is open longer than the longest lifetime of a
    /// claim, which is that of a slow answer. After 30 s of silence all sessions are ended. Once
    /// all departed members are forgotten, no timer is left.
    #[test]
    fn silence_shuts_all_gates_and_leaves_no_timer(storm in storms()) {
        let (run, last_report) = storm.run_into_silence();
        for frame in &run.frames {
            let quiet = frame.now.since(last_report);
            let gates = || all_gates(&frame.snapshot).map(|(_, _, gate)| gate);
            prop_assert!(quiet < SLOW_LIVES_MAX || !gates().any(Gate::is_open));
            prop_assert!(quiet < SILENCE || gates().all(Gate::ends_sessions));
        }
        let in_silence = run.frames.iter().filter(|frame| frame.now > last_report);
        // For each member: its four sources expire, a late request becomes doubtful and is given
        // up, the member becomes silent, its grace for not being listed ends, and it is forgotten.
        // In addition the search slows down, a grace ends, and the content of etcd expires.
        // Each order expires once.
        prop_assert!(in_silence.count() <= storm.members * 9 + 7 + run.orders);
        let last = run.frames.last().map_or(Duration::ZERO, |frame| frame.now.since(last_report));
        // One that left and takes writes is remembered from the end of its last claim on.
        prop_assert!(last <= LEFT_MEMORY + SLOW_LIVES_MAX, "stirs after {last:?}");
    }

    /// Invariant 5: only the facts of the table open a write gate. A gate that an order holds back
    /// counts as open when the order begins and when it ends.
    #[test]
    fn only_the_facts_of_the_table_open_a_write_gate(storm in storms()) {
        let run = storm.run();
        let is_open = |gate: &Gate| gate.is_open() || matches!(gate, Gate::HeldBack { .. });
        for (before, after) in pairs(&run) {
            let oracle = oracle_at(&run, after);
            for (service, name, gate) in gates_of(&after.snapshot, Role::Primary) {
                let was_open = gate_of(&before.snapshot, service, name).is_some_and(is_open);
                if is_open(gate) && !was_open {
                    prop_assert!(oracle.may_open_for_writes(name), "{name} at {}", after.now);
                    prop_assert!(oracle.has_patroni() || oracle.all_were_asked());
                }
            }
        }
    }

    /// Invariant 5: bad news acts at once, so an open write gate never contradicts the last claims.
    /// Without Patroni's answer it stays open for the grace at most.
    #[test]
    fn an_open_write_gate_never_contradicts_the_last_claims(storm in storms()) {
        let run = storm.run();
        for (oracle, frame) in judged(&run) {
            for (_, name, gate) in gates_of(&frame.snapshot, Role::Primary) {
                if !gate.is_open() {
                    continue;
                }
                prop_assert_eq!(oracle.takes_writes(name), Some(true), "{} at {}", name, frame.now);
                prop_assert!(oracle.is_listed(name));
                if oracle.has_patroni() && oracle.patroni_says(name).is_some() {
                    prop_assert!(oracle.may_open_for_writes(name), "{name} at {}", frame.now);
                } else if let Some(answered) = oracle.patroni_answered(name) {
                    prop_assert!(frame.now.since(answered) < SLOW_LIVES_MAX + GRACE);
                }
            }
        }
    }

    /// A member that is not listed gets no new sessions, unless it is a healthy replica and was
    /// listed recently.
    #[test]
    fn a_member_that_has_left_gets_no_new_session(storm in storms()) {
        let run = storm.run();
        for (oracle, frame) in judged(&run) {
            for (service, name, gate) in all_gates(&frame.snapshot) {
                if gate.is_open() && !oracle.is_listed(name) {
                    let misses_its_key = oracle.has_patroni() && oracle.may_miss_its_key(name);
                    prop_assert!(misses_its_key, "{service} {name} at {}", frame.now);
                    prop_assert_eq!(frame.snapshot.members[name].role, Role::Replica);
                }
            }
        }
    }

    /// No gate is open to a member that has refused the newest attempt to open a session.
    #[test]
    fn a_member_that_refuses_new_sessions_has_no_open_gate(storm in storms()) {
        let run = storm.run();
        for (oracle, frame) in judged(&run) {
            for (service, name, gate) in all_gates(&frame.snapshot) {
                let accepts = oracle.accepts_new_sessions(name);
                prop_assert!(accepts || !gate.is_open(), "{service} {name} at {}", frame.now);
            }
        }
    }

    /// Bad news of a pooler acts at once on the services that use it: their clients are not sent to
    /// a pooler that is down, leads to no server, or leads to a server in another role.
    #[test]
    fn a_pooler_that_does_not_lead_to_its_member_gets_no_new_session(storm in storms()) {
        let run = storm.run();
        for (oracle, frame) in judged(&run) {
            for (service, name, gate) in all_gates(&frame.snapshot) {
                let uses_pooler = run.config.services[service].pooler_port.is_some();
                if uses_pooler && gate.is_open() && !gate.bypasses_pooler() {
                    let primary = frame.snapshot.members[name].role == Role::Primary;
                    let leads = oracle.pooler_may_lead_to(name, primary);
                    prop_assert!(leads, "{service} {name} at {}: {gate:?}", frame.now);
                }
            }
        }
    }

    /// An order only holds back new sessions, at the leader only, and not for long: the services of
    /// a storm have a hold of ten seconds, of which half may pass.
    #[test]
    fn an_order_drains_the_leader_for_a_limited_time_only(storm in storms()) {
        let run = storm.run();
        for (oracle, frame) in judged(&run) {
            for (service, name, gate) in all_gates(&frame.snapshot) {
                if gate.reason() != Some(&Reason::SwitchoverPlanned) {
                    continue;
                }
                prop_assert_eq!(gate.state(), GateState::Draining);
                let role = frame.snapshot.services[service].role;
                prop_assert!(matches!(role, Role::Primary | Role::StandbyLeader));
                prop_assert_eq!(frame.snapshot.members[name].role, role);
                let ordered = oracle.last_ordered().map(|at| frame.now.since(at));
                prop_assert!(ordered.is_some_and(|age| age < Duration::from_secs(5)), "{ordered:?}");
            }
        }
    }

    /// An order of an operator drains its member and no other one: the gate is not open, and it is
    /// held back only where there is an order.
    #[test]
    fn an_operators_order_drains_its_member(storm in storms()) {
        for Frame { now, snapshot, .. } in storm.run().frames {
            for (service, name, gate) in all_gates(&snapshot) {
                let role = snapshot.services[service].role;
                let order = snapshot.orders.draining(name, service, role);
                prop_assert!(order.is_none() || !gate.is_open(), "{service} {name} at {now}");
                prop_assert!(order.is_some() || !gate.is_drained_by_operator());
                let is_over = |until: &Until| until.at <= now;
                let until = order.and_then(|order| order.until.as_ref());
                prop_assert!(!until.is_some_and(is_over), "{service} {name} at {now}");
            }
        }
    }

    /// Good news was confirmed under the order: a gate that an operator held back is open when no order
    /// drains it any more, unless something else happened in the same turn.
    #[test]
    fn a_gate_opens_when_its_order_ends(storm in storms()) {
        let run = storm.run();
        for (before, after) in pairs(&run) {
            // No report came between: only time passed, or an order was given.
            if before.reports != after.reports || before.now != after.now {
                continue;
            }
            for (service, name, gate) in all_gates(&after.snapshot) {
                let was_held = gate_of(&before.snapshot, service, name)
                    .is_some_and(Gate::is_drained_by_operator);
                let role = after.snapshot.services[service].role;
                let is_drained = after.snapshot.orders.draining(name, service, role).is_some();
                let is_open = matches!(gate, Gate::Open(_) | Gate::HeldBack { .. });
                // A fallback ends when a replica opens.
                let is_fallback = after.snapshot.members[name].role != role;
                prop_assert!(!was_held || is_drained || is_open || is_fallback, "{gate:?}");
            }
        }
    }

    /// The other side of the table: a lock without rivals on a server that takes writes opens the
    /// gate in the same turn, unless a switchover is about to begin, or an operator drains it.
    #[test]
    fn a_primary_without_rivals_is_open_at_once(storm in storms()) {
        let run = storm.run();
        for (oracle, frame) in judged(&run) {
            for name in oracle.names() {
                if oracle.must_be_open_for_writes(&name) {
                    let write = cluster::service_name("write");
                    let gate = gate_of(&frame.snapshot, &write, &name);
                    let is_held =
                        gate.is_some_and(|gate| matches!(gate, Gate::HeldBack { .. }));
                    let is_open = gate.is_some_and(Gate::is_open);
                    prop_assert!(is_open || is_held, "{name} at {}", frame.now);
                }
            }
        }
    }

    /// Invariant 5: good news must be confirmed. One source is not enough for a replica, nor for a
    /// primary without Patroni, unless it answers so twice.
    #[test]
    fn one_source_alone_opens_a_gate_only_with_a_second_answer(storm in storms()) {
        let run = storm.run();
        for (before, after) in pairs(&run) {
            let oracle = oracle_at(&run, after);
            for (service, name, gate) in all_gates(&after.snapshot) {
                let was = gate_of(&before.snapshot, service, name);
                // A gate that is held back was confirmed when that began.
                let is_open = |gate: &Gate| gate.is_open() || matches!(gate, Gate::HeldBack { .. });
                let opens = is_open(gate) && !was.is_some_and(is_open);
                let by_one_source = after.snapshot.members[name].role == Role::Replica
                    || !oracle.has_patroni();
                if opens && by_one_source {
                    let Some(Gate::Probation { since }) = was else {
                        return Err(TestCaseError::fail(format!("{service} {name}: {was:?}")));
                    };
                    prop_assert!(oracle.was_asked_with_success_after(name, *since));
                }
            }
        }
    }

    /// Invariant 6: the member reports that it is not primary, another gate is open, two members
    /// contradict each other, or the member has been silent for long. Nothing else ends a session.
    #[test]
    fn sessions_end_only_on_proof(storm in storms()) {
        let run = storm.run();
        for (before, after) in pairs(&run) {
            let oracle = oracle_at(&run, after);
            for (service, name, gate) in all_gates(&after.snapshot) {
                let ended = gate_of(&before.snapshot, service, name).is_some_and(Gate::ends_sessions);
                if ended || !gate.ends_sessions() {
                    continue;
                }
                let role = after.snapshot.services[service].role;
                // A member may be the primary while its gate is shut because of the pooler alone.
                let another_is_open = gates_of(&after.snapshot, role)
                    .map(|(_, _, gate)| gate)
                    .chain(after.snapshot.members.values().filter_map(|it| it.health.roles.get(&role)))
                    .any(Gate::is_open);
                // One of two members that take writes may also have left the list.
                let split = matches!(gate.reason(), Some(Reason::SplitBrain(_) | Reason::Left(_)));
                let proof = match role {
                    Role::Primary => another_is_open
                        || oracle.denies_being_primary(name)
                        || (split && oracle.is_split()),
                    Role::StandbyLeader => another_is_open || (split && oracle.is_split()),
                    Role::Replica | Role::Unknown => false,
                };
                let silent = oracle.silent_for(name) >= SILENCE;
                prop_assert!(proof || silent, "{service} {name} at {}: {gate:?}", after.now);
            }
        }
    }
}

/// The storms are strong enough. Without this test the other properties could hold because nothing
/// happens.
#[test]
fn storms_open_and_shut_gates_of_every_role() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<(&str, GateState), usize> = BTreeMap::new();
    let (mut orders, mut drained) = (0, 0);
    for _ in 0..200 {
        let run = storms().new_tree(&mut runner).unwrap().current().run();
        for (before, after) in pairs(&run) {
            for (service, name, gate) in all_gates(&after.snapshot) {
                let was = gate_of(&before.snapshot, service, name);
                if was.is_some_and(|was| was.state() != gate.state()) {
                    drained += usize::from(gate.is_drained_by_operator());
                    orders += usize::from(gate.reason() == Some(&Reason::SwitchoverPlanned));
                    let role = after.snapshot.services[service].role;
                    *seen.entry((role.as_str(), gate.state())).or_default() += 1;
                }
            }
        }
    }
    assert!(orders >= 20, "{orders} gates were held back for a switchover");
    assert!(drained >= 20, "{drained} gates were drained by an operator");
    for (role, enough) in [("primary", 100), ("replica", 100), ("standby_leader", 10)] {
        for state in [GateState::Open, GateState::Shut] {
            assert!(seen.get(&(role, state)).is_some_and(|count| *count >= enough), "{seen:?}");
        }
    }
}

fn all_gates(snapshot: &Snapshot) -> impl Iterator<Item = (&ServiceName, &MemberName, &Gate)> {
    snapshot.services.iter().flat_map(|(service, state)| {
        state.gates.iter().map(move |(name, gate)| (service, name, gate))
    })
}

fn gates_of(
    snapshot: &Snapshot,
    role: Role,
) -> impl Iterator<Item = (&ServiceName, &MemberName, &Gate)> {
    all_gates(snapshot).filter(move |(service, ..)| snapshot.services[*service].role == role)
}

fn gate_of<'a>(
    snapshot: &'a Snapshot,
    service: &ServiceName,
    name: &MemberName,
) -> Option<&'a Gate> {
    snapshot.services.get(service)?.gates.get(name)
}

fn pairs(run: &Run) -> impl Iterator<Item = (&Frame, &Frame)> {
    run.frames.iter().zip(run.frames.iter().skip(1))
}

fn oracle_at<'a>(run: &'a Run, frame: &Frame) -> Oracle<'a> {
    Oracle { config: &run.config, reports: &run.reports[..frame.reports], now: frame.now }
}

/// Every frame, with the oracle at its time.
fn judged(run: &Run) -> impl Iterator<Item = (Oracle<'_>, &Frame)> {
    run.frames.iter().map(|frame| (oracle_at(run, frame), frame))
}
