//! The queue before each member: a crowd that comes off the hold is let in with a slow start.
//!
//! When a gate opens, everybody on hold goes through it. A server that is asked for a hundred
//! sessions at once forks for all of them before it finishes the first, and whoever else wants
//! something of it, pgsteer's own tether included, waits for them as well. So only a few clients
//! at a time wait for the member's first word; every word that is heard while others wait lets
//! one more wait at the same time. The first are served within milliseconds, and the last no
//! later than in a crowd.
//!
//! A turn ends with the member's first word and not with the login, because what comes after
//! is as slow as the client is, and a client must not keep others waiting. Only an early login,
//! for which nobody has to wait, keeps its turn until the gate opens; so that there are few.

use std::sync::{Arc, Mutex, PoisonError};

use pgsteer_core::names::MemberName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::by_name::ByName;

/// Clients that wait for a member's first word at the same time: when a crowd begins to be let
/// in, and when it is known that the member keeps up.
const TURNS_FIRST: usize = 4;
const TURNS_MAX: usize = 64;

/// The queues before all members, over all workers and services.
pub type Queues = ByName<MemberName, Queue>;

/// The queue before one member. It is served in the order in which it was joined.
#[derive(Debug)]
pub struct Queue {
    free: Arc<Semaphore>,
    /// How many turns there are, taken or free.
    turns: Mutex<usize>,
}

/// The right to connect and to wait for the first word; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    queue: Arc<Queue>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { free: Arc::new(Semaphore::new(TURNS_FIRST)), turns: Mutex::new(TURNS_FIRST) }
    }
}

impl Queue {
    /// Waits for a turn.
    pub async fn turn(self: Arc<Self>) -> Turn {
        self.start_slowly_if_empty();
        loop {
            // It is never closed, so that the first try is the last.
            if let Ok(permit) = Arc::clone(&self.free).acquire_owned().await {
                return Turn { queue: self, _permit: permit };
            }
        }
    }

    /// A turn for an early login, if one of the first is free.
    pub fn early_turn(self: Arc<Self>) -> Option<Turn> {
        self.start_slowly_if_empty();
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if *turns - self.free.available_permits().min(*turns) >= TURNS_FIRST {
            return None;
        }
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        drop(turns);
        Some(Turn { queue: self, _permit: permit })
    }

    /// With nobody at the member the last crowd is over.
    fn start_slowly_if_empty(&self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if *turns > TURNS_FIRST && self.free.available_permits() >= *turns {
            *turns -= self.free.forget_permits(*turns - TURNS_FIRST);
        }
    }

    fn one_more(&self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if *turns < TURNS_MAX && self.free.available_permits() == 0 {
            *turns += 1;
            self.free.add_permits(1);
        }
    }
}

impl Turn {
    /// The member has said its first word.
    pub fn heard(self) {
        self.queue.one_more();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use pgsteer_core::names::MemberName;

    use super::*;

    /// A turn if it can be had at once.
    fn take(queue: &Arc<Queue>) -> Option<Turn> {
        let waiting = pin!(Arc::clone(queue).turn());
        match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_crowd_is_let_in_slowly_then_quicker_and_slowly_again_next_time() {
        let queue = Arc::new(Queue::default());
        let mut turns: Vec<Turn> = std::iter::from_fn(|| take(&queue)).collect();
        assert_eq!(turns.len(), TURNS_FIRST);
        turns.pop().unwrap().heard();
        turns.extend(std::iter::from_fn(|| take(&queue)));
        assert_eq!(turns.len(), TURNS_FIRST + 1);
        while turns.len() < TURNS_MAX {
            turns.pop().unwrap().heard();
            turns.extend(std::iter::from_fn(|| take(&queue)));
        }
        turns.pop().unwrap().heard();
        turns.extend(std::iter::from_fn(|| take(&queue)));
        assert_eq!(turns.len(), TURNS_MAX);
        drop(turns);
        let again: Vec<Turn> = std::iter::from_fn(|| take(&queue)).collect();
        assert_eq!(again.len(), TURNS_FIRST);
    }

    #[test]
    fn early_logins_are_as_few_as_the_first_and_let_others_in_when_they_are_over() {
        let queue = Arc::new(Queue::default());
        let early = || Arc::clone(&queue).early_turn();
        let mut turns: Vec<Turn> = std::iter::from_fn(early).collect();
        assert_eq!(turns.len(), TURNS_FIRST);
        assert!(take(&queue).is_none());
        turns.pop().unwrap().heard();
        turns.extend(std::iter::from_fn(|| take(&queue)));
        assert_eq!(turns.len(), TURNS_FIRST + 1);
        turns.pop();
        assert!(early().is_none(), "there is a turn, but not one of the first");
    }

    #[test]
    fn a_member_that_says_nothing_gets_no_more() {
        let queue = Arc::new(Queue::default());
        let turns: Vec<Turn> = std::iter::from_fn(|| take(&queue)).collect();
        drop(turns);
        let again: Vec<Turn> = std::iter::from_fn(|| take(&queue)).collect();
        assert_eq!(again.len(), TURNS_FIRST);
    }

    #[test]
    fn every_member_has_a_queue_of_its_own() {
        let queues = Queues::default();
        let name = |text: &str| MemberName::new(text).unwrap();
        let _taken: Vec<Turn> = std::iter::from_fn(|| take(&queues.of(&name("n1")))).collect();
        assert!(take(&queues.of(&name("n1"))).is_none());
        assert!(take(&queues.of(&name("n2"))).is_some());
    }
}
