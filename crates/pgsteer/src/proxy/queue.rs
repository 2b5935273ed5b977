//! The login queue of each member: many clients that leave the hold at once connect with a slow start.
//!
//! When a gate opens, all clients on hold connect. A server that receives a hundred connections at once
//! forks for all of them before it completes the first login, and delays its other clients and
//! pgsteer's own tether. So a client needs a slot to connect. It keeps the slot until the member's first
//! answer, or for [`SLOT_HOLD`] without an answer. The queue starts with few slots. It adds one for each
//! slot that is released while all slots are occupied, up to a limit.
//!
//! The first answer releases the slot, not the end of the login: the rest of the login depends on the
//! client, and a slow client must not delay others. A server that is slow to refuse one client
//! (auth_delay, ident, a dead name server) must not delay others either: it has forked long before
//! [`SLOT_HOLD`] is over. [`UNDER_WAY_MAX`] limits the logins that wait for a first answer of one
//! member, with a slot or without one.
//!
//! An early login keeps its slot until the gate opens, so there are few early logins.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgsteer_core::names::MemberName;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::by_name::ByName;

/// The slots of a member at the start, and after it has answered quickly enough.
const SLOTS_FIRST: usize = 4;
const SLOTS_MAX: usize = 64;

/// How long a slot is occupied without an answer. A fork takes a few milliseconds; a server that has
/// not answered by then waits for something else.
const SLOT_HOLD: Duration = Duration::from_millis(250);

/// The maximum number of logins that wait for the first answer of one member. PostgreSQL has a process
/// for each of them. Its own limit is `max_connections`, which pgsteer does not know.
const UNDER_WAY_MAX: usize = 256;

/// The queues of all members, over all workers and services.
pub type Queues = ByName<MemberName, Queue>;

/// The queue of one member, in the order of arrival.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// Locked by the client at the head of the queue, the only one that waits for a slot. The lock is
    /// fair, so it is the queue.
    head: tokio::sync::Mutex<()>,
    /// Stores one permit, so the head misses no release between its check and its wait.
    freed: Notify,
}

#[derive(Debug)]
struct State {
    /// The number of slots, occupied or free.
    slots: usize,
    /// The occupied slots, each with the time at which it is released without an answer; none for an
    /// early login.
    occupied: BTreeMap<u64, Option<Instant>>,
    /// The logins without an answer, with a slot or without one.
    under_way: usize,
    /// The number of the next login.
    next: u64,
}

/// The permission to connect and to wait for the first answer. The login is counted until this is
/// dropped.
#[derive(Debug)]
pub struct Slot {
    queue: Arc<Queue>,
    number: u64,
}

impl Default for Queue {
    fn default() -> Queue {
        let state = State { slots: SLOTS_FIRST, occupied: BTreeMap::new(), under_way: 0, next: 0 };
        Queue {
            state: Mutex::new(state),
            head: tokio::sync::Mutex::default(),
            freed: Notify::new(),
        }
    }
}

impl Queue {
    /// Waits for a slot, behind all clients that arrived before.
    pub async fn slot(self: Arc<Self>) -> Slot {
        let _head = self.head.lock().await;
        loop {
            let released_at = match self.state().take(Instant::now()) {
                Ok(number) => return Slot { queue: Arc::clone(&self), number },
                Err(released_at) => released_at,
            };
            tokio::select! {
                () = self.freed.notified() => {}
                () = until(released_at) => {}
            }
        }
    }

    /// A slot for an early login, if one of the first slots is free. It is released only when it is
    /// dropped.
    pub fn early_slot(self: Arc<Self>) -> Option<Slot> {
        let number = {
            let mut state = self.state();
            state.start_slowly_if_empty();
            if state.occupied.len() >= SLOTS_FIRST {
                return None;
            }
            state.occupy(None)
        };
        Some(Slot { queue: self, number })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Occupies a free slot and returns the number of the login.
    ///
    /// # Errors
    /// No slot is free: the time at which the next one is released without an answer.
    fn take(&mut self, now: Instant) -> Result<u64, Option<Instant>> {
        self.start_slowly_if_empty();
        while self.occupied.len() >= self.slots {
            let Some(number) = self.first_due(now) else { break };
            self.occupied.remove(&number);
            self.add_slot();
        }
        if self.occupied.len() >= self.slots {
            return Err(self.occupied.values().flatten().min().copied());
        }
        if self.under_way >= UNDER_WAY_MAX {
            return Err(None);
        }
        Ok(self.occupy(Some(now + SLOT_HOLD)))
    }

    fn occupy(&mut self, released_at: Option<Instant>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.occupied.insert(number, released_at);
        self.under_way += 1;
        number
    }

    fn first_due(&self, now: Instant) -> Option<u64> {
        let is_due = |released_at: &Option<Instant>| released_at.is_some_and(|at| at <= now);
        self.occupied.iter().find(|(_, released_at)| is_due(released_at)).map(|(number, _)| *number)
    }

    /// Returns to the first slots when no login is under way.
    fn start_slowly_if_empty(&mut self) {
        if self.under_way == 0 {
            self.slots = SLOTS_FIRST;
        }
    }

    fn add_slot(&mut self) {
        self.slots = (self.slots + 1).min(SLOTS_MAX);
    }
}

impl Slot {
    /// Notes that the member has sent its first answer.
    pub fn answered(self) {
        let mut state = self.queue.state();
        if state.occupied.len() >= state.slots {
            state.add_slot();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state();
            state.occupied.remove(&self.number);
            state.under_way -= 1;
        }
        self.queue.freed.notify_one();
    }
}

/// Waits until `instant`; does not return if there is none.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use tokio::task::unconstrained;
    use tokio::time::advance;

