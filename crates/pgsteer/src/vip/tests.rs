//! The machine and the demand, without a kernel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgsteer_core::claim::{Failure, Role};
use pgsteer_core::gate::{Gate, OpenGate, Sessions};
use pgsteer_core::names::{MemberName, ServiceName};
use pgsteer_core::reason::Reason;
use pgsteer_core::settings::VipConfig;
use pgsteer_core::snapshot::{ServiceState, Snapshot};
use pgsteer_core::time::Moment;
use pgsteer_core::verdict::Cause;
use proptest::prelude::*;

use super::machine::{
    Action, CONFIRM_WITHIN, CONTESTED_FOR, Change, Machine, Presence, State, View,
};
use crate::http::sample;
use pgsteer_core::vip::{Demand, demand};

fn at(ms: u64) -> Moment {
    Moment::from_millis(ms)
}

fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

fn hold() -> Demand {
    Demand::Hold("open".to_owned())
}

fn share(rank: usize) -> Demand {
    Demand::Share { rank, why: "open".to_owned() }
}

fn stay() -> Demand {
    Demand::Stay("doubt".to_owned())
}

fn release() -> Demand {
    Demand::Release("proof".to_owned())
}

fn vip(service: &str) -> VipConfig {
    VipConfig {
        address: "10.9.9.50".parse().unwrap(),
        prefix: 24,
        interface: "eth0".to_owned(),
        service: ServiceName::new(service).unwrap(),
    }
}

fn shut(sessions: Sessions) -> Gate {
    let reason = Reason::Down(Failure::Closed(Arc::from("n1")));
    Gate::Shut { cause: Cause::Member, reason, since: Moment::START, sessions }
}

fn open() -> Gate {
    Gate::Open(OpenGate::new(Moment::START, 1))
}

/// The service `write` with these gates, on the machine of `n1`.
fn snapshot(role: Role, gates: &[(&str, Gate)]) -> Snapshot {
    let mut snapshot = sample::calm();
    let mut template = snapshot.members.values().next().unwrap().clone();
    (template.rogue, template.promoting, template.same_as) = (false, false, None);
    template.role = role;
    snapshot.members = gates.iter().map(|(name, _)| (member(name), template.clone())).collect();
    snapshot.local = Some(member("n1"));
    let gates = gates.iter().map(|(name, gate)| (member(name), gate.clone())).collect();
    let state = ServiceState { role, lag_bytes_max: None, gates };
    snapshot.services = BTreeMap::from([(ServiceName::new("write").unwrap(), state)]);
    snapshot
}

fn wish_of(snapshot: &Snapshot) -> Demand {
    demand(&vip("write"), snapshot)
}

#[test]
fn an_open_member_holds_the_address_and_a_member_whose_sessions_end_releases_it() {
    let of = |n1, n2| wish_of(&snapshot(Role::Primary, &[("n1", n1), ("n2", n2)]));
    assert!(matches!(of(open(), shut(Sessions::End)), Demand::Hold(_)));
    assert!(matches!(of(shut(Sessions::Keep), shut(Sessions::End)), Demand::Stay(_)));
    assert!(matches!(of(shut(Sessions::End), shut(Sessions::End)), Demand::Release(_)));
    assert!(matches!(of(shut(Sessions::Keep), open()), Demand::Release(_)));
}

#[test]
fn a_rival_ends_the_claim_to_the_address_before_its_own_gate_opens() {
    let mut two = snapshot(Role::Primary, &[("n1", open()), ("n2", shut(Sessions::End))]);
    two.members.get_mut("n2").unwrap().promoting = true;
    let Demand::Release(why) = wish_of(&two) else { panic!("the address must go") };
    assert_eq!(why, "n2 holds the leader lock and is being promoted");
    let mut rogue = snapshot(Role::Primary, &[("n1", shut(Sessions::Keep))]);
    rogue.members.get_mut("n1").unwrap().rogue = true;
    assert!(matches!(wish_of(&rogue), Demand::Release(_)));
}

