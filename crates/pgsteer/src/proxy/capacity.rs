//! Capacity: how many sessions a service may have, in all and at each member, and the queue for
//! them.
//!
//! A client takes a permit before it is connected, and returns it when its session ends. A client
//! without a permit waits in one queue per service, over all workers, in the order of arrival. A client
//! on hold without an open gate has a position in it too. When a gate opens, a client takes a permit for
//! that member only after all clients ahead of it have read a Snapshot with that gate open: each worker
//! wakes its own clients, and one worker may be quicker than another.
//!
//! A member that refuses a login because it has no free connection (53300), or because it accepts none
//! at present (57P03), gets a *ceiling*: as many permits as it has sessions. The ceiling rises by one
//! every [`PROBE_PAUSE`] while clients wait, and with every login that succeeds. So the member is tried
//! at a bounded rate, and a free connection is used at once.
//!
//! While another process of pgsteer hands its sessions over, a service with a limit grants no permit here
//! ([`Capacity::pause`]). After that, permits stay reserved for the logins that go on in that process.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgsteer_core::names::MemberName;
use tokio::sync::{Notify, oneshot};

/// How often a member that has refused a login is tried again.
pub const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// The limits of one service; none where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapacityLimits {
    /// Sessions of the service at all members together.
    pub service_max: Option<usize>,
    /// Sessions of the service at one member.
    pub member_max: Option<usize>,
}

/// Why there is no permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// `sessions_max` of the service.
    Service(usize),
    /// `member_sessions_max` of the service, at every member that is open.
    Member(usize),
    /// The members refuse logins.
    Refused(Refusal),
}

/// How a member refuses logins while older sessions go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 53300: it has no connection left.
    Full,
    /// 57P03: it accepts no connections at present.
    Unavailable,
}

/// The permits of one service.
#[derive(Debug, Default)]
pub struct Capacity {
    state: Mutex<State>,
    /// Notified when the pause ends.
    resumed: Notify,
}

#[derive(Debug, Default)]
struct State {
    limits: CapacityLimits,
    taken: usize,
    members: BTreeMap<MemberName, Member>,
    /// The clients without a permit, by ticket.
    waiting: BTreeMap<u64, Waiter>,
    /// The tickets of the waiting clients, by the Snapshot that they have read.
    looks: BTreeMap<u64, BTreeSet<u64>>,
    /// A service with a limit grants no permit, because sessions of another process still arrive.
    is_paused: bool,
    /// Permits that are counted for sessions of another process that may still arrive.
    reserved: Permits,
    /// Permits that are counted for sessions that have moved to another process.
    moved: Permits,
}

/// The number of permits at each member.
pub type Permits = BTreeMap<MemberName, usize>;

#[derive(Debug, Default)]
struct Member {
    taken: usize,
    ceiling: Option<Ceiling>,
}

#[derive(Clone, Copy, Debug)]
struct Ceiling {
    max: usize,
    cause: Refusal,
}

/// A member with an open gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The member.
    pub member: MemberName,
    /// The Snapshot in which its gate opened.
    pub generation: u64,
}

/// A client without a permit.
#[derive(Debug)]
struct Waiter {
    /// The Snapshot that it has read.
    seen: u64,
    /// The members that it can use, best first; none while no gate is open.
    choices: Vec<Choice>,
    grant: Option<oneshot::Sender<Permit>>,
}

/// A permit for one session at a member. Dropping it returns it.
#[derive(Debug)]
pub struct Permit {
    capacity: Arc<Capacity>,
    member: MemberName,
    /// The session has moved to another process, and stays counted here.
    has_moved: bool,
}

/// A position in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Position {
    capacity: Arc<Capacity>,
    ticket: u64,
}

/// A permit that will be granted in the order of the queue. Dropping it keeps the position; the client
/// gets no permit before it calls [`Capacity::take`] again.
#[derive(Debug)]
pub struct Waiting {
    capacity: Arc<Capacity>,
    ticket: u64,
    granted: oneshot::Receiver<Permit>,
}

/// Permits for waiting clients. They are sent after the lock is released.
type Grants = Vec<(oneshot::Sender<Permit>, Permit)>;

/// All tickets.
const ALL: RangeInclusive<u64> = 0..=u64::MAX - 1;

impl Capacity {
    /// Replaces the limits. Sessions above a lower limit go on, and no other client gets their permits.
    pub fn set_limits(self: &Arc<Self>, limits: CapacityLimits) {
        self.change(usize::MAX, |state| {
            state.limits = limits;
            ALL
        });
    }

