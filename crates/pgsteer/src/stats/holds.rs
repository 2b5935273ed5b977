//! The clients on hold: how many there are, and how long they wait.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::times::Times;

/// The clients on hold of one service.
#[derive(Debug, Default)]
pub struct Holds {
    waiting: Mutex<BTreeSet<(Instant, u64)>>,
    next: AtomicU64,
    /// Clients that have been on hold since the start. A client that waits twice counts once: the search for
    /// a member adds it, not [`Holds::begin`].
    pub clients_total: AtomicU64,
    /// The length of each hold that has ended.
    pub times: Times,
    /// The time of all holds that have ended, in milliseconds.
    pub ended_ms_total: AtomicU64,
    longest_ms: AtomicU64,
}

/// One client on hold.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(Instant, u64);

impl Holds {
    /// Counts one more client as waiting from now on: for a gate, for a free place, or in an early login. A client
    /// has one ticket at most.
    pub fn begin(&self) -> Ticket {
        let ticket = Ticket(Instant::now(), self.next.fetch_add(1, Ordering::Relaxed));
        self.waiting().insert((ticket.0, ticket.1));
        ticket
    }

    /// The client is not on hold any more.
    pub fn end(&self, Ticket(since, number): Ticket) {
        self.waiting().remove(&(since, number));
        let time = since.elapsed();
        self.times.observe(time);
        let millis = millis(time);
        self.ended_ms_total.fetch_add(millis, Ordering::Relaxed);
        self.longest_ms.fetch_max(millis, Ordering::Relaxed);
    }

    /// The number of clients on hold.
    pub fn clients(&self) -> usize {
        self.waiting().len()
    }

    /// How long the oldest client on hold has waited; none if there is no client on hold.
    pub fn oldest(&self) -> Option<Duration> {
        self.waiting().first().map(|(since, _)| since.elapsed())
    }

    /// The longest hold since the last call, those that have not ended included.
    pub fn take_longest(&self) -> Duration {
        let ended = Duration::from_millis(self.longest_ms.swap(0, Ordering::Relaxed));
        ended.max(self.oldest().unwrap_or_default())
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<(Instant, u64)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_and_the_longest_hold_are_known() {
        let holds = Holds::default();
        assert_eq!(holds.oldest(), None);
        let first = holds.begin();
        tokio::time::advance(Duration::from_secs(2)).await;
        let second = holds.begin();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((holds.clients(), holds.oldest()), (2, Some(Duration::from_secs(3))));
        holds.end(first);
        assert_eq!((holds.clients(), holds.oldest()), (1, Some(Duration::from_secs(1))));
        assert_eq!(holds.take_longest(), Duration::from_secs(3));
        assert_eq!(holds.take_longest(), Duration::from_secs(1), "the second still waits");
        holds.end(second);
        assert_eq!(holds.ended_ms_total.load(Ordering::Relaxed), 4_000);
    }
}