#[test]
fn an_own_address_of_a_member_is_never_touched() {
    let mut one = snapshot(Role::Primary, &[("n1", open())]);
    one.members.get_mut("n1").unwrap().addresses = vec!["10.9.9.50".parse().unwrap()];
    assert!(matches!(wish_of(&one), Demand::Refuse(_)));
    let mut machine = Machine::default();
    for presence in [Presence::Ours, Presence::Foreign, Presence::Absent] {
        let demand = wish_of(&one);
        let step = machine.step(View { demand: &demand, is_current: true, presence, now: at(0) });
        assert!(step.actions.is_empty());
        assert_eq!(machine.state(), State::Refused);
    }
}

#[test]
fn without_a_local_member_no_address_is_added_and_the_reason_is_given() {
    let mut none = snapshot(Role::Primary, &[("n1", open())]);
    none.local = None;
    let Demand::Stay(why) = wish_of(&none) else { panic!() };
    assert!(why.contains("`local` in [cluster]"), "{why}");
}

#[test]
fn a_member_that_lost_its_role_releases_its_own_address_and_not_one_that_it_found() {
    let mut down = snapshot(Role::Primary, &[("n1", shut(Sessions::Keep))]);
    assert!(matches!(wish_of(&down), Demand::Stay(_)), "SQL shows a primary");
    down.members.get_mut("n1").unwrap().role = Role::Unknown;
    let gives_up = wish_of(&down);
    assert!(matches!(gives_up, Demand::GiveUp(_)));
    let mut trial = Trial::default();
    trial.step(&hold(), true, 0);
    assert_eq!(trial.step(&gives_up, true, 1).0, [Action::Remove]);
    let mut trial = Trial { is_here: true, ..Trial::default() };
    assert_eq!(trial.step(&gives_up, true, 0).1, Some(Change::Unconfirmed));
    assert_eq!(trial.step(&hold(), true, 300).1, Some(Change::Adopted));
}

/// A machine with its kernel: what it adds is there at the next step.
#[derive(Default)]
struct Trial {
    machine: Machine,
    /// The address is there, with the mark of pgsteer.
    is_here: bool,
    /// Another program has added the address.
    is_foreign: bool,
}

impl Trial {
    fn step(
        &mut self,
        demand: &Demand,
        is_current: bool,
        ms: u64,
    ) -> (Vec<Action>, Option<Change>) {
        let presence = match (self.is_here, self.is_foreign) {
            (true, _) => Presence::Ours,
            (false, true) => Presence::Foreign,
            (false, false) => Presence::Absent,
        };
        let view = View { demand, is_current, presence, now: at(ms) };
        let step = self.machine.step(view);
        for action in &step.actions {
            match action {
                Action::Add => self.is_here = true,
                Action::Remove => self.is_here = false,
                Action::Announce => assert!(self.is_here, "nothing is announced that is not here"),
                Action::Ask => self.machine.note_asked(),
            }
        }
        (step.actions, step.change)
    }
}

#[test]
fn an_address_is_announced_at_once_and_again_after_1_2_4_8_and_16_seconds() {
    let mut trial = Trial::default();
    assert_eq!(trial.step(&hold(), true, 0).0, [Action::Add, Action::Announce]);
    let mut announced = Vec::new();
    for ms in (0..80_000).step_by(500) {
        if trial.step(&hold(), true, ms).0 == [Action::Announce] {
            announced.push(ms / 1_000);
        }
    }
    assert_eq!(announced, [1, 2, 4, 8, 16, 46, 76]);
}

#[test]
fn an_address_that_was_left_behind_goes_after_a_while_or_stays_without_a_gap() {
    let confirm = u64::try_from(CONFIRM_WITHIN.as_millis()).unwrap();
    let mut trial = Trial { is_here: true, ..Trial::default() };
    assert_eq!(trial.step(&stay(), true, 0).1, Some(Change::Unconfirmed));
    assert_eq!(trial.step(&stay(), true, confirm - 1), (vec![], None));
    assert_eq!(trial.step(&stay(), true, confirm).0, [Action::Remove]);
    let mut trial = Trial { is_here: true, ..Trial::default() };
    trial.step(&stay(), true, 0);
    assert_eq!(trial.step(&hold(), true, 300), (vec![Action::Announce], Some(Change::Adopted)));
    let mut trial = Trial { is_here: true, ..Trial::default() };
    trial.step(&stay(), true, 0);
    assert_eq!(trial.step(&release(), true, 1).0, [Action::Remove]);
}