    /// Takes a permit for the first of `choices` with a free one, or enters the queue at the position of
    /// `ticket`. `seen` is the Snapshot in which the choices are open.
    ///
    /// # Errors
    /// The permit to come, if there is none now. [`Capacity::position`] keeps the position.
    pub fn take(
        self: &Arc<Self>,
        ticket: u64,
        seen: u64,
        choices: &[Choice],
    ) -> Result<Permit, Waiting> {
        let (grant, granted) = oneshot::channel();
        let waiter = Waiter { seen, choices: choices.to_vec(), grant: Some(grant) };
        self.change(usize::MAX, |state| state.put(ticket, waiter));
        // All free permits have been granted, in the order of the queue.
        let mut waiting = Waiting { capacity: Arc::clone(self), ticket, granted };
        waiting.granted_now().ok_or(waiting)
    }

    /// The position of `ticket` in the queue.
    pub fn position(self: &Arc<Self>, ticket: u64) -> Position {
        Position { capacity: Arc::clone(self), ticket }
    }

    /// Notes that a client has read the Snapshot `seen`, in which no gate is open for it.
    pub fn look(self: &Arc<Self>, ticket: u64, seen: u64) {
        let waiter = Waiter { seen, choices: Vec::new(), grant: None };
        self.change(usize::MAX, |state| state.put(ticket, waiter));
    }

    /// Takes a free permit for `member`, ahead of clients on hold. It is for early logins: the clients ahead
    /// cannot log in early, or have a permit already.
    pub fn take_early(self: &Arc<Self>, member: &MemberName) -> Option<Permit> {
        let mut state = self.lock();
        if state.is_full() || !state.has_space_at(member) {
            return None;
        }
        state.count(member, 1);
        drop(state);
        Some(self.permit(member.clone()))
    }

    /// Takes a permit for an established session that moves here from another process, a reserved one if
    /// there is one. Limits do not apply: the session has a permit there.
    pub fn take_moved(self: &Arc<Self>, member: &MemberName) -> Permit {
        self.lock().count_arrival(member);
        self.permit(member.clone())
    }

    /// Grants no permit until [`Capacity::resume`], unless the service has no limit.
    pub fn pause(&self) {
        self.lock().is_paused = true;
    }

    /// Ends the pause. `reserved` are the permits of logins in another process, which may arrive as
    /// sessions; they replace those that were reserved before.
    pub fn resume(self: &Arc<Self>, reserved: Permits) {
        self.change(usize::MAX, |state| {
            state.is_paused = false;
            let former = take(&mut state.reserved);
            state.discount_all(&former);
            for (member, count) in &reserved {
                state.count(member, *count);
            }
            state.reserved = reserved;
            ALL
        });
        self.resumed.notify_waiters();
    }

    /// Returns true between [`Capacity::pause`] and [`Capacity::resume`].
    pub fn is_paused(&self) -> bool {
        self.lock().is_paused
    }

    /// Waits for the end of the pause.
    pub async fn resumed(&self) {
        let mut resumed = pin!(self.resumed.notified());
        // A notification after this line is not missed.
        resumed.as_mut().enable();
        if self.is_paused() {
            resumed.await;
        }
    }

    /// The permits that are taken, without those of sessions that have moved to another process.
    pub fn permits_here(&self) -> Permits {
        let state = self.lock();
        let here = state.members.iter().map(|(name, member)| {
            let moved = state.moved.get(name).copied().unwrap_or_default();
            (name.clone(), member.taken.saturating_sub(moved))
        });
        here.filter(|(_, count)| *count > 0).collect()
    }

    /// Returns the permits of sessions that have moved to another process, because that process has
    /// failed.
    pub fn return_moved(self: &Arc<Self>) {
        self.change(usize::MAX, |state| {
            let moved = take(&mut state.moved);
            state.discount_all(&moved);
            ALL
        });
    }

    /// Why none of `choices` has a free permit.
    pub fn shortage(&self, choices: &[Choice]) -> Option<Shortage> {
        let state = self.lock();
        let is_reached = |max: &usize| state.is_paused || state.taken >= *max;
        if let Some(max) = state.limits.service_max.filter(is_reached) {
            return Some(Shortage::Service(max));
        }
        let known = |choice: &Choice| state.members.get(&choice.member);
        let ceiling = |choice| known(choice).and_then(|member| member.ceiling);
        if let Some(ceiling) = choices.iter().find_map(ceiling) {
            return Some(Shortage::Refused(ceiling.cause));
        }
        state.limits.member_max.map(Shortage::Member)
    }

