use pgsteer_core::gate::{Gate, OpenGate, Sessions};
use pgsteer_core::verdict::Cause;

use super::*;
use crate::http::sample;

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

/// A Snapshot with the two members `n1` and `n2` of which `open` serves writes, or `reason` shuts `n1`.
fn snapshot(open: Option<&str>, reason: Reason) -> Snapshot {
    let mut snapshot = sample::snapshot();
    let service = ServiceName::new("write").unwrap();
    snapshot.services.retain(|name, _| *name == service);
    let gate = |name: &str| match open == Some(name) {
        true => Gate::Open(OpenGate::new(Moment::START, 1)),
        false => Gate::Shut {
            cause: Cause::Member,
            reason: reason.clone(),
            since: Moment::START,
            sessions: Sessions::End,
        },
    };
    let gates = ["n1", "n2"].map(|name| (member(name), gate(name)));
    snapshot.services.get_mut(&service).unwrap().gates = gates.into();
    snapshot
}

fn lost() -> Reason {
    Reason::Silent(Duration::from_secs(1))
}

fn counters(held: u64, longest: u64) -> Counters {
    let longest_hold = Duration::from_millis(longest);
    Counters { held, refused: 0, ended: held / 4, longest_hold }
}

/// Runs the steps and returns the lines of all changes.
fn lines(steps: &[(u64, Snapshot, Counters)]) -> Vec<String> {
    let mut changes = Changes::default();
    for (millis, snapshot, counters) in steps {
        changes.observe(snapshot, at(*millis), |_| *counters);
    }
    let now = steps.last().map_or(Moment::START, |(millis, ..)| at(*millis));
    changes.all().map(|change| change.text(now)).collect()
}

#[test]
fn a_planned_change_of_the_primary_is_a_switchover() {
    let planned = Reason::SwitchoverPlanned;
    let steps = [
        (1_000, snapshot(Some("n1"), lost()), counters(0, 0)),
        (2_000, snapshot(None, planned.clone()), counters(0, 0)),
        (3_000, snapshot(None, lost()), counters(12, 900)),
        (4_400, snapshot(Some("n2"), planned), counters(12, 2_400)),
        (4_500, snapshot(Some("n2"), lost()), counters(12, 2_600)),
    ];
    assert_eq!(
        lines(&steps),
        ["switchover n1 to n2: no writer for 2.4 s, 12 clients held, longest 2.6 s, \
          3 sessions ended, 0 refused"]
    );
}

#[test]
fn a_lost_primary_is_a_failover_and_a_primary_that_returns_an_outage() {
    let steps = [
        (1_000, snapshot(Some("n1"), lost()), counters(0, 0)),
        (2_000, snapshot(None, lost()), counters(0, 0)),
        (2_050, snapshot(Some("n2"), lost()), counters(1, 50)),
        (9_000, snapshot(None, lost()), counters(1, 0)),
        (9_500, snapshot(Some("n2"), lost()), counters(2, 480)),
    ];
    assert_eq!(
        lines(&steps),
        [
            "failover n1 to n2: no writer for 50 ms, 1 client held, longest 50 ms, \
             0 sessions ended, 0 refused",
            "outage of n2: no writer for 0.5 s, 1 client held, longest 0.5 s, \
             0 sessions ended, 0 refused",
        ]
    );
}

#[test]
fn a_change_in_progress_continues_to_count_and_a_start_without_a_primary_is_not_a_change() {
    let start = (0, snapshot(None, lost()), counters(7, 10));
    assert_eq!(lines(std::slice::from_ref(&start)), [""; 0]);
    let steps = [
        start,
        (1_000, snapshot(Some("n1"), lost()), counters(7, 0)),
        (2_000, snapshot(None, lost()), counters(7, 0)),
        (12_000, snapshot(None, lost()), counters(9, 9_900)),
    ];
    assert_eq!(
        lines(&steps),
        ["outage of n1: no writer for 10.0 s so far, 2 clients held, longest 9.9 s, \
          1 session ended, 0 refused"]
    );
}

#[test]
fn a_write_gate_that_moves_in_one_snapshot_is_a_change_without_an_outage() {
    let demoted = Reason::WrongRole { is: Role::Replica, wants: Role::Primary };
    let steps = [
        (1_000, snapshot(Some("n1"), lost()), counters(0, 0)),
        (2_000, snapshot(Some("n2"), demoted), counters(0, 0)),
    ];
    assert_eq!(
        lines(&steps),
        ["switchover n1 to n2: no writer for 0 ms, 0 clients held, longest 0 ms, \
          0 sessions ended, 0 refused"]
    );
}