#[test]
fn an_address_that_another_program_added_is_neither_removed_nor_used() {
    let of = |demand: &Demand, ms| {
        let mut trial = Trial { is_foreign: true, ..Trial::default() };
        for ms in [0, ms] {
            assert_eq!(trial.step(demand, true, ms), (vec![], None), "{demand:?}");
        }
        assert_eq!(trial.machine.state(), State::Refused);
    };
    let gives_up = Demand::GiveUp("down".to_owned());
    for demand in [hold(), share(0), stay(), release(), gives_up] {
        of(&demand, 60_000);
    }
    // An address of its own that was replaced is not removed either, and it is added when the other one is gone.
    let mut trial = Trial::default();
    trial.step(&hold(), true, 0);
    (trial.is_here, trial.is_foreign) = (false, true);
    assert_eq!(trial.step(&release(), true, 500), (vec![], None));
    trial.is_foreign = false;
    assert_eq!(trial.step(&hold(), true, 1_000).1, Some(Change::Added));
}

#[test]
fn after_a_stop_of_the_process_the_address_needs_a_confirmation() {
    let mut trial = Trial::default();
    trial.step(&hold(), true, 0);
    // The gate is open in the Snapshot from before the stop.
    assert_eq!(trial.step(&hold(), false, 90_000).1, Some(Change::Unconfirmed));
    assert_eq!(trial.step(&hold(), true, 90_200).1, Some(Change::Adopted));
    assert_eq!(trial.step(&hold(), false, 200_000).1, Some(Change::Unconfirmed));
    assert_eq!(trial.step(&release(), true, 200_100).0, [Action::Remove]);
}

#[test]
fn an_unconfirmed_address_stays_until_another_machine_claims_it() {
    let mut trial = Trial::default();
    trial.step(&hold(), true, 0);
    assert_eq!(trial.step(&stay(), true, 500), (vec![], None));
    trial.machine.note_contest(at(600), false);
    assert_eq!(trial.step(&stay(), true, 600).0, [Action::Remove]);
    // With the gate open the address is defended, once a second.
    let mut trial = Trial::default();
    trial.step(&hold(), true, 0);
    trial.machine.note_contest(at(20_000), false);
    trial.step(&hold(), true, 20_000);
    assert_eq!(trial.step(&hold(), true, 21_000).0, [Action::Announce]);
    assert!(!trial.machine.is_contested(at(20_000) + CONTESTED_FOR));
}

#[test]
fn an_address_that_another_program_removed_is_added_again_only_by_an_open_gate() {
    let mut trial = Trial::default();
    trial.step(&hold(), true, 0);
    trial.is_here = false;
    let (actions, change) = trial.step(&hold(), true, 500);
    assert_eq!((actions[0], change), (Action::Add, Some(Change::AddedAgain)));
    trial.is_here = false;
    assert_eq!(trial.step(&stay(), true, 1_000), (vec![], Some(Change::Lost)));
    trial.is_here = true;
    let (actions, change) = trial.step(&release(), true, 1_500);
    assert_eq!((actions, change), (vec![Action::Remove], Some(Change::RemovedLeftover)));
}

