//! The queue before each member: a crowd that comes off the hold is let in with a slow start.
//!
//! When a gate opens, all clients on hold go through it. A server that is asked for a hundred
//! sessions at once forks for all of them before it finishes the first, and all its other clients
//! wait too, pgsteer's own tether included. So a client needs a slot to connect. A slot is held
//! until the member's first answer, or for [`SLOT_HOLD`] if no answer comes. The queue starts with
//! few slots and adds one for each slot that falls free while all are held, up to a limit.
//!
//! An answer ends the slot, and not the end of the login: what follows is as slow as the client,
//! and a slow client must not keep others waiting. Nor must a server that is slow to refuse one
//! client (auth_delay, ident, a dead name server): forking took its few milliseconds long before
//! [`SLOT_HOLD`] was over. How many logins wait for a first answer at one member, with a slot or
//! without, is limited by [`UNDER_WAY_MAX`].
//!
//! An early login holds its slot until the gate opens, so that there are few of them.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgsteer_core::names::MemberName;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::by_name::ByName;

/// Slots of a member when a crowd begins to be let in, and when the member has proven that it
/// keeps up.
const SLOTS_FIRST: usize = 4;
const SLOTS_MAX: usize = 64;

/// How long a slot is held without an answer. A fork takes a few milliseconds; a server that has
/// not answered after this waits for something else.
const SLOT_HOLD: Duration = Duration::from_millis(250);

/// Logins that wait for the first answer of one member. PostgreSQL keeps a process for each of
/// them; its own limit is `max_connections`, which pgsteer does not know.
const UNDER_WAY_MAX: usize = 256;

/// The queues before all members, over all workers and services.
pub type Queues = ByName<MemberName, Queue>;

/// The queue before one member: first come, first served.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// Held by the client at the head of the queue, the only one that waits for a slot. The lock
    /// is fair: it is the queue.
    head: tokio::sync::Mutex<()>,
    /// Stores one permit, so the head misses nothing between its look and its wait.
    freed: Notify,
}

#[derive(Debug)]
struct State {
    /// How many slots there are, held or free.
    slots: usize,
    /// The slots that are held, and when each falls free although no answer has come; never if
    /// the login is early.
    held: BTreeMap<u64, Option<Instant>>,
    /// Logins without an answer, whether they still hold a slot or not.
    under_way: usize,
    /// The number of the next login.
    next: u64,
}

/// The right to connect and to wait for the first answer. Dropping it ends the login's count.
#[derive(Debug)]
pub struct Slot {
    queue: Arc<Queue>,
    number: u64,
}

impl Default for Queue {
    fn default() -> Queue {
        let state = State { slots: SLOTS_FIRST, held: BTreeMap::new(), under_way: 0, next: 0 };
        Queue {
            state: Mutex::new(state),
            head: tokio::sync::Mutex::default(),
            freed: Notify::new(),
        }
    }
}

impl Queue {
    /// Waits for a slot, behind all that came before.
    pub async fn slot(self: Arc<Self>) -> Slot {
        let _head = self.head.lock().await;
        loop {
            let falls_free = match self.state().take(Instant::now()) {
                Ok(number) => return Slot { queue: Arc::clone(&self), number },
                Err(falls_free) => falls_free,
            };
            tokio::select! {
                () = self.freed.notified() => {}
                () = until(falls_free) => {}
            }
        }
    }

    /// A slot for an early login, if one of the first is free. It does not fall free by itself.
    pub fn early_slot(self: Arc<Self>) -> Option<Slot> {
        let number = {
            let mut state = self.state();
            state.start_slowly_if_empty();
            if state.held.len() >= SLOTS_FIRST {
                return None;
            }
            state.hold(None)
        };
        Some(Slot { queue: self, number })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Holds a free slot and returns the number of the login. If there is none, returns when the
    /// next one falls free by itself, which is later than `now`.
    fn take(&mut self, now: Instant) -> Result<u64, Option<Instant>> {
        self.start_slowly_if_empty();
        while self.held.len() >= self.slots {
            let Some(number) = self.first_due(now) else { break };
            self.held.remove(&number);
            self.add_slot();
        }
        if self.held.len() >= self.slots {
            return Err(self.held.values().flatten().min().copied());
        }
        if self.under_way >= UNDER_WAY_MAX {
            return Err(None);
        }
        Ok(self.hold(Some(now + SLOT_HOLD)))
    }

    fn hold(&mut self, falls_free: Option<Instant>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.held.insert(number, falls_free);
        self.under_way += 1;
        number
    }

    fn first_due(&self, now: Instant) -> Option<u64> {
        let is_due = |falls_free: &Option<Instant>| falls_free.is_some_and(|at| at <= now);
        self.held.iter().find(|(_, falls_free)| is_due(falls_free)).map(|(number, _)| *number)
    }

    /// Without a login under way the last crowd is over.
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
    /// The member has sent its first answer.
    pub fn answered(self) {
        let mut state = self.queue.state();
        if state.held.len() >= state.slots {
            state.add_slot();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state();
            state.held.remove(&self.number);
            state.under_way -= 1;
        }
        self.queue.freed.notify_one();
    }
}

/// Waits until then; for ever if there is no such time.
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

    /// A slot if it can be had at once.
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
    async fn a_crowd_is_let_in_slowly_then_quicker_and_slowly_again_next_time() {
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
    async fn early_logins_are_as_few_as_the_first_and_let_others_in_when_they_are_over() {
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
    async fn a_slot_without_an_answer_falls_free_after_a_while_and_not_before() {
        let queue = Arc::new(Queue::default());
        let slots = take_all(&queue);
        advance(SLOT_HOLD - Duration::from_millis(1)).await;
        assert!(take(&queue).is_none());
        let began = Instant::now();
        let next = Arc::clone(&queue).slot().await;
        assert_eq!(began.elapsed(), Duration::from_millis(1), "the head of the queue wakes up");
        // The slots that were silent are all free now, and each has added one.
        let more = take_all(&queue);
        assert_eq!(more.len() + 1, SLOTS_FIRST * 2);
        drop((slots, next, more));
        assert_eq!(queue.state().under_way, 0);
    }

    /// Clients come much faster than the server answers. A server that answers nothing at all
    /// gets no more than the limit.
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

    /// 20 strangers a second whose refusal takes 10 s, and a client that is answered at once.
    #[tokio::test(start_paused = true)]
    async fn a_client_does_not_wait_behind_slow_refusals() {
        let queue = Arc::new(Queue::default());
        let mut waits = Vec::new();
        for round in 0..400 {
            let stranger = Arc::clone(&queue);
            tokio::spawn(async move {
                let slot = stranger.slot().await;
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
    async fn the_first_to_come_is_the_first_to_be_served() {
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
    async fn a_client_that_leaves_the_head_of_the_queue_keeps_nobody_waiting() {
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