    /// Lets one more client try a member that has refused a login. Returns false if no client waits for
    /// it any more; its ceiling is removed then.
    pub fn probe(self: &Arc<Self>, member: &MemberName) -> bool {
        let mut goes_on = false;
        self.change(1, |state| {
            goes_on = state.waiting.values().any(|waiter| waiter.wants(member));
            if let Some(known) = state.members.get_mut(member) {
                known.ceiling = known.ceiling.filter(|_| goes_on);
                if let Some(ceiling) = &mut known.ceiling {
                    ceiling.max = ceiling.max.max(known.taken) + 1;
                }
            }
            state.forget_if_unused(member);
            ALL
        });
        goes_on
    }

    /// Changes the state, and grants the permits that are free after that: `freed_max` at most. `change`
    /// returns the tickets that may get one.
    fn change(
        self: &Arc<Self>,
        freed_max: usize,
        change: impl FnOnce(&mut State) -> RangeInclusive<u64>,
    ) {
        let mut state = self.lock();
        let tickets = change(&mut state);
        let grants = self.grants(&mut state, tickets, freed_max);
        drop(state);
        for (grant, permit) in grants {
            // The permit of a client that has just left is returned here.
            let _ = grant.send(permit);
        }
    }

    /// Takes permits for waiting clients with `tickets`, in order.
    fn grants(
        self: &Arc<Self>,
        state: &mut State,
        tickets: RangeInclusive<u64>,
        freed_max: usize,
    ) -> Grants {
        let mut grants = Vec::new();
        let (mut from, to) = tickets.into_inner();
        while from <= to
            && grants.len() < freed_max
            && !state.is_full()
            && let Some((&ticket, waiter)) = state.waiting.range(from..=to).next()
        {
            from = ticket + 1;
            let choice = state.first_free(ticket, &waiter.choices).cloned();
            let Some(Choice { member, .. }) = choice else { continue };
            // The client keeps its position until it has checked the gate again.
            let grant = state.waiting.get_mut(&ticket).and_then(Waiter::stop_waiting);
            if let Some(grant) = grant {
                state.count(&member, 1);
                grants.push((grant, self.permit(member)));
            }
        }
        grants
    }

    fn permit(self: &Arc<Self>, member: MemberName) -> Permit {
        Permit { capacity: Arc::clone(self), member, has_moved: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self) -> bool {
        let is_limited = self.limits != CapacityLimits::default();
        (self.is_paused && is_limited)
            || self.limits.service_max.is_some_and(|max| self.taken >= max)
    }

    fn has_space_at(&self, name: &MemberName) -> bool {
        let member = self.members.get(name);
        let taken = member.map_or(0, |member| member.taken);
        let ceiling = member.and_then(|member| member.ceiling).map(|ceiling| ceiling.max);
        [self.limits.member_max, ceiling].into_iter().flatten().all(|max| taken < max)
    }

    /// The first of `choices` with a free permit for `ticket`.
    fn first_free<'a>(&self, ticket: u64, choices: &'a [Choice]) -> Option<&'a Choice> {
        choices.iter().find(|choice| {
            self.has_space_at(&choice.member) && !self.has_unseen_ahead(ticket, choice.generation)
        })
    }

    /// Returns true if a client ahead of `ticket` has not read the Snapshot `generation` yet.
    fn has_unseen_ahead(&self, ticket: u64, generation: u64) -> bool {
        let mut older = self.looks.range(..generation).map(|(_, tickets)| tickets);
        older.any(|tickets| tickets.first().is_some_and(|first| *first < ticket))
    }

    /// Puts a client into the queue, and replaces its previous entry. Returns the tickets that may get a
    /// permit after that, its own included.
    fn put(&mut self, ticket: u64, waiter: Waiter) -> RangeInclusive<u64> {
        let unblocked = self.remove(ticket);
        self.looks.entry(waiter.seen).or_default().insert(ticket);
        self.waiting.insert(ticket, waiter);
        unblocked
    }

    /// Removes a client from the queue. Returns the tickets that it kept waiting: up to the next client
    /// that has read no newer Snapshot.
    fn remove(&mut self, ticket: u64) -> RangeInclusive<u64> {
        let Some(waiter) = self.waiting.remove(&ticket) else { return ticket..=ticket };
        let tickets = self.looks.entry(waiter.seen).or_default();
        let was_first = tickets.first() == Some(&ticket);
        tickets.remove(&ticket);
        let next = tickets.first().copied();
        if next.is_none() {
            self.looks.remove(&waiter.seen);
        }
        let to = if was_first { next.unwrap_or(u64::MAX - 1) } else { ticket };
        ticket..=to
    }

    fn count(&mut self, name: &MemberName, count: usize) {
        self.taken += count;
        self.members.entry(name.clone()).or_default().taken += count;
    }

    fn discount(&mut self, name: &MemberName, count: usize) {
        self.taken -= count;
        if let Some(member) = self.members.get_mut(name) {
            member.taken -= count;
        }
        self.forget_if_unused(name);
    }

    fn discount_all(&mut self, permits: &Permits) {
        for (member, count) in permits {
            self.discount(member, *count);
        }
    }

    /// Counts a session that arrives from another process, unless its permit is reserved and so counted.
    fn count_arrival(&mut self, name: &MemberName) {
        match self.reserved.get_mut(name) {
            Some(reserved) if *reserved > 0 => *reserved -= 1,
            _ => self.count(name, 1),
        }
    }

    fn forget_if_unused(&mut self, name: &MemberName) {
        let unused = |member: &Member| member.taken == 0 && member.ceiling.is_none();
        if self.members.get(name).is_some_and(unused) {
            self.members.remove(name);
        }
    }
}