#[test]
fn a_shared_address_is_added_without_an_answer_and_after_the_time_of_preferred_members() {
    let first_added = |rank: usize| {
        let mut trial = Trial::default();
        (0..20_000)
            .step_by(500)
            .find(|ms| trial.step(&share(rank), true, *ms).0.contains(&Action::Add))
    };
    assert_eq!(
        (first_added(0), first_added(1), first_added(2)),
        (Some(1_500), Some(3_500), Some(5_500))
    );
    // While another machine answers it is not added; soon after the last answer it is.
    let mut trial = Trial::default();
    for ms in (0..60_000).step_by(500) {
        trial.machine.note_contest(at(ms), true);
        assert_eq!(trial.step(&share(0), true, ms), (vec![Action::Ask], None));
    }
    let ms = (60_000..70_000)
        .step_by(500)
        .find(|ms| trial.step(&share(0), true, *ms).0.contains(&Action::Add));
    assert_eq!(ms, Some(61_000), "1.5 s after the answer at 59.5 s");
    assert!(!trial.machine.is_contested(at(61_500)), "the answers of the old holder are over");
    // The holder asks on, so that it learns of a second one soon.
    assert_eq!(trial.step(&share(0), true, 61_500).0, [Action::Ask]);
}

#[test]
fn of_two_machines_with_a_shared_address_one_gives_it_up() {
    for (is_stronger, stays) in [(true, false), (false, true)] {
        let mut trial = Trial::default();
        for ms in [0, 500, 1_000, 1_500] {
            trial.step(&share(0), true, ms);
        }
        assert!(trial.is_here);
        trial.machine.note_contest(at(2_000), is_stronger);
        trial.step(&share(0), true, 2_000);
        assert_eq!(trial.is_here, stays);
    }
    // A question that could not be sent is none.
    let mut machine = Machine::default();
    for ms in (0..20_000).step_by(500) {
        let demand = share(0);
        let step = machine.step(View {
            demand: &demand,
            is_current: true,
            presence: Presence::Absent,
            now: at(ms),
        });
        assert_eq!(step.actions, [Action::Ask], "at {ms} ms");
    }
    // A member whose gate shuts leaves it at once.
    let mut trial = Trial { is_here: true, ..Trial::default() };
    assert_eq!(trial.step(&share(3), true, 0).1, Some(Change::Adopted));
    assert_eq!(trial.step(&release(), true, 10).0, [Action::Remove]);
}