    use super::*;

    /// A slot, if one is free.
    fn take(queue: &Arc<Queue>) -> Option<Slot> {
        let waiting = pin!(unconstrained(Arc::clone(queue).slot()));
        match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(slot) => Some(slot),
            Poll::Pending => None,
        }
    }

    fn take_all(queue: &Arc<Queue>) -> Vec<Slot> {
        std::iter::from_fn(|| take(queue)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_slots_grows_with_answers_and_starts_again_after_a_pause() {
        let queue = Arc::new(Queue::default());
        let mut slots = take_all(&queue);
        assert_eq!(slots.len(), SLOTS_FIRST);
        slots.pop().unwrap().answered();
        slots.extend(take_all(&queue));
        assert_eq!(slots.len(), SLOTS_FIRST + 1);
        while slots.len() < SLOTS_MAX {
            slots.pop().unwrap().answered();
            slots.extend(take_all(&queue));
        }
        slots.pop().unwrap().answered();
        slots.extend(take_all(&queue));
        assert_eq!(slots.len(), SLOTS_MAX);
        drop(slots);
        assert_eq!(take_all(&queue).len(), SLOTS_FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn early_logins_occupy_the_first_slots_only_and_release_them_with_an_answer() {
        let queue = Arc::new(Queue::default());
        let early = || Arc::clone(&queue).early_slot();
        let mut slots: Vec<Slot> = std::iter::from_fn(early).collect();
        assert_eq!(slots.len(), SLOTS_FIRST);
        advance(SLOT_HOLD * 10).await;
        assert!(take(&queue).is_none(), "an early login keeps its slot");
        slots.pop().unwrap().answered();
        slots.extend(take_all(&queue));
        assert_eq!(slots.len(), SLOTS_FIRST + 1);
        slots.pop();
        assert!(early().is_none(), "there is a slot, but not one of the first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_without_an_answer_is_released_after_a_while_and_not_before() {
        let queue = Arc::new(Queue::default());
        let slots = take_all(&queue);
        advance(SLOT_HOLD - Duration::from_millis(1)).await;
        assert!(take(&queue).is_none());
        let began = Instant::now();
        let next = Arc::clone(&queue).slot().await;
        assert_eq!(began.elapsed(), Duration::from_millis(1), "the head of the queue wakes up");
        // The slots without an answer are free now, and each has added one.
        let more = take_all(&queue);
        assert_eq!(more.len() + 1, SLOTS_FIRST * 2);
        drop((slots, next, more));
        assert_eq!(queue.state().under_way, 0);
    }

    /// A server that sends no answer receives no more logins than the limit.
    #[tokio::test(start_paused = true)]
    async fn logins_without_an_answer_are_limited() {
        let queue = Arc::new(Queue::default());
        let mut slots = Vec::new();
        for _ in 0..100 {
            slots.extend(take_all(&queue));
            advance(SLOT_HOLD).await;
        }
        assert_eq!(slots.len(), UNDER_WAY_MAX);
        slots.pop();
        assert!(take(&queue).is_some());
    }

    /// 20 clients in a second whose refusal takes 10 s, and a client that is answered at once.
    #[tokio::test(start_paused = true)]
    async fn a_client_does_not_wait_behind_slow_refusals() {
        let queue = Arc::new(Queue::default());
        let mut waits = Vec::new();
        for round in 0..400 {
            let refused = Arc::clone(&queue);
            tokio::spawn(async move {
                let slot = refused.slot().await;
                tokio::time::sleep(Duration::from_secs(10)).await;
                slot.answered();
            });
            tokio::time::sleep(Duration::from_millis(50)).await;
            if round % 10 == 0 {
                let began = Instant::now();
                Arc::clone(&queue).slot().await.answered();
                waits.push(began.elapsed());
            }
        }
        assert!(waits.iter().all(|wait| *wait <= SLOT_HOLD), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn clients_get_slots_in_the_order_of_arrival() {
        let queue = Arc::new(Queue::default());
        let _held = take_all(&queue);
        let served = Arc::new(Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..10)
            .map(|number| {
                let (queue, served) = (Arc::clone(&queue), Arc::clone(&served));
                tokio::spawn(async move {
                    let slot = queue.slot().await;
                    served.lock().unwrap().push(number);
                    slot.answered();
                })
            })
            .collect();
        for task in waiting {
            task.await.unwrap();
        }
        assert!(served.lock().unwrap().is_sorted());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_the_head_of_the_queue_delays_no_other() {
        let queue = Arc::new(Queue::default());
        let mut held = take_all(&queue);
        let head = tokio::spawn(Arc::clone(&queue).slot());
        tokio::task::yield_now().await;
        let next = tokio::spawn(Arc::clone(&queue).slot());
        tokio::task::yield_now().await;
        held.pop();
        head.abort();
        let began = Instant::now();
        next.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn every_member_has_a_queue_of_its_own() {
        let queues = Queues::default();
        let name = |text: &str| MemberName::new(text).unwrap();
        let _held = take_all(&queues.of(&name("n1")));
        assert!(take(&queues.of(&name("n1"))).is_none());
        assert!(take(&queues.of(&name("n2"))).is_some());
    }
}
