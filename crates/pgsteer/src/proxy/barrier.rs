//! The barrier of invariant 7: no session begins at the new primary before every worker has ended its
//! sessions to the old one.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The newest Snapshot that each worker has acted on.
#[derive(Debug)]
pub struct Barrier {
    /// For each worker, the generation of that Snapshot.
    acted: Box<[AtomicU64]>,
    /// The newest generation that can be passed. Gates that open later wait while another process still
    /// has sessions.
    generation_max: AtomicU64,
    moved: Notify,
}

impl Barrier {
    /// A barrier for `workers` workers, none of which has acted on a Snapshot.
    pub fn new(workers: usize) -> Barrier {
        Barrier {
            acted: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            generation_max: AtomicU64::new(u64::MAX),
            moved: Notify::new(),
        }
    }

    /// Notes that worker number `worker` has ended all sessions that the Snapshot `generation` ends.
    pub fn acknowledge(&self, worker: usize, generation: u64) {
        if let Some(acted) = self.acted.get(worker) {
            acted.store(generation, Ordering::Release);
        }
        self.moved.notify_waiters();
    }

    /// Keeps sessions back from gates that opened after the Snapshot `generation`, because another
    /// process still has sessions, until it is called with `u64::MAX`.
    pub fn limit(&self, generation: u64) {
        self.generation_max.store(generation, Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Returns true if every worker has acted on the Snapshot `generation` or on a newer one.
    pub fn is_passed(&self, generation: u64) -> bool {
        generation <= self.generation_max.load(Ordering::Acquire)
            && self.acted.iter().all(|acted| acted.load(Ordering::Acquire) >= generation)
    }

    /// Waits until [`Barrier::is_passed`] returns true.
    pub async fn wait(&self, generation: u64) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // A notification after this line is not missed.
            moved.as_mut().enable();
            if self.is_passed(generation) {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_passed_when_the_last_worker_has_acted() {
        let barrier = Barrier::new(2);
        barrier.acknowledge(0, 5);
        assert!(!barrier.is_passed(5));
        let (_, ()) = tokio::join!(barrier.wait(5), async { barrier.acknowledge(1, 6) });
        assert!(barrier.is_passed(5));
        assert!(!barrier.is_passed(6));
    }
}