#[test]
fn readers_share_an_address_in_the_order_of_lag_and_name() {
    let read = |gates: &[(&str, Gate)], lags: &[u64]| {
        let mut snapshot = snapshot(Role::Replica, gates);
        for (member, lag) in snapshot.members.values_mut().zip(lags) {
            member.lag_bytes = Some(*lag);
        }
        wish_of(&snapshot)
    };
    let rank = |lags: &[u64]| match read(&[("n0", open()), ("n1", open()), ("n2", open())], lags) {
        Demand::Share { rank, .. } => rank,
        other => panic!("{other:?}"),
    };
    assert_eq!(rank(&[0, 0, 0]), 1);
    assert_eq!(rank(&[15 << 20, 1 << 20, 0]), 1, "a small difference does not matter");
    assert_eq!(rank(&[64 << 20, 0, 0]), 0);
    assert_eq!(rank(&[0, 1 << 30, 0]), 2);
    let shut = || shut(Sessions::Keep);
    assert!(matches!(read(&[("n1", shut()), ("n2", open())], &[]), Demand::GiveUp(_)));
    assert!(matches!(read(&[("n1", shut()), ("n2", shut())], &[]), Demand::Stay(_)));
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    demand: u8,
    is_current: bool,
    after_ms: u64,
    meddles: bool,
    is_foreign: bool,
    contests: bool,
    is_stronger: bool,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = (0..6u8, prop::bool::weighted(0.8), 0..3_000u64, prop::bool::weighted(0.1))
        .prop_flat_map(|(demand, is_current, after_ms, meddles)| {
            let more = (prop::bool::weighted(0.1), any::<bool>(), prop::bool::weighted(0.1));
            more.prop_map(move |(contests, is_stronger, is_foreign)| Turn {
                demand,
                is_current,
                after_ms,
                meddles,
                is_foreign,
                contests,
                is_stronger,
            })
        });
    prop::collection::vec(turn, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// In any sequence of events the address is added only on an open gate of a current Snapshot, it is gone
    /// after each release, it is nowhere without confirmation for longer than the limit, and one that another
    /// program added is never touched.
    #[test]
    fn an_address_is_added_only_on_an_open_gate_and_never_stays_unconfirmed(turns in turns()) {
        let (mut trial, mut ms) = (Trial::default(), 0);
        for turn in turns {
            ms += turn.after_ms;
            if turn.meddles {
                trial.is_here = !trial.is_here;
            }
            trial.is_foreign = turn.is_foreign;
            let is_foreign_alone = trial.is_foreign && !trial.is_here;
            if turn.contests {
                trial.machine.note_contest(at(ms), turn.is_stronger);
            }
            let demand = match turn.demand {
                0 => hold(),
                1 => stay(),
                2 => release(),
                3 => Demand::GiveUp("down".to_owned()),
                4 => share(0),
                _ => Demand::Refuse("own".to_owned()),
            };
            let (actions, _) = trial.step(&demand, turn.is_current, ms);
            if actions.contains(&Action::Add) {
                prop_assert!(turn.is_current);
                let may_add = matches!(demand, Demand::Hold(_) | Demand::Share { .. });
                prop_assert!(may_add);
            }
            if turn.is_current && matches!(demand, Demand::Release(_)) {
                prop_assert!(!trial.is_here);
            }
            if matches!(demand, Demand::Refuse(_)) || is_foreign_alone {
                prop_assert!(actions.is_empty());
            }
            if let State::Unconfirmed { since } = trial.machine.state() {
                prop_assert!(at(ms).since(since) < CONFIRM_WITHIN);
            }
        }
    }
}

#[test]
fn the_time_of_confirmation_is_longer_than_the_questions_after_a_stop() {
    assert!(CONFIRM_WITHIN > Duration::from_millis(1_500));
}

/// The machines of three members in one network; the first has the lowest hardware address.
#[derive(Default)]
struct Network {
    trials: [Trial; 3],
    ms: u64,
}

impl Network {
    /// Half a second. A machine that is cut off reaches no other one.
    fn turn(&mut self, open: [bool; 3], is_cut: [bool; 3]) {
        self.ms += 500;
        let now = at(self.ms);
        for own in 0..3 {
            let demand = match open[own] {
                true => share(open[..own].iter().filter(|open| **open).count()),
                false if open.contains(&true) => Demand::GiveUp("shut".to_owned()),
                false => stay(),
            };
            let (actions, _) = self.trials[own].step(&demand, true, self.ms);
            let trial = &mut self.trials[own];
            if !trial.is_here && !trial.machine.is_asking() {
                trial.machine.note_absence();
            }
            if actions.is_empty() || actions == [Action::Remove] || is_cut[own] {
                continue;
            }
            let announces = actions.contains(&Action::Announce);
            for other in (0..3).filter(|other| *other != own && !is_cut[*other]) {
                if self.trials[other].is_here {
                    self.trials[own].machine.note_contest(now, other < own);
                    if announces {
                        self.trials[other].machine.note_contest(now, own < other);
                    }
                }
            }
        }
    }

    fn holders(&self) -> Vec<usize> {
        (0..3).filter(|machine| self.trials[*machine].is_here).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened before: in a whole network one open member has the address after ten seconds, and keeps it.
    #[test]
    fn one_member_has_the_address_of_readers_when_the_network_is_whole(
        turns in prop::collection::vec((any::<[bool; 3]>(), any::<[bool; 3]>(), 1..20_u8), 0..20),
        mut open in any::<[bool; 3]>(),
        first in 0..3_usize,
    ) {
        let mut network = Network::default();
        network.trials[first].is_here = true;
        for (open, is_cut, count) in turns {
            for _ in 0..count {
                network.turn(open, is_cut);
            }
        }
        open[first] = true;
        for _ in 0..20 {
            network.turn(open, [false; 3]);
        }
        let holders = network.holders();
        prop_assert!(matches!(holders.as_slice(), [holder] if open[*holder]), "{holders:?}");
        for _ in 0..100 {
            network.turn(open, [false; 3]);
            prop_assert_eq!(&network.holders(), &holders);
        }
    }
}
