//! The rows of the decision table "Who is primary", each with the check that a scenario reached it.

use pgsteer_core::claim::Role;
use pgsteer_core::gate::Gate;
use pgsteer_core::reason::Reason;
use pgsteer_core::settings::{Config, Membership, SplitBrain};
use pgsteer_core::snapshot::Snapshot;

pub struct Row {
    /// The row as text.
    pub text: &'static str,
    /// Returns whether this Snapshot shows it.
    pub seen: fn(&Config, &Snapshot) -> bool,
}

pub const ROWS: &[Row] = &[
    Row {
        text: "lock and state agree: open",
        seen: |config, snapshot| {
            has_patroni(config) && has_check(config) && any_write(snapshot, is_open_without_note)
        },
    },
    Row {
        text: "lock, but still in recovery: shut, promoting",
        seen: |_, snapshot| any_write(snapshot, |gate| is_shut(gate, "promoting")),
    },
    Row {
        text: "not in recovery, lock is another's: shut, not_leader",
        seen: |_, snapshot| {
            any_write(snapshot, |gate| {
                let reason = gate.reason();
                matches!(reason, Some(Reason::NotLeader { leader: Some(_), .. })) && !gate.is_open()
            })
        },
    },
    Row {
        text: "Patroni unreachable, tether reports primary, no rival: an open gate stays open",
        seen: |_, snapshot| {
            any_write(snapshot, |gate| gate.is_open() && has_code(gate, "patroni_lost"))
        },
    },
    Row {
        text: "Patroni unreachable, tether reports primary, no rival: a shut gate stays shut",
        seen: |_, snapshot| any_write(snapshot, |gate| is_shut(gate, "patroni_lost")),
    },
    Row {
        text: "no SQL login, running, primary and lock: open",
        seen: |config, snapshot| {
            has_patroni(config) && !has_check(config) && any_write(snapshot, is_open_without_note)
        },
    },
    Row {
        text: "SQL only, exactly one not in recovery: open",
        seen: |config, snapshot| !has_patroni(config) && any_write(snapshot, is_open_without_note),
    },
    Row {
        text: "SQL only, two not in recovery: all shut, sessions ended",
        seen: |config, snapshot| {
            let shut = |gate: &Gate| is_shut(gate, "split_brain") && gate.ends_sessions();
            !has_patroni(config) && count_write(snapshot, shut) >= 2
        },
    },
    Row {
        text: "SQL only, two not in recovery, policy highest_timeline: one open",
        seen: |config, snapshot| {
            config.cluster.split_brain == SplitBrain::HighestTimeline
                && any_write(snapshot, |gate| gate.is_open() && has_code(gate, "split_brain"))
        },
    },
    Row {
        text: "standby cluster: its leader is no write target",
        seen: |_, snapshot| {
            any_write(snapshot, |gate| {
                let leader = Role::StandbyLeader;
                matches!(gate.reason(), Some(Reason::WrongRole { is, .. }) if *is == leader)
            })
        },
    },
    Row {
        text: "standby cluster: its leader serves the service that requires that role",
        seen: |_, snapshot| any_gate(snapshot, Role::StandbyLeader, Gate::is_open),
    },
    Row {
        text: "pause: the lock decides",
        seen: |_, snapshot| snapshot.paused && any_write(snapshot, is_open_without_note),
    },
    Row {
        text: "pooler down, nowhere or astray, policy shut: shut, sessions continue",
        seen: |_, snapshot| {
            ["pooler_down", "pooler_nowhere", "pooler_astray"].iter().any(|code| {
                any_write(snapshot, |gate| is_shut(gate, code) && !gate.ends_sessions())
            })
        },
    },
    Row {
        text: "pooler paused or full: an open gate stays open for two minutes, without a bypass",
        seen: |_, snapshot| {
            let busy = |gate: &Gate| gate.is_open() && has_code(gate, "pooler_busy");
            any_write(snapshot, |gate| busy(gate) && !gate.bypasses_pooler())
                && !any_write(snapshot, Gate::bypasses_pooler)
        },
    },
    Row {
        text: "pooler paused or full for two minutes, or before the gate was open: shut",
        seen: |_, snapshot| any_write(snapshot, |gate| is_shut(gate, "pooler_busy")),
    },
    Row {
        text: "pooler of a replica leads to another server: shut",
        seen: |_, snapshot| {
            any_gate(snapshot, Role::Replica, |gate| is_shut(gate, "pooler_astray"))
        },
    },
    Row {
        text: "pooler down, nowhere or astray, policy bypass: open, past the pooler",
        seen: |_, snapshot| {
            any_write(snapshot, |gate| gate.bypasses_pooler() && has_code(gate, "pooler_bypassed"))
        },
    },
    Row {
        text: "pooler refuses the check login: open, with a reservation",
        seen: |_, snapshot| {
            any_write(snapshot, |gate| gate.is_open() && has_code(gate, "pooler_unproven"))
        },
    },
    Row {
        text: "pooler that led to the member delays logins since its server was away: open, with a reservation",
        seen: |_, snapshot| {
            any_write(snapshot, |gate| gate.is_open() && has_code(gate, "pooler_puts_off"))
        },
    },
    Row {
        text: "no answer of the pooler since the member has its role: shut until it answers",
        seen: |_, snapshot| any_write(snapshot, |gate| is_shut(gate, "pooler_unheard")),
    },
];

fn has_patroni(config: &Config) -> bool {
    matches!(config.cluster.members, Membership::Patroni(_))
}

fn has_check(config: &Config) -> bool {
    config.cluster.check.is_some()
}

fn any_write(snapshot: &Snapshot, wanted: impl Fn(&Gate) -> bool) -> bool {
    any_gate(snapshot, Role::Primary, wanted)
}

fn any_gate(snapshot: &Snapshot, role: Role, wanted: impl Fn(&Gate) -> bool) -> bool {
    let services = snapshot.services.values().filter(|service| service.role == role);
    services.flat_map(|service| service.gates.values()).any(wanted)
}

fn count_write(snapshot: &Snapshot, wanted: impl Fn(&Gate) -> bool) -> usize {
    let services = snapshot.services.values().filter(|service| service.role == Role::Primary);
    services.map(|service| service.gates.values().filter(|gate| wanted(gate)).count()).sum()
}

fn is_open_without_note(gate: &Gate) -> bool {
    gate.is_open() && gate.reason().is_none()
}

fn is_shut(gate: &Gate, code: &str) -> bool {
    matches!(gate, Gate::Shut { .. }) && has_code(gate, code)
}

fn has_code(gate: &Gate, code: &str) -> bool {
    gate.reason().is_some_and(|reason| reason.code() == code)
}
