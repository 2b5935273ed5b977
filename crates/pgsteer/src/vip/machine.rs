//! The state of one address on this machine: what to do about it, and when. Pure.
//!
//! - The address is added only on [`Demand::Hold`], or on [`Demand::Share`] as follows.
//! - On [`Demand::Share`] it stays where it is; a machine without it asks the network who has it, and adds it after
//!   [`QUESTIONS_MIN`] questions without an answer in [`FREE_AFTER`], and [`RANK_WAIT`] more for each member that is
//!   preferred. If two machines have it, the one with the higher hardware address gives it up.
//! - It is removed at once on [`Demand::Release`], and on [`Demand::GiveUp`] if this process added or
//!   confirmed it.
//! - On [`Demand::Stay`] it stays where it is, unless another machine answers for it.
//! - An address that is here without a reason that this process has (it was left behind, or the
//!   process was stopped) is unconfirmed: it is removed unless it is confirmed within
//!   [`CONFIRM_WITHIN`].
//! - It is neither added nor removed on [`Demand::Refuse`], and none of this applies to an address that another
//!   program added ([`Presence::Foreign`]): it may be the own address of the machine.

use std::time::Duration;

use pgsteer_core::time::Moment;

use pgsteer_core::vip::Demand;

/// How long an unconfirmed address stays.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(5);

/// How long the answer of another machine counts.
pub const CONTESTED_FOR: Duration = Duration::from_secs(5);

/// After this time without an answer a shared address is free.
pub const FREE_AFTER: Duration = Duration::from_millis(1_500);

/// The questions that must have been sent without an answer.
pub const QUESTIONS_MIN: u32 = 3;

/// How long a machine waits for each member that is preferred to its own.
pub const RANK_WAIT: Duration = Duration::from_secs(2);

/// The times between announcements. The last one repeats.
const ANNOUNCE_AFTER: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(30),
];

/// The time between announcements while another machine answers for the address.
const DEFEND_AFTER: Duration = Duration::from_secs(1);

/// The state of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// This machine must not have it.
    Released,
    /// pgsteer must not touch it.
    Refused,
    /// This machine has it, and nothing confirms yet that it should.
    Unconfirmed {
        /// Since when.
        since: Moment,
    },
    /// This machine may have it, and asks who else has it.
    Asking {
        /// Since when there was no answer.
        since: Moment,
        /// The questions that were sent since then.
        asked: u32,
    },
    /// This machine should have it.
    Held {
        /// The next announcement.
        next: Announcement,
    },
}

/// The next announcement of a held address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    at: Moment,
    /// How many have been made.
    made: usize,
}

/// Whether the address is on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is not there.
    Absent,
    /// pgsteer added it: this process or an earlier one.
    Ours,
    /// Another program added it, and pgsteer did not.
    Foreign,
}

/// What pgsteer sees at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The demand of the newest Snapshot.
    pub demand: &'a Demand,
    /// The engine runs, and every member was asked since the last stop of this process.
    pub is_current: bool,
    /// Whether the kernel has the address on the interface.
    pub presence: Presence,
    /// Now.
    pub now: Moment,
}

impl View<'_> {
    fn is_here(&self) -> bool {
        self.presence == Presence::Ours
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Add the address to the interface.
    Add,
    /// Remove the address from the interface.
    Remove,
    /// Announce the address, and ask whether another machine has it.
    Announce,
    /// Ask whether another machine has it.
    Ask,
}

/// A change that an operator reads about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The address was added.
    Added,
    /// The address was here already and is kept.
    Adopted,
    /// Another program had removed the address, and it was added again.
    AddedAgain,
    /// The address was removed.
    Removed,
    /// Another program had removed the address, and it is not added again.
    Lost,
    /// An earlier pgsteer had left the address here, and it was removed.
    RemovedLeftover,
    /// The address is here, and nothing confirms it yet.
    Unconfirmed,
}

/// The result of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// What changed.
    pub change: Option<Change>,
}

/// The machine of one address.
#[derive(Clone, Debug)]
pub struct Machine {
    state: State,
    /// When another machine last answered for the address.
    contested_at: Option<Moment>,
    /// That machine keeps an address that both have.
    is_rival_stronger: bool,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine { state: State::Released, contested_at: None, is_rival_stronger: false }
    }
}

impl Machine {
    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Records that another machine answered for the address. `is_stronger`: it keeps a shared address that
    /// both have.
    pub fn note_contest(&mut self, now: Moment, is_stronger: bool) {
        (self.contested_at, self.is_rival_stronger) = (Some(now), is_stronger);
    }

    /// Records that a question was sent.
    pub fn note_asked(&mut self) {
        if let State::Asking { asked, .. } = &mut self.state {
            *asked = asked.saturating_add(1);
        }
    }

    /// Records that the address is not here, although it may have been added.
    pub fn note_absence(&mut self) {
        *self = Machine::default();
    }

    /// Returns true if another machine answered for the address a moment ago.
    pub fn is_contested(&self, now: Moment) -> bool {
        self.contested_at.is_some_and(|at| now.since(at) < CONTESTED_FOR)
    }