impl Permit {
    /// The member.
    pub fn member(&self) -> &MemberName {
        &self.member
    }

    /// Notes that the member has refused the login of this session. Returns true if the caller has to
    /// call [`Capacity::probe`] every [`PROBE_PAUSE`] until it returns false.
    pub fn refused(&self, cause: Refusal) -> bool {
        let mut state = self.capacity.lock();
        let member = state.members.entry(self.member.clone()).or_default();
        let max = member.taken.saturating_sub(1);
        let is_new = member.ceiling.is_none();
        member.ceiling = Some(Ceiling { max, cause });
        is_new
    }

    /// Notes that the login of this session has succeeded.
    pub fn accepted(&self) {
        // A member that begins to accept logins accepts several; a full one had one free connection.
        let growth = |cause| match cause {
            Refusal::Full => 1,
            Refusal::Unavailable => 4,
        };
        let is_limited = {
            let state = self.capacity.lock();
            state.members.get(&self.member).is_some_and(|member| member.ceiling.is_some())
        };
        if is_limited {
            self.capacity.change(usize::MAX, |state| {
                if let Some(member) = state.members.get_mut(&self.member)
                    && let Some(ceiling) = &mut member.ceiling
                {
                    ceiling.max = ceiling.max.max(member.taken) + growth(ceiling.cause);
                }
                ALL
            });
        }
    }

    /// Notes that the session goes on in another process. Its permit stays taken here, so that no waiting
    /// client gets it.
    pub fn note_moved(mut self) {
        *self.capacity.lock().moved.entry(self.member.clone()).or_default() += 1;
        self.has_moved = true;
    }

    /// The capacity of its service.
    pub fn capacity(&self) -> &Arc<Capacity> {
        &self.capacity
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.has_moved {
            return;
        }
        self.capacity.change(1, |state| {
            state.discount(&self.member, 1);
            ALL
        });
    }
}

impl Waiter {
    /// Stops waiting for a permit and keeps the position. Returns the sender for the permit.
    fn stop_waiting(&mut self) -> Option<oneshot::Sender<Permit>> {
        self.choices.clear();
        self.grant.take()
    }

    fn wants(&self, member: &MemberName) -> bool {
        self.choices.iter().any(|choice| choice.member == *member)
    }
}

impl Waiting {
    /// Waits for the permit.
    pub async fn granted(&mut self) -> Permit {
        match (&mut self.granted).await {
            Ok(permit) => permit,
            Err(_) => std::future::pending().await,
        }
    }

    /// The permit, if it has been granted meanwhile.
    pub fn granted_now(&mut self) -> Option<Permit> {
        self.granted.try_recv().ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A permit that was granted meanwhile is returned with the receiver.
        if let Some(waiter) = self.capacity.lock().waiting.get_mut(&self.ticket) {
            drop(waiter.stop_waiting());
        }
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        self.capacity.change(usize::MAX, |state| state.remove(self.ticket));
    }
}

#[cfg(test)]
mod tests;
