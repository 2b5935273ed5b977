//! The queue of one service: its order, its limits, and random steps of clients, members and reloads.

use proptest::prelude::*;

use super::*;

fn member(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

fn limited(service_max: Option<usize>, member_max: Option<usize>) -> Arc<Capacity> {
    let capacity = Arc::new(Capacity::default());
    capacity.set_limits(CapacityLimits { service_max, member_max });
    capacity
}

fn open(names: &[&str]) -> Vec<Choice> {
    let choice = |name: &&str| Choice { member: member(name), generation: 1 };
    names.iter().map(choice).collect()
}

#[test]
fn permits_are_given_in_the_order_of_arrival() {
    let (capacity, n1) = (limited(None, Some(1)), open(&["n1"]));
    let first = capacity.take(0, 1, &n1).unwrap();
    let mut third = capacity.take(2, 1, &n1).unwrap_err();
    let mut second = capacity.take(1, 1, &n1).unwrap_err();
    assert_eq!(capacity.shortage(&n1), Some(Shortage::Member(1)));
    drop(first);
    let permit = second.granted_now().unwrap();
    assert!(third.granted_now().is_none());
    drop(permit);
    assert!(third.granted_now().is_some());
}

#[test]
fn a_service_with_a_limit_grants_no_permit_before_the_sessions_of_the_other_process_have_arrived() {
    let (capacity, n1) = (limited(Some(3), None), open(&["n1"]));
    capacity.pause();
    let mut second = capacity.take(12, 1, &n1).unwrap_err();
    let mut first = capacity.take(11, 1, &n1).unwrap_err();
    assert!(capacity.take_early(&n1[0].member).is_none());
    assert_eq!(capacity.shortage(&n1), Some(Shortage::Service(3)));
    let session = capacity.take_moved(&n1[0].member);
    // A login in the other process has a permit.
    capacity.resume(BTreeMap::from([(member("n1"), 1)]));
    let third = first.granted_now().unwrap();
    assert!(second.granted_now().is_none());
    let _login = capacity.take_moved(&n1[0].member);
    assert!(second.granted_now().is_none(), "its permit was counted");
    drop(session);
    assert!(second.granted_now().is_some());
    drop(third);
    let unlimited = limited(None, None);
    unlimited.pause();
    assert!(unlimited.take(1, 1, &n1).is_ok());
}

#[test]
fn a_permit_that_stays_reserved_is_free_when_the_other_process_has_ended() {
    let (capacity, n1) = (limited(None, Some(1)), open(&["n1"]));
    capacity.pause();
    let mut waiting = capacity.take(1, 1, &n1).unwrap_err();
    capacity.resume(BTreeMap::from([(member("n1"), 1)]));
    assert!(waiting.granted_now().is_none());
    capacity.resume(BTreeMap::new());
    assert!(waiting.granted_now().is_some());
}

#[test]
fn the_permit_of_a_session_that_has_moved_goes_to_no_other_client() {
    let (capacity, n1) = (limited(Some(1), None), open(&["n1"]));
    let session = capacity.take(0, 1, &n1).unwrap();
    let mut waiting = capacity.take(1, 1, &n1).unwrap_err();
    session.note_moved();
    assert!(waiting.granted_now().is_none());
    assert!(capacity.permits_here().is_empty());
    // The other process has failed.
    capacity.return_moved();
    assert!(waiting.granted_now().is_some());
}

#[test]
fn a_client_gets_a_permit_for_its_first_member_with_space() {
    let capacity = limited(Some(3), Some(1));
    let both = open(&["n1", "n2"]);
    let first = capacity.take(0, 1, &both).unwrap();
    let second = capacity.take(1, 1, &both).unwrap();
    assert_eq!((first.member(), second.member()), (&both[0].member, &both[1].member));
    let _third = capacity.take(2, 1, &open(&["n3"])).unwrap();
    let _waiting = capacity.take(3, 1, &open(&["n4"])).unwrap_err();
    assert_eq!(capacity.shortage(&open(&["n4"])), Some(Shortage::Service(3)));
}

#[test]
fn a_client_on_hold_is_not_overtaken_when_a_gate_opens() {
    let capacity = limited(None, Some(1));
    let n1 = [Choice { member: member("n1"), generation: 5 }];
    let _first = capacity.position(1);
    capacity.look(1, 4);
    let mut later = capacity.take(2, 5, &n1).unwrap_err();
    assert!(later.granted_now().is_none(), "the first has not read the Snapshot yet");
    let permit = capacity.take(1, 5, &n1).unwrap();
    drop(permit);
    assert!(later.granted_now().is_some());
    // A client that has read the Snapshot and has no choice delays no other client.
    capacity.look(1, 5);
    assert!(capacity.take(3, 6, &n1).is_ok());
    // A client that leaves delays no other either.
    let position = capacity.position(4);
    capacity.look(4, 4);
    let mut later = capacity.take(6, 5, &n1).unwrap_err();
    drop(position);
    assert!(later.granted_now().is_some());
}

#[test]
fn a_client_in_the_queue_of_one_member_is_not_overtaken_when_another_opens() {
    let capacity = limited(None, Some(1));
    let n2 = [Choice { member: member("n2"), generation: 7 }];
    let session = capacity.take(0, 1, &open(&["n1"])).unwrap();
    drop(capacity.position(0));
    let _position = capacity.position(1);
    let first = capacity.take(1, 1, &open(&["n1"])).unwrap_err();
    let mut second = capacity.take(2, 7, &n2).unwrap_err();
    assert!(second.granted_now().is_none());
    // It has been woken and has not read the Snapshot yet; a session ends meanwhile.
    drop(first);
    drop(session);
    assert!(second.granted_now().is_none());
    let permit = capacity.take(1, 7, &n2).unwrap();
    assert!(second.granted_now().is_none());
    drop(permit);
    assert!(second.granted_now().is_some());
}

#[test]
fn a_permit_for_one_client_does_not_block_the_clients_behind_it() {
    let capacity = limited(None, None);
    let n1 = open(&["n1"]);
    let n2 = [Choice { member: member("n2"), generation: 7 }];
    capacity.take(0, 1, &n1).unwrap().refused(Refusal::Full);
    drop(capacity.position(0));
    let position = capacity.position(1);
    let mut first = capacity.take(1, 1, &n1).unwrap_err();
    let mut second = capacity.take(2, 7, &n2).unwrap_err();
    assert!(second.granted_now().is_none(), "the first has not read the Snapshot yet");
    assert!(capacity.probe(&n1[0].member));
    assert!(first.granted_now().is_some());
    assert!(second.granted_now().is_none(), "the first has to check its gate again");
    drop(position);
    assert!(second.granted_now().is_some());
}

#[test]
fn limits_can_rise_fall_and_be_removed() {
    let (capacity, n1) = (limited(None, Some(1)), open(&["n1"]));
    let first = capacity.take(0, 1, &n1).unwrap();
    let mut waiting: Vec<Waiting> =
        (1..4).map(|ticket| capacity.take(ticket, 1, &n1).unwrap_err()).collect();
    capacity.set_limits(CapacityLimits { service_max: Some(2), member_max: None });
    let second = waiting[0].granted_now().unwrap();
    capacity.set_limits(CapacityLimits { service_max: Some(1), member_max: Some(1) });
    drop(first);
    assert!(waiting[1].granted_now().is_none());
    capacity.set_limits(CapacityLimits::default());
    assert!(waiting[1].granted_now().is_some() && waiting[2].granted_now().is_some());
    drop((second, waiting));
    assert!(capacity.lock().members.is_empty());
}

#[test]
fn a_member_that_refuses_is_tried_again_at_a_bounded_rate() {
    let (capacity, n1) = (limited(None, None), open(&["n1"]));
    let sessions: Vec<Permit> = (0..3).map(|t| capacity.take(t, 1, &n1).unwrap()).collect();
    let fourth = capacity.take(3, 1, &n1).unwrap();
    assert!(fourth.refused(Refusal::Full));
    drop(fourth);
    let mut waiting: Vec<Waiting> =
        (4..8).map(|ticket| capacity.take(ticket, 1, &n1).unwrap_err()).collect();
    assert_eq!(capacity.shortage(&n1), Some(Shortage::Refused(Refusal::Full)));
    // One client at a time may try the member.
    assert!(capacity.probe(&n1[0].member));
    let tried = waiting[0].granted_now().unwrap();
    assert!(waiting[1].granted_now().is_none());
    assert!(!tried.refused(Refusal::Full), "it is probed already");
    drop(tried);
    assert!(waiting[1].granted_now().is_none());
    // The permit of an ended session is free at once, and a success permits one more try.
    drop(sessions);
    let permit = waiting[1].granted_now().unwrap();
    permit.accepted();
    for ticket in 4..8 {
        drop(capacity.position(ticket));
    }
    drop(waiting);
    assert!(!capacity.probe(&n1[0].member), "no client waits");
    assert!(capacity.take(9, 1, &n1).is_ok());
}

#[derive(Clone, Debug)]
enum Step {
    /// A new client takes a permit for these members, or a client on hold does so again.
    Take {
        members: u8,
        again: Option<usize>,
    },
    /// A client reads a Snapshot in which no gate is open.
    Look(Option<usize>),
    /// A gate opens in a new Snapshot.
    Open(usize),
    End(usize),
    Leave(usize),
    Limits(Option<usize>, Option<usize>),
    Refuse(usize),
    Accept(usize),
    Probe(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let limit = || proptest::option::of(0_usize..4);
    let client = || proptest::option::of(any::<usize>());
    prop_oneof![
        5 => (1_u8..8, client()).prop_map(|(members, again)| Step::Take { members, again }),
        2 => client().prop_map(Step::Look),
        1 => (0_usize..3).prop_map(Step::Open),
        3 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => (limit(), limit()).prop_map(|(all, each)| Step::Limits(all, each)),
        1 => any::<usize>().prop_map(Step::Refuse),
        1 => any::<usize>().prop_map(Step::Accept),
        1 => (0_usize..3).prop_map(Step::Probe),
    ]
}

/// The clients and members of one capacity.
#[derive(Default)]
struct World {
    capacity: Arc<Capacity>,
    generation: u64,
    opened: [u64; 3],
    tickets: u64,
    held: Vec<Permit>,
    waiting: Vec<(Position, Option<Waiting>)>,
}

impl World {
    fn apply(&mut self, step: Step) {
        let (held, waiting) = (self.held.len().max(1), self.waiting.len().max(1));
        match step {
            Step::Take { members, again } => self.take(members, again),
            Step::Look(again) => {
                let position = self.position(again);
                self.capacity.look(position.ticket, self.generation);
                self.waiting.push((position, None));
            }
            Step::Open(member) => {
                self.generation += 1;
                self.opened[member] = self.generation;
            }
            Step::End(index) => drop(self.held.drain(index % held..).next()),
            Step::Leave(index) => drop(self.waiting.drain(index % waiting..).next()),
            Step::Limits(service_max, member_max) => {
                self.capacity.set_limits(CapacityLimits { service_max, member_max });
            }
            Step::Refuse(index) => {
                if let Some(permit) = self.held.get(index % held) {
                    permit.refused(Refusal::Full);
                    drop(self.held.remove(index % held));
                }
            }
            Step::Accept(index) => {
                if let Some(permit) = self.held.get(index % held) {
                    permit.accepted();
                }
            }
            Step::Probe(index) => drop(self.capacity.probe(&name(index))),
        }
    }

    fn position(&mut self, again: Option<usize>) -> Position {
        if let Some(index) = again.filter(|_| !self.waiting.is_empty()) {
            return self.waiting.remove(index % self.waiting.len()).0;
        }
        self.tickets += 1;
        self.capacity.position(self.tickets)
    }

    fn take(&mut self, members: u8, again: Option<usize>) {
        let position = self.position(again);
        let choices: Vec<Choice> = (0..3)
            .filter(|bit| members >> bit & 1 == 1)
            .map(|bit| Choice { member: name(bit), generation: self.opened[bit] })
            .collect();
        match self.capacity.take(position.ticket, self.generation, &choices) {
            Ok(permit) => self.held.push(permit),
            Err(waiting) => self.waiting.push((position, Some(waiting))),
        }
    }

    fn receive(&mut self) {
        loop {
            let (before, held) = (self.held.len(), &mut self.held);
            self.waiting.retain_mut(|(_, waiting)| {
                let granted = waiting.as_mut().and_then(Waiting::granted_now);
                let is_waiting = granted.is_none();
                held.extend(granted);
                is_waiting
            });
            // A client that leaves the queue with its permit may unblock the next one.
            if self.held.len() == before {
                return;
            }
        }
    }
}

fn name(index: usize) -> MemberName {
    member(["n1", "n2", "n3"][index])
}

proptest! {
    /// For all steps of clients, members and reloads: no permit is lost or granted twice, no permit stays
    /// free while a client may have it, and in the end all counters are zero.
    #[test]
    fn no_permit_is_lost_or_granted_twice(
        steps in proptest::collection::vec(step(), 1..120)
    ) {
        let mut world = World::default();
        for step in steps {
            world.apply(step);
            world.receive();
            let state = world.capacity.lock();
            prop_assert_eq!(state.taken, world.held.len());
            prop_assert_eq!(state.waiting.len(), world.waiting.len());
            for (ticket, waiter) in &state.waiting {
                let free = state.first_free(*ticket, &waiter.choices);
                prop_assert!(state.is_full() || free.is_none());
            }
        }
        let World { capacity, held, waiting, .. } = world;
        drop((held, waiting));
        let state = capacity.lock();
        prop_assert_eq!(state.taken, 0);
        prop_assert!(state.waiting.is_empty() && state.looks.is_empty());
        prop_assert!(state.members.values().all(|member| member.taken == 0));
    }
}