    /// Returns true if this machine asks the network who has the address.
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking { .. })
    }

    /// Decides what to do.
    pub fn step(&mut self, view: View<'_>) -> Step {
        let unknown = Demand::Stay(String::new());
        if view.presence == Presence::Foreign || matches!(view.demand, Demand::Refuse(_)) {
            self.state = State::Refused;
            return Step::default();
        }
        let demand = if view.is_current { view.demand } else { &unknown };
        match (demand, self.state) {
            (Demand::Hold(_), State::Held { .. }) => self.keep(view),
            (Demand::Hold(_), _) => self.transition_to_held(view),
            (Demand::Share { rank, .. }, _) => self.share(*rank, view),
            (Demand::Release(_), _) | (Demand::GiveUp(_), State::Held { .. }) => {
                self.transition_to_released(view)
            }
            (Demand::GiveUp(_) | Demand::Stay(_) | Demand::Refuse(_), _) => self.stay(view),
        }
    }

    fn keep(&mut self, view: View<'_>) -> Step {
        if !view.is_here() {
            self.restart_announcements(view.now);
            let actions = vec![Action::Add, Action::Announce];
            return Step { actions, change: Some(Change::AddedAgain) };
        }
        let actions = self.announcement(view.now).into_iter().collect();
        Step { actions, change: None }
    }

    /// Another machine may have the address as well.
    fn share(&mut self, rank: usize, view: View<'_>) -> Step {
        let is_held = matches!(self.state, State::Held { .. });
        let answered = self.contested_at.filter(|at| view.now.since(*at) < FREE_AFTER);
        if view.is_here() && answered.is_some() && self.is_rival_stronger {
            return self.transition_to_released(view);
        }
        if view.is_here() {
            let mut step = if is_held { self.keep(view) } else { self.transition_to_held(view) };
            // Announcements become rare, and a second machine with the address has to be found soon.
            if step.actions.is_empty() {
                step.actions.push(Action::Ask);
            }
            return step;
        }
        let (since, asked) = match (answered, self.state) {
            (Some(at), State::Asking { since, asked }) if since == at => (at, asked),
            (Some(at), _) => (at, 0),
            (None, State::Asking { since, asked }) => (since, asked),
            (None, _) => (view.now, 0),
        };
        let patience = FREE_AFTER + RANK_WAIT * u32::try_from(rank).unwrap_or(u32::MAX);
        if view.now.since(since) >= patience && asked >= QUESTIONS_MIN {
            (self.contested_at, self.is_rival_stronger) = (None, false);
            return self.transition_to_held(view);
        }
        let change = is_held.then_some(Change::Lost);
        self.state = State::Asking { since, asked };
        Step { actions: vec![Action::Ask], change }
    }

    fn transition_to_held(&mut self, view: View<'_>) -> Step {
        self.restart_announcements(view.now);
        match view.is_here() {
            true => Step { actions: vec![Action::Announce], change: Some(Change::Adopted) },
            false => {
                Step { actions: vec![Action::Add, Action::Announce], change: Some(Change::Added) }
            }
        }
    }

    fn transition_to_released(&mut self, view: View<'_>) -> Step {
        let change = match (self.state, view.is_here()) {
            (State::Released | State::Refused | State::Asking { .. }, true) => {
                Some(Change::RemovedLeftover)
            }
            (State::Released | State::Refused | State::Asking { .. }, false) => None,
            (_, true) => Some(Change::Removed),
            (_, false) => Some(Change::Lost),
        };
        self.state = State::Released;
        let actions = if view.is_here() { vec![Action::Remove] } else { Vec::new() };
        Step { actions, change }
    }

    /// Nothing is proven: an address that is here may stay.
    fn stay(&mut self, view: View<'_>) -> Step {
        if !view.is_here() {
            let had = matches!(self.state, State::Held { .. } | State::Unconfirmed { .. });
            self.state = State::Released;
            return Step { actions: Vec::new(), change: had.then_some(Change::Lost) };
        }
        let is_new = matches!(self.state, State::Released | State::Refused);
        if self.is_contested(view.now) && !is_new {
            return self.transition_to_released(view);
        }
        match self.state {
            State::Held { .. } if view.is_current => {
                let actions = self.announcement(view.now).into_iter().collect();
                Step { actions, change: None }
            }
            State::Held { .. } | State::Released | State::Refused => {
                self.state = State::Unconfirmed { since: view.now };
                Step { actions: Vec::new(), change: Some(Change::Unconfirmed) }
            }
            State::Unconfirmed { since } if view.now.since(since) >= CONFIRM_WITHIN => {
                self.transition_to_released(view)
            }
            State::Unconfirmed { .. } => Step::default(),
            // It was not here a moment ago, so another pgsteer has added it.
            State::Asking { .. } => {
                self.state = State::Unconfirmed { since: view.now };
                Step { actions: Vec::new(), change: Some(Change::Unconfirmed) }
            }
        }
    }

    fn restart_announcements(&mut self, now: Moment) {
        let next = Announcement { at: now + ANNOUNCE_AFTER[0], made: 1 };
        self.state = State::Held { next };
    }

    /// The announcement that is due.
    fn announcement(&mut self, now: Moment) -> Option<Action> {
        let is_contested = self.is_contested(now);
        let State::Held { next } = &mut self.state else { return None };
        if now < next.at {
            return None;
        }
        let usual = ANNOUNCE_AFTER[next.made.min(ANNOUNCE_AFTER.len() - 1)];
        let wait = if is_contested { DEFEND_AFTER } else { usual };
        *next = Announcement { at: now + wait, made: next.made.saturating_add(1) };
        Some(Action::Announce)
    }
}
